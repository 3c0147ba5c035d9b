"""Multi-PIE's landmark labels, .mat files with the key `pts`. Imports none of ours; SciPy where a file is read."""

import stat
from pathlib import Path

import numpy as np

LARGEST = 100_000
"""Bytes: a label file of 68 points has about 1,300; what is larger is none and is not read."""
NUMBERS = ("double", "single", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64")


def read_points(path: Path) -> np.ndarray | None:
    """The 68 landmarks [68, 2] in pixels; None if the file holds fewer (cameras from the side), or is none of these."""
    import scipy.io

    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode) or status.st_size > LARGEST:
            return None
        said = [(shape, kind) for name, shape, kind in scipy.io.whosmat(str(path)) if name == "pts"]
        if len(said) != 1 or said[0][0] != (68, 2) or said[0][1] not in NUMBERS:  # nothing else is unpacked
            return None
        content = scipy.io.loadmat(str(path), variable_names=["pts"], verify_compressed_data_integrity=True)
        points = content.get("pts")
    except Exception:  # scipy answers damaged files with errors of every type
        return None
    if not isinstance(points, np.ndarray) or points.dtype.kind not in "iuf" or points.shape != (68, 2):
        return None
    return points.astype(np.float64) if np.isfinite(points).all() else None
