"""Judges of swaps: a swap that takes everything over, one that does nothing, and one that becomes the donor."""

import numpy as np
import pytest
from tiny_run import flat_face

from facedisent_jax.evaluation.judges import MOUTH, Judge
from facedisent_jax.evaluation.stills import identity_metrics, smile_metrics

SMILE = Judge("brightness of the mouth", lambda images: images[:, MOUTH[0], MOUTH[1]].mean((1, 2, 3)))
IDENTITY = Judge("colour of the cheeks", lambda images: images[:, 32:36].mean((1, 2)))
PEOPLE, LEVELS = np.arange(6), np.linspace(0.2, 1, 6)
SUBJECT = np.array([f"p{k}" for k in PEOPLE])


def pictures(people, levels) -> np.ndarray:
    return np.stack([flat_face(int(k), y) for k, y in zip(people, levels, strict=True)]) / np.float32(255)


REAL = {
    "source": pictures(PEOPLE, np.zeros(6)),
    "donor": pictures(PEOPLE + 20, LEVELS),
    "target": pictures(PEOPLE, LEVELS),
}


def smiles(made: np.ndarray, judge: Judge = SMILE) -> dict:
    of_real = {name: judge.measure(images) for name, images in REAL.items()}
    return smile_metrics(judge, made, REAL["source"], of_real, SUBJECT)


def identities(made: np.ndarray) -> dict:
    of_real = {name: IDENTITY.measure(images) for name, images in REAL.items()}
    return identity_metrics(IDENTITY, made, of_real, SUBJECT)


def test_a_perfect_swap_follows_the_donor_and_one_that_leaves_the_face_does_not():
    perfect = smile_metrics(REAL["target"])
    assert perfect["followed"] == pytest.approx(1, abs=0.02) and perfect["correlation"] == pytest.approx(1)
    idle = smile_metrics(REAL["source"])
    assert idle["followed"] == pytest.approx(0) and idle["real_followed"] == pytest.approx(1, abs=0.02)
    half = pictures(PEOPLE, LEVELS / 2)
    assert smile_metrics(half)["followed"] == pytest.approx(0.5, abs=0.02)


def test_swaps_without_a_face_are_counted_and_left_out():
    blind = Judge("", lambda images: np.where(images[:, 32, 32, 0] == images[0, 32, 32, 0], np.nan, SMILE[1](images)))
    found = smile_metrics(REAL["target"], blind)
    assert found["no_face"] == 6 - found["subjects"] > 0 and found["followed"] == pytest.approx(1, abs=0.02)


def test_the_person_stays_or_becomes_the_donor():
    stays = identity_metrics(REAL["target"])
    assert stays["distance"] == pytest.approx(0, abs=1e-6) and stays["nearer_than_donor"] == 1
    assert stays["real_distance"] == pytest.approx(0, abs=1e-6) and stays["donor_distance"] > 0.05
    becomes = identity_metrics(REAL["donor"])
    assert becomes["nearer_than_donor"] == 0 and becomes["donor_distance"] == pytest.approx(0, abs=1e-6)
