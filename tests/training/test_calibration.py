"""The scale of a full expression: what is asked for is what an image shows."""

import numpy as np
import pytest
from tiny_run import person

from facedisent_jax.config import Config, ModelConfig
from facedisent_jax.data.record import MOUTH, Faces
from facedisent_jax.data.triplets import Triplets
from facedisent_jax.training import calibration
from facedisent_jax.training.calibration import INTENSITIES, calibrate, invert

CONFIG = Config(model=ModelConfig(width=128, blocks=1))


def test_a_curve_is_inverted():
    assert invert(INTENSITIES) == pytest.approx(np.linspace(0, 1, 11), abs=1e-5)
    assert invert(INTENSITIES / 1.25)[-1] == pytest.approx(1.25, abs=1e-5)  # the images show too little
    assert invert(INTENSITIES**2)[5] == pytest.approx(0.5**0.5, abs=0.03)  # and too late
    assert invert(0.4 * INTENSITIES)[5:] == pytest.approx(np.linspace(0.75, 1.5, 6), abs=1e-4)  # they never show 1
    assert np.all(np.diff(invert(np.array([0, 0.4, 0.3, 0.6, 0.5, 0.9, 1.2]))) >= 0)


def calibrated(monkeypatch, share: float) -> dict[str, list[float]]:
    """The calibration of a network whose mouths move this share of the way that its code moves."""
    faces = Faces.of([r for k in range(6) for r in person(k, [0, 0.5, 1.0])])
    full = faces.image[faces.intensity == 1].astype(np.float32).mean(0) / 255
    neutral = faces.image[faces.intensity == 0].astype(np.float32).mean(0) / 255

    def decode(config, params, images, expression):
        way = share * np.asarray(expression)[:, :1, None, None]
        out = np.asarray(images, np.float32) / 255
        out[:, MOUTH[0], MOUTH[1]] += way * (full - neutral)[MOUTH]
        return out

    monkeypatch.setattr(calibration, "encode_expression", lambda *_: np.zeros((48, 64)))
    monkeypatch.setattr(calibration, "_decode", decode)
    means = {"neutral": [0.0] * 64, "smile": [1.0] * 64}
    return calibrate(CONFIG, None, Triplets(faces), means)


def test_a_network_that_moves_too_little_is_asked_for_more(monkeypatch):
    for share in (1.0, 0.8):
        curve = calibrated(monkeypatch, share)["smile"]
        assert curve[0] == 0 and curve[5] == pytest.approx(0.5 / share, abs=0.05)
        assert curve[10] == pytest.approx(1 / share, abs=0.08)


def test_a_network_that_hardly_moves_yet_is_not_calibrated(monkeypatch):
    assert calibrated(monkeypatch, 0.05) == {}


def test_without_neutral_images_nothing_is_calibrated():
    faces = Faces.of([r for k in range(3) for r in person(k, [1.0])])
    assert calibrate(CONFIG, None, Triplets(faces), {"smile": [1.0] * 64}) == {}
