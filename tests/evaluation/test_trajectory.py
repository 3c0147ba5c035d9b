"""Trajectory figures on lines, steps and reversals whose figures can be told by hand; alignment of two sequences."""

import numpy as np
import pytest

from facedisent_jax.evaluation import clip_metrics

ALPHA = np.linspace(0, 1, 11)
REAL = np.linspace(2, 4, 11)


def test_a_straight_line_is_perfect():
    metrics = clip_metrics.trajectory_metrics(ALPHA, 2 + 2 * ALPHA, REAL)
    assert metrics == pytest.approx({"smoothness": 0, "spearman": 1, "inversions": 0, "r2": 1, "range": 1}, abs=1e-9)


def test_a_step_is_as_uneven_as_can_be():
    s = np.where(ALPHA > 0.45, 4.0, 2.0)
    metrics = clip_metrics.trajectory_metrics(ALPHA, s, REAL)
    assert metrics["smoothness"] == pytest.approx(1 - 1 / 10)
    assert metrics["inversions"] == 0 and metrics["range"] == pytest.approx(1)
    # R2 of a step of five zeros and six ones on 0..10: (sum of (x - 5)(y - 6/11))^2 / (110 * 30/11)
    assert metrics["r2"] == pytest.approx((5 + 6 + 7 + 8 + 9 + 10 - 6 * 5) ** 2 / (110 * 30 / 11))


def test_a_path_that_goes_back_is_counted_and_one_that_goes_down_is_no_inversion():
    s = np.array([0, 1, 2, 1, 3, 4, 5, 4.5, 6, 7, 8.0])
    assert clip_metrics.inversions(s) == 2 and clip_metrics.inversions(-s) == 2
    assert clip_metrics.smoothness(s) == pytest.approx(2 / 8 - 0.1)
    reversed_path = clip_metrics.trajectory_metrics(ALPHA, 4 - 2 * ALPHA, REAL)
    assert reversed_path["spearman"] == pytest.approx(-1) and reversed_path["range"] == pytest.approx(-1)
    assert reversed_path["inversions"] == 0 and reversed_path["smoothness"] == pytest.approx(0)


def test_a_path_that_stays_has_no_smoothness():
    for s in (np.full(11, 2.0), 2 + 0.05 * ALPHA):  # 2.5 % of the real clip's range
        metrics = clip_metrics.trajectory_metrics(ALPHA, s, REAL)
        assert np.isnan(metrics["smoothness"]) and np.isnan(metrics["inversions"])
    assert clip_metrics.trajectory_metrics(ALPHA, np.full(11, 2.0), REAL)["range"] == 0
    rounding = clip_metrics.trajectory_metrics(ALPHA, 2 + 1e-9 * ALPHA, REAL)  # equal pictures, judged by a network
    assert np.isnan(rounding["r2"]) and np.isnan(rounding["spearman"])
    no_face_metrics = clip_metrics.trajectory_metrics(ALPHA, np.full(11, np.nan), REAL)  # the judge found no face
    assert all(np.isnan(value) for value in no_face_metrics.values())
    assert np.isnan(clip_metrics.trajectory_metrics(ALPHA, ALPHA, np.ones(11))["range"])


def cost(a, b):
    return np.square(np.subtract.outer(np.array(a, float), np.array(b, float)))


def test_equal_sequences_are_aligned_one_to_one():
    i, j = clip_metrics.dtw(cost(ALPHA, ALPHA))
    assert i.tolist() == j.tolist() == list(range(11))


def test_a_pause_is_matched_with_one_frame():
    i, j = clip_metrics.dtw(cost([0, 1, 2, 3], [0, 1, 1, 1, 2, 3]))
    assert list(zip(i.tolist(), j.tolist(), strict=True)) == [(0, 0), (1, 1), (1, 2), (1, 3), (2, 4), (3, 5)]


def test_an_alignment_is_monotone_has_both_ends_and_the_least_cost():
    rng = np.random.default_rng(0)
    matrix = rng.random((4, 5))
    i, j = clip_metrics.dtw(matrix)
    assert (i[0], j[0], i[-1], j[-1]) == (0, 0, 3, 4)
    steps = np.stack([np.diff(i), np.diff(j)], 1)
    assert {tuple(step) for step in steps.tolist()} <= {(0, 1), (1, 0), (1, 1)}

    def least(a: int, b: int) -> float:
        if a == b == 0:
            return matrix[0, 0]
        predecessors = [(a - 1, b), (a, b - 1), (a - 1, b - 1)]
        return matrix[a, b] + min(least(*place) for place in predecessors if min(place) >= 0)

    assert matrix[i, j].sum() == pytest.approx(least(3, 4))


def test_reading_per_person_is_right_at_neutral_and_apex_and_linear_between():
    truth = np.array([0, 0.01, 0.25, 0.5, 0.99, 1])
    readings = 0.3 + 0.2 * truth
    calibrated_readings, counts = clip_metrics.calibrate_per_person(readings, truth)
    assert calibrated_readings == pytest.approx(truth) and counts.tolist() == [False, False, True, True, False, False]
    bent_readings = readings + np.array([0, 0, 0.02, 0, 0, 0])
    assert clip_metrics.calibrate_per_person(bent_readings, truth)[0][2] == pytest.approx(0.25 + 0.1)
    assert np.isnan(clip_metrics.calibrate_per_person(np.full(6, 0.4), truth)[0]).all()
