"""Data folders: what is read is what was stored, splits are by subject, and a folder is whole or not there."""

import csv
import os
import socket
from pathlib import Path

import numpy as np
import pytest
from prep_helpers import dead_process

from data_prep.output import build, inspect, splits, staging
from data_prep.output.build import Plan
from data_prep.output.spool import Item
from facedisent_jax.data.reading import read_info, read_split
from facedisent_jax.data.record import Record
from facedisent_jax.errors import UserError


def noise_image(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (64, 64, 3), np.uint8)


def items(people: int = 6, images: int = 2, name: str = "s{:03}") -> list[Item]:
    """Finished crops: of each person a neutral image, then smiling ones."""
    return [
        Item(
            f"{subject}/{k}.png",
            Record(
                noise_image(subject * 10 + k),
                name.format(subject),
                "smile" if k else "neutral",
                "01",
                f"051_{k:02}",
                k,
                float(bool(k)),
            ),
            found_by="haar",
        )
        for subject in range(people)
        for k in range(images)
    ]


def stored_images(folder: Path) -> dict[tuple, np.ndarray]:
    """All records of a folder: (split, fields but the image) -> image."""
    images = {}
    for split in ("train", "validation", "test"):
        faces = read_split(folder, split)
        columns = (faces.subject, faces.expression, faces.sequence, faces.condition, faces.frame, faces.intensity)
        for k in range(len(faces)):
            images[(split, *(column[k].item() for column in columns))] = faces.image[k]
    return images


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A data folder with six people, an unlabelled image and two files that were left out."""
    out = tmp_path_factory.mktemp("built") / "faces"
    extra = [
        Item("x/wall.png", None, "no face found"),
        Item("x/ä, b.png", None, "empty file"),
        Item("x/somebody.png", Record(noise_image(999)), found_by="haar"),
    ]
    build.build_folder(out, [*items(), *extra], Plan("folder", "haar", 0.25, {"out": out, "pattern": None}))
    return out


def test_a_record_written_is_a_record_read(folder):
    images = {fields[1:]: image for fields, image in stored_images(folder).items() if fields[1]}
    for item in items():
        record = item.record
        assert record is not None
        assert (images.pop(tuple(record[1:])) == record.image).all()
    assert not images


def test_images_left_on_disk_are_the_same_as_in_memory(folder):
    for split in ("train", "validation", "test"):
        memory, disk = read_split(folder, split), read_split(folder, split, in_memory=False)
        assert (memory.image[:] == disk.image[:]).all() and (memory.subject == disk.subject).all()


def test_tensorflow_datasets_reads_the_folder_as_its_own(folder):
    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(str(folder))
    train = list(tfds.as_numpy(builder.as_dataset(split="train")))
    assert len(train) == read_info(folder)["splits"]["train"] == builder.info.splits["train"].num_examples
    assert train[0]["image"].shape == (64, 64, 3) and train[0]["image"].dtype == np.uint8


def test_an_unlabelled_image_is_for_training(folder):
    train = read_split(folder, "train")
    (k,) = np.flatnonzero(train.subject == "")
    assert train.expression[k] == "" and np.isnan(train.intensity[k])
    assert (train.image[k] == noise_image(999)).all()


def test_prep_json_and_rejected_csv_say_what_was_used_and_what_was_left_out(folder):
    info = read_info(folder)
    assert info["source"] == "folder" and info["detector"] == "haar" and info["margin"] == 0.25
    assert info["pictures"] == 13 and sum(info["splits"].values()) == 13
    assert info["rejected"] == {"no face found": 1, "empty file": 1} and info["found_by"] == {"haar": 13}
    assert sorted(name for names in info["subjects"].values() for name in names) == [f"s{k:03}" for k in range(6)]
    with (folder / "rejected.csv").open(newline="", encoding="utf-8") as file:
        assert list(csv.reader(file)) == [
            ["file", "reason"],
            ["x/wall.png", "no face found"],
            ["x/ä, b.png", "empty file"],
        ]
    names = {path.name.split("-")[0] for path in folder.iterdir()}
    assert names == {"faces", "dataset_info.json", "features.json", "prep.json", "rejected.csv"}
    assert [path.name for path in folder.parent.iterdir()] == ["faces"]


@pytest.mark.parametrize("people", [1, 2, 3, 4, 10, 30, 337])
def test_no_split_is_empty_and_every_person_is_in_one(people):
    split_by_subject, notes = splits.split_subjects(f"{k:03}" for k in range(people))
    counts = [list(split_by_subject.values()).count(split) for split in ("train", "validation", "test")]
    tenth = max(1, round(people / 10))
    assert counts == ([1, 0, 0] if people == 1 else [1, 0, 1] if people == 2 else [people - 2 * tenth, tenth, tenth])
    assert bool(notes) == (people < 3)


def test_the_split_depends_on_the_seed_and_not_on_the_order():
    names = [f"{k:03}" for k in range(50)]
    split_by_subject, _ = splits.split_subjects(names)
    assert split_by_subject == splits.split_subjects(reversed(names))[0]
    assert split_by_subject != splits.split_subjects(names, seed=1)[0]


def test_people_of_another_folder_keep_their_split():
    names = [f"{k:03}" for k in range(50)]
    fixed, _ = splits.split_subjects(names[:20])
    split_by_subject, _ = splits.split_subjects(names, seed=3, fixed=fixed)
    assert all(split_by_subject[name] == fixed[name] for name in names[:20])
    assert list(split_by_subject.values()).count("test") == 5


@pytest.mark.parametrize(
    ("pattern", "name", "canonical"),
    [(r"\d+", "s030", "030"), (r"\d+", "030", "030"), (r"s(\d+)_", "s030_b", "030"), (r"\d+", "anna", "anna")],
)
def test_a_subject_pattern_makes_two_names_one_person(pattern, name, canonical):
    assert splits.canonical_subject(name, splits.compile_pattern(pattern, "--subject-pattern")) == canonical


def test_the_stored_subject_is_the_canonical_one_and_in_one_split(tmp_path):
    all_items = [*items(5), *(item._replace(key=f"again/{item.key}") for item in items(5, name="{:03}"))]
    info = build.build_folder(tmp_path / "out", all_items, Plan("folder", subject_pattern=r"\d+"))
    people = [set(names) for names in info["subjects"].values()]
    assert set.union(*people) == {f"{k:03}" for k in range(5)} and sum(map(len, people)) == 5
    for split, names in info["subjects"].items():
        assert set(read_split(tmp_path / "out", split).subject) == set(names)


def test_no_split_is_empty_even_if_all_images_of_a_person_were_left_out(tmp_path):
    split_by_subject, _ = splits.split_subjects(item.record.subject for item in items() if item.record)
    remaining_items = [
        item._replace(record=None, reason="no face found")
        if item.record and split_by_subject[item.record.subject] == "test"
        else item
        for item in items()
    ]
    info = build.build_folder(tmp_path / "out", remaining_items, Plan("folder"))
    assert info["splits"] == {"train": 6, "validation": 2, "test": 2}


def test_without_any_usable_picture_nothing_is_written_and_the_error_says_why(tmp_path):
    unusable_items = [Item("a.png", None, "no face found"), Item("b.png", None, "empty file")]
    with pytest.raises(UserError, match=r"No usable picture .*1 no face found; 1 empty file.*nothing was written"):
        build.build_folder(tmp_path / "out", unusable_items, Plan("folder"))
    assert not list(tmp_path.iterdir())


def test_a_finished_folder_is_replaced_only_on_request_and_only_by_a_whole_one(tmp_path):
    out = tmp_path / "out"
    build.build_folder(out, items(3), Plan("folder"))
    contents = {path.name: path.read_bytes() for path in out.iterdir()}
    with pytest.raises(UserError, match="is already a data folder: add --overwrite"):
        build.build_folder(out, items(4), Plan("folder"))

    def interrupted():
        yield from items(2)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build.build_folder(out, interrupted(), Plan("folder", overwrite=True))
    assert contents == {path.name: path.read_bytes() for path in out.iterdir()}
    build.build_folder(out, items(4), Plan("folder", overwrite=True))
    assert read_info(out)["pictures"] == 8 and [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_folder_that_this_command_did_not_make_is_never_replaced(tmp_path):
    out = tmp_path / "thesis"
    out.mkdir()
    (out / "chapter1.tex").write_text("...")
    with pytest.raises(UserError, match="was not made by this command .*chapter1.tex"):
        staging.check_output_folder(out, overwrite=True)
    (out / "prep.json").write_text("{}")
    (out / "contact_sheet.png").write_bytes(b"")
    with pytest.raises(UserError, match="also holds chapter1.tex"):
        staging.check_output_folder(out, overwrite=True)
    with pytest.raises(UserError, match="OUT must be a folder, got the file"):
        staging.check_output_folder(out / "chapter1.tex", overwrite=True)
    assert (out / "chapter1.tex").read_text() == "..."


def test_remains_of_killed_runs_are_deleted_and_those_of_living_ones_are_not(tmp_path):
    host = socket.gethostname()
    dead_run = tmp_path / f"out.incomplete-{host}-{dead_process()}"
    living_run = tmp_path / f"out.incomplete-{host}-{os.getppid()}"
    other_host = tmp_path / f"out.incomplete-other.host-{dead_process()}"
    other_out = tmp_path / f"out2.incomplete-{host}-{dead_process()}"
    for folder in (dead_run, living_run, other_host, other_out):
        folder.mkdir()
    staging.check_output_folder(tmp_path / "out", overwrite=False)
    assert not dead_run.exists() and living_run.exists() and other_host.exists() and other_out.exists()


def test_a_folder_that_a_killed_run_was_replacing_is_restored(tmp_path):
    replaced_folder = tmp_path / f"out.replaced-{socket.gethostname()}-{dead_process()}"
    replaced_folder.mkdir()
    (replaced_folder / "prep.json").write_text("{}")
    with pytest.raises(UserError, match="is already a data folder"):
        staging.check_output_folder(tmp_path / "out", overwrite=False)
    assert (tmp_path / "out" / "prep.json").exists() and not replaced_folder.exists()


def test_the_built_in_faces_become_a_folder(tmp_path):
    info = build.build_synthetic(tmp_path / "out", subjects=4, levels=3, workers=1)
    assert info["source"] == "synthetic" and info["detector"] == "none" and info["pictures"] == 12
    values = np.concatenate([read_split(tmp_path / "out", split).intensity for split in info["splits"]])
    assert sorted(set(values.tolist())) == [0.0, 0.5, 1.0]


def test_impossible_numbers_of_built_in_faces_are_refused(tmp_path):
    with pytest.raises(UserError, match="--subjects must be at least 1, got 0"):
        build.build_synthetic(tmp_path / "out", subjects=0)
    assert not list(tmp_path.iterdir())


def test_inspect_counts_images_and_draws_a_contact_sheet(folder):
    text = inspect.describe(folder)
    assert "13 images, source folder, detector haar, margin 0.25" in text
    assert "s000:2" in text and "  1.0         6 ####" in text and "unknown     1" in text and "1 empty file" in text
    sheet = inspect.contact_sheet(folder)
    assert sheet.width > 1000 and sheet.height > 300
    assert inspect.contact_sheet(folder, max_images=6).height <= sheet.height


def test_inspecting_an_unfinished_folder_is_refused(tmp_path):
    with pytest.raises(UserError, match="no data folder"):
        inspect.describe(tmp_path / "nowhere")
    with pytest.raises(UserError, match="not finished"):
        inspect.describe(tmp_path)
