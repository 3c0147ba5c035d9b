"""Label vectors of expressions, intensities in steps, and ids of groups of images."""

import hashlib

import numpy as np
from jaxtyping import Float, Int

from facedisent_jax.config import LABEL_DIMS
from facedisent_jax.data.record import Faces

INTENSITY_STEP = 0.1
"""The poster's: label vectors are filled with values from 0 to 1.0, incremented by 0.1."""


def label_vector(expression: str) -> Float[np.ndarray, "64"]:
    """The label vector of an expression at intensity 1.

    All ones for a smile, as on the poster. For any other expression a fixed arbitrary vector of zeros and ones, drawn
    from its name.
    """
    if expression == "smile":
        return np.ones(LABEL_DIMS, np.float32)
    digest = hashlib.sha256(expression.encode()).digest()
    return np.unpackbits(np.frombuffer(digest, np.uint8))[:LABEL_DIMS].astype(np.float32)


def read_intensity(expression: Float[np.ndarray, "n dim"], label: Float[np.ndarray, "k"]) -> Float[np.ndarray, "n"]:
    """Intensity shown by expression codes: 0 at neutral, 1 at the label vector. For all ones, the mean of the code.

    label: the label vector's first k dimensions, those that the label constrains.
    """
    return expression[:, : len(label)] @ label / (label @ label)


def move_to_intensity(
    expression: Float[np.ndarray, "n dim"],
    intensity: float,
    label: Float[np.ndarray, "k"],
    neutral: Float[np.ndarray, "k+s"] | None = None,
    full: Float[np.ndarray, "k+s"] | None = None,
) -> Float[np.ndarray, "n dim"]:
    """Expression codes at another intensity of the action with this label.

    neutral, full: mean codes of neutral images, and of the full expression: label and style. A code keeps its own style
    in as far as its intensity stays: from neutral to full, or back, the style becomes the mean at that end. None: it
    keeps its style. It always keeps the dimensions beyond the style.
    """
    out = np.array(expression, np.float32)
    if neutral is not None and full is not None:
        code = out[:, : len(full)]
        start = np.clip(read_intensity(out, label), 0, 1)[:, None]
        own_weight = np.maximum(1 - np.abs(intensity - start), 0)
        own_style = code - (neutral + start * (full - neutral))
        out[:, : len(full)] = neutral + intensity * (full - neutral) + own_weight * own_style
    out[:, : len(label)] = intensity * label
    return out


def intensity_step(intensity: np.ndarray, step: float = INTENSITY_STEP) -> Int[np.ndarray, "*n"]:
    """Index of the nearest step, 0 to 1 / step; -1 if the intensity is unknown (NaN)."""
    is_known = np.isfinite(intensity)
    return np.where(is_known, np.rint(np.where(is_known, intensity, 0) / step), -1).astype(np.int64)


def draw_labelled(intensity: np.ndarray, most: int, seed: int) -> Int[np.ndarray, "k"]:
    """The rows whose intensity is known (not NaN), in order; of more than `most`, that many, drawn by seed."""
    rows = np.flatnonzero(~np.isnan(intensity))
    return rows if len(rows) <= most else np.sort(np.random.default_rng(seed).choice(rows, most, replace=False))


def group_ids(*columns: np.ndarray) -> Int[np.ndarray, "n"]:
    """An id, from 0, for each distinct combination of the columns' values; [n] each."""
    ids = np.zeros(len(columns[0]), np.int64)
    for column in columns:
        values = np.unique(column, return_inverse=True)[1]
        ids = np.unique(ids * (values.max(initial=0) + 1) + values, return_inverse=True)[1]
    return ids


def take_ids(faces: Faces) -> Int[np.ndarray, "n"]:
    """An id for each take: the images of one person in one sequence and condition."""
    return group_ids(faces.subject, faces.sequence, faces.condition)
