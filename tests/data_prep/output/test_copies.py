"""Equal pictures are never in two splits: all but those of one subject are left out and listed."""

import csv
import shutil
from pathlib import Path

import pytest
from prep_helpers import PATTERN, write_photographs, write_take, write_video

from data_prep.__main__ import main
from data_prep.output.build import find_copies
from data_prep.output.spool import NO_IMAGE, Item
from facedisent_jax.data.reading import read_info, read_split
from facedisent_jax.data.record import Record


def prepare(layout: str, raw: Path, *options: str) -> tuple[dict[str, str], dict[str, int]]:
    """What is left out, file -> reason; and subject -> number of images."""
    out = raw.parent / "out"
    main([layout, str(raw), str(out), "--workers", "1", *options])
    with (out / "rejected.csv").open(newline="", encoding="utf-8") as file:
        rejected = {row["file"]: row["reason"] for row in csv.DictReader(file)}
    counts: dict[str, int] = {}
    for split, count in read_info(out)["splits"].items():
        subjects = read_split(out, split).subject.tolist()
        assert len(subjects) == count
        counts |= {subject: subjects.count(subject) for subject in subjects}
    main(["verify", str(out)])
    return rejected, counts


def test_a_copy_under_another_name_is_left_out_and_the_labelled_picture_stays(tmp_path):
    raw = write_photographs(tmp_path / "raw")
    (raw / "a").mkdir()
    shutil.copy(raw / "s00_smile.png", raw / "a" / "party.png")  # before the labelled one in the order of paths
    shutil.copy(raw / "s01_smile.png", raw / "s01_smile (1).png")
    rejected, counts = prepare("folder", raw, "--pattern", PATTERN, "--no-face")
    assert rejected == {
        "a/party.png": "equal to another picture: s00_smile.png",
        "s01_smile (1).png": "equal to another picture: s01_smile.png",
    }
    assert counts == {f"s{subject:02}": 2 for subject in range(4)}


def test_one_picture_of_two_people_stays_with_the_first(tmp_path):
    raw = write_photographs(tmp_path / "raw")
    shutil.copy(raw / "s03_neutral.png", raw / "s00_neutral.png")
    for expression in ("neutral", "smile"):  # nothing of s02 is left
        shutil.copy(raw / f"s01_{expression}.png", raw / f"s02_{expression}.png")
    rejected, counts = prepare("folder", raw, "--pattern", PATTERN, "--no-face")
    assert rejected == {
        "s02_neutral.png": "equal to another picture: s01_neutral.png",
        "s02_smile.png": "equal to another picture: s01_smile.png",
        "s03_neutral.png": "equal to another picture: s00_neutral.png",
    }
    assert counts == {"s00": 2, "s01": 2, "s03": 1}


def test_frames_of_a_take_in_which_nothing_moves_stay_and_a_video_under_two_names_does_not(tmp_path):
    raw = tmp_path / "raw"
    write_take(raw / "001/happiness/take000", 1)  # its first two frames and its last three are equal
    assert (raw / "001/happiness/take000/img_0000.jpg").read_bytes() == (
        raw / "001/happiness/take000/img_0001.jpg"
    ).read_bytes()
    video = write_video(raw / "002/happiness/take000.avi", 2)
    (raw / "003/happiness").mkdir(parents=True)
    shutil.copy(video, raw / "003/happiness/take001.avi")
    rejected, counts = prepare("mug", raw)
    assert set(counts) == {"001", "002"} and counts["001"] == counts["002"] == len(rejected)
    assert rejected["003/happiness/take001.avi#0007"] == "equal to another picture: 002/happiness/take000.avi#0007"


@pytest.mark.parametrize("order", [1, -1])
def test_which_picture_stays_does_not_depend_on_the_order_in_which_they_are_cropped(order):
    items = [
        Item(key, Record(NO_IMAGE, subject, expression), digest=digest)
        for key, subject, expression, digest in [
            ("1", "", "", b"x"),
            ("2", "", "smile", b"x"),
            ("3", "ben", "", b"x"),
            ("4", "anna", "smile", b"x"),
            ("5", "carl", "smile", b"x"),
            ("6", "anna", "neutral", b"x"),
            ("7", "carl", "smile", b"y"),
            ("8", "anna", "smile", b""),  # drawn, and not from a file
            ("9", "carl", "smile", b""),
        ]
    ]
    assert find_copies(items[::order]) == dict.fromkeys("1235", "4")
