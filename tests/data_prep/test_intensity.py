"""The intensity measures follow the expression, and neither the head, the light nor flicker."""

from pathlib import Path

import numpy as np
import pytest
from extras import needs
from PIL import Image
from scipy.stats import spearmanr
from tiny_run import SHARED

from data_prep import intensity
from data_prep.__main__ import main
from data_prep.intensity import TakeError
from data_prep.layouts import csv_labels
from data_prep.output import inspect
from data_prep.synthetic.faces import draw_levels, random_identity, take_intensities

CLIPS = SHARED / "data" / "london_sequences_derived"
MODEL = SHARED / "models" / "face_landmarker.task"
needs_london_clips = pytest.mark.skipif(not CLIPS.is_dir(), reason="the derived London clips are not on this machine")


def test_the_onset_runs_from_the_last_frame_below_5_to_the_first_above_95_percent():
    assert intensity.onset_length([0, 0, 0.04, 0.1, 0.5, 0.9, 0.96, 1, 0.5, 0]) == 5
    assert intensity.onset_length(np.array([0, 0, 0.04, 0.1, 0.5, 0.9, 0.96, 1, 0.5, 0]) / 2) == 5, (
        "relative to the take's own range"
    )
    assert intensity.onset_length([1, 0.5, 0]) == 0 and intensity.onset_length([0.3, 0.3]) == 0


def test_a_short_onset_gets_a_remark_and_below_the_minimum_an_error():
    rise = [0, 0.3, 0.6, 1]
    assert intensity.check_onset(rise, 0) == ["onset of fewer than 8 frames: 4"]
    assert intensity.check_onset(np.linspace(0, 1, 9), 9) == []
    with pytest.raises(TakeError, match="fewer than 5 frames: 4"):
        intensity.check_onset(rise, 5)


def test_a_measure_in_any_unit_is_scaled_between_neutral_and_apex():
    truth = take_intensities(0, 0, 0)
    for unit, offset in ((0.01, 0.0), (30.0, -7.0)):
        values = intensity.scale_to_apex(unit * truth + offset)
        assert values[0] == 0 and values.max() == 1 and np.abs(values - truth).max() < 0.1


def test_flicker_is_smoothed_and_is_not_taken_for_an_expression():
    rng = np.random.default_rng(0)
    truth = take_intensities(0, 1, 0)
    values = truth + rng.normal(0, 0.03, len(truth))
    assert np.abs(intensity.scale_to_apex(values) - truth).mean() < 0.06
    with pytest.raises(TakeError, match="nothing moves in its take: .* at least 5 times the flicker .*, got"):
        intensity.scale_to_apex(rng.normal(0, 1, 40))
    with pytest.raises(TakeError, match="nothing moves in its take: all frames are alike"):
        intensity.scale_to_apex(np.ones(40))


def test_a_take_that_falls_from_its_first_frame_does_not_begin_neutral():
    with pytest.raises(TakeError, match="does not begin neutral"):
        intensity.scale_to_apex(np.linspace(1, 0, 20))
    with pytest.raises(TakeError, match="does not begin neutral"):
        intensity.scale_to_apex(np.concatenate([np.linspace(0.6, 0, 10), np.linspace(0, 1, 10)]))
    with pytest.raises(TakeError, match="fewer than 3 frames: 2"):
        intensity.measure_take(np.zeros((2, 64, 64, 3), np.uint8))


def with_head_motion(images: np.ndarray) -> np.ndarray:
    """The same frames with the head moving by up to two pixels of 64, turning by 2 degrees, in flickering light."""
    frames = []
    for k, image in enumerate(images):
        canvas = Image.fromarray(np.pad(image, ((8, 8), (8, 8), (0, 0)), mode="edge"))
        shift = (2 * np.sin(k / 4), 1.5 * np.cos(k / 3) - 1.5)
        frame = canvas.rotate(2 * np.sin(k / 5), Image.Resampling.BICUBIC, translate=None)
        frame = frame.transform(canvas.size, Image.Transform.AFFINE, (1, 0, shift[0], 0, 1, shift[1]), 3)
        light = 1 + 0.1 * np.sin(k)
        frames.append(np.clip(np.asarray(frame)[8:-8, 8:-8] * light, 0, 255).astype(np.uint8))
    return np.stack(frames)


@pytest.mark.parametrize("subject", range(6))
def test_image_motion_follows_the_smile_of_the_drawn_people(subject):
    truth = take_intensities(0, subject, 0)
    images = draw_levels(random_identity(0, subject), truth)
    values, _ = intensity.measure_take(images)
    assert spearmanr(values, truth)[0] > 0.95 and np.abs(values - truth).mean() < 0.08


def test_image_motion_follows_the_smile_and_not_the_head():
    errors, errors_without_registration = [], []
    for subject in range(8):
        truth = take_intensities(0, subject, 0)
        images = with_head_motion(draw_levels(random_identity(0, subject), truth))
        errors.append(np.abs(intensity.measure_take(images)[0] - truth).mean())
        mouth = images[:, 38:60, 14:50].astype(float)
        values = intensity.scale_to_apex(np.abs(mouth - mouth[:1]).mean((1, 2, 3)))
        errors_without_registration.append(np.abs(values - truth).mean())
    assert np.mean(errors) < 0.1 < np.mean(errors_without_registration)


SMILE = {61: (-0.1, -0.1), 291: (0.1, -0.1)}
BROWS = {70: (0.0, -0.2), 300: (0.0, -0.2), 105: (0.0, -0.2), 334: (0.0, -0.2)}
"""Point of the mesh -> shift at the apex, in eye distances."""


def mesh_at(level: float, shifts: dict[int, tuple[float, float]], rng) -> np.ndarray:
    """A made-up mesh [478, 3]: some points shift with the level, and the head turns, moves and changes its size."""
    points = np.random.default_rng(1).normal(0, 40, (478, 3))
    points[33], points[263] = (-50, 0, 0), (50, 0, 0)
    points[61], points[291] = (-30, 60, 0), (30, 60, 0)
    for point, shift in shifts.items():
        points[point, :2] += 100 * level * np.array(shift)
    for axis, angle in enumerate(rng.normal(0, 0.15, 3)):
        rotation, (i, j) = np.eye(3), [k for k in range(3) if k != axis]
        rotation[[i, i, j, j], [i, j, i, j]] = np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)
        points = points @ rotation
    return points * rng.uniform(0.9, 1.1) + rng.normal(0, 20, 3)


def blank_images(count: int) -> np.ndarray:
    return np.zeros((count, 64, 64, 3), np.uint8)


def test_frames_below_the_first_one_are_neutral_and_get_a_remark():
    levels = np.concatenate([np.linspace(0.4, 0, 8), np.linspace(0, 1, 12)])
    mesh = np.stack([mesh_at(level, SMILE, np.random.default_rng(3)) for level in levels])
    values, remarks = intensity.measure_take(blank_images(20), mesh)
    assert values[0] == 0 and values.min() == 0 and values.max() == 1
    assert len(remarks) == 1 and remarks[0].startswith("frames below the first one count as neutral too: down to -0.")


def test_the_mesh_measure_follows_the_mouth_corners_and_not_the_head():
    rng, truth = np.random.default_rng(0), take_intensities(0, 2, 0)
    mesh = np.stack([mesh_at(level, SMILE, rng) for level in truth])
    smile = intensity.mesh_smile(mesh)
    # each corner moves 0.1 eye distances outwards and 0.1 up: width 0.2 + lift 0.1
    assert smile - smile[0] == pytest.approx(0.3 * truth, abs=0.005)
    values, _ = intensity.measure_take(blank_images(len(truth)), mesh)
    assert np.abs(values - truth).max() < 0.1


def test_other_expressions_are_measured_by_the_motion_of_the_whole_face():
    rng, truth = np.random.default_rng(0), take_intensities(0, 3, 0)
    mesh = np.stack([mesh_at(level, BROWS, rng) for level in truth])
    values, _ = intensity.measure_take(blank_images(len(truth)), mesh, is_smile=False)
    assert np.abs(values - truth).max() < 0.1
    with pytest.raises(TakeError, match="nothing moves"):
        intensity.measure_take(blank_images(len(truth)), mesh, is_smile=True)


def labelled_folder(tmp_path: Path) -> tuple[Path, Path]:
    """A data folder with labelled takes of three drawn people, and other labels that are up to 0.1 too high."""
    labels, biased_labels = ["subject,take,frame,intensity"], ["subject,take,frame,intensity"]
    for subject in (1, 2, 3):
        folder = tmp_path / f"raw/00{subject}/happiness/take000"
        folder.mkdir(parents=True)
        levels = take_intensities(0, subject, 0).round(4)
        for k, image in enumerate(draw_levels(random_identity(0, subject), levels)):
            Image.fromarray(image).save(folder / f"img_{k:04}.png")
            labels.append(f"00{subject},take000,{k},{levels[k]:.4f}")
            biased_labels.append(f"00{subject},take000,{k},{0.9 * levels[k] + 0.1 * (levels[k] > 0):.4f}")
    (tmp_path / "labels.csv").write_text("\n".join(labels))
    (tmp_path / "biased.csv").write_text("\n".join(biased_labels))
    options = ["--labels", str(tmp_path / "labels.csv"), "--workers", "1", "--subject-pattern", "[1-9]"]
    main(["mug", str(tmp_path / "raw"), str(tmp_path / "out"), *options])
    return tmp_path / "out", tmp_path / "biased.csv"


@pytest.mark.slow
def test_inspect_draws_the_curves_and_compares_them_with_a_truth(tmp_path, capsys):
    out, biased_labels = labelled_folder(tmp_path)
    main(["inspect", str(out), "--truth", str(tmp_path / "labels.csv")])
    assert "take000                  3     1.000    1.00   0.000" in capsys.readouterr().out
    main(["inspect", str(out), "--truth", str(biased_labels)])
    table = capsys.readouterr().out.split("compared with the truth: 3 of 3 takes")[1]
    rank, _, error = table.split("take000")[1].split()[1:4]
    curves = inspect.intensity_curves(out)
    values = np.concatenate([list(curve.values()) for curve in curves.values()])
    assert rank == "1.000" and float(error) == pytest.approx((0.1 * (1 - values) * (values > 0)).mean(), abs=0.02)
    with Image.open(out / "intensity_curves.png") as image:
        assert image.size[0] > 600 and len(set(np.asarray(image.convert("L")).ravel().tolist())) > 20
    assert set(curves) == {(name, "smile", "take000") for name in "123"}
    truth = inspect.truth_from_labels(csv_labels.read_frame_labels(tmp_path / "labels.csv"), out)
    assert all(inspect.true_curve(truth, name, curve) == pytest.approx(curve) for name, curve in curves.items())


def test_stills_have_no_curves(tmp_path):
    (raw := tmp_path / "raw").mkdir()
    for subject in "12":
        Image.fromarray(draw_levels(random_identity(0, 0), [0.0])[0]).save(raw / f"{subject}_neutral.png")
    pattern = r"(?P<subject>\d)_(?P<expression>\w+)\.png"
    main(["folder", str(raw), str(tmp_path / "out"), "--pattern", pattern, "--workers", "1"])
    main(["inspect", str(tmp_path / "out")])
    assert not (tmp_path / "out" / "intensity_curves.png").exists()


def link_london_clips(raw: Path, people: int) -> Path:
    """Links to the first takes of some people of the derived London clips."""
    for folder in sorted((CLIPS / "clips").iterdir())[:people]:
        (raw / folder.name / "happiness").mkdir(parents=True)
        link = raw / folder.name / "happiness" / "take000"
        link.symlink_to(folder / "happiness" / "take000", target_is_directory=True)
    return raw


@needs_london_clips
@pytest.mark.parametrize("kind", ["motion", pytest.param("landmarks", marks=needs("landmarks", "ai_edge_litert"))])
def test_measured_intensities_are_close_to_the_truth_of_the_london_clips(tmp_path, kind):
    options = ["--intensity", kind]
    if kind == "landmarks":
        options += ["--landmarker", str(MODEL)]
    out = tmp_path / "out"
    main(["mug", str(link_london_clips(tmp_path / "raw", 6)), str(out), "--workers", "1", *options])
    curves = inspect.intensity_curves(out)
    truth = inspect.truth_from_labels(csv_labels.read_frame_labels(CLIPS / "labels.csv"), out)
    text = inspect.compare_with_truth(curves, truth)
    rank, error = (float(text.splitlines()[2].split()[k]) for k in (2, 4))
    assert len(curves) == 6 and rank > 0.95 and error < 0.08, text
