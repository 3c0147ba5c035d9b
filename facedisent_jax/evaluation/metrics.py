"""Metrics as pure functions of arrays: PSNR, SSIM, means over people, swaps with a truth, probes, leakage.

Images are float in [0, 1]; columns (subject, take, ...) are as in data/record.py.
"""

from collections import Counter
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from facedisent_jax.data.labels import intensity_step
from facedisent_jax.data.record import NEUTRAL

SEED = 0  # of every draw in an evaluation: the same for all runs, so that they are compared on the same images
PSNR_CAP = 100.0  # dB, of equal images: finite, so that a mean stays finite


def psnr(images: np.ndarray, truth: np.ndarray) -> Float[np.ndarray, "n"]:
    """10 log10(1 / MSE) per image, in dB. images, truth: [n, h, w, c] in [0, 1]."""
    error = np.square(np.asarray(images, np.float64) - truth).mean((1, 2, 3))
    return -10 * np.log10(np.maximum(error, 10 ** (-PSNR_CAP / 10)))


def ssim(images: np.ndarray, truth: np.ndarray) -> Float[np.ndarray, "n"]:
    """Structural similarity per image, mean over the colour channels and over the positions of the window.

    images, truth: [n, h, w, c] in [0, 1].

    Source: Wang et al. 2004, eq. 13: Gaussian window of 11x11, sigma 1.5, K1 = 0.01, K2 = 0.03, only where the window
    lies inside the image.
    """
    x, y = (np.ascontiguousarray(np.moveaxis(np.asarray(a, np.float32), -1, 1)) for a in (images, truth))
    c1, c2 = 0.01**2, 0.03**2
    rows, columns = _window(x.shape[2]), _window(x.shape[3]).T
    mean = lambda a: rows @ a @ columns  # noqa: E731  (a formula, read with the paper's)
    mx, my = mean(x), mean(y)
    vx, vy, cov = mean(x * x) - mx * mx, mean(y * y) - my * my, mean(x * y) - mx * my
    index = (2 * mx * my + c1) * (2 * cov + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))
    return index.mean((1, 2, 3))


def _window(size: int, width: int = 11, sigma: float = 1.5) -> np.ndarray:
    """[size - width + 1, size]: each row a Gaussian window of sum 1, one pixel further than the row before."""
    weight = np.exp(-0.5 * ((np.arange(width) - width // 2) / sigma) ** 2)
    out = np.zeros((size - width + 1, size), np.float32)
    for k, row in enumerate(out):
        row[k : k + width] = weight / weight.sum()
    return out


def subject_mean(values: np.ndarray, subject: np.ndarray) -> tuple[float, float, float]:
    """Mean over subjects of each subject's mean, and its 95 % interval over subjects.

    values, subject: [n]. Values without a subject ("") are left out.

    Returns mean, low, high; NaN interval for fewer than two subjects, NaN mean for none.
    """
    means = np.array([values[subject == name].mean() for name in np.unique(subject[subject != ""])])
    if len(means) < 2:
        return (float(means[0]) if len(means) else np.nan), np.nan, np.nan
    return float(means.mean()), *student_interval(means)


def student_interval(values: Float[np.ndarray, "n"]) -> tuple[float, float]:
    """95 % interval of the mean of n >= 2 independent values, by Student's t distribution.

    It covers for few people, where a bootstrap does not: tests/evaluation/test_intervals.py. It may reach beyond the
    bounds of a metric, such as a correlation of 1.
    """
    from scipy.special import stdtrit  # scipy.stats has it too, and takes a second to import

    half = stdtrit(len(values) - 1, 0.975) * values.std(ddof=1) / np.sqrt(len(values))
    return float(values.mean() - half), float(values.mean() + half)


def shuffle_in_turns(subject: list[str], seed: int = SEED) -> list[int]:
    """Indices 0..n-1 in random order, one of each subject before a second of any."""
    turns: Counter[str] = Counter()
    ranked = []
    for k in np.random.default_rng(seed).permutation(len(subject)):
        ranked.append((turns[subject[k]], int(k)))
        turns[subject[k]] += 1
    return [k for _, k in sorted(ranked, key=lambda pair: pair[0])]


def displayed_expression(expression: np.ndarray, intensity: np.ndarray) -> np.ndarray:
    """[n] the expression's name, `NEUTRAL` where its intensity is in step 0, "" where either is unknown."""
    displayed = np.where(intensity_step(intensity) == 0, NEUTRAL, expression)
    return np.where(np.isnan(intensity) | (expression == ""), "", displayed)


class Swaps(NamedTuple):
    """Swaps with a truth, as rows of images: identity of `source` + expression of `donor` -> `target`."""

    source: Int[np.ndarray, "n"]
    donor: Int[np.ndarray, "n"]
    target: Int[np.ndarray, "n"]


def swaps(
    subject: np.ndarray,
    take: np.ndarray,
    expression: np.ndarray,
    intensity: np.ndarray,
    donors: int = 5,
    max_swaps: int = 4000,
    seed: int = SEED,
) -> Swaps:
    """All swaps whose result has a real image to be compared with.

    target: every image that has a source and a donor.
    source: of the images of the same person and take, the one whose expression differs most.
    donor:  up to `donors` images of other people with the target's expression in the same step of intensity.

    About `max_swaps` at most: where there are more, each target gets fewer donors; then targets are drawn by seed.
    """
    rng = np.random.default_rng(seed)
    displayed, step = displayed_expression(expression, intensity), intensity_step(intensity)
    takes: dict[tuple, list[int]] = {}
    pools: dict[tuple, list[int]] = {}  # images that show the same
    for i in np.flatnonzero((subject != "") & (displayed != "")).tolist():
        takes.setdefault((subject[i], take[i]), []).append(i)
        pools.setdefault((displayed[i], step[i]), []).append(i)
    source = {}
    for rows in map(np.array, takes.values()):
        source |= _most_different(rows, displayed, step)
    candidates = {key: np.array(pool) for key, pool in pools.items()}
    targets = [i for i in source if (subject[candidates[displayed[i], step[i]]] != subject[i]).any()]
    targets = sorted(rng.choice(targets, min(max_swaps, len(targets)), replace=False)) if targets else []
    donors_per_target = min(donors, max(1, max_swaps // max(1, len(targets))))
    out = []
    for i in targets:
        pool = candidates[displayed[i], step[i]]
        pool = pool[subject[pool] != subject[i]]
        out += [(source[i], donor, i) for donor in rng.choice(pool, min(donors_per_target, len(pool)), replace=False)]
    return Swaps(*np.array(out, int).reshape(-1, 3).T)


def _most_different(rows: np.ndarray, displayed: np.ndarray, step: np.ndarray) -> dict[int, int]:
    """For each row of a take, the row that differs most from it in expression; none where all show the same."""
    out = {}
    for i in rows:
        same = (displayed[rows] == displayed[i]) | (displayed[rows] == NEUTRAL) | (displayed[i] == NEUTRAL)
        distance = np.where(same, abs(step[rows] - step[i]), step[rows] + step[i])
        if distance.max() > 0:
            out[i] = rows[distance.argmax()]
    return out


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's rank correlation, ties sharing their mean rank; NaN where one side is constant or has a NaN."""
    if len(a) < 2 or not (np.ptp(a) > 0 and np.ptp(b) > 0):
        return np.nan
    from scipy.stats import spearmanr  # takes a second to import

    return float(spearmanr(a, b)[0])  # type: ignore[arg-type]


def spearman_ceiling(truth: np.ndarray) -> float:
    """Spearman of a perfect reading without ties: below 1 where the truth has ties (0.87 for half zeros, half ones)."""
    return spearman(truth, np.argsort(np.argsort(truth, kind="stable"), kind="stable"))


def leakage(identity: np.ndarray, subject: np.ndarray) -> float:
    """Variance of the identity code within people / variance between people, summed over its dimensions.

    identity: [n, dim]; subject: [n].
    Within: over one person's images, mean over the people who have a second image. Between: of each person's mean code.
    NaN for fewer than two people, or where nobody has a second image.
    """
    names, count = np.unique(subject[subject != ""], return_counts=True)
    if len(names) < 2 or count.max() < 2:
        return np.nan
    within = np.mean([identity[subject == name].var(0).sum() for name in names[count > 1]])
    between = np.stack([identity[subject == name].mean(0) for name in names]).var(0).sum()
    return float(within / between) if between > 0 else np.nan


def even_frames(take: np.ndarray, frame: np.ndarray) -> Bool[np.ndarray, "n"]:
    """True for the first, third, ... frame of each take: the frames that probes are fitted on."""
    even = np.zeros(len(take), bool)
    for name in np.unique(take):
        rows = np.flatnonzero(take == name)
        even[rows[np.argsort(frame[rows], kind="stable")][::2]] = True
    return even


def subject_probe(code: np.ndarray, subject: np.ndarray, fit: np.ndarray, test: np.ndarray) -> tuple[float, float]:
    """Accuracy of a linear probe that names the person, and chance.

    code: [n, dim]; subject: [n]; fit, test: [n] masks of the images to fit on and to test on.
    """
    names, index = np.unique(subject[fit], return_inverse=True)
    test = test & np.isin(subject, names)
    if len(names) < 2 or not test.any():
        return np.nan, np.nan
    guess = names[ridge(code[fit], np.eye(len(names))[index], code[test]).argmax(1)]
    return float((guess == subject[test]).mean()), 1 / len(names)


def intensity_probe(
    code: np.ndarray, intensity: np.ndarray, folds: list[tuple[np.ndarray, np.ndarray]]
) -> dict[str, float]:
    """Spearman and mean absolute error of a linear probe of intensity, with chance for both.

    folds: masks (fit, test), [n] each. Chance is 0 for Spearman, and for the error that of always guessing the mean.
    """
    guess, mean, truth = [], [], []
    for fit, test in folds:
        if fit.sum() > 1 and test.any():
            guess.append(ridge(code[fit], intensity[fit][:, None], code[test])[:, 0])
            mean.append(np.full(test.sum(), intensity[fit].mean()))
            truth.append(intensity[test])
    if not guess:
        return dict.fromkeys(("spearman", "mae", "chance_mae"), np.nan) | {"chance_spearman": 0.0}
    g, m, t = map(np.concatenate, (guess, mean, truth))
    mae, chance = float(abs(g - t).mean()), float(abs(m - t).mean())
    return {"spearman": spearman(g, t), "chance_spearman": 0.0, "mae": mae, "chance_mae": chance}


def ridge(x: np.ndarray, y: np.ndarray, x_test: np.ndarray) -> np.ndarray:
    """Ridge regression of y [n, k] on x [n, d], predicted at x_test [m, d] -> [m, k].

    The strength is the one with the least leave-one-out error on x, y.
    """
    fit = Ridge.of(x, y)
    return fit.predict(x_test, fit.best_strength(y))


class Ridge(NamedTuple):
    """Ridge regression of y [n, k] on x [n, d] at any strength, a number or one for each of the k.

    mean, scale: [d], of x; weights are those of the standardized x. centre: [k], of y.
    """

    mean: np.ndarray
    scale: np.ndarray
    centre: np.ndarray
    u: np.ndarray
    s: np.ndarray
    vt: np.ndarray
    target: np.ndarray

    @classmethod
    def of(cls, x: np.ndarray, y: np.ndarray) -> "Ridge":
        mean, scale, centre = x.mean(0), x.std(0), y.mean(0)
        scale = np.where(scale > 1e-6, scale, np.inf)  # a dimension that never changes says nothing
        u, s, vt = np.linalg.svd((x - mean) / scale, full_matrices=False)
        return cls(mean, scale, centre, u, s, vt, u.T @ (y - centre))

    @property
    def strengths(self) -> np.ndarray:
        """From hardly any to one that leaves nothing but the mean."""
        return np.logspace(-2, 4, 13) * len(self.u) / len(self.mean)

    def weight(self, strength: np.ndarray | float) -> Float[np.ndarray, "d k"]:
        shrink = self.s[:, None] / (self.s[:, None] ** 2 + strength)
        return self.vt.T @ (shrink * self.target)

    def predict(self, x: np.ndarray, strength: np.ndarray | float) -> Float[np.ndarray, "m k"]:
        return (x - self.mean) / self.scale @ self.weight(strength) + self.centre

    def best_strength(self, y: np.ndarray) -> float:
        """The strength with the least leave-one-out error on the y that it was fitted on."""
        errors = []
        for strength in self.strengths:
            shrink = self.s**2 / (self.s**2 + strength)
            left = 1 - (self.u**2 * shrink).sum(1) - 1 / len(self.u)  # residual / (1 - leverage)
            residual = y - self.centre - self.u @ (shrink[:, None] * self.target)
            errors.append(np.square(residual / np.maximum(left, 1e-9)[:, None]).mean())
        return float(self.strengths[np.argmin(errors)])
