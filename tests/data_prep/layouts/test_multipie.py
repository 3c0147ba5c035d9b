"""Multi-PIE: what the parser makes of names and trees, with the traps of real copies."""

import pytest
from prep_helpers import tree

from data_prep.layouts import multipie
from facedisent_jax.errors import UserError


def keys(scan) -> list[str]:
    return sorted(source.key for source in scan.sources)


def test_a_name_tells_subject_session_recording_camera_and_illumination(tmp_path):
    raw = tree(tmp_path, "data/session03/multiview/001/02/05_1/001_03_02_051_07.png")
    (source,) = multipie.scan_multipie(raw).sources
    assert (source.subject, source.expression, source.intensity) == ("001", "smile", 1.0)
    assert (source.sequence, source.frame, source.condition) == ("03", 2, "051_07")


@pytest.mark.parametrize(
    ("session", "recording", "expression"),
    [
        *(("01", "01", "neutral"), ("02", "01", "neutral"), ("03", "01", "neutral")),
        *(("04", "01", "neutral"), ("04", "02", "neutral"), ("01", "02", "smile"), ("03", "02", "smile")),
        *(("02", "02", "surprise"), ("02", "03", "squint"), ("03", "03", "disgust"), ("04", "03", "scream")),
    ],
)
def test_the_expression_follows_from_session_and_recording_together(tmp_path, session, recording, expression):
    raw = tree(tmp_path, f"001_{session}_{recording}_051_07.png")
    scan = multipie.scan_multipie(raw, expressions=["neutral", "smile", "surprise", "squint", "disgust", "scream"])
    assert scan.sources[0].expression == expression
    assert scan.sources[0].intensity == (0 if expression == "neutral" else 1)


@pytest.mark.parametrize(
    "name",
    [
        "Multi-Pie/data/session01/multiview/001/01/05_1/001_01_01_051_07.png",
        "Multi-PIE/data/session01/multiview/001/01/05_1/001_01_01_051_07.png",
        "001_01_01_051_07.png",
        "copy of my disk/old/001_01_01_051_07.png",
        "001_01_01_051_07_crop_128.png",
        "001_01_01_051_07_cropped.png",
        "001_01_01_051_07.jpg",
        "001_01_01_051_07.JPEG",
        "001_01_01_051_07.bmp",
        "001_01_01_051_07.PNG",
    ],
)
def test_the_basename_alone_counts_whatever_the_folders_suffix_and_extension(tmp_path, name):
    scan = multipie.scan_multipie(tree(tmp_path, name))
    assert [(s.subject, s.condition) for s in scan.sources] == [("001", "051_07")]
    assert not scan.rejected


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("IMG_0001.png", "name does not match"),
        ("1_01_01_051_07.png", "name does not match"),
        ("001_01_01_051_077.png", "name does not match"),
        ("001_01_01_051.png", "name does not match"),
        ("x001_01_01_051_07.png", "name does not match"),
        ("001_05_01_051_07.png", "no recording 01 in session 05"),
        ("001_01_03_051_07.png", "no recording 03 in session 01"),
        ("001_01_01_052_07.png", "no camera 052"),
        ("001_01_01_051_20.png", "no illumination 20"),
    ],
)
def test_what_is_not_a_multipie_name_is_reported_and_never_guessed(tmp_path, name, reason):
    scan = multipie.scan_multipie(tree(tmp_path, name))
    assert not scan.sources
    ((key, sentence),) = scan.rejected
    assert key == name and reason in sentence


def test_what_lies_beside_the_pictures_is_counted_not_reported(tmp_path):
    raw = tree(
        tmp_path,
        "session01/multiview/001/01/05_1/001_01_01_051_07.png",
        "session01/highres/001/001_01_01.jpg",
        "session01/highres/001/deeper/001_01_01_051_07.png",
        "Documentation/camera_positions.png",
        "meta/subjects.png",
        "autorun/splash.bmp",
        "session01/multiview/001/01/05_1/Thumbs.db",
        "session01/multiview/001/01/05_1/._001_01_01_051_07.png",
    )
    scan = multipie.scan_multipie(raw)
    assert keys(scan) == ["session01/multiview/001/01/05_1/001_01_01_051_07.png"]
    assert not scan.rejected
    assert scan.left_out == {
        "files in highres folders": 2,
        "files in documentation folders": 1,
        "files in meta folders": 1,
        "files in autorun folders": 1,
        "files that are not images by their suffix": 1,
        "hidden files": 1,
    }


def test_frontal_camera_neutral_and_smile_under_all_lights_unless_asked_otherwise(tmp_path):
    raw = tree(
        tmp_path,
        *(f"001_01_0{recording}_{camera}_{light:02}.png" for recording in (1, 2) for camera in ("051", "140", "240")
          for light in range(20)),
        *(f"001_02_02_051_{light:02}.png" for light in range(20)),
    )  # fmt: skip
    scan = multipie.scan_multipie(raw)
    assert {s.condition for s in scan.sources} == {f"051_{light:02}" for light in range(20)}
    assert {s.expression for s in scan.sources} == {"neutral", "smile"} and len(scan.sources) == 40
    assert scan.left_out["images of cameras that are not selected"] == 80
    assert scan.left_out["images of expressions that are not selected"] == 20
    selection = multipie.scan_multipie(
        raw, cameras=["05_1", "140"], illuminations=["7", "19"], expressions=["Surprise", "smile"]
    )
    assert {s.condition for s in selection.sources} == {"051_07", "051_19", "140_07", "140_19"}
    assert {s.expression for s in selection.sources} == {"surprise", "smile"}


@pytest.mark.parametrize(
    ("option", "value", "listed"),
    [("cameras", "055", "051"), ("illuminations", "20", "19"), ("expressions", "happy", "smile")],
)
def test_an_unknown_camera_light_or_expression_is_answered_with_those_there_are(tmp_path, option, value, listed):
    with pytest.raises(UserError, match=rf"--{option} must be among .*{listed}.*, got {value}"):
        multipie.scan_multipie(tree(tmp_path, "001_01_01_051_07.png"), **{option: [value]})


def test_twenty_illuminations_share_one_crop_found_under_the_frontal_flash(tmp_path):
    raw = tree(
        tmp_path,
        *(f"00{subject}_01_0{recording}_051_{light:02}.png" for subject in (1, 2) for recording in (1, 2)
          for light in range(20)),
    )  # fmt: skip
    scan = multipie.scan_multipie(raw)
    groups: dict[str, list] = {}
    for source in scan.sources:
        groups.setdefault(source.crop_group, []).append(source)
    assert len(groups) == 4 and all(len(group) == 20 for group in groups.values())
    assert all(group[0].condition == "051_07" for group in groups.values())
    assert {s.condition for s in groups["001_01_01_051_"][1:3]} == {"051_06", "051_08"}


def test_the_pictures_of_a_crop_group_follow_each_other(tmp_path):
    raw = tree(
        tmp_path, *(f"{light:02}/00{subject}_01_01_051_{light:02}.png" for light in range(20) for subject in (1, 2, 3))
    )
    groups = [source.crop_group for source in multipie.scan_multipie(raw).sources]
    assert [group for k, group in enumerate(groups) if k == 0 or groups[k - 1] != group] == sorted(set(groups))


def test_of_two_copies_of_a_picture_the_plain_one_is_used_and_the_other_reported(tmp_path):
    raw = tree(tmp_path, "b/001_01_01_051_07.png", "a/001_01_01_051_07_cropped.png", "c/001_01_01_051_07.jpg")
    scan = multipie.scan_multipie(raw)
    assert keys(scan) == ["b/001_01_01_051_07.png"]
    assert sorted(entry.key for entry in scan.rejected) == [
        "a/001_01_01_051_07_cropped.png",
        "c/001_01_01_051_07.jpg",
    ]


def test_landmark_labels_go_with_their_pictures_and_come_first(tmp_path):
    raw = tree(tmp_path / "raw", *(f"001_01_01_051_{light:02}.png" for light in range(20)), "002_01_01_051_07.png")
    labels = tree(tmp_path / "labels", "051/001_01_01_051_05_lm.mat", "051/009_01_01_051_05_lm.mat")
    scan = multipie.scan_multipie(raw, mat_labels=labels)
    first_source = next(source for source in scan.sources if source.subject == "001")
    assert first_source.condition == "051_05" and first_source.landmark_file == labels / "051/001_01_01_051_05_lm.mat"
    assert sum(source.landmark_file is not None for source in scan.sources) == 1
    assert any("1 of 2 crops" in note for note in scan.notes)


def test_a_label_of_a_light_that_was_not_asked_for_still_serves_the_others(tmp_path):
    raw = tree(tmp_path / "raw", "001_01_01_051_05.png", "001_01_01_051_07.png")
    labels = tree(tmp_path / "labels", "001_01_01_051_05_lm.mat")
    (source,) = multipie.scan_multipie(raw, illuminations=["07"], mat_labels=labels).sources
    assert source.landmark_file == labels / "001_01_01_051_05_lm.mat"


def test_a_labels_folder_without_labels_and_a_missing_raw_folder_are_explained(tmp_path):
    raw = tree(tmp_path / "raw", "001_01_01_051_07.png")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="--mat-labels must hold files named like 001_01_01_051_05_lm.mat"):
        multipie.scan_multipie(raw, mat_labels=tmp_path / "empty")
    with pytest.raises(UserError, match="RAW must be a folder of images, got .*nowhere, which does not exist"):
        multipie.scan_multipie(tmp_path / "nowhere")
    with pytest.raises(UserError, match="_07.png, which is a file"):
        multipie.scan_multipie(raw / "001_01_01_051_07.png")
