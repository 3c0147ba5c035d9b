"""TODO."""

import hashlib

import numpy as np

from facedisent_jax.config import CODE_DIMS


def read_intensity(code: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Intensity read from expression codes: 0 at neutral, 1 at the label vector. For all ones, the code's mean.

    code: [n, 64]; label: [k], of the first k numbers of the code -> [n].
    """
    return code[:, : len(label)] @ label / (label @ label)


INTENSITY_STEP = 0.1
"""The poster's: label vectors are filled with values from 0 to 1.0, incremented by 0.1."""


def label_vector(expression: str) -> np.ndarray:
    """[64] float32, the label vector of an expression at intensity 1.

    All ones for a smile (the poster's); for any other a fixed arbitrary vector of zeros and ones, from its name.
    """
    if expression == "smile":
        return np.ones(CODE_DIMS, np.float32)
    digest = hashlib.sha256(expression.encode()).digest()
    return np.unpackbits(np.frombuffer(digest, np.uint8))[:CODE_DIMS].astype(np.float32)


def intensity_step(intensity: np.ndarray, size: float = INTENSITY_STEP) -> np.ndarray:
    """The nearest step as an integer 0 .. 1 / size, -1 where the intensity is not known (NaN)."""
    known = np.isfinite(intensity)
    return np.where(known, np.rint(np.where(known, intensity, 0) / size), -1).astype(np.int64)


def group_ids(*columns: np.ndarray) -> np.ndarray:
    """Numbers 0.. for the distinct combinations of the columns."""
    code = np.zeros(len(columns[0]), np.int64)
    for column in columns:
        values = np.unique(column, return_inverse=True)[1]
        code = np.unique(code * (values.max(initial=0) + 1) + values, return_inverse=True)[1]
    return code
