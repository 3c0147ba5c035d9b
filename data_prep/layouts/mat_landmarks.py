"""Multi-PIE's landmark files: .mat files with the variable `pts`.

SciPy crashes on some damaged files, so read them in worker processes, which are replaced when they die.
"""

from pathlib import Path

import numpy as np
import scipy.io

MAX_BYTES = 100_000  # 68 landmarks take about 1,300; what compresses to this limit takes at most 100 MB


def read_mat_landmarks(path: Path) -> np.ndarray | None:
    """Read the 68 landmarks, [68, 2] in pixels. None for fewer (cameras at the sides) and for any other file."""
    try:
        if not path.is_file() or path.stat().st_size > MAX_BYTES:
            return None
        points = scipy.io.loadmat(path, appendmat=False, variable_names=["pts"]).get("pts")
    except Exception:  # damaged files raise errors of every type
        return None
    if not isinstance(points, np.ndarray) or points.shape != (68, 2) or points.dtype.kind not in "iuf":
        return None
    return points.astype(np.float64) if np.isfinite(points).all() else None
