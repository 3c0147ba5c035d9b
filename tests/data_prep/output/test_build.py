"""Data folders: splits by subject, what is stored is what is read, and a folder is whole or not there."""

import csv
import json
import os
import socket
from pathlib import Path

import numpy as np
import pytest

from data_prep.output import build, inspect, splits
from data_prep.output.build import Plan
from data_prep.output.spool import Item
from facedisent_jax.data.reading import read_info, read_split
from facedisent_jax.data.record import Record
from facedisent_jax.errors import UserError


def picture(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (64, 64, 3), np.uint8)


def items(people: int = 6, each: int = 2, name: str = "s{:03}") -> list[Item]:
    out = []
    for who in range(people):
        for k in range(each):
            known = (name.format(who), "smile" if k else "neutral", "01", f"051_{k:02}", k, float(bool(k)))
            out.append(Item(f"{who}/{k}.png", Record(picture(who * 10 + k), *known), found_by="haar"))
    return out


def rows(folder: Path) -> dict[tuple, np.ndarray]:
    """All records of a folder: fields -> picture."""
    out = {}
    for split in ("train", "validation", "test"):
        faces = read_split(folder, split)
        for k in range(len(faces)):
            known = (faces.subject, faces.expression, faces.sequence, faces.condition, faces.frame, faces.intensity)
            out[(split, *(column[k].item() for column in known))] = faces.image[k]
    return out


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A folder with six people, an unlabelled picture and two files that were left out."""
    out = tmp_path_factory.mktemp("made") / "faces"
    extra = [
        Item("x/wall.png", None, "no face found"),
        Item("x/ä, b.png", None, "empty file"),
        Item("x/somebody.png", Record(picture(999)), found_by="haar"),
    ]
    build.build(out, [*items(), *extra], Plan("folder", "haar", 0.25, {"out": out, "pattern": None}))
    return out


def test_a_record_written_is_a_record_read(made):
    stored = {known[1:]: image for known, image in rows(made).items() if known[1]}
    for item in items():
        record = item.record
        assert record is not None
        known = (record.subject, record.expression, record.sequence, record.condition, record.frame, record.intensity)
        assert (stored.pop(known) == record.image).all()
    assert not stored


def test_pictures_left_on_disk_are_the_same_as_in_memory(made):
    for split in ("train", "validation", "test"):
        in_memory, mapped = read_split(made, split), read_split(made, split, in_memory=False)
        assert (in_memory.image[:] == mapped.image[:]).all() and (in_memory.subject == mapped.subject).all()


def test_tensorflow_datasets_reads_the_folder_as_its_own(made):
    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(str(made))
    train = list(tfds.as_numpy(builder.as_dataset(split="train")))
    assert len(train) == read_info(made)["splits"]["train"] == builder.info.splits["train"].num_examples
    assert train[0]["image"].shape == (64, 64, 3) and train[0]["image"].dtype == np.uint8


def test_an_unlabelled_picture_trains(made):
    train = read_split(made, "train")
    (unknown,) = np.flatnonzero(train.subject == "")
    assert train.expression[unknown] == "" and np.isnan(train.intensity[unknown])
    assert (train.image[unknown] == picture(999)).all()


def test_what_was_done_and_left_out_is_written_beside_the_records(made):
    info = read_info(made)
    assert info["source"] == "folder" and info["detector"] == "haar" and info["margin"] == 0.25
    assert info["pictures"] == 13 and sum(info["splits"].values()) == 13
    assert info["rejected"] == {"no face found": 1, "empty file": 1} and info["found_by"] == {"haar": 13}
    assert sorted(who for people in info["subjects"].values() for who in people) == [f"s{k:03}" for k in range(6)]
    with (made / "rejected.csv").open(newline="", encoding="utf-8") as file:
        assert list(csv.reader(file)) == [
            ["file", "reason"],
            ["x/wall.png", "no face found"],
            ["x/ä, b.png", "empty file"],
        ]
    names = {path.name.split("-")[0] for path in made.iterdir()}
    assert names == {"faces", "dataset_info.json", "features.json", "prep.json", "rejected.csv"}
    assert [path.name for path in made.parent.iterdir()] == ["faces"]


@pytest.mark.parametrize("people", [1, 2, 3, 4, 10, 30, 337])
def test_no_split_is_empty_and_every_person_is_in_one(people):
    placed, notes = splits.split_subjects(f"{k:03}" for k in range(people))
    counts = [list(placed.values()).count(split) for split in ("train", "validation", "test")]
    tenth = max(1, round(people / 10))
    assert counts == ([1, 0, 0] if people == 1 else [1, 0, 1] if people == 2 else [people - 2 * tenth, tenth, tenth])
    assert bool(notes) == (people < 3)


def test_the_draw_depends_on_the_seed_and_on_nothing_else():
    names = [f"{k:03}" for k in range(50)]
    first, _ = splits.split_subjects(names)
    assert first == splits.split_subjects(reversed(names))[0]
    assert first != splits.split_subjects(names, seed=1)[0]


def test_people_of_another_folder_keep_their_split():
    names = [f"{k:03}" for k in range(50)]
    first, _ = splits.split_subjects(names[:20])
    both, _ = splits.split_subjects(names, seed=3, known=first)
    assert all(both[name] == first[name] for name in names[:20])
    assert list(both.values()).count("test") == 5


@pytest.mark.parametrize(
    ("pattern", "name", "canonical"),
    [(r"\d+", "s030", "030"), (r"\d+", "030", "030"), (r"s(\d+)_", "s030_b", "030"), (r"\d+", "anna", "anna")],
)
def test_a_subject_pattern_makes_two_names_one_person(pattern, name, canonical):
    assert splits.canonical(name, splits.compiled(pattern, "--subject-pattern")) == canonical


def test_the_stored_subject_is_the_canonical_one_and_in_one_split(tmp_path):
    both = [*items(5), *(item._replace(key=f"again/{item.key}") for item in items(5, name="{:03}"))]
    info = build.build(tmp_path / "out", both, Plan("folder", subject_pattern=r"\d+"))
    people = [set(names) for names in info["subjects"].values()]
    assert set.union(*people) == {f"{k:03}" for k in range(5)} and sum(map(len, people)) == 5
    for split, names in info["subjects"].items():
        assert set(read_split(tmp_path / "out", split).subject) == set(names)


def test_a_person_all_of_whose_pictures_were_left_out_leaves_no_split_empty(tmp_path):
    everyone = {item.record.subject for item in items() if item.record}
    first = splits.split_subjects(everyone)[0]
    tested = {who for who, split in first.items() if split == "test"}
    lost = [
        item._replace(record=None, reason="no face found") if item.record and item.record.subject in tested else item
        for item in items()
    ]
    info = build.build(tmp_path / "out", lost, Plan("folder"))
    assert info["splits"] == {"train": 6, "validation": 2, "test": 2}


def test_nothing_usable_leaves_nothing_and_says_why(tmp_path):
    nothing = [Item("a.png", None, "no face found"), Item("b.png", None, "empty file")]
    with pytest.raises(UserError, match=r"No usable picture .*1 no face found; 1 empty file.*nothing was written"):
        build.build(tmp_path / "out", nothing, Plan("folder"))
    assert not list(tmp_path.iterdir())


def test_a_finished_folder_is_replaced_only_on_request_and_only_by_a_whole_one(tmp_path):
    out = tmp_path / "out"
    build.build(out, items(3), Plan("folder"))
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    with pytest.raises(UserError, match="is already a data folder: add --overwrite"):
        build.build(out, items(4), Plan("folder"))

    def stopped():
        yield from items(2)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build.build(out, stopped(), Plan("folder", overwrite=True))
    assert before == {path.name: path.read_bytes() for path in out.iterdir()}
    build.build(out, items(4), Plan("folder", overwrite=True))
    assert read_info(out)["pictures"] == 8 and [path.name for path in tmp_path.iterdir()] == ["out"]


def test_what_this_command_did_not_make_is_never_replaced(tmp_path):
    out = tmp_path / "thesis"
    out.mkdir()
    (out / "chapter1.tex").write_text("...")
    with pytest.raises(UserError, match="was not made by this command .*chapter1.tex"):
        build.check_out(out, overwrite=True)
    (out / "prep.json").write_text("{}")
    (out / "contact_sheet.png").write_bytes(b"")
    with pytest.raises(UserError, match="also holds chapter1.tex"):
        build.check_out(out, overwrite=True)
    with pytest.raises(UserError, match="is a file"):
        build.check_out(out / "chapter1.tex", overwrite=True)
    assert (out / "chapter1.tex").read_text() == "..."


def dead_process() -> int:
    process = os.fork()
    if process == 0:
        os._exit(0)
    os.waitpid(process, 0)
    return process


def test_remains_of_killed_runs_are_taken_away_those_of_living_ones_are_not(tmp_path):
    host = socket.gethostname()
    dead = tmp_path / f"out.incomplete-{host}-{dead_process()}"
    living = tmp_path / f"out.incomplete-{host}-{os.getppid()}"
    elsewhere = tmp_path / f"out.incomplete-other.host-{dead_process()}"
    another = tmp_path / f"out2.incomplete-{host}-{dead_process()}"
    for folder in (dead, living, elsewhere, another):
        folder.mkdir()
    build.check_out(tmp_path / "out", overwrite=False)
    assert not dead.exists() and living.exists() and elsewhere.exists() and another.exists()


def test_a_folder_that_was_being_replaced_when_the_run_was_killed_comes_back(tmp_path):
    old = tmp_path / f"out.replaced-{socket.gethostname()}-{dead_process()}"
    old.mkdir()
    (old / "prep.json").write_text("{}")
    with pytest.raises(UserError, match="is already a data folder"):
        build.check_out(tmp_path / "out", overwrite=False)
    assert (tmp_path / "out" / "prep.json").exists() and not old.exists()


def test_the_built_in_faces_become_a_folder(tmp_path):
    info = build.synthetic(tmp_path / "out", subjects=4, levels=3, workers=1)
    assert info["source"] == "synthetic" and info["detector"] == "none" and info["pictures"] == 12
    values = np.concatenate([read_split(tmp_path / "out", split).intensity for split in info["splits"]])
    assert sorted(set(values.tolist())) == [0.0, 0.5, 1.0]


def test_built_in_faces_that_cannot_be_drawn_are_explained(tmp_path):
    with pytest.raises(UserError, match="--subjects is 0"):
        build.synthetic(tmp_path / "out", subjects=0)
    assert not list(tmp_path.iterdir())


def test_inspect_counts_and_shows(made):
    text = inspect.describe(made)
    assert "13 pictures from folder, face found by haar, margin 0.25" in text
    assert "s000:2" in text and "  1.0         6 ####" in text and "not known   1" in text and "1 empty file" in text
    sheet = inspect.contact_sheet(made)
    assert sheet.width > 1000 and sheet.height > 300
    few = inspect.contact_sheet(made, most=6)
    assert few.height <= sheet.height


def test_inspect_of_an_unfinished_folder_is_explained(tmp_path):
    with pytest.raises(UserError, match="no data folder"):
        inspect.describe(tmp_path / "nowhere")
    with pytest.raises(UserError, match="not finished"):
        inspect.describe(tmp_path)
    (tmp_path / "prep.json").write_text(json.dumps({}))
