"""Figures of merit, as pure functions of arrays: PSNR, SSIM, which swaps have a truth, probes, leakage, bootstrap.

Imports none of ours. Pictures are float in [0, 1]; columns (subject, sequence, ...) are as in records.py.
"""

from typing import NamedTuple

import numpy as np

from facedisent_jax.data.labels import intensity_step
from facedisent_jax.data.record import NEUTRAL

PSNR_CAP = 100.0
"""PSNR of equal pictures, in dB: finite, so that a mean stays a number."""


def psnr(images: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """10 log10(1 / MSE) of each picture, in dB. images, truth: [n, h, w, c] in [0, 1] -> [n]."""
    error = np.square(np.asarray(images, np.float64) - truth).mean((1, 2, 3))
    return -10 * np.log10(np.maximum(error, 10 ** (-PSNR_CAP / 10)))


def ssim(images: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Structural similarity of each picture, mean over the three colour channels and all places of the window.

    images, truth: [n, h, w, c] in [0, 1] -> [n].
    Wang et al. 2004, eq. 13: Gaussian window of 11x11, sigma 1.5, K1 = 0.01, K2 = 0.03, only where the window lies
    inside the picture.
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
    """[size - width + 1, size]: each row a Gaussian window of sum 1, one place further than the row before."""
    weight = np.exp(-0.5 * ((np.arange(width) - width // 2) / sigma) ** 2)
    out = np.zeros((size - width + 1, size), np.float32)
    for k, row in enumerate(out):
        row[k : k + width] = weight / weight.sum()
    return out


def by_subject(values: np.ndarray, subject: np.ndarray, seed: int = 0, draws: int = 2000) -> tuple[float, float, float]:
    """Mean over subjects of each subject's mean, and its 95 % interval by bootstrap over subjects.

    Pictures without a subject are left out; NaN interval for fewer than two subjects, NaN all for none.
    """
    means = np.array([values[subject == name].mean() for name in np.unique(subject[subject != ""])])
    if len(means) < 2:
        return (float(means[0]) if len(means) else np.nan), np.nan, np.nan
    drawn = means[np.random.default_rng(seed).integers(0, len(means), (draws, len(means)))].mean(1)
    low, high = np.percentile(drawn, [2.5, 97.5])
    return float(means.mean()), float(low), float(high)


def displayed_expression(expression: np.ndarray, intensity: np.ndarray) -> np.ndarray:
    """What is shown: the action's name, `neutral` where its intensity is in step 0, "" where either is unknown."""
    shown = np.where(intensity_step(intensity) == 0, NEUTRAL, expression)
    return np.where(np.isnan(intensity) | (expression == ""), "", shown)


class Swaps(NamedTuple):
    """Swaps with a truth, as indices into the pictures: identity of `source` + expression of `donor` -> `target`."""

    source: np.ndarray
    donor: np.ndarray
    target: np.ndarray


def swaps(
    subject: np.ndarray,
    take: np.ndarray,
    expression: np.ndarray,
    intensity: np.ndarray,
    donors: int = 5,
    most: int = 4000,
    seed: int = 0,
) -> Swaps:
    """Every picture that another picture of the same person and take, with another expression, can be turned into.

    source: that other picture, the one farthest in expression; donor: up to `donors` pictures of other people with the
    target's expression in the same step of intensity, drawn by seed. At most about `most` swaps in all: with more
    pictures there are fewer donors each, then fewer targets.
    """
    rng = np.random.default_rng(seed)
    shown, step = displayed_expression(expression, intensity), intensity_step(intensity)
    known = np.flatnonzero((subject != "") & (shown != "")).tolist()
    source = {}
    groups: dict[tuple, list[int]] = {}
    kinds: dict[tuple, list[int]] = {}
    for i in known:
        groups.setdefault((subject[i], take[i]), []).append(i)
        kinds.setdefault((shown[i], step[i]), []).append(i)
    for members in map(np.array, groups.values()):
        for i in members:
            same = (shown[members] == shown[i]) | (shown[members] == NEUTRAL) | (shown[i] == NEUTRAL)
            apart = np.where(same, abs(step[members] - step[i]), step[members] + step[i])
            if apart.max() > 0:
                source[i] = members[apart.argmax()]
    pools = {key: np.array(pool) for key, pool in kinds.items()}
    targets = [i for i in source if (subject[pools[shown[i], step[i]]] != subject[i]).any()]
    targets = sorted(rng.choice(targets, min(most, len(targets)), replace=False)) if targets else []
    each = min(donors, max(1, most // max(1, len(targets))))
    out = []
    for i in targets:
        pool = pools[shown[i], step[i]]
        pool = pool[subject[pool] != subject[i]]
        out += [(source[i], donor, i) for donor in rng.choice(pool, min(each, len(pool)), replace=False)]
    return Swaps(*np.array(out, int).reshape(-1, 3).T)


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's rank correlation, ties sharing their mean rank; NaN where one side is constant."""
    if len(a) < 2 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return np.nan
    return float(np.corrcoef(_ranks(a), _ranks(b))[0, 1])


def _ranks(values: np.ndarray) -> np.ndarray:
    """[n] ranks from 1, ties sharing their mean rank. (scipy.stats does this too, and takes 1.3 s to import.)"""
    _, index, count = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(count) - (count - 1) / 2)[index]


def spearman_ceiling(truth: np.ndarray) -> float:
    """The Spearman of a perfect reading without ties: below 1 where the truth has ties (0.87 for as many 0 as 1)."""
    return spearman(truth, np.argsort(np.argsort(truth, kind="stable"), kind="stable"))


def leakage(identity: np.ndarray, subject: np.ndarray) -> float:
    """Variance of the identity code over one person's pictures / variance over people (of each person's mean code).

    Summed over the code's numbers; people without a second picture do not count in the first. NaN for one person.
    """
    names, count = np.unique(subject[subject != ""], return_counts=True)
    if len(names) < 2 or count.max() < 2:
        return np.nan
    within = np.mean([identity[subject == name].var(0).sum() for name in names[count > 1]])
    between = np.stack([identity[subject == name].mean(0) for name in names]).var(0).sum()
    return float(within / between) if between > 0 else np.nan


def even_frames(take: np.ndarray, frame: np.ndarray) -> np.ndarray:
    """True for the first, third, ... frame of each take (the frames that probes are fitted on)."""
    even = np.zeros(len(take), bool)
    for name in np.unique(take):
        members = np.flatnonzero(take == name)
        even[members[np.argsort(frame[members], kind="stable")][::2]] = True
    return even


def subject_probe(code: np.ndarray, subject: np.ndarray, fit: np.ndarray, test: np.ndarray) -> tuple[float, float]:
    """How often a linear probe fitted on `fit` names the person in `test`, and how often chance would."""
    names, index = np.unique(subject[fit], return_inverse=True)
    test = test & np.isin(subject, names)
    if len(names) < 2 or not test.any():
        return np.nan, np.nan
    guess = names[ridge(code[fit], np.eye(len(names))[index], code[test]).argmax(1)]
    return float((guess == subject[test]).mean()), 1 / len(names)


def intensity_probe(
    code: np.ndarray, intensity: np.ndarray, folds: list[tuple[np.ndarray, np.ndarray]]
) -> dict[str, float]:
    """A linear probe of intensity, fitted and tested on the (fit, test) masks of each fold; chance is the fit's mean.

    Spearman (chance 0) and mean absolute error, with the error of always naming the mean beside it.
    """
    guess, naive, truth = [], [], []
    for fit, test in folds:
        if fit.sum() > 1 and test.any():
            guess.append(ridge(code[fit], intensity[fit][:, None], code[test])[:, 0])
            naive.append(np.full(test.sum(), intensity[fit].mean()))
            truth.append(intensity[test])
    if not guess:
        return dict.fromkeys(("spearman", "mae", "chance_mae"), np.nan) | {"chance_spearman": 0.0}
    g, n, t = map(np.concatenate, (guess, naive, truth))
    mae, chance = float(abs(g - t).mean()), float(abs(n - t).mean())
    return {"spearman": spearman(g, t), "chance_spearman": 0.0, "mae": mae, "chance_mae": chance}


def ridge(x: np.ndarray, y: np.ndarray, x_test: np.ndarray) -> np.ndarray:
    """Linear prediction of y [n, k] from x [n, d] at x_test, ridge strength chosen by leave-one-out error on x, y."""
    mean, scale = x.mean(0), x.std(0)
    scale = np.where(scale > 1e-6, scale, np.inf)  # a number of the code that never moves says nothing
    x, x_test = (x - mean) / scale, (x_test - mean) / scale
    centre = y.mean(0)
    u, s, vt = np.linalg.svd(x, full_matrices=False)
    target = u.T @ (y - centre)
    best = (np.inf, np.zeros((x.shape[1], y.shape[1])))
    for strength in np.logspace(-2, 4, 13) * len(x) / x.shape[1]:
        shrink = s**2 / (s**2 + strength)
        left = 1 - (u**2 * shrink).sum(1) - 1 / len(x)  # leave-one-out: residual / (1 - leverage)
        error = np.square((y - centre - u @ (shrink[:, None] * target)) / np.maximum(left, 1e-9)[:, None]).mean()
        if error < best[0]:
            best = (error, vt.T @ ((s / (s**2 + strength))[:, None] * target))
    return x_test @ best[1] + centre
