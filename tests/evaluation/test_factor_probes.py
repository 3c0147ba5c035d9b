"""Probes of whole codes against planted codes: what is in a code is found, of people whom the probe has not seen."""

import numpy as np
import pytest
from tiny_run import person

from facedisent_jax.data.labels import take_ids
from facedisent_jax.data.record import Faces
from facedisent_jax.errors import UserError
from facedisent_jax.evaluation import factors_in_codes
from facedisent_jax.evaluation.factor_probes import Factor, fold_of_people, label_factors, probe, score_of
from facedisent_jax.evaluation.stills import probe_split

PEOPLE, LEVELS = 60, 6
RNG = np.random.default_rng(0)
SUBJECT = np.repeat(np.char.mod("p%02d", np.arange(PEOPLE)), LEVELS)
INTENSITY = np.tile(np.linspace(0, 1, LEVELS), PEOPLE)
TRAITS = np.repeat(RNG.uniform(-1, 1, (PEOPLE, 3)), LEVELS, axis=0)
NOISE = 0.01 * RNG.standard_normal((len(SUBJECT), 8))
EVERYWHERE = np.ones(len(SUBJECT), bool)
FACTORS = [
    *(Factor(f"trait{k}", "identity", TRAITS[:, k], False, EVERYWHERE) for k in range(3)),
    Factor("intensity", "intensity", INTENSITY, False, EVERYWHERE),
]


def test_a_linear_probe_reads_what_is_planted_and_nothing_else():
    code = TRAITS[:, :2] @ RNG.standard_normal((2, 8)) + NOISE
    score, importance = probe(code, FACTORS, fold_of_people(SUBJECT))
    assert score[:2].min() > 0.98 and score[2:].max() < 0.05
    assert importance.shape == (8, 4) and importance.sum(0) == pytest.approx(1)


def test_a_dimension_is_important_for_what_it_holds():
    code = np.column_stack([TRAITS[:, 0], RNG.standard_normal(len(SUBJECT)), INTENSITY])
    importance = probe(code, FACTORS, fold_of_people(SUBJECT)).importance
    assert importance[0, 0] > 0.95 and importance[2, 3] > 0.95


def test_only_the_nonlinear_probe_reads_a_square():
    code = np.column_stack([NOISE, 2 * INTENSITY - 1])
    bend = [Factor("bend", "identity", np.square(2 * INTENSITY - 1), False, EVERYWHERE)] + FACTORS[-1:]
    linear, nonlinear = (probe(code, bend, fold_of_people(SUBJECT), is_linear).score for is_linear in (True, False))
    assert linear[0] < 0.05 and nonlinear[0] > 0.9 and min(linear[1], nonlinear[1]) > 0.98


def test_a_code_that_only_names_the_person_tells_nothing_of_unseen_people():
    """A probe fitted on all people would read every trait from it."""
    code = np.repeat(np.eye(PEOPLE), LEVELS, axis=0)
    assert probe(code, FACTORS[:3], fold_of_people(SUBJECT)).score.max() < 0.05


def test_a_factor_is_probed_on_its_images_alone():
    strong_smile = INTENSITY >= 0.5
    code = np.where(strong_smile[:, None], TRAITS, 0) + NOISE[:, :3]  # seen in strong smiles alone
    style = [factor._replace(rows=strong_smile) for factor in FACTORS[:1]]
    assert probe(code, style, fold_of_people(SUBJECT)).score[0] > 0.98
    assert probe(code, FACTORS[:1], fold_of_people(SUBJECT)).score[0] < 0.9


def test_a_category_counts_as_far_as_it_is_named_more_often_than_by_the_most_frequent():
    target = np.eye(3)[[0, 0, 1, 2]]
    assert score_of(target, target, True) == 1
    assert score_of(np.eye(3)[[0, 0, 0, 0]], target, True) == 0
    assert score_of(np.eye(3)[[0, 0, 1, 1]], target, True) == pytest.approx(0.5)  # 3 of 4 right, chance 1 of 2


def test_folds_divide_people_and_not_images():
    fold = fold_of_people(SUBJECT)
    assert all(len(set(fold[SUBJECT == name])) == 1 for name in set(SUBJECT))
    assert np.bincount(fold).tolist() == [PEOPLE * LEVELS // 5] * 5
    with pytest.raises(UserError, match="at least 5 people, got 4"):
        fold_of_people(SUBJECT[: 4 * LEVELS])


def test_exchanged_factors_are_those_of_other_people():
    code = TRAITS @ RNG.standard_normal((3, 8)) + NOISE
    factors = factors_in_codes.exchange_factors(FACTORS, SUBJECT)
    assert probe(code, factors, fold_of_people(SUBJECT)).score[:3].max() < 0.05
    exchanged = factors[0].values.reshape(PEOPLE, LEVELS)
    assert (exchanged == exchanged[:, :1]).all()
    assert sorted(exchanged[:, 0]) == sorted(TRAITS[::LEVELS, 0])


@pytest.fixture(scope="module")
def faces() -> Faces:
    """Photographs of 12 people under two lights."""
    records = [r for k in range(12) for r in person(k, (0.0, 0.25, 0.5, 0.75, 1.0))]
    return Faces.of([r._replace(condition=light) for light in ("left", "right") for r in records])


def test_photographs_have_person_light_and_intensity_as_factors(faces):
    factors = label_factors(faces)
    assert [(f.name, f.expected_in) for f in factors] == [
        ("subject", "identity"), ("condition", ""), ("intensity", "expression"),
    ]  # fmt: skip


def test_codes_apart_score_above_codes_mixed(faces):
    people = np.unique(faces.subject, return_inverse=True)[1]
    light = (faces.condition == "left").astype(float)[:, None]
    rng = np.random.default_rng(1)
    identity = rng.standard_normal((12, 8))[people] + 0.01 * rng.standard_normal((len(faces), 8))
    expression = faces.intensity[:, None] + 0.01 * rng.standard_normal((len(faces), 2))
    fold = fold_of_people(faces.subject)
    split = probe_split(faces, take_ids(faces), np.ones(len(faces), bool))
    factors = label_factors(faces)
    apart = np.concatenate([identity, expression, light], axis=1)
    mixed = apart @ np.linalg.qr(rng.standard_normal((11, 11)))[0]
    separate, entangled = (factors_in_codes.dimension_scores(code, factors, fold, split) for code in (apart, mixed))
    assert separate["dci"]["informativeness"] > 0.95
    for key in ("sap", "irs", "modularity"):
        assert separate[key] > entangled[key], key
    assert separate["dci"]["disentanglement"] > entangled["dci"]["disentanglement"] + 0.2
    scores = factors_in_codes.block_scores({"identity": identity, "expression": expression}, factors, fold)
    assert scores["blocks"]["expression"]["linear"]["intensity"] > 0.98
    assert scores["blocks"]["identity"]["nonlinear"]["intensity"] < 0.1
    assert scores["expected"]["linear"] > 0.98 and scores["unexpected"]["linear"] < 0.1
    swapped = factors_in_codes.block_scores({"identity": expression, "expression": identity}, factors, fold)
    assert (swapped["expected"], swapped["unexpected"]) == (scores["unexpected"], scores["expected"])
