"""Figures of one clip: each way against the real frames, its trajectory, its identity. Imports what lies below.

Definitions are those of docs/video.md. The two end frames are given to every way, so figures against real frames are
means over the frames in between.
"""

from typing import NamedTuple

import numpy as np

from facedisent_jax import judges, metrics, paths, trajectory
from facedisent_jax.judges import Judge, Judges

GRID = 11
"""Alphas 0, 0.1, ... 1 of a trajectory (the poster's steps)."""
ALPHAS = np.linspace(0, 1, GRID)
ALIGNMENTS = ("intensity", "time", "dtw")
IDENTITY_AT = (0.5, 1.0)
"""Alphas at which the identity is judged: dlib's network takes a tenth of a second a picture."""
IDENTITY_OF = (*paths.MODES, "reconstruction", "cross_fade", "morph", "real")
OWN_RANGE = (*paths.MODES, "cross_fade_reconstructions")
"""Ways that are compared with the reconstructions too."""


class Measured(NamedTuple):
    """Of one way on one clip. figures: name -> number (NaN where it says nothing). series: name -> [GRID]."""

    figures: dict[str, float]
    series: dict[str, np.ndarray]


def measure(
    known: paths.Given, ways: dict[str, paths.Way], beside: dict[str, np.ndarray], panel: Judges
) -> dict[str, Measured]:
    """Every way, and what stands beside the real frames, of one clip."""
    smiles = {"trajectory": panel.smile or judges.difference(known.real)}
    if panel.second is not None:
        smiles["trajectory_reader"] = panel.second
    seen = {key: judge.measure(known.real) for key, judge in smiles.items()}
    neutral = panel.identity.measure(known.real[:1])[0] if panel.identity else None
    alpha = known.clip.alpha
    out = {}
    for name in [name for name in paths.TITLES if name in ways or name in beside]:
        if name in ways:
            every = np.split(ways[name](np.concatenate([alpha, known.clip.time, ALPHAS])), [len(alpha), 2 * len(alpha)])
            pictures, path = every[0], every[2]
            pairs = of_way(known, *every) | (own_range(known, pictures) if name in OWN_RANGE else {})
            smile = {key: judge.measure(path) for key, judge in smiles.items()}
            judged = path[[int(abs(ALPHAS - place).argmin()) for place in IDENTITY_AT]]
        else:
            pictures = path = beside[name]
            pairs = {} if name == "real" else {"intensity": in_between(pictures, known.real)}
            smile = {key: on_grid(alpha, judge.measure(pictures)) for key, judge in smiles.items()}
            judged = pictures[[int(abs(alpha - place).argmin()) for place in IDENTITY_AT]]
        figures = compared(pairs, panel.perceptual)
        series = {} if name == "real" else errors(alpha, pictures, known.real)
        for key, s in smile.items():
            found = trajectory.figures(ALPHAS, s, seen[key])
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


def of_way(known: paths.Given, equal: np.ndarray, timed: np.ndarray, path: np.ndarray) -> dict[str, Pairs]:
    """A way against the real frames in three alignments. equal, timed: its pictures at the frames' intensities and
    times, [t, 64, 64, 3]; path: at the grid's alphas."""
    cost = np.square(path[:, None] - known.real[None]).mean((2, 3, 4))
    i, j = trajectory.dtw(cost)
    inner = (j > 0) & (j < len(known.real) - 1)
    return {
        "intensity": in_between(equal, known.real),
        "time": in_between(timed, known.real),
        "dtw": Pairs(path[i[inner]], known.real[j[inner]], j[inner]),
    }


def own_range(known: paths.Given, equal: np.ndarray) -> dict[str, Pairs]:
    """Inside the decoder's own range: against the reconstructions of the real frames."""
    return {"own_range": in_between(equal, known.rebuilt)}


def compared(pairs: dict[str, Pairs], perceptual: Judge | None) -> dict[str, float]:
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
