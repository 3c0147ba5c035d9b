"""Disentanglement scores as pure functions: of codes [n, d] and factors [n, k], or of a table [d, k] of both.

The formulas are those of disentanglement_lib (Locatello et al. 2019); a test compares. All scores are in [0, 1], and 1
is best. No factor may be constant.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

BINS = 20  # of equal width, for codes and continuous factors; disentanglement_lib has 20 for codes
IRS_QUANTILE = 0.99  # of the deviations; the paper's maximum, without its outliers (disentanglement_lib)


class DCI(NamedTuple):
    """disentanglement: whether a dimension tells of one factor alone.
    completeness: whether one dimension alone tells of a factor."""

    disentanglement: float
    completeness: float


def discretize(values: Float[np.ndarray, "n m"], bins: int = BINS) -> Int[np.ndarray, "n m"]:
    """The bin of each value, 0 to bins - 1, between the least and the largest value of its column."""
    width = np.ptp(values, axis=0)
    position = (values - values.min(0)) / np.where(width > 0, width, 1)
    return np.minimum((position * bins).astype(np.int64), bins - 1)


def mutual_information(code: Int[np.ndarray, "n d"], factor: Int[np.ndarray, "n k"]) -> Float[np.ndarray, "d k"]:
    """Mutual information in nats of each dimension and each factor, both discrete, by their counts."""
    out = np.empty((code.shape[1], factor.shape[1]))
    for j, y in enumerate(factor.T):
        values = int(y.max()) + 1
        for i, x in enumerate(code.T):
            size = (int(x.max()) + 1) * values
            joint = np.bincount(x * values + y, minlength=size).reshape(-1, values) / len(y)
            product = np.outer(joint.sum(1), joint.sum(0))
            out[i, j] = np.sum(joint[joint > 0] * np.log(joint[joint > 0] / product[joint > 0]))
    return out


def entropy(factor: Int[np.ndarray, "n k"]) -> Float[np.ndarray, "k"]:
    """In nats, of each discrete factor."""
    return np.array([mutual_information(column[:, None], column[:, None])[0, 0] for column in factor.T])


def mig(information: Float[np.ndarray, "d k"], entropies: Float[np.ndarray, "k"]) -> float:
    """Mutual information gap: of the two dimensions that know most of a factor, as a share of the factor's entropy.

    Source: Chen et al. 2018, eq. 6.
    """
    return float(np.mean(_gap(information) / entropies))


def sap(score: Float[np.ndarray, "d k"]) -> float:
    """Separated attribute predictability: the gap between the two dimensions that predict a factor best.

    score: how well each dimension alone predicts each factor (`squared_correlation`).

    Source: Kumar et al. 2018, section 3.
    """
    return float(np.mean(_gap(score)))


def _gap(table: Float[np.ndarray, "d k"]) -> Float[np.ndarray, "k"]:
    second, first = np.sort(table, axis=0)[-2:]
    return first - second


def squared_correlation(code: Float[np.ndarray, "n d"], factor: Float[np.ndarray, "n c"]) -> Float[np.ndarray, "d"]:
    """Share of the variance of a factor that a line in one dimension explains; 0 for a constant dimension.

    factor: one column, or, of a factor that is a category, a column of zeros and ones for each category.
    """
    x, y = code - code.mean(0), factor - factor.mean(0)
    variance = np.square(x).sum(0)
    is_constant = variance <= 1e-12 * len(x)
    explained = np.square(x.T @ y).sum(1) / np.where(is_constant, 1, variance)
    return np.where(is_constant, 0, explained / np.square(y).sum())


def dci(importance: Float[np.ndarray, "d k"]) -> DCI:
    """Disentanglement and completeness from the importance (>= 0) of each dimension for each factor.

    1 - entropy of a dimension's importances over the factors, and of a factor's over the dimensions, weighted by the
    sum of its importances. Source: Eastwood and Williams 2018, section 2.
    """
    return DCI(_concentration(importance), _concentration(importance.T))


def _concentration(table: Float[np.ndarray, "a b"]) -> float:
    """Mean over the rows of 1 - their entropy in units of that of an even row, weighted by their sums."""
    if not table.sum() > 0:
        return 0.0
    share = (table + 1e-11) / (table + 1e-11).sum(1, keepdims=True)
    rows = 1 + np.sum(share * np.log(share), axis=1) / np.log(table.shape[1])
    return float(np.average(rows, weights=table.sum(1)))


def modularity(information: Float[np.ndarray, "d k"]) -> float:
    """Mean over dimensions of how far each is informative of one factor alone; 0 for one that is informative of none.

    Source: Ridgeway and Mozer 2018, eq. 2.
    """
    squared = np.square(information)
    largest = squared.max(1)
    remainder = (squared.sum(1) - largest) / np.where(largest > 0, largest, 1) / (information.shape[1] - 1)
    return float(np.mean(np.where(largest > 0, 1 - remainder, 0)))


def irs(code: Float[np.ndarray, "n d"], factor: Int[np.ndarray, "n k"]) -> float:
    """Interventional robustness: how little a dimension moves when all factors but one change.

    For each dimension and value of a factor: the largest deviation (by IRS_QUANTILE) from the mean at that value, over
    the largest deviation of the dimension. 1 minus that at the best factor, mean over dimensions, weighted by their
    largest deviation; constant dimensions do not count.

    Source: Suter et al. 2019, section 4.
    """
    code = code[:, np.ptp(code, axis=0) > 0]
    if not code.shape[1]:
        return 0.0
    largest = np.abs(code - code.mean(0)).max(0)
    deviation = []
    for column in factor.T:
        groups = [code[column == value] for value in np.unique(column)]
        deviation.append(
            np.mean([np.quantile(np.abs(group - group.mean(0)), IRS_QUANTILE, axis=0) for group in groups], axis=0)
        )
    return float(np.average(1 - np.min(deviation, axis=0) / largest, weights=largest))
