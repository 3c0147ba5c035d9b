"""Which images an image may be matched with."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from facedisent_jax.data.labels import group_ids


class Candidates(NamedTuple):
    """For each of n images the rows it may be matched with: rows[start:end] without rows[exclude_start:exclude_end]."""

    rows: Int[np.ndarray, "m"]
    start: Int[np.ndarray, "n"]
    end: Int[np.ndarray, "n"]
    exclude_start: Int[np.ndarray, "n"]
    exclude_end: Int[np.ndarray, "n"]

    def count(self, index: np.ndarray | slice = slice(None)) -> np.ndarray:
        """Number of candidates of each image in `index`."""
        return (self.end[index] - self.start[index]) - (self.exclude_end[index] - self.exclude_start[index])

    def draw(self, index: np.ndarray, uniform: np.ndarray) -> np.ndarray:
        """One candidate for each image in `index`, by a number in [0, 1); the image itself if it has none."""
        partners, count = index.copy(), self.count(index)
        has_any = count > 0
        index, count = index[has_any], count[has_any]
        k = np.minimum((uniform[has_any] * count).astype(np.int64), count - 1) + self.start[index]
        excluded = self.exclude_end[index] - self.exclude_start[index]
        partners[has_any] = self.rows[np.where(k >= self.exclude_start[index], k + excluded, k)]
        return partners


def match_within_groups(group: np.ndarray, exclude: np.ndarray, usable: np.ndarray) -> Candidates:
    """Match each usable row with the usable rows of its group that have another value in `exclude`; [n] each."""
    rows = np.flatnonzero(usable)
    rows = rows[np.lexsort((exclude[rows], group[rows]))]
    bounds = np.zeros((4, len(group)), np.int64)
    for k, keys in enumerate((group, group_ids(group, exclude))):
        _, start, inverse, count = np.unique(keys[rows], return_index=True, return_inverse=True, return_counts=True)
        bounds[2 * k, rows] = start[inverse]
        bounds[2 * k + 1, rows] = (start + count)[inverse]
    return Candidates(rows, *bounds)


def match_in_finest(scopes: Sequence[np.ndarray], exclude: np.ndarray, usable: np.ndarray) -> Candidates:
    """`match_within_groups` of the first of `scopes`, finest first, in which an image has any candidate."""
    candidates = [match_within_groups(scope, exclude, usable) for scope in scopes]
    chosen = candidates[-1]
    for finer in reversed(candidates[:-1]):
        chosen = _prefer(finer, chosen)
    return chosen


def _prefer(finer: Candidates, coarser: Candidates) -> Candidates:
    """The finer candidates of each image that has any, else the coarser."""
    use_finer, offset = finer.count() > 0, len(coarser.rows)
    bounds = [np.where(use_finer, new + offset, old) for new, old in zip(finer[1:], coarser[1:], strict=True)]
    return Candidates(np.concatenate([coarser.rows, finer.rows]), *bounds)
