"""Figures of one clip: each way against the real frames, its trajectory, its identity. Imports what lies below.

Definitions are those of docs/video.md. The two end frames are given to every way, so figures against real frames are
means over the frames in between.
"""

from typing import NamedTuple

import numpy as np

from facedisent_jax.evaluation import judges, metrics, path_methods
from facedisent_jax.evaluation.judges import Judge, Judges

GRID = 11
"""Alphas 0, 0.1, ... 1 of a trajectory (the poster's steps)."""
ALPHAS = np.linspace(0, 1, GRID)
ALIGNMENTS = ("intensity", "time", "dtw")
IDENTITY_AT = (0.5, 1.0)
"""Alphas at which the identity is judged: dlib's network takes a tenth of a second a picture."""
IDENTITY_OF = (*path_methods.MODES, "reconstruction", "cross_fade", "morph", "real")
OWN_RANGE = (*path_methods.MODES, "cross_fade_reconstructions")
"""Ways that are compared with the reconstructions too."""


class Measured(NamedTuple):
    """Of one way on one clip. figures: name -> number (NaN where it says nothing). series: name -> [GRID]."""

    figures: dict[str, float]
    series: dict[str, np.ndarray]


def measure(
    known: path_methods.EncodedClip, ways: dict[str, path_methods.Method], beside: dict[str, np.ndarray], panel: Judges
) -> dict[str, Measured]:
    """Every way, and what stands beside the real frames, of one clip."""
    smiles = {"trajectory": panel.smile or judges.difference_judge(known.real)}
    if panel.second is not None:
        smiles["trajectory_reader"] = panel.second
    seen = {key: judge.measure(known.real) for key, judge in smiles.items()}
    neutral = panel.identity.measure(known.real[:1])[0] if panel.identity else None
    alpha = known.clip.alpha
    out = {}
    for name in [name for name in path_methods.TITLES if name in ways or name in beside]:
        if name in ways:
            every = np.split(ways[name](np.concatenate([alpha, known.clip.time, ALPHAS])), [len(alpha), 2 * len(alpha)])
            pictures, path = every[0], every[2]
            pairs = align_to_real(known, *every) | (own_range(known, pictures) if name in OWN_RANGE else {})
            smile = {key: judge.measure(path) for key, judge in smiles.items()}
            judged = path[[int(abs(ALPHAS - place).argmin()) for place in IDENTITY_AT]]
        else:
            pictures = path = beside[name]
            pairs = {} if name == "real" else {"intensity": in_between(pictures, known.real)}
            smile = {key: on_grid(alpha, judge.measure(pictures)) for key, judge in smiles.items()}
            judged = pictures[[int(abs(alpha - place).argmin()) for place in IDENTITY_AT]]
        figures = image_metrics(pairs, panel.perceptual)
        series = {} if name == "real" else errors(alpha, pictures, known.real)
        for key, s in smile.items():
            found = trajectory_metrics(ALPHAS, s, seen[key])
            found["without_inversion"] = float(found["inversions"] == 0) if found["inversions"] >= 0 else np.nan
            figures |= {f"{key}/{figure}": value for figure, value in found.items()}
            series[key] = relative(s, seen[key])
        if panel.perceptual is not None:
            figures["trajectory/lpips_length"] = lpips_length(path, panel.perceptual)
        if panel.identity is not None and name in IDENTITY_OF:
            moved = np.linalg.norm(panel.identity.measure(judged) - neutral, axis=1)
            figures["identity/distance"] = float(moved.mean())
            if name == "reconstruction":
                own = panel.identity.measure(known.rebuilt[:1])[0]
                figures["identity/of_neutral"] = float(np.linalg.norm(own - neutral))
        out[name] = Measured(figures, series)
    return out


class Pairs(NamedTuple):
    """Pictures and what they are held against, [n, 64, 64, 3] each; frame: [n] the real frame that a pair is of."""

    pictures: np.ndarray
    truth: np.ndarray
    frame: np.ndarray


def in_between(pictures: np.ndarray, truth: np.ndarray) -> Pairs:
    """Frame by frame, without the two ends."""
    return Pairs(pictures[1:-1], truth[1:-1], np.arange(1, len(truth) - 1))


def align_to_real(
    known: path_methods.EncodedClip, equal: np.ndarray, timed: np.ndarray, path: np.ndarray
) -> dict[str, Pairs]:
    """A way against the real frames in three alignments. equal, timed: its pictures at the frames' intensities and
    times, [t, 64, 64, 3]; path: at the grid's alphas."""
    cost = np.square(path[:, None] - known.real[None]).mean((2, 3, 4))
    i, j = dtw(cost)
    inner = (j > 0) & (j < len(known.real) - 1)
    return {
        "intensity": in_between(equal, known.real),
        "time": in_between(timed, known.real),
        "dtw": Pairs(path[i[inner]], known.real[j[inner]], j[inner]),
    }


def own_range(known: path_methods.EncodedClip, equal: np.ndarray) -> dict[str, Pairs]:
    """Inside the decoder's own range: against the reconstructions of the real frames."""
    return {"own_range": in_between(equal, known.rebuilt)}


def image_metrics(pairs: dict[str, Pairs], perceptual: Judge | None) -> dict[str, float]:
    """PSNR, SSIM and LPIPS on the whole face and on the mouth region: "intensity/whole/psnr" -> mean over real frames.

    A frame with several pictures (under DTW) counts once, with their mean.
    """
    if not pairs:
        return {}
    pictures, truth = (
        np.concatenate([getattr(pair, side) for pair in pairs.values()]) for side in ("pictures", "truth")
    )
    values = {}
    for region, both in (("whole", (pictures, truth)), ("mouth", (judges.mouth(pictures), judges.mouth(truth)))):
        values[f"{region}/psnr"], values[f"{region}/ssim"] = metrics.psnr(*both), metrics.ssim(*both)
    if perceptual is not None:
        values["whole/lpips"] = perceptual.measure(pictures, truth)
        values["mouth/lpips"] = perceptual.measure(judges.enlarged_mouth(pictures), judges.enlarged_mouth(truth))
    out, ends = {}, np.cumsum([len(pair.frame) for pair in pairs.values()])[:-1]
    for name, value in values.items():
        for (alignment, pair), part in zip(pairs.items(), np.split(value, ends), strict=True):
            each = [part[pair.frame == frame].mean() for frame in np.unique(pair.frame)]
            out[f"{alignment}/{name}"] = float(np.mean(each))
    return out


def errors(alpha: np.ndarray, pictures: np.ndarray, truth: np.ndarray) -> dict[str, np.ndarray]:
    """Root mean squared error over alpha in grey levels of 255, whole face and mouth, on the grid."""
    out = {}
    for region, cut in (("whole", lambda a: a), ("mouth", judges.mouth)):
        error = 255 * np.sqrt(np.square(cut(pictures) - cut(truth)).mean((1, 2, 3)))
        out[f"error_{region}"] = on_grid(alpha, error)
    return out


def on_grid(alpha: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Values at the real frames' alphas [t] -> at the grid's, linearly between."""
    order = np.argsort(alpha, kind="stable")
    return np.interp(ALPHAS, alpha[order], values[order])


def lpips_length(path: np.ndarray, perceptual: Judge) -> float:
    """Sum of LPIPS between neighbours / LPIPS between the ends; NaN where the ends are equal.

    LPIPS is a squared distance: K even steps along a straight line of its features give 1 / (K - 1), one jump 1.
    """
    told = perceptual.measure(np.concatenate([path[:-1], path[:1]]), np.concatenate([path[1:], path[-1:]]))
    return float(told[:-1].sum() / told[-1]) if told[-1] > 1e-6 else np.nan


def relative(s: np.ndarray, real: np.ndarray) -> np.ndarray:
    """A measured smile in units of the real clip's: 0 as in its neutral frame, 1 as at its apex."""
    across = real[-1] - real[0]
    return (s - real[0]) / across if abs(across) > 1e-9 else np.full(len(s), np.nan)


MIN_RANGE = 0.05
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


def trajectory_metrics(alpha: np.ndarray, s: np.ndarray, real: np.ndarray) -> dict[str, float]:
    """The trajectory figures of one path; NaN where one says nothing.

    alpha, s: [K] in order of alpha, equally spaced; real: [t] the smile measured on the real clip's frames.
    """
    if not (np.isfinite(s).all() and np.isfinite(real).all()):  # the judge found no face in a picture
        return dict.fromkeys(("smoothness", "spearman", "inversions", "r2", "range"), np.nan)
    across = real[-1] - real[0]
    reached = (s[-1] - s[0]) / across if abs(across) > 1e-9 else np.nan
    moves = abs(reached) >= MIN_RANGE  # False for NaN
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
