"""One picture in: a network that gives the real smile, one that moves half way, and one that does not move."""

import numpy as np
import pytest
from tiny_run import flat_face

from facedisent_jax.data.record import MOUTH, Faces, Record
from facedisent_jax.evaluation.judges import Judge
from facedisent_jax.evaluation.one_picture import STRENGTHS, OnePicture, end_pairs, one_picture_metrics

SMILE = Judge("brightness of the mouth", lambda images: images[:, MOUTH[0], MOUTH[1]].mean((1, 2, 3)))
IDENTITY = Judge("colour of the cheeks", lambda images: images[:, 32:36].mean((1, 2)))


def record(subject: str, person: int, intensity: float, expression: str = "smile") -> Record:
    expression = expression if intensity else "neutral"
    return Record(flat_face(person, intensity), subject=subject, expression=expression, intensity=intensity)


FACES = Faces.of([record(f"p{k}", k, intensity) for k in range(4) for intensity in (0.0, 1.0)])
NEUTRAL_ROWS, FULL_ROWS = np.arange(0, 8, 2), np.arange(1, 8, 2)


def measured(reached: float) -> dict:
    """The metrics of a network that goes this share of the way at strength 1."""
    neutral, full = FACES.image[NEUTRAL_ROWS] / np.float32(255), FACES.image[FULL_ROWS] / np.float32(255)
    decoded = np.stack([neutral + reached * strength * (full - neutral) for strength in STRENGTHS], axis=1)
    out = OnePicture(NEUTRAL_ROWS, FULL_ROWS, decoded, decoded[:, -1])
    return one_picture_metrics(FACES, out, SMILE, IDENTITY)


def test_the_rise_is_the_share_of_the_real_rise():
    for reached in (1.0, 0.5, 0.0):
        values = measured(reached)
        assert values["rise_at"] == pytest.approx([reached * strength for strength in STRENGTHS], abs=1e-4)
        assert values["rise"] == values["own_code_rise"] == values["rise_at"][-1]


def test_the_real_smile_is_sharp_and_like_itself_and_the_neutral_image_is_the_baseline():
    real, still = measured(1.0), measured(0.0)
    assert real["sharpness"] == pytest.approx(1) and real["identity"] == pytest.approx(real["real_identity"])
    assert real["psnr"] > 60 and real["psnr_mouth"] > 60
    assert still["psnr"] == pytest.approx(still["unchanged_psnr"]) and still["identity"] == 0
    assert real["unchanged_psnr"] == still["unchanged_psnr"]
    assert still["gain"] == still["gain_mouth"] == 0
    half, gains = measured(0.5), 20 * np.log10(2)  # half of the error, for everybody
    assert half["gain_mouth"] == pytest.approx(gains, abs=1e-3) and half["gain_ci95"] == pytest.approx(
        [gains] * 2, abs=1e-3
    )


def test_without_judges_there_is_no_rise_and_no_identity():
    out = OnePicture(NEUTRAL_ROWS, FULL_ROWS, np.zeros((4, 4, 64, 64, 3), np.float32), np.zeros((4, 64, 64, 3)))
    values = one_picture_metrics(FACES, out, None, None)
    assert not {"rise", "identity"} & set(values) and values["people"] == 4


def test_a_pair_is_of_one_person_and_of_an_expression_that_the_model_knows():
    records = [
        record("a", 0, 0.0), record("a", 0, 1.0), record("b", 1, 0.0), record("b", 1, 0.5),
        record("c", 2, 1.0), record("d", 3, 0.0), record("d", 3, 1.0, "surprise"),
        record("", 4, 0.0), record("", 4, 1.0),
    ]  # fmt: skip
    neutral, full = end_pairs(Faces.of(records), ["smile"])
    assert (neutral.tolist(), full.tolist()) == ([0], [1])
