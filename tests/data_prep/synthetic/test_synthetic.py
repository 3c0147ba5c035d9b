"""The built-in faces: the same on every machine, clearly different people, and a smile that moves only the face."""

import subprocess
import sys

import numpy as np
import pytest
from tiny_run import ROOT

from data_prep.synthetic.faces import draw, draw_levels, random_identity, records, subject_records, take_intensities
from facedisent_jax.config import IMAGE_SIZE
from facedisent_jax.errors import UserError

LEVELS = np.linspace(0, 1, 11)
PEOPLE = 24


@pytest.fixture(scope="module")
def people() -> np.ndarray:
    """[people, levels, 64, 64, 3] float in [0, 1]."""
    return np.stack([draw_levels(random_identity(0, n), LEVELS) for n in range(PEOPLE)]).astype(np.float32) / 255


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(-10 * np.log10(((a - b) ** 2).mean()))


def test_a_person_is_a_pure_function_of_seed_and_number():
    assert random_identity(3, 7) == random_identity(3, 7)
    assert random_identity(3, 7) != random_identity(3, 8)
    assert random_identity(3, 7) != random_identity(4, 7)
    image, equal_image = draw(random_identity(3, 7), 0.5), draw(random_identity(3, 7), 0.5)
    assert image.shape == (IMAGE_SIZE, IMAGE_SIZE, 3) and image.dtype == np.uint8
    assert image.tobytes() == equal_image.tobytes()


def test_an_image_does_not_depend_on_the_levels_drawn_with_it():
    identity = random_identity(0, 1)
    images = draw_levels(identity, [0.0, 0.3, 1.0])
    for level, image in zip([0.0, 0.3, 1.0], images, strict=True):
        assert np.array_equal(image, draw(identity, level))


def test_intensity_out_of_range_is_refused():
    with pytest.raises(ValueError, match="must be from 0 to 1, got"):
        draw(random_identity(0, 0), 1.2)


def test_smile_grows_with_intensity_in_the_mouth_region(people):
    mouth = people[:, :, 38:60, 14:50]
    distance = np.sqrt(((mouth - mouth[:, :1]) ** 2).mean((2, 3, 4)))
    assert (np.diff(distance, axis=1) > 0).all()
    assert (distance[:, -1] > 10 ** (-28 / 20)).all(), "a full smile is clearly another image for every person"


def test_smile_comes_in_even_steps(people):
    steps = np.sqrt((np.diff(people, axis=1) ** 2).mean((2, 3, 4)))
    assert (steps.max(1) < 4.5 * steps.min(1)).all()


def test_smile_leaves_forehead_and_background_alone(people):
    change = np.abs(people - people[:, :1]).max((0, 1, 4))
    assert change[:12].max() == 0
    assert change[:, :4].max() <= 1.01 / 255 and change[:, -4:].max() <= 1.01 / 255


def test_people_are_clearly_different(people):
    neutral_images = people[:, 0]
    pairs = [psnr(neutral_images[i], neutral_images[j]) for i in range(PEOPLE) for j in range(i)]
    assert np.mean(pairs) <= 16
    assert max(pairs) < 32, "no two people look alike"


def test_images_are_well_exposed(people):
    assert people.mean() > 0.25
    assert (people >= 1).mean() < 0.01


def test_edges_are_antialiased(people):
    """Across most edges lies a pixel of an intermediate value: few jumps happen in one step."""
    grey = people[:, 0].mean(-1)
    one_step, two_steps = np.abs(np.diff(grey, axis=2))[:, :, :-1], np.abs(grey[:, :, 2:] - grey[:, :, :-2])
    edges = two_steps > 0.2
    assert edges.sum() > 1000
    assert (one_step[edges] / two_steps[edges] > 0.9).mean() < 0.2


def test_stills_run_from_neutral_to_smile():
    keys, stills = zip(*records(2, seed=5), strict=True)
    assert len(set(keys)) == len(keys) == 22
    assert {r.subject for r in stills} == {"p0000", "p0001"}
    assert [r.expression for r in stills[:11]] == ["neutral"] + ["smile"] * 10
    assert np.allclose([r.intensity for r in stills[:11]], LEVELS)
    assert np.array_equal(stills[14].image, draw(random_identity(5, 1), 0.3))


def test_two_levels_are_the_binary_case():
    neutral, smile = (record for _, record in records(1, levels=2))
    assert (neutral.expression, neutral.intensity, smile.expression, smile.intensity) == ("neutral", 0, "smile", 1)


def test_clips_start_and_end_neutral_and_peak_at_one():
    clips = [record for _, record in records(1, stills=False, clips=2)]
    assert {r.sequence for r in clips} == {"take000", "take001"}
    assert {r.expression for r in clips} == {"smile"}
    for name in ("take000", "take001"):
        take = [r for r in clips if r.sequence == name]
        levels = np.array([r.intensity for r in take])
        assert 24 <= len(take) <= 40
        assert [r.frame for r in take] == list(range(len(take)))
        assert levels[0] == levels[-1] == 0 and levels.max() == 1
        top = int(levels.argmax())
        assert (np.diff(levels[: top + 1]) >= 0).all() and (np.diff(levels[top:]) <= 0).all()


def test_takes_have_24_to_40_frames():
    lengths = {len(take_intensities(0, subject, take)) for subject in range(300) for take in range(2)}
    assert min(lengths) >= 24 and max(lengths) <= 40


def test_any_number_of_workers_gives_the_same_records():
    serial_records, parallel_records = list(records(3, levels=2)), list(records(3, levels=2, workers=2))
    assert [key for key, _ in serial_records] == [key for key, _ in parallel_records]
    for (_, a), (_, b) in zip(serial_records, parallel_records, strict=True):
        assert np.array_equal(a.image, b.image) and a[1:] == b[1:]


def test_the_records_of_one_subject_are_those_of_the_whole_set():
    assert [key for key, _ in subject_records(1, levels=3)] == [key for key, _ in records(2, levels=3)][3:]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"subjects": 0}, "--subjects must be at least 1, got 0"),
        ({"subjects": 1, "levels": 1}, "--levels must be at least 2 .*, got 1"),
        ({"subjects": 1, "stills": False}, "--clips must be at least 1 with --no-stills, got 0"),
        ({"subjects": 1, "seed": -1}, "--seed must be at least 0, got -1"),
    ],
)
def test_impossible_numbers_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        list(records(**options))


def test_drawing_imports_no_heavy_library():
    """With TensorFlow or JAX, each process that draws would take seconds to start."""
    code = "import sys, data_prep.synthetic.drawing; print(*sorted({name.split('.')[0] for name in sys.modules}))"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT).stdout
    assert "numpy" in modules.split()
    assert not {"tensorflow", "jax", "matplotlib", "cv2"} & set(modules.split())
