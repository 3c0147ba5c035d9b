"""Multi-PIE's landmark labels, .mat files with the key `pts`. Imports none of ours; SciPy where a file is read."""

from pathlib import Path

import numpy as np

LARGEST = 1_000_000
"""Bytes: a label file of 68 points has about 1,300; what is larger is none and is not read."""


def read_points(path: Path) -> np.ndarray | None:
    """The 68 landmarks [68, 2] in pixels; None if the file holds fewer (cameras from the side), or is none of these."""
    import scipy.io

    try:
        if path.stat().st_size > LARGEST:
            return None
        content = scipy.io.loadmat(str(path), variable_names=["pts"], verify_compressed_data_integrity=True)
        points = content.get("pts")
    except Exception:  # scipy answers damaged files with errors of every type
        return None
    if not isinstance(points, np.ndarray) or points.dtype.kind not in "iuf" or points.shape != (68, 2):
        return None
    return points.astype(np.float64) if np.isfinite(points).all() else None
