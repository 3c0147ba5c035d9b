"""MUG: what the parser makes of trees with the traps of real copies, and what becomes of takes that are faulty."""

import csv
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from prep_helpers import RISE, tree, write_take, write_video

from data_prep.__main__ import main
from data_prep.layouts import mug
from data_prep.synthetic.faces import draw_levels, random_identity
from facedisent_jax.data.reading import read_info, read_split
from facedisent_jax.errors import UserError


def labels(path: Path, rows, header: str = "subject,take,frame,intensity") -> Path:
    path.write_text("\n".join([header, *(",".join(map(str, row)) for row in rows)]) + "\n")
    return path


def rejected(out: Path) -> dict[str, str]:
    with (out / "rejected.csv").open(newline="", encoding="utf-8") as file:
        return {row["file"]: row["reason"] for row in csv.DictReader(file)}


def remarks(out: Path) -> list[tuple[str, str]]:
    if not (out / "remarks.csv").exists():
        return []
    with (out / "remarks.csv").open(newline="", encoding="utf-8") as file:
        return [(row["file"], row["remark"]) for row in csv.DictReader(file)]


def read_records(out: Path) -> dict[tuple, tuple[float, np.ndarray]]:
    """(subject, expression, sequence, frame) -> intensity and picture, of all splits."""
    records = {}
    for split in ("train", "validation", "test"):
        faces = read_split(out, split)
        for k in range(len(faces)):
            key = faces.subject[k], faces.expression[k], faces.sequence[k], int(faces.frame[k])
            records[tuple(map(str, key[:3])) + key[3:]] = float(faces.intensity[k]), faces.image[k]
    return records


@pytest.mark.parametrize(
    "folder",
    [
        "subjects3/002/happiness/take000",
        "subjects3/002/session0/happiness/take000",
        "subjects3/002/002/happiness/take000",
        "002/happiness/take000",
        "disk 1/copy/MUG/subjects3/002/happiness/take000",
        "subjects3/002/Happiness/take000",
    ],
)
def test_the_subject_is_the_folder_above_the_expression_but_for_the_session(tmp_path, folder):
    (source,) = mug.scan_mug(tree(tmp_path, f"{folder}/img_0007.jpg")).sources
    assert (source.subject, source.expression, source.sequence, source.frame) == ("002", "smile", "take000", 7)
    assert math.isnan(source.intensity), "how much a frame smiles its place does not say"


def test_raw_may_be_the_folder_of_one_subject(tmp_path):
    tree(tmp_path, "subjects3/002/session0/happiness/take000/img_0000.jpg")
    for raw in ("subjects3/002", "subjects3/002/session0", "subjects3/002/session0/happiness"):
        assert [s.subject for s in mug.scan_mug(tmp_path / raw).sources] == ["002"]


def test_frames_go_by_their_number_wherever_it_starts(tmp_path):
    raw = tree(tmp_path, *(f"001/happiness/take000/img_{number}.jpg" for number in (10, 9, 100, 11, 8)))
    scan = mug.scan_mug(raw)
    assert [s.frame for s in scan.sources] == [8, 9, 10, 11, 100]
    assert len({s.crop_group for s in scan.sources}) == 1
    assert scan.remarks == [("001/happiness/take000", "missing frame numbers: 12 to 99")]


def test_all_seven_expressions_and_one_by_default(tmp_path):
    raw = tree(tmp_path, *(f"001/{expression}/take000/img_0000.jpg" for expression in mug.MUG_EXPRESSIONS))
    scan = mug.scan_mug(raw)
    assert {s.expression for s in scan.sources} == {"smile"}
    assert scan.left_out == {"frames of expressions that are not selected": 6}
    full_scan = mug.scan_mug(raw, expressions=mug.MUG_EXPRESSIONS)
    words = ["anger", "disgust", "fear", "neutral", "sadness", "smile", "surprise"]
    assert sorted(s.expression for s in full_scan.sources) == words
    assert [s.intensity for s in full_scan.sources if s.expression == "neutral"] == [0.0]
    assert [s.expression for s in mug.scan_mug(raw, expressions=["Smile"]).sources] == ["smile"]
    with pytest.raises(UserError, match=r"--expressions must be among .* got hapiness. Did you mean happiness\?"):
        mug.scan_mug(raw, expressions=["hapiness"])


def test_takes_of_one_name_of_two_expressions_are_two_sequences_and_two_crops(tmp_path):
    folders = ("001/anger/take000", "001/happiness/take000", "001/session1/happiness/take000")
    raw = tree(tmp_path, *(f"{folder}/img_{frame:04}.jpg" for folder in folders for frame in range(2)))
    scan = mug.scan_mug(raw, expressions=["anger", "happiness"])
    assert sorted({s.sequence for s in scan.sources}) == ["anger/take000", "session1/take000", "take000"]
    assert len({s.crop_group for s in scan.sources}) == 3


def test_takes_that_end_in_end_and_videos_beside_frames_are_counted_not_used(tmp_path):
    raw = tree(
        tmp_path,
        "001/happiness/take000/img_0000.jpg",
        "001/happiness/take000/take000.avi",
        "001/happiness/take000.avi",
        "001/happiness/take001end/img_0000.jpg",
        "001/happiness/take001_end/img_0000.jpg",
        "001/happiness/take002/Thumbs.db",
    )
    scan = mug.scan_mug(raw)
    assert [s.key for s in scan.sources] == ["001/happiness/take000/img_0000.jpg"] and not scan.rejected
    assert scan.left_out == {
        "videos of takes that have frames": 2,
        "files of takes whose name ends in `end`": 2,
        "files that are not images by their suffix": 1,
    }


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("001/joy/take000/img_0000.jpg", "not in the folder of an expression"),
        ("001/happiness/img_0000.jpg", "not in the folder of a take"),
        ("001/happiness/best/img_0000.jpg", "not in the folder of a take"),
        ("001/happiness/take000/crops/img_0000.jpg", "not in the folder of a take"),
        ("001/happiness/clip.avi", "not in the folder of a take"),
        ("001/happiness/take000/img_last.jpg", "no frame number at the end of its name"),
    ],
)
def test_what_has_no_place_in_the_layout_is_reported_and_never_guessed(tmp_path, name, reason):
    scan = mug.scan_mug(tree(tmp_path, name))
    assert not scan.sources
    assert [(entry.key, entry.kind) for entry in scan.rejected] == [(name, reason)]
    assert ": expected " in scan.rejected[0].reason


def test_a_second_copy_of_a_take_or_of_a_frame_is_reported(tmp_path):
    raw = tree(
        tmp_path,
        "001/001/happiness/take000/img_0000.jpg",
        "001/happiness/take000/img_0000.jpg",
        "002/happiness/take000/img_0001.jpg",
        "002/happiness/take000/img_1.png",
    )
    scan = mug.scan_mug(raw)
    assert [s.key for s in scan.sources] == [
        "001/001/happiness/take000/img_0000.jpg",
        "002/happiness/take000/img_0001.jpg",
    ]
    assert scan.rejected == [
        ("001/happiness/take000/img_0000.jpg", "another copy of this take is used: 001/001/happiness/take000"),
        (
            "002/happiness/take000/img_1.png",
            "another image of this frame is used: 002/happiness/take000/img_0001.jpg",
        ),
    ]


@pytest.mark.parametrize("place", ["001/happiness/take000.avi", "001/happiness/take000/x.avi", "001/fear/take000.mp4"])
def test_a_video_stands_for_the_frames(tmp_path, place):
    path = write_video(tmp_path / "raw" / place, 0)
    scan = mug.scan_mug(tmp_path / "raw", expressions=["happiness", "fear"])
    assert [s.frame for s in scan.sources] == list(range(len(RISE))) and not scan.rejected
    assert {s.sequence.rsplit("/", 1)[-1] for s in scan.sources} == {"take000"}
    assert all(s.path == path for s in scan.sources)


def test_frames_and_videos_become_the_same_records(tmp_path):
    raw, out = tmp_path / "raw", tmp_path / "out"
    for subject in range(4):
        write_take(raw / f"00{subject}/happiness/take000", subject, first_frame=5)
        write_video(raw / f"00{subject}/happiness/take001.avi", subject)
    main(["mug", str(raw), str(out), "--workers", "1"])
    info, records = read_info(out), read_records(out)
    assert info["source"] == "mug" and info["found_by"] == {"as it is": 8 * len(RISE)} and not info["rejected"]
    for subject in range(4):
        drawn_images = draw_levels(random_identity(0, subject), RISE)
        for k, level in enumerate(RISE):
            for key in ((f"00{subject}", "smile", "take000", k + 5), (f"00{subject}", "smile", "take001", k)):
                intensity, image = records[key]
                assert np.abs(image.astype(int) - drawn_images[k]).mean() < 4, "the right frame, whatever the file"
                assert abs(intensity - level) < 0.25
    people = [set(read_split(out, split).subject) for split in ("train", "validation", "test")]
    assert sorted(map(len, people)) == [1, 1, 2] and len(set.union(*people)) == 4


def test_labels_are_kept_exact_and_the_neutral_frame_is_looked_at_first(tmp_path):
    raw = tmp_path / "raw"
    levels = [0.6, 0.3, 0.04, *np.linspace(0.117, 1, 12).round(3)]
    write_take(raw / "001/happiness/take000", 0, levels)
    table = labels(tmp_path / "l.csv", [("001", "take000", k, level) for k, level in enumerate(levels)])
    scan = mug.scan_mug(raw, labels=table)
    assert [s.frame for s in scan.sources][:4] == [2, 0, 1, 3]
    main(["mug", str(raw), str(tmp_path / "out"), "--labels", str(table), "--workers", "1"])
    records = read_records(tmp_path / "out")
    for k, level in enumerate(levels):
        assert records["001", "smile", "take000", k][0] == pytest.approx(level, abs=1e-6)


def test_order_alone_leaves_the_intensity_open(tmp_path):
    write_take(tmp_path / "raw/001/happiness/take000", 0)
    main(["mug", str(tmp_path / "raw"), str(tmp_path / "out"), "--intensity", "order", "--workers", "1"])
    records = read_records(tmp_path / "out")
    frames = sorted(key[-1] for key in records)
    apex = int(np.argmax(RISE))
    assert all(math.isnan(value) for value, _ in records.values())
    # of the onset, and of it alone: in time order they show more and more
    assert frames == list(range(frames[0], frames[-1] + 1)) and 4 <= len(frames) and abs(frames[-1] - apex) <= 1
    assert RISE[frames[0]] <= 0.1 and (tmp_path / "out" / "rejected.csv").read_text().count("not of the onset") > 0


def test_another_expression_by_its_name_keeps_it_in_the_record(tmp_path):
    write_take(tmp_path / "raw/001/happiness/take000", 0)
    write_take(tmp_path / "raw/001/surprise/take000", 0)
    main(["mug", str(tmp_path / "raw"), str(tmp_path / "out"), "--expression", "surprise", "--workers", "1"])
    records = read_records(tmp_path / "out")
    assert {key[:3] for key in records} == {("001", "surprise", "surprise/take000")}
    values = [records[key][0] for key in sorted(records)]
    assert values[0] == 0 and max(values) == 1


def test_what_is_wrong_with_a_take_is_named_and_the_rest_goes_on(tmp_path, capsys):
    raw, out = tmp_path / "raw", tmp_path / "out"
    write_take(raw / "001/happiness/take000", 0)
    faulty_take = write_take(raw / "002/happiness/take000", 1)
    Image.new("RGB", (80, 64)).save(faulty_take / "img_0003.jpg")
    (faulty_take / "img_0004.jpg").write_bytes(b"")
    (faulty_take / "img_0005.jpg").unlink()
    write_take(raw / "003/happiness/take000", 2, np.zeros(12))
    write_take(raw / "004/happiness/take000", 3, [0, 0, 0, 0.5, 1, 1, 1, 1])
    dark_take = raw / "005/happiness/take000"
    dark_take.mkdir(parents=True)
    for number in range(3):
        Image.new("RGB", (200, 200)).save(dark_take / f"img_{number:04}.jpg")
    tree(raw, "006/happiness/take000/img_0000.jpg")
    cut_video = write_video(raw / "007/happiness/take000.mp4", 4)
    cut_video.write_bytes(cut_video.read_bytes()[:-2000])
    halved_video = write_video(raw / "008/happiness/take000.avi", 5, np.concatenate([RISE] * 4))
    halved_video.write_bytes(halved_video.read_bytes()[: halved_video.stat().st_size // 2])
    main(["mug", str(raw), str(out), "--workers", "1"])
    reasons = rejected(out)
    assert reasons["002/happiness/take000/img_0003.jpg"] == ("not of its take's size: must be 64x64 pixels, got 80x64")
    assert reasons["002/happiness/take000/img_0004.jpg"] == "empty file"
    assert reasons["003/happiness/take000/img_0000.jpg"].startswith("nothing moves in its take: all frames are alike")
    assert reasons["005/happiness/take000/img_0002.jpg"] == "no face found"
    assert reasons["006/happiness/take000/img_0000.jpg"].startswith("not an image")
    assert reasons["007/happiness/take000.mp4"].startswith(("damaged video", "truncated video", "video without"))
    assert reasons["008/happiness/take000.avi"].startswith(("truncated video", "damaged"))
    assert len(reasons) == 2 + 12 + 3 + 1 + 2
    assert remarks(out) == [
        ("002/happiness/take000", "missing frame numbers: 5"),
        ("004/happiness/take000", remarks(out)[1][1]),
    ]
    assert remarks(out)[1][1].startswith("onset of fewer than 8 frames: ")
    records = read_records(out)
    assert {key[0] for key in records} == {"001", "002", "004"}
    printed = capsys.readouterr().out
    assert "12 nothing moves in its take" in printed and "1 missing frame numbers" in printed
    main(["mug", str(raw), str(out), "--workers", "1", "--min-onset", "8", "--overwrite"])
    assert {key[0] for key in read_records(out)} == {"001", "002"}
    assert rejected(out)["004/happiness/take000/img_0000.jpg"].startswith("onset of its take has fewer than 8 frames: ")


def test_what_is_wrong_with_labels_costs_the_frame_or_the_take_and_is_named(tmp_path):
    raw, out = tmp_path / "raw", tmp_path / "out"
    for subject in range(4):
        write_take(raw / f"00{subject}/happiness/take000", subject)
    rows: list[tuple] = [("000", "take000", k, level.round(3)) for k, level in enumerate(RISE)]
    rows[3] = (*rows[3][:3], 1.2)
    rows[4] = (*rows[4][:3], "much")
    rows[5] = ("000", "take000", "five", 0.5)
    rows[6] = (*rows[6], "more")
    rows += [("000", "take000", 7, 0.9), ("000", "take000", 99, 0.9)]
    rows += [("001", "take000", k, (0.3 + 0.7 * level).round(3)) for k, level in enumerate(RISE)]
    rows += [("002", "take000", k, float(k > 4)) for k in range(len(RISE))]
    table = labels(tmp_path / "l.csv", [*rows, ("077", "take000", 0, 0)])
    main(["mug", str(raw), str(out), "--labels", str(table), "--workers", "1"])
    reasons = {key.removesuffix(".jpg")[-8:]: reason for key, reason in rejected(out).items() if key.startswith("000")}
    assert reasons == {
        "img_0003": f"unusable intensity in the labels: {table}, line 5: must be from 0 (neutral) to 1, got '1.2'",
        "img_0004": f"unusable intensity in the labels: {table}, line 6: must be from 0 (neutral) to 1, got 'much'",
        "img_0005": f"frame without a label: {table}",
        "img_0006": f"frame without a label: {table}",
        "img_0007": f"two intensities in the labels: {table}, line 17: 0.9, but {rows[7][3]:g} in line 9",
    }
    no_neutral = "its take has no neutral frame: the lowest intensity must be 0, got 0.3"
    assert rejected(out)["001/happiness/take000/img_0000.jpg"] == no_neutral
    assert rejected(out)["003/happiness/take000/img_0000.jpg"].startswith("frame without a label")
    unusable_line = "unusable line of labels: "
    assert remarks(out) == [
        (str(table), "label of a missing frame: 000 take000 99"),
        (f"{table}, line 7", f"{unusable_line}frame must be a whole number, got 'five'"),
        (f"{table}, line 8", f"{unusable_line}must have 4 columns as line 1 has, got 5"),
        ("000/happiness/take000", "onset of fewer than 8 frames: 5"),
        ("002/happiness/take000", "onset of fewer than 8 frames: 2"),
    ]
    records = read_records(out)
    assert {key[0] for key in records} == {"000", "002"} and sum(key[0] == "000" for key in records) == len(RISE) - 5
    assert all(0 <= value <= 1 for value, _ in records.values())
    assert any("1 takes that are not used (such as 077 take000)" in note for note in read_info(out)["notes"])


@pytest.mark.parametrize(
    ("full", "advice"), [(5, "such as 5"), (3.3, "such as 4"), (100, "such as 100"), (1.2, "such as 1.2")]
)
def test_labels_on_another_scale_are_refused_though_some_lie_between_0_and_1(tmp_path, full, advice):
    raw = tree(tmp_path / "raw", *(f"001/happiness/take000/img_{k:04}.jpg" for k in range(len(RISE))))
    table = labels(tmp_path / "l.csv", [("001", "take000", k, round(full * level, 2)) for k, level in enumerate(RISE)])
    expected = f"from 0 .neutral. to 1. The intensities of this file run from 0 to {full:g}: divide them by .*{advice}"
    with pytest.raises(UserError, match=expected):
        mug.scan_mug(raw, labels=table)


def test_a_name_in_another_unicode_form_is_the_same_subject_in_folders_and_labels(tmp_path):
    folders = ("Jose\u0301/happiness/take000", "Jos\xe9/happiness/take001", "002 /happiness/take000 ")
    raw = tree(tmp_path / "raw", *(f"{folder}/img_{k}.jpg" for folder in folders for k in range(2)))
    rows = [(subject, take, k, k) for subject, take in (("José", "take000"), ("José", "take001")) for k in range(2)]
    scan = mug.scan_mug(raw, labels=labels(tmp_path / "l.csv", [*rows, ("002", "take000", 0, 0)]))
    assert {(s.subject, s.sequence) for s in scan.sources} == {
        ("José", "take000"),
        ("José", "take001"),
        ("002", "take000"),
    }
    assert [entry.key for entry in scan.rejected] == ["002 /happiness/take000 /img_1.jpg"]


@pytest.mark.parametrize(
    ("header", "row", "sentence"),
    [
        (
            "subject,take,frame,smile",
            "001,take000,0,0",
            "line 1: the columns must be .* without 'intensity'",
        ),
        ("person,take,frame,intensity", "001,take000,0,0", "got person, take.*without 'subject'"),
        (
            "subject,take,frame,intensity",
            "1,0,0,0",
            "must label some of the 1 takes .such as 001, .*, got 1, 0 in",
        ),
    ],
)
def test_labels_that_cannot_be_meant_stop_with_one_sentence(tmp_path, header, row, sentence):
    raw = tree(tmp_path / "raw", "001/happiness/take000/img_0000.jpg")
    with pytest.raises(UserError, match=sentence):
        mug.scan_mug(raw, labels=labels(tmp_path / "l.csv", [row.split(",")], header))
    with pytest.raises(SystemExit, match="data_prep: "):
        main(["mug", str(raw), str(tmp_path / "out"), "--labels", str(tmp_path / "l.csv")])


def test_labels_of_several_expressions_need_their_column(tmp_path):
    folders = ("001/anger/take000", "001/happiness/take000", "001/neutral/take000")
    raw = tree(tmp_path / "raw", *(f"{folder}/img_{k}.jpg" for folder in folders for k in range(2)))
    plain_labels = labels(tmp_path / "l.csv", [("001", "take000", k, k) for k in range(2)])
    with pytest.raises(UserError, match=r"must include 'expression' for several --expressions, got anger, smile"):
        mug.scan_mug(raw, ["anger", "happiness"], plain_labels)
    scan = mug.scan_mug(raw, ["happiness", "neutral"], plain_labels)
    assert [(s.expression, s.intensity) for s in scan.sources] == [
        ("smile", 0),
        ("smile", 1),
        ("neutral", 0),
        ("neutral", 0),
    ]
    rows = [("001", "take000", 0, 0, expression) for expression in ("anger", "happiness")]
    rows += [("001", "take000", 1, value, expression) for expression, value in (("anger", 0.5), ("happiness", 1))]
    full_labels = labels(tmp_path / "n.csv", rows, "subject,take,frame,intensity,expression")
    intensities = {
        (s.expression, s.frame): s.intensity for s in mug.scan_mug(raw, ["anger", "happiness"], full_labels).sources
    }
    assert intensities == {("anger", 0): 0, ("anger", 1): 0.5, ("smile", 0): 0, ("smile", 1): 1}


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--intensity", "csv"], "--intensity csv needs the intensity of each frame"),
        (["--intensity", "motion", "--labels", "l.csv"], "--intensity must be csv if --labels is given, got motion"),
        (["--min-onset", "-1"], "--min-onset must be a number of frames, .* got -1"),
        (["--min-onset", "8", "--intensity", "order"], "--min-onset must be 0 with --intensity order"),
        (["--split", "published"], "numbers of the published list .008, 017, 021, .*, got 1 others such as 001"),
        (["--split", "published", "--split-like", "x"], "--split published and --split-like cannot go together"),
    ],
)
def test_options_that_do_not_go_together_are_answered_with_one_sentence(tmp_path, options, sentence):
    write_take(tmp_path / "raw/001/happiness/take000", 0)
    with pytest.raises(SystemExit, match=sentence):
        main(["mug", str(tmp_path / "raw"), str(tmp_path / "out"), "--workers", "1", *options])
    assert not (tmp_path / "out").exists()


def test_names_of_another_kind_than_the_published_ones_are_said_before_anything_is_cropped(tmp_path, monkeypatch):
    monkeypatch.setattr("data_prep.cropping.jobs.crop_all", lambda *_: pytest.fail("cropped first"))
    write_take(tmp_path / "raw/s008/happiness/take000", 0)
    with pytest.raises(SystemExit, match="--subject-pattern .* reads s008 as 008"):
        main(["mug", str(tmp_path / "raw"), str(tmp_path / "out"), "--workers", "1", "--split", "published"])


def test_the_published_split_trains_on_its_list_and_holds_out_the_others(tmp_path):
    held_out = [f"{number:03}" for number in (1, 2, 3, 4, 5, 6)]
    for subject in [*mug.PUBLISHED_TRAINING[:3], *held_out]:
        write_take(tmp_path / f"raw/s{subject}/happiness/take000", int(subject), np.linspace(0, 1, 9))
    options = ["--split", "published", "--subject-pattern", "[0-9]+", "--workers", "1"]
    main(["mug", str(tmp_path / "raw"), str(tmp_path / "out"), *options])
    people = read_info(tmp_path / "out")["subjects"]
    assert people["train"] == ["008", "017", "021"]
    assert len(people["validation"]) == 2 and len(people["test"]) == 4
    assert sorted(people["validation"] + people["test"]) == held_out
