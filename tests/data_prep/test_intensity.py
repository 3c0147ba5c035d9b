"""Frames of a take -> intensities: what the measures follow, and what they must not follow."""

from pathlib import Path

import numpy as np
import pytest
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
needs_clips = pytest.mark.skipif(not CLIPS.is_dir(), reason="the derived London clips are not on this machine")


def test_the_onset_runs_from_the_last_frame_below_5_to_the_first_above_95_percent():
    assert intensity.onset([0, 0, 0.04, 0.1, 0.5, 0.9, 0.96, 1, 0.5, 0]) == 5
    assert intensity.onset(np.array([0, 0, 0.04, 0.1, 0.5, 0.9, 0.96, 1, 0.5, 0]) / 2) == 5, "of the take's own range"
    assert intensity.onset([1, 0.5, 0]) == 0 and intensity.onset([0.3, 0.3]) == 0


def test_a_short_onset_is_remarked_on_and_refused_where_more_is_asked_for():
    rise = [0, 0.3, 0.6, 1]
    assert intensity.check_onset(rise, 0) == ["onset of fewer than 8 frames: 4"]
    assert intensity.check_onset(np.linspace(0, 1, 9), 9) == []
    with pytest.raises(TakeError, match="fewer than 5 frames: 4"):
        intensity.check_onset(rise, 5)


def test_a_measure_is_scaled_between_neutral_and_apex_whatever_its_unit():
    truth = take_intensities(0, 0, 0)
    for unit, offset in ((0.01, 0.0), (30.0, -7.0)):
        got = intensity.scaled(unit * truth + offset)
        assert got[0] == 0 and got.max() == 1 and np.abs(got - truth).max() < 0.1


def test_flicker_is_smoothed_and_alone_is_no_action():
    rng = np.random.default_rng(0)
    truth = take_intensities(0, 1, 0)
    noisy = truth + rng.normal(0, 0.03, len(truth))
    assert np.abs(intensity.scaled(noisy) - truth).mean() < 0.06
    with pytest.raises(TakeError, match="nothing moves in its take: .* times the flicker .*, 5 were"):
        intensity.scaled(rng.normal(0, 1, 40))
    with pytest.raises(TakeError, match="nothing moves in its take: all frames are alike"):
        intensity.scaled(np.ones(40))


def test_a_take_that_falls_from_its_first_frame_does_not_begin_neutral():
    with pytest.raises(TakeError, match="does not begin neutral"):
        intensity.scaled(np.linspace(1, 0, 20))
    with pytest.raises(TakeError, match="does not begin neutral"):
        intensity.scaled(np.concatenate([np.linspace(0.6, 0, 10), np.linspace(0, 1, 10)]))
    with pytest.raises(TakeError, match="fewer than 3 frames: 2"):
        intensity.of_take(np.zeros((2, 64, 64, 3), np.uint8))


def moved(images: np.ndarray) -> np.ndarray:
    """The same frames with the head going two pixels of 64 to and fro, turning by 2 degrees, in flickering light."""
    out = []
    for k, image in enumerate(images):
        large = Image.fromarray(np.pad(image, ((8, 8), (8, 8), (0, 0)), mode="edge"))
        shift = (2 * np.sin(k / 4), 1.5 * np.cos(k / 3) - 1.5)
        turned = large.rotate(2 * np.sin(k / 5), Image.Resampling.BICUBIC, translate=None)
        turned = turned.transform(large.size, Image.Transform.AFFINE, (1, 0, shift[0], 0, 1, shift[1]), 3)
        light = 1 + 0.1 * np.sin(k)
        out.append(np.clip(np.asarray(turned)[8:-8, 8:-8] * light, 0, 255).astype(np.uint8))
    return np.stack(out)


@pytest.mark.parametrize("who", range(6))
def test_motion_follows_the_smile_of_the_drawn_people(who):
    truth = take_intensities(0, who, 0)
    images = draw_levels(random_identity(0, who), truth)
    got, _ = intensity.of_take(images)
    assert spearmanr(got, truth)[0] > 0.95 and np.abs(got - truth).mean() < 0.08


def test_motion_follows_the_smile_and_not_the_head():
    errors, plain = [], []
    for who in range(8):
        truth = take_intensities(0, who, 0)
        images = moved(draw_levels(random_identity(0, who), truth))
        errors.append(np.abs(intensity.of_take(images)[0] - truth).mean())
        mouth = images[:, 38:60, 14:50].astype(float)
        plain.append(np.abs(intensity.scaled(np.abs(mouth - mouth[:1]).mean((1, 2, 3))) - truth).mean())
    assert np.mean(errors) < 0.1 < np.mean(plain)


def mesh_of(level: float, actions: dict[int, tuple[float, float]], rng) -> np.ndarray:
    """A made-up mesh [478, 3] in which some points go some way (in eye distances) with the level; the head turns."""
    at = np.random.default_rng(1).normal(0, 40, (478, 3))
    at[33], at[263] = (-50, 0, 0), (50, 0, 0)
    at[61], at[291] = (-30, 60, 0), (30, 60, 0)
    for point, way in actions.items():
        at[point, :2] += 100 * level * np.array(way)
    angles = rng.normal(0, 0.15, 3)
    for axis, angle in enumerate(angles):
        turn, (i, j) = np.eye(3), [k for k in range(3) if k != axis]
        turn[[i, i, j, j], [i, j, i, j]] = np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)
        at = at @ turn
    return at * rng.uniform(0.9, 1.1) + rng.normal(0, 20, 3)


def test_frames_below_the_first_one_are_neutral_and_that_is_said():
    levels = np.concatenate([np.linspace(0.4, 0, 8), np.linspace(0, 1, 12)])
    points = np.stack([mesh_of(level, SMILE, np.random.default_rng(3)) for level in levels])
    values, remarks = intensity.of_take(np.zeros((20, 64, 64, 3), np.uint8), points)
    assert values[0] == 0 and values.min() == 0 and values.max() == 1
    assert len(remarks) == 1 and remarks[0].startswith(
        "frames below the first one, taken to be neutral too: down to -0."
    )


SMILE = {61: (-0.1, -0.1), 291: (0.1, -0.1)}
BROWS = {70: (0, -0.2), 300: (0, -0.2), 105: (0, -0.2), 334: (0, -0.2)}


def test_landmarks_follow_the_corners_of_the_mouth_and_not_the_head():
    rng, truth = np.random.default_rng(0), take_intensities(0, 2, 0)
    points = np.stack([mesh_of(level, SMILE, rng) for level in truth])
    smile = intensity.smile_of(points)
    # the corners go 0.1 eye distances apart each and 0.1 up: 0.2 + 0.1
    assert smile - smile[0] == pytest.approx(0.3 * truth, abs=0.005)
    got, _ = intensity.of_take(np.zeros((len(truth), 64, 64, 3), np.uint8), points)
    assert np.abs(got - truth).max() < 0.1


def test_other_expressions_are_measured_by_how_far_the_whole_face_goes():
    rng, truth = np.random.default_rng(0), take_intensities(0, 3, 0)
    points = np.stack([mesh_of(level, BROWS, rng) for level in truth])
    images = np.zeros((len(truth), 64, 64, 3), np.uint8)
    got, _ = intensity.of_take(images, points, smile=False)
    assert np.abs(got - truth).max() < 0.1
    with pytest.raises(TakeError, match="nothing moves"):
        intensity.of_take(images, points, smile=True)


def made(tmp_path: Path) -> tuple[Path, Path]:
    """A data folder of two drawn people's takes with labels, and other labels that are 0.1 off where that can be."""
    lines, off = ["subject,take,frame,intensity"], ["subject,take,frame,intensity"]
    for who in (1, 2, 3):
        folder = tmp_path / f"raw/00{who}/happiness/take000"
        folder.mkdir(parents=True)
        levels = take_intensities(0, who, 0).round(4)
        for k, image in enumerate(draw_levels(random_identity(0, who), levels)):
            Image.fromarray(image).save(folder / f"img_{k:04}.png")
            lines.append(f"00{who},take000,{k},{levels[k]:.4f}")
            off.append(f"00{who},take000,{k},{0.9 * levels[k] + 0.1 * (levels[k] > 0):.4f}")
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    (tmp_path / "off.csv").write_text("\n".join(off))
    options = ["--labels", str(tmp_path / "labels.csv"), "--workers", "1", "--subject-pattern", "[1-9]"]
    main(["mug", str(tmp_path / "raw"), str(tmp_path / "out"), *options])
    return tmp_path / "out", tmp_path / "off.csv"


def test_inspect_draws_the_curves_and_tells_how_far_from_the_truth_they_are(tmp_path, capsys):
    out, off = made(tmp_path)
    main(["inspect", str(out), "--truth", str(tmp_path / "labels.csv")])
    assert "take000                  3     1.000    1.00   0.000" in capsys.readouterr().out
    main(["inspect", str(out), "--truth", str(off)])
    table = capsys.readouterr().out.split("against the truth: 3 of 3 takes")[1]
    rank, _, error = table.split("take000")[1].split()[1:4]
    takes = inspect.takes(out)
    values = np.concatenate([list(frames.values()) for frames in takes.values()])
    assert rank == "1.000" and float(error) == pytest.approx((0.1 * (1 - values) * (values > 0)).mean(), abs=0.02)
    with Image.open(out / "intensity_curves.png") as picture:
        assert picture.size[0] > 600 and len(set(np.asarray(picture.convert("L")).ravel().tolist())) > 20
    assert set(takes) == {(name, "smile", "take000") for name in "123"}
    truth = inspect.of_labels(csv_labels.frame_intensities(tmp_path / "labels.csv"), out)
    assert all(inspect.true_curve(truth, name, frames) == pytest.approx(frames) for name, frames in takes.items())


def test_stills_have_no_curves(tmp_path):
    for who in "12":
        Image.fromarray(draw_levels(random_identity(0, 0), [0.0])[0]).save(tmp_path / f"{who}_neutral.png")
    pattern = r"(?P<subject>\d)_(?P<expression>\w+)\.png"
    main(["folder", str(tmp_path), str(tmp_path / "out"), "--pattern", pattern, "--workers", "1"])
    main(["inspect", str(tmp_path / "out")])
    assert not (tmp_path / "out" / "intensity_curves.png").exists()


def clips(tmp_path: Path, people: int) -> Path:
    """Links to the first takes of some people of the derived London clips."""
    for folder in sorted((CLIPS / "clips").iterdir())[:people]:
        (tmp_path / "raw" / folder.name / "happiness").mkdir(parents=True)
        link = tmp_path / "raw" / folder.name / "happiness" / "take000"
        link.symlink_to(folder / "happiness" / "take000", target_is_directory=True)
    return tmp_path / "raw"


@needs_clips
@pytest.mark.parametrize("way", ["motion", "landmarks"])
def test_measured_intensities_are_near_the_truth_of_the_derived_clips(tmp_path, way):
    options = ["--intensity", way]
    if way == "landmarks":
        pytest.importorskip("ai_edge_litert")
        options += ["--landmarker", str(MODEL)]
    out = tmp_path / "out"
    main(["mug", str(clips(tmp_path, 6)), str(out), "--workers", "1", *options])
    takes = inspect.takes(out)
    truth = inspect.of_labels(csv_labels.frame_intensities(CLIPS / "labels.csv"), out)
    text = inspect.compare(takes, truth)
    rank, error = (float(text.splitlines()[2].split()[k]) for k in (2, 4))
    assert len(takes) == 6 and rank > 0.95 and error < 0.08, text
