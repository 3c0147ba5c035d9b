"""The 95 % interval over people covers the true mean in 95 % of repetitions, also where there are few people."""

from collections.abc import Callable

import numpy as np
import pytest

from facedisent_jax.evaluation.metrics import student_interval

REPETITIONS = 10_000  # the error of a coverage of 0.95 is then 0.002


def coverage(draw: Callable[[tuple[int, int]], np.ndarray], people: int, mean: float) -> float:
    """Share of the repetitions whose interval holds the true mean."""
    intervals = np.array([student_interval(values) for values in draw((REPETITIONS, people))])
    return float(((intervals[:, 0] <= mean) & (mean <= intervals[:, 1])).mean())


@pytest.mark.parametrize("people", [5, 8, 20])
def test_intervals_of_normal_values_cover_95_percent(people):
    assert 0.94 <= coverage(np.random.default_rng(people).standard_normal, people, 0.0) <= 0.96


@pytest.mark.parametrize("people", [5, 8, 20])
def test_intervals_of_skewed_values_cover_at_least_92_percent(people):
    rng = np.random.default_rng(people)
    assert coverage(lambda shape: rng.gamma(4.0, size=shape), people, 4.0) >= 0.92
