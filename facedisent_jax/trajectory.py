"""Figures of a path from neutral to the apex, as pure functions: alignment, straightness, reading. Imports metrics.

s is the smile that a judge measures on the pictures along the path, alpha their place on it, 0 to 1.
"""

import numpy as np

from facedisent_jax import metrics

STILL = 0.05
"""A path that moves by less than this share of the real clip's range goes nowhere: its smoothness says nothing."""


def dtw(cost: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The monotone alignment of two sequences, ends on ends, of the least sum of cost (dynamic time warping).

    cost: [n, m] -> the pairs (i, j) of the alignment, in order; each i and each j is in at least one.
    Sakoe and Chiba 1978, symmetric steps (1, 0), (0, 1), (1, 1) without weights.
    """
    n, m = cost.shape
    total = np.full((n + 1, m + 1), np.inf)
    total[0, 0] = 0
    for i in range(n):
        for j in range(m):
            total[i + 1, j + 1] = cost[i, j] + min(total[i, j], total[i, j + 1], total[i + 1, j])
    i, j = n, m
    pairs = []
    while i > 0:
        pairs.append((i - 1, j - 1))
        before = ((i - 1, j - 1), (i - 1, j), (i, j - 1))  # the diagonal first, where costs are equal
        i, j = min(before, key=lambda place: total[place])
    first, second = np.array(pairs[::-1]).T
    return first, second


def smoothness(s: np.ndarray) -> float:
    """max|ds| / |s1 - s0| - 1 / (K - 1): 0 for equal steps, 1 - 1 / (K - 1) for one jump (ACAI, Berthelot et al. 2019).

    s: [K]. Infinite where the ends are equal.
    """
    moved = abs(s[-1] - s[0])
    return float(abs(np.diff(s)).max() / moved - 1 / (len(s) - 1)) if moved > 0 else np.inf


def inversions(s: np.ndarray) -> int:
    """Steps that go against the way from the first to the last."""
    return int((np.diff(s) * np.sign(s[-1] - s[0]) < 0).sum())


def r2(alpha: np.ndarray, s: np.ndarray) -> float:
    """R2 of the straight line fitted to s over alpha; NaN where s is constant."""
    if np.ptp(s) == 0 or np.ptp(alpha) == 0:
        return np.nan
    return float(np.corrcoef(alpha, s)[0, 1] ** 2)


def figures(alpha: np.ndarray, s: np.ndarray, real: np.ndarray) -> dict[str, float]:
    """The trajectory figures of one path; NaN where one says nothing.

    alpha, s: [K] in order of alpha, equally spaced; real: [t] the smile measured on the real clip's frames.
    """
    if not (np.isfinite(s).all() and np.isfinite(real).all()):  # the judge found no face in a picture
        return dict.fromkeys(("smoothness", "spearman", "inversions", "r2", "range"), np.nan)
    across = real[-1] - real[0]
    reached = (s[-1] - s[0]) / across if abs(across) > 1e-9 else np.nan
    moves = abs(reached) >= STILL  # False for NaN
    if np.ptp(s) <= 1e-6 * abs(across):  # equal pictures, but for the judge's rounding
        s = np.full(len(s), s[0])
    return {
        "smoothness": smoothness(s) if moves else np.nan,
        "spearman": metrics.spearman(alpha, s),
        "inversions": float(inversions(s)) if moves else np.nan,
        "r2": r2(alpha, s),
        "range": float(reached),
    }


def read_per_person(read: np.ndarray, truth: np.ndarray, tolerance: float = 0.02) -> tuple[np.ndarray, np.ndarray]:
    """Intensities read for one person's frames after the affine map that is right at neutral and at the apex.

    read, truth: [n]. The map takes the mean reading of the frames of the least intensity (within `tolerance`) to their
    mean intensity, and likewise of the greatest -> mapped [n], and [n] True for frames that had no part in the map.
    NaN where neutral and apex read the same.
    """
    low, high = truth <= truth.min() + tolerance, truth >= truth.max() - tolerance
    start, end = read[low].mean(), read[high].mean()
    if abs(end - start) < 1e-9:
        return np.full(len(read), np.nan), ~(low | high)
    place = (read - start) / (end - start)
    return truth[low].mean() + place * (truth[high].mean() - truth[low].mean()), ~(low | high)
