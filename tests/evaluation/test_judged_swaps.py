"""Judges of swaps: a swap that takes everything over, one that does nothing, and one that becomes the donor."""

import numpy as np
import pytest
from tiny_run import flat_face

from facedisent_jax.data.record import MOUTH
from facedisent_jax.evaluation import judged_swaps
from facedisent_jax.evaluation.judges import Judge

SMILE = Judge("brightness of the mouth", lambda images: images[:, MOUTH[0], MOUTH[1]].mean((1, 2, 3)))
IDENTITY = Judge("colour of the cheeks", lambda images: images[:, 32:36].mean((1, 2)))
PEOPLE, INTENSITIES = np.arange(6), np.linspace(0.2, 1, 6)
SUBJECT = np.array([f"p{k}" for k in PEOPLE])


def images(people, intensities) -> np.ndarray:
    return np.stack([flat_face(int(k), y) for k, y in zip(people, intensities, strict=True)]) / np.float32(255)


REAL = {
    "source": images(PEOPLE, np.zeros(6)),
    "donor": images(PEOPLE + 20, INTENSITIES),
    "target": images(PEOPLE, INTENSITIES),
}


def measure_real(judge: Judge) -> dict[str, np.ndarray]:
    return {role: judge.measure(real) for role, real in REAL.items()}


def smile_metrics(swapped: np.ndarray, judge: Judge = SMILE) -> dict:
    return judged_swaps.smile_metrics(judge, swapped, REAL["source"], measure_real(judge), SUBJECT)


def identity_metrics(swapped: np.ndarray) -> dict:
    return judged_swaps.identity_metrics(IDENTITY, swapped, measure_real(IDENTITY), SUBJECT)


def test_a_perfect_swap_follows_the_donor_and_one_that_leaves_the_face_does_not():
    perfect = smile_metrics(REAL["target"])
    assert perfect["followed"] == pytest.approx(1, abs=0.02) and perfect["correlation"] == pytest.approx(1)
    idle = smile_metrics(REAL["source"])
    assert idle["followed"] == pytest.approx(0) and idle["real_followed"] == pytest.approx(1, abs=0.02)
    half = images(PEOPLE, INTENSITIES / 2)
    assert smile_metrics(half)["followed"] == pytest.approx(0.5, abs=0.02)


def test_swaps_without_a_face_are_counted_and_left_out():
    blind = Judge("", lambda images: np.where(images[:, 32, 32, 0] == images[0, 32, 32, 0], np.nan, SMILE[1](images)))
    measured = smile_metrics(REAL["target"], blind)
    assert measured["no_face"] == 6 - measured["subjects"] > 0 and measured["followed"] == pytest.approx(1, abs=0.02)


def test_the_person_stays_or_becomes_the_donor():
    stays = identity_metrics(REAL["target"])
    assert stays["distance"] == pytest.approx(0, abs=1e-6) and stays["nearer_than_donor"] == 1
    assert stays["real_distance"] == pytest.approx(0, abs=1e-6) and stays["donor_distance"] > 0.05
    becomes = identity_metrics(REAL["donor"])
    assert becomes["nearer_than_donor"] == 0 and becomes["donor_distance"] == pytest.approx(0, abs=1e-6)
