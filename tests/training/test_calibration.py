"""The scale of a full expression: what is asked for is what an image shows."""

from functools import cache

import numpy as np
import pytest
from tiny_run import person
from tiny_triplets import face

from data_prep.synthetic.drawing import draw_levels
from data_prep.synthetic.identity import random_identity
from facedisent_jax.config import Config, ModelConfig
from facedisent_jax.data.record import Faces
from facedisent_jax.data.triplets import Triplets
from facedisent_jax.training import calibration
from facedisent_jax.training.calibration import INTENSITIES, calibrate, full_intensity
from facedisent_jax.training.edge_reader import DIRECTIONS, edges

CONFIG = Config(model=ModelConfig(width=128, blocks=1))
LEVELS = np.linspace(0, 1, 11)


def test_full_is_the_lowest_intensity_from_one_that_shows_one_or_else_nearly_the_most():
    assert full_intensity(INTENSITIES) == pytest.approx(1, abs=1e-5)
    assert full_intensity(INTENSITIES / 1.25) == pytest.approx(1.25, abs=1e-5)  # the images show too little
    assert full_intensity(0.4 * INTENSITIES) == pytest.approx(0.95 * 1.5, abs=1e-4)  # they never show 1
    assert full_intensity(np.minimum(INTENSITIES, 0.75)) == 1  # nothing changes beyond
    assert full_intensity(1.25 * INTENSITIES) == 1  # the images show 1 before: the code keeps its meaning
    dips_later = np.array([0, 0.5, 1.25, 0.75])
    assert full_intensity(dips_later) == pytest.approx(1 + 0.25 * 0.5 / 0.75, abs=1e-4)


@cache
def drawn_people() -> list[np.ndarray]:
    return [draw_levels(random_identity(0, k), LEVELS) for k in range(60)]


def measured_full_intensity(monkeypatch, decode_at) -> float | None:
    """That of a network whose images are `decode_at(images of one drawn person, intensity of the code)`."""
    people = drawn_people()
    faces = Faces.of(
        [face(f"p{k}", "smile" if y else "neutral", y)._replace(image=image)
         for k, images in enumerate(people) for y, image in zip(LEVELS, images, strict=True)]
    )  # fmt: skip
    images_by_neutral = {images[0].tobytes(): images / np.float32(255) for images in people}

    def decode(config, params, images, expression):
        return np.stack([decode_at(images_by_neutral[np.asarray(i).tobytes()], expression[0, 0]) for i in images])

    monkeypatch.setattr(calibration, "encode_expression", lambda *_: np.zeros((48, 64)))
    monkeypatch.setattr(calibration, "_decode", decode)
    means = {"neutral": [0.0] * 64, "smile": [1.0] * 64}
    return calibrate(CONFIG, None, Triplets(faces), means).get("smile")


def test_a_network_that_moves_too_little_is_asked_for_more(monkeypatch):
    for share in (1.0, 0.8):
        full = measured_full_intensity(
            monkeypatch, lambda images, y, share=share: images[round(10 * min(share * float(y), 1))]
        )
        assert full == pytest.approx(1 / share, abs=0.08)


def test_edges_say_where_they_are_and_in_which_direction_at_any_contrast():
    """A step from dark to bright at row 48, across columns 8 to 31: at an angle of half of half a turn."""
    image = np.zeros((1, 64, 64, 3), np.float32)
    image[:, 48:, 8:32] = 1
    image[:, :, :8] = image[:, :, 8:9]  # no edge at the left
    strength = edges(image).reshape(8, 12, DIRECTIONS)  # cells, from row 32 and column 8
    assert set(zip(*np.nonzero(strength[:, :5].sum(-1)), strict=True)) == {(k, j) for k in (3, 4) for j in range(5)}
    assert strength[3, 0, DIRECTIONS // 2] == pytest.approx(strength[3, 0].sum())
    assert edges(0.3 * image + 0.2) == pytest.approx(edges(image), rel=1e-3)


def test_a_network_that_hardly_moves_yet_is_not_calibrated(monkeypatch):
    assert measured_full_intensity(monkeypatch, lambda images, y: images[round(float(y))]) is None


def test_without_neutral_images_nothing_is_calibrated():
    faces = Faces.of([r for k in range(3) for r in person(k, [1.0])])
    assert calibrate(CONFIG, None, Triplets(faces), {"smile": [1.0] * 64}) == {}
