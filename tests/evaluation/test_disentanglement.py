"""Disentanglement scores of codes whose scores follow by hand, and of fixed arrays as disentanglement_lib has them."""

import numpy as np
import pytest

from facedisent_jax.evaluation import disentanglement as d

FACTORS = np.stack(np.meshgrid(range(4), range(4), indexing="ij"), axis=-1).reshape(-1, 2).astype(float)
"""Every combination of two factors of four values, [16, 2]."""


def scores(code: np.ndarray, importance: np.ndarray, factors: np.ndarray = FACTORS) -> dict[str, float]:
    """importance: [d, 2], as a regressor would find them."""
    discrete = factors.astype(int)
    information = d.mutual_information(d.discretize(code), discrete)
    single = np.stack([d.squared_correlation(code, column[:, None]) for column in factors.T], axis=1)
    return {
        "mig": d.mig(information, d.entropy(discrete)),
        "sap": d.sap(single),
        "disentanglement": d.dci(importance).disentanglement,
        "completeness": d.dci(importance).completeness,
        "irs": d.irs(code, discrete),
        "modularity": d.modularity(information),
    }


ALL = ("mig", "sap", "disentanglement", "completeness", "irs", "modularity")
EYE = np.eye(2)


@pytest.mark.parametrize(
    ("name", "code", "importance"),
    [
        ("perfect", FACTORS, EYE),
        ("permuted and scaled", FACTORS[:, ::-1] * [-3.0, 0.1], EYE[::-1] * [3.0, 0.1]),
    ],
)
def test_a_code_with_one_dimension_a_factor_scores_one(name, code, importance):
    assert scores(code, importance) == pytest.approx(dict.fromkeys(ALL, 1.0), abs=1e-6)


def test_a_constant_code_scores_zero():
    assert scores(np.full((16, 2), 0.3), np.zeros((2, 2))) == pytest.approx(dict.fromkeys(ALL, 0.0))


def test_a_constant_dimension_beside_a_perfect_code_lowers_modularity_alone():
    values = scores(np.column_stack([FACTORS, np.ones(16)]), np.vstack([EYE, np.zeros(2)]))
    assert values == pytest.approx(dict.fromkeys(ALL, 1.0) | {"modularity": 2 / 3}, abs=1e-6)


def test_an_entangled_code_has_both_factors_in_one_dimension():
    """The first dimension numbers all 16 combinations, the second is empty."""
    code = np.column_stack([4 * FACTORS[:, 0] + FACTORS[:, 1], np.zeros(16)])
    values = scores(code, np.array([[1.0, 1.0], [0.0, 0.0]]))
    # It knows both factors entirely, so both gaps are 1, and it is not modular. Completeness does not mind either.
    assert values["mig"] == pytest.approx(1) and values["completeness"] == pytest.approx(1, abs=1e-6)
    assert values["disentanglement"] == pytest.approx(0, abs=1e-6)
    assert values["modularity"] == pytest.approx(0)  # half of (dimension 1: 0, dimension 2: 0 as it knows nothing)
    # Correlation: variances 16 * 1.25 and 1.25 of the two parts of the first dimension.
    assert values["sap"] == pytest.approx((16 / 17 + 1 / 17) / 2)
    # At a value of the first factor the code is within 1.5 of its mean, by the 0.99 quantile of (0.5, 0.5, 1.5, 1.5);
    # the largest deviation of all is 7.5.
    assert values["irs"] == pytest.approx(1 - 1.5 / 7.5)


def test_a_code_of_one_factor_twice_has_no_gap():
    values = scores(FACTORS[:, [0, 0]], np.array([[0.5, 0.0], [0.5, 0.0]]))
    expected = {"mig": 0, "sap": 0, "disentanglement": 1, "completeness": 0, "irs": 1, "modularity": 1}
    assert values == pytest.approx(expected, abs=1e-6)


def test_a_code_rotated_by_45_degrees_is_modular_in_nothing():
    ends = np.array([[-1.0, -1.0], [-1.0, 1.0], [1.0, -1.0], [1.0, 1.0]])
    rotated = ends @ np.array([[1.0, 1.0], [-1.0, 1.0]]) / np.sqrt(2)
    values = scores(rotated, np.full((2, 2), np.sqrt(0.5)), (ends + 1) / 2)
    # Both dimensions know as much of both factors. IRS: at one value of a factor a dimension is at 0 or at the root of
    # 2, root(1/2) from its mean there, and root(2) is its largest deviation.
    assert values == pytest.approx(dict.fromkeys(ALL, 0.0) | {"irs": 0.5}, abs=1e-6)


def test_a_category_is_as_well_predicted_as_its_columns_of_zeros_and_ones():
    category = np.eye(2)[np.repeat([0, 1], 8)]
    assert d.squared_correlation(FACTORS, category) == pytest.approx([0.8, 0.0])  # of 0 0 1 1 with 0 1 2 3


# What the functions of disentanglement_lib (github.com/google-research/disentanglement_lib, commit 86a644d) give for
# these arrays, run with scikit-learn 1.9.1: `_histogram_discretize`, the last lines of `_compute_mig`,
# `compute_score_matrix` with continuous factors and `compute_avg_diff_top_two`, `disentanglement` and `completeness` of
# dci.py, `modularity`, `scalable_disentanglement_score` after `_drop_constant_dims`.
N = np.arange(60)
PUBLISHED_CODE = np.column_stack([np.sin(N), N % 7 + 0.5 * (N % 3), np.cos(3 * N) * (N % 4), N % 5.0, np.ones(60)])
PUBLISHED_FACTORS = np.column_stack([N % 3, N % 4, N % 5])
PUBLISHED_IMPORTANCE = np.abs(np.sin(np.arange(15.0))).reshape(5, 3)
PUBLISHED = {
    "discrete_mig": 0.3797572040907721,
    "SAP_score": 0.34236954561033306,
    "disentanglement": 0.15039320668883419,
    "completeness": 0.03515755477052797,
    "modularity_score": 0.6407986973229871,
    "IRS": 0.40777574073986006,
}


def test_scores_are_those_of_disentanglement_lib():
    discrete = d.discretize(PUBLISHED_CODE, 20)
    information = d.mutual_information(discrete, PUBLISHED_FACTORS)
    single = [d.squared_correlation(PUBLISHED_CODE, column[:, None].astype(float)) for column in PUBLISHED_FACTORS.T]
    assert {
        "discrete_mig": d.mig(information, d.entropy(PUBLISHED_FACTORS)),
        "SAP_score": d.sap(np.stack(single, axis=1)),
        "disentanglement": d.dci(PUBLISHED_IMPORTANCE).disentanglement,
        "completeness": d.dci(PUBLISHED_IMPORTANCE).completeness,
        "modularity_score": d.modularity(information),
        "IRS": d.irs(PUBLISHED_CODE, PUBLISHED_FACTORS),
    } == pytest.approx(PUBLISHED, abs=1e-6)
