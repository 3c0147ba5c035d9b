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


def smile_metrics(swaps: np.ndarray, judge: Judge = SMILE) -> dict:
    return judged_swaps.smile_metrics(judge, swaps, REAL["source"], measure_real(judge), SUBJECT)


def identity_metrics(swaps: np.ndarray) -> dict:
    return judged_swaps.identity_metrics(IDENTITY, swaps, measure_real(IDENTITY), SUBJECT)


def test_a_perfect_swap_follows_the_donor_and_one_that_leaves_the_face_does_not():
    perfect_swap = smile_metrics(REAL["target"])
    assert perfect_swap["followed"] == pytest.approx(1, abs=0.02) and perfect_swap["correlation"] == pytest.approx(1)
    no_swap = smile_metrics(REAL["source"])
    assert no_swap["followed"] == pytest.approx(0) and no_swap["real_followed"] == pytest.approx(1, abs=0.02)
    half_swaps = images(PEOPLE, INTENSITIES / 2)
    assert smile_metrics(half_swaps)["followed"] == pytest.approx(0.5, abs=0.02)


def test_swaps_without_a_face_are_counted_and_left_out():
    judge = Judge("", lambda images: np.where(images[:, 32, 32, 0] == images[0, 32, 32, 0], np.nan, SMILE[1](images)))
    metrics = smile_metrics(REAL["target"], judge)
    assert metrics["no_face"] == 6 - metrics["subjects"] > 0 and metrics["followed"] == pytest.approx(1, abs=0.02)


def test_the_person_stays_or_becomes_the_donor():
    target_metrics = identity_metrics(REAL["target"])
    assert target_metrics["distance"] == pytest.approx(0, abs=1e-6) and target_metrics["nearer_than_donor"] == 1
    assert target_metrics["real_distance"] == pytest.approx(0, abs=1e-6) and target_metrics["donor_distance"] > 0.05
    donor_metrics = identity_metrics(REAL["donor"])
    assert donor_metrics["nearer_than_donor"] == 0 and donor_metrics["donor_distance"] == pytest.approx(0, abs=1e-6)
