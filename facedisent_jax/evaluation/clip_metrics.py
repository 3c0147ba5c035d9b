"""Metrics of one clip: each method against the real frames, its trajectory, and its identity (docs/video.md).

Every method is given the two end frames, so metrics against real frames are means over the frames in between.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from facedisent_jax.evaluation import judges, metrics, path_methods
from facedisent_jax.evaluation.judges import Judge, Judges
from facedisent_jax.evaluation.mouth_reader import mouth_region
from facedisent_jax.evaluation.path_methods import EncodedClip, Method

GRID_SIZE = 11
ALPHAS = np.linspace(0, 1, GRID_SIZE)  # of a trajectory: 0, 0.1, ... 1, the poster's steps
MIN_RANGE = 0.05  # of the real clip's; the smoothness of a path that moves by less says nothing
IDENTITY_ALPHAS = (0.5, 1.0)  # where the identity is judged: dlib's network takes 0.1 s an image
IDENTITY_METHODS = (*path_methods.NETWORK_METHODS, "reconstruction", "cross_fade", "morph", "real")
# Also compared with the reconstructions of the real frames, which are in the decoder's own range.
OWN_RANGE_METHODS = (*path_methods.NETWORK_METHODS, "cross_fade_reconstructions")


class MethodMetrics(NamedTuple):
    """Of one method on one clip. metrics: by name, NaN where one says nothing. series: curves on ALPHAS, by name."""

    metrics: dict[str, float]
    series: dict[str, Float[np.ndarray, "11"]]


class Pairs(NamedTuple):
    """Images and the real images that they are compared with. frame: the frame of the clip that each pair counts for.

    A frame may have several pairs (under dynamic time warping).
    """

    images: Float[np.ndarray, "n 64 64 3"]
    truth: Float[np.ndarray, "n 64 64 3"]
    frame: Int[np.ndarray, "n"]


class Path(NamedTuple):
    """What is measured of a method or reference on one clip.

    images:   at the alphas of the real frames.
    pairs:    images against real frames, by alignment.
    smiles:   the smile measured along ALPHAS, by the key of its judge.
    grid:     images along ALPHAS; for a reference the same as `images`.
    identity: images at IDENTITY_ALPHAS.
    """

    images: Float[np.ndarray, "t 64 64 3"]
    pairs: dict[str, Pairs]
    smiles: dict[str, Float[np.ndarray, "11"]]
    grid: Float[np.ndarray, "k 64 64 3"]
    identity: Float[np.ndarray, "2 64 64 3"]


def measure_clip(
    clip: EncodedClip, methods: dict[str, Method], references: dict[str, np.ndarray], panel: Judges
) -> dict[str, MethodMetrics]:
    """Every method and reference on one clip, in the order of the tables."""
    smile_judges = {"trajectory": panel.smile or judges.difference_judge(clip.real)}
    if panel.second_smile is not None:
        smile_judges["trajectory_reader"] = panel.second_smile
    real_smiles = {key: judge.measure(clip.real) for key, judge in smile_judges.items()}
    neutral_identity = panel.identity.measure(clip.real[:1])[0] if panel.identity else None
    out = {}
    for name in path_methods.TITLES:
        if name in methods:
            path = method_path(clip, name, methods[name], smile_judges)
        elif name in references:
            path = reference_path(clip, name, references[name], smile_judges)
        else:
            continue
        values = image_metrics(path.pairs, panel.perceptual)
        series = {} if name == "real" else error_curves(clip.onset.alpha, path.images, clip.real)
        for key, smile in path.smiles.items():
            values |= smile_metrics(key, smile, real_smiles[key])
            series[key] = relative_smile(smile, real_smiles[key])
        if panel.perceptual is not None:
            values["trajectory/lpips_length"] = lpips_length(path.grid, panel.perceptual)
        if panel.identity is not None and name in IDENTITY_METHODS:
            distance = np.linalg.norm(panel.identity.measure(path.identity) - neutral_identity, axis=1)
            values["identity/distance"] = float(distance.mean())
            if name == "reconstruction":
                embedding = panel.identity.measure(clip.reconstruction[:1])[0]
                values["identity/of_neutral"] = float(np.linalg.norm(embedding - neutral_identity))
        out[name] = MethodMetrics(values, series)
    return out


def method_path(clip: EncodedClip, name: str, method: Method, smile_judges: dict[str, Judge]) -> Path:
    """The path of a method: at the real frames' intensities, at their times, and along ALPHAS, in one call."""
    alpha = clip.onset.alpha
    images = method(np.concatenate([alpha, clip.onset.time, ALPHAS]))
    at_intensity, at_time, grid = np.split(images, [len(alpha), 2 * len(alpha)])
    pairs = align_to_real(clip, at_intensity, at_time, grid)
    if name in OWN_RANGE_METHODS:
        pairs["own_range"] = inner_pairs(at_intensity, clip.reconstruction)
    smiles = {key: judge.measure(grid) for key, judge in smile_judges.items()}
    return Path(at_intensity, pairs, smiles, grid, grid[_nearest(ALPHAS, IDENTITY_ALPHAS)])


def reference_path(clip: EncodedClip, name: str, images: np.ndarray, smile_judges: dict[str, Judge]) -> Path:
    """The path of a reference: it has one image for each real frame and none in between."""
    alpha = clip.onset.alpha
    pairs = {} if name == "real" else {"intensity": inner_pairs(images, clip.real)}
    smiles = {key: on_grid(alpha, judge.measure(images)) for key, judge in smile_judges.items()}
    return Path(images, pairs, smiles, images, images[_nearest(alpha, IDENTITY_ALPHAS)])


def _nearest(alpha: np.ndarray, targets: tuple[float, ...]) -> list[int]:
    """Index of the alpha nearest to each target."""
    return [int(abs(alpha - target).argmin()) for target in targets]


# Images against real frames


def align_to_real(
    clip: EncodedClip, at_intensity: np.ndarray, at_time: np.ndarray, grid: np.ndarray
) -> dict[str, Pairs]:
    """A method against the real frames in three alignments: equal intensity, equal time, dynamic time warping.

    at_intensity, at_time: its images at the frames' intensities and times, [t, 64, 64, 3]; grid: along ALPHAS.
    """
    cost = np.square(grid[:, None] - clip.real[None]).mean((2, 3, 4))
    i, j = dtw(cost)
    inner = (j > 0) & (j < len(clip.real) - 1)
    return {
        "intensity": inner_pairs(at_intensity, clip.real),
        "time": inner_pairs(at_time, clip.real),
        "dtw": Pairs(grid[i[inner]], clip.real[j[inner]], j[inner]),
    }


def inner_pairs(images: np.ndarray, truth: np.ndarray) -> Pairs:
    """Frame by frame, without the two ends."""
    return Pairs(images[1:-1], truth[1:-1], np.arange(1, len(truth) - 1))


def dtw(cost: Float[np.ndarray, "n m"]) -> tuple[Int[np.ndarray, "p"], Int[np.ndarray, "p"]]:
    """The monotone alignment of two sequences, ends on ends, of the least sum of cost (dynamic time warping).

    Returns the pairs (i, j) of the alignment, in order; each i and each j is in at least one.

    Source: Sakoe and Chiba 1978, symmetric steps (1, 0), (0, 1), (1, 1) without weights.
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
        predecessors = ((i - 1, j - 1), (i - 1, j), (i, j - 1))  # the diagonal first, where costs are equal
        i, j = min(predecessors, key=lambda pair: total[pair])
    first, second = np.array(pairs[::-1]).T
    return first, second


def image_metrics(pairs: dict[str, Pairs], perceptual: Judge | None) -> dict[str, float]:
    """PSNR, SSIM and LPIPS, whole face and mouth region: "intensity/whole/psnr" -> mean over the real frames.

    A frame with several pairs counts once, with their mean.
    """
    if not pairs:
        return {}
    images, truth = (np.concatenate([getattr(pair, side) for pair in pairs.values()]) for side in ("images", "truth"))
    mouths = mouth_region(images), mouth_region(truth)
    values = {}
    for region, pair in (("whole", (images, truth)), ("mouth", mouths)):
        values[f"{region}/psnr"], values[f"{region}/ssim"] = metrics.psnr(*pair), metrics.ssim(*pair)
    if perceptual is not None:
        values["whole/lpips"] = perceptual.measure(images, truth)
        values["mouth/lpips"] = perceptual.measure(judges.enlarged_mouth(images), judges.enlarged_mouth(truth))
    out, ends = {}, np.cumsum([len(pair.frame) for pair in pairs.values()])[:-1]
    for name, value in values.items():
        for (alignment, pair), part in zip(pairs.items(), np.split(value, ends), strict=True):
            frame_means = [part[pair.frame == frame].mean() for frame in np.unique(pair.frame)]
            out[f"{alignment}/{name}"] = float(np.mean(frame_means))
    return out


def error_curves(alpha: np.ndarray, images: np.ndarray, truth: np.ndarray) -> dict[str, Float[np.ndarray, "11"]]:
    """Root mean squared error along ALPHAS in grey levels of 255, for the whole face and the mouth."""
    out = {}
    for region, crop in (("whole", lambda a: a), ("mouth", mouth_region)):
        error = 255 * np.sqrt(np.square(crop(images) - crop(truth)).mean((1, 2, 3)))
        out[f"error_{region}"] = on_grid(alpha, error)
    return out


def on_grid(alpha: Float[np.ndarray, "t"], values: Float[np.ndarray, "t"]) -> Float[np.ndarray, "11"]:
    """Values at the real frames' alphas, interpolated linearly at ALPHAS."""
    order = np.argsort(alpha, kind="stable")
    return np.interp(ALPHAS, alpha[order], values[order])


def lpips_length(path: Float[np.ndarray, "k 64 64 3"], perceptual: Judge) -> float:
    """Sum of LPIPS between neighbours / LPIPS between the ends; NaN where the ends are equal.

    LPIPS is a squared distance: K even steps along a straight line of its features give 1 / (K - 1), one jump 1.
    """
    distances = perceptual.measure(np.concatenate([path[:-1], path[:1]]), np.concatenate([path[1:], path[-1:]]))
    return float(distances[:-1].sum() / distances[-1]) if distances[-1] > 1e-6 else np.nan


# The measured smile along a path


def relative_smile(smile: np.ndarray, real: np.ndarray) -> np.ndarray:
    """A measured smile in units of the real clip's: 0 as in its neutral frame, 1 as at its apex."""
    real_rise = real[-1] - real[0]
    return (smile - real[0]) / real_rise if abs(real_rise) > 1e-9 else np.full(len(smile), np.nan)


def smile_metrics(key: str, smile: np.ndarray, real: np.ndarray) -> dict[str, float]:
    """`trajectory_metrics` by their names in metrics.json, and whether the path is without inversion."""
    out = trajectory_metrics(ALPHAS, smile, real)
    out["without_inversion"] = float(out["inversions"] == 0) if out["inversions"] >= 0 else np.nan
    return {f"{key}/{name}": value for name, value in out.items()}


def trajectory_metrics(
    alpha: Float[np.ndarray, "k"], s: Float[np.ndarray, "k"], real: Float[np.ndarray, "t"]
) -> dict[str, float]:
    """The metrics of the smile s measured along one path; NaN where one says nothing.

    alpha: ascending, equally spaced. real: the smile measured on the real clip's frames.
    """
    if not (np.isfinite(s).all() and np.isfinite(real).all()):  # the judge found no face in an image
        return dict.fromkeys(("smoothness", "spearman", "inversions", "r2", "range"), np.nan)
    real_rise = real[-1] - real[0]
    path_range = (s[-1] - s[0]) / real_rise if abs(real_rise) > 1e-9 else np.nan
    moves = abs(path_range) >= MIN_RANGE  # False for NaN
    if np.ptp(s) <= 1e-6 * abs(real_rise):  # equal images, but for the judge's rounding
        s = np.full(len(s), s[0])
    return {
        "smoothness": smoothness(s) if moves else np.nan,
        "spearman": metrics.spearman(alpha, s),
        "inversions": float(inversions(s)) if moves else np.nan,
        "r2": r2(alpha, s),
        "range": float(path_range),
    }


def smoothness(s: Float[np.ndarray, "k"]) -> float:
    """max|ds| / |s1 - s0| - 1 / (K - 1): 0 for equal steps, 1 - 1 / (K - 1) for one jump; infinite for equal ends.

    Source: ACAI, Berthelot et al. 2019.
    """
    rise = abs(s[-1] - s[0])
    return float(abs(np.diff(s)).max() / rise - 1 / (len(s) - 1)) if rise > 0 else np.inf


def inversions(s: Float[np.ndarray, "k"]) -> int:
    """Steps against the direction from the first to the last."""
    return int((np.diff(s) * np.sign(s[-1] - s[0]) < 0).sum())


def r2(alpha: Float[np.ndarray, "k"], s: Float[np.ndarray, "k"]) -> float:
    """R2 of the straight line fitted to s over alpha; NaN where s is constant."""
    if np.ptp(s) == 0 or np.ptp(alpha) == 0:
        return np.nan
    return float(np.corrcoef(alpha, s)[0, 1] ** 2)


# The intensity read from the codes


def calibrate_per_person(
    prediction: Float[np.ndarray, "n"], truth: Float[np.ndarray, "n"], tolerance: float = 0.02
) -> tuple[Float[np.ndarray, "n"], Bool[np.ndarray, "n"]]:
    """Predicted intensities of one person's frames after the affine map that is right at neutral and at the apex.

    The map takes the mean prediction for the frames of least intensity (within `tolerance`) to their mean intensity,
    and likewise for those of greatest intensity.

    Returns the mapped predictions, NaN where neutral and apex are predicted alike; and True for the frames that the map
    was not fitted on.
    """
    low, high = truth <= truth.min() + tolerance, truth >= truth.max() - tolerance
    start, end = prediction[low].mean(), prediction[high].mean()
    if abs(end - start) < 1e-9:
        return np.full(len(prediction), np.nan), ~(low | high)
    alpha = (prediction - start) / (end - start)
    return truth[low].mean() + alpha * (truth[high].mean() - truth[low].mean()), ~(low | high)
