"""Damaged data folders: what is damaged is named with file, record and offset, and no training step is made on it."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tiny_run import flat_face, person, write_folder

from data_prep.__main__ import main
from data_prep.output import build, verify
from data_prep.output.build import Plan
from data_prep.output.spool import Item
from facedisent_jax.commands import train
from facedisent_jax.config import Config
from facedisent_jax.data import reading
from facedisent_jax.data.reading import read_split
from facedisent_jax.data.record import Record
from facedisent_jax.data.stream import batches
from facedisent_jax.data.triplets import Triplets
from facedisent_jax.errors import UserError

LEVELS = (0.0, 0.3, 1.0)
PEOPLE = 6
FRAMED = 12460
"""Bytes of a record of these folders with its frame, as it happens."""


def items(levels=LEVELS) -> list[Item]:
    found = [record for number in range(PEOPLE) for record in person(number, levels, sequence="take")]
    return [Item(f"{record.subject}/{record.frame}", record) for record in found]


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A folder as prep makes it: 12 pictures train."""
    out = tmp_path_factory.mktemp("whole") / "faces"
    build.build(out, items(), Plan("folder"))
    return out


@pytest.fixture
def folder(whole, tmp_path) -> Path:
    return shutil.copytree(whole, tmp_path / "faces")


def shard(folder: Path, split: str = "train") -> Path:
    (found,) = folder.glob(f"faces-{split}.tfrecord-*")
    return found


def examples(path: Path) -> list[bytes]:
    import tensorflow as tf

    return [raw.numpy() for raw in tf.data.TFRecordDataset(str(path))]


def write(path: Path, records: list[bytes]) -> None:
    import tensorflow as tf

    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in records:
            writer.write(record)


def offset(folder: Path, record: int) -> int:
    """Where a record's frame begins."""
    return sum(len(raw) + 16 for raw in examples(shard(folder))[:record])


def flipped(folder: Path, position: int) -> None:
    content = bytearray(shard(folder).read_bytes())
    content[position] ^= 4
    shard(folder).write_bytes(content)


def cut(folder: Path, length: int) -> None:
    shard(folder).write_bytes(shard(folder).read_bytes()[:length])


def changed(folder: Path, change: Callable) -> None:
    """Record 5 is changed by `change`, which is given its features; all checksums fit."""
    import tensorflow as tf

    records = examples(shard(folder))
    example = tf.train.Example.FromString(records[5])
    change(example.features.feature)
    write(shard(folder), [*records[:5], example.SerializeToString(), *records[6:]])


def set_bytes(name: str, value: bytes) -> Callable:
    def change(feature):
        feature[name].bytes_list.value[0] = value

    return change


def set_float(name: str, value: float) -> Callable:
    def change(feature):
        feature[name].float_list.value[:] = [value]

    return change


def no_example(folder: Path) -> None:
    records = examples(shard(folder))
    write(shard(folder), [*records[:5], b"no example", *records[6:]])


IN_RECORD_5 = {
    "flipped byte of a picture": (lambda f: flipped(f, offset(f, 5) + 300), "its checksum does not fit"),
    "flipped byte of a length": (lambda f: flipped(f, offset(f, 5)), "its checksum does not fit"),
    "flipped byte of a checksum": (lambda f: flipped(f, offset(f, 6) - 1), "its checksum does not fit"),
    "truncated in a picture": (lambda f: cut(f, offset(f, 5) + 300), "the file ends in the middle of it"),
    "no example": (no_example, "not a tf.train.Example"),
    "missing feature": (lambda f: changed(f, lambda feature: feature.pop("frame")), "'frame' is missing or of a wrong"),
    "feature of a wrong type": (lambda f: changed(f, set_float("frame", 1.0)), "'frame' is missing or of a wrong type"),
    "text that is not UTF-8": (lambda f: changed(f, set_bytes("subject", b"\xff")), "'subject' is not UTF-8"),
    "intensity that cannot be": (lambda f: changed(f, set_float("intensity", 1.5)), "its intensity is 1.5"),
    "picture too short": (lambda f: changed(f, set_bytes("image", bytes(12285))), "12285 bytes, 12288 were expected"),
    "picture too long": (lambda f: changed(f, set_bytes("image", bytes(12289))), "12289 bytes, 12288 were expected"),
}


@pytest.mark.parametrize("in_memory", [True, False])
@pytest.mark.parametrize("kind", IN_RECORD_5)
def test_a_damaged_record_is_named_with_file_number_and_offset(folder, kind, in_memory):
    damage, said = IN_RECORD_5[kind]
    start = offset(folder, 5)
    damage(folder)
    where = f"{shard(folder)} is damaged: record 5, at byte {start}: "
    with pytest.raises(UserError, match=re.escape(where) + f".*{said}"):
        read_split(folder, "train", in_memory)


def rename_shard(folder: Path) -> None:
    shard(folder).rename(folder / "faces-train.tfrecord-00000-of-00002")


def extra_shard(folder: Path) -> None:
    shutil.copy(shard(folder), folder / "faces-train.tfrecord-00001-of-00002")


def of_another_preparation(folder: Path) -> None:
    """The training file of a folder in which other people are held out."""
    other = folder.parent / "other"
    build.build(other, items(), Plan("folder", split_seed=1))
    shutil.copy(shard(other), shard(folder))


IN_FILES = {
    "missing file": (lambda f: shard(f).unlink(), "has no file faces-train.tfrecord-*; prep.json says 12 train"),
    "missing second file": (rename_shard, "faces-train.tfrecord-00001-of-00002 is missing"),
    "files of two lengths": (extra_shard, "faces-train.tfrecord-00001-of-00001 is missing|-00000-of-00002 is missing"),
    "empty file": (lambda f: shard(f).write_bytes(b""), "faces-train.tfrecord-00000-of-00001 is empty"),
    "truncated between records": (lambda f: cut(f, offset(f, 5)), "5 train records found in 1 files.* says 12"),
    "truncated in a frame": (lambda f: cut(f, offset(f, 5) + 7), "at byte .*the file ends in the middle of a record"),
    "bytes after the end": (lambda f: shard(f).write_bytes(shard(f).read_bytes() + b"x"), "ends in the middle"),
    "people who are held out": (of_another_preparation, "subject .* is in the train records and not in the train sub"),
    "no prep.json": (lambda f: (f / "prep.json").unlink(), "has no prep.json"),
    "prep.json cut": (lambda f: (f / "prep.json").write_text('{"version": 1, '), "prep.json is damaged.*not JSON"),
    "prep.json of another kind": (lambda f: (f / "prep.json").write_text("[1]"), "prep.json is damaged"),
    "prep.json without end": (lambda f: (f / "prep.json").write_text("[" * 100_000), "prep.json is damaged"),
    "prep.json not text": (lambda f: (f / "prep.json").write_bytes(b"\xff\xfe{"), "prep.json is damaged"),
    "prep.json without splits": (lambda f: in_info(f, "splits", None), "prep.json is damaged: 'splits' is None"),
    "a split of no number": (lambda f: in_info(f, "splits", {"train": "12"}), "split 'train' has '12' pictures"),
    "subjects of no list": (lambda f: in_info(f, "subjects", {"train": "p1"}), "subjects of 'train' are no list"),
}


def in_info(folder: Path, name: str, value) -> None:
    info = json.loads((folder / "prep.json").read_text())
    (folder / "prep.json").write_text(json.dumps(info | {name: value}))


@pytest.mark.parametrize("kind", IN_FILES)
def test_a_damaged_folder_is_a_sentence_that_names_the_file(folder, kind):
    damage, said = IN_FILES[kind]
    damage(folder)
    with pytest.raises(UserError, match=said.replace("*;", r"\*;")) as raised:
        read_split(folder, "train")
    assert str(folder) in str(raised.value)


def test_a_split_that_is_to_be_empty_and_is_not_is_a_sentence(folder):
    in_info(folder, "splits", {"train": 12, "test": 3})
    with pytest.raises(UserError, match="faces-validation.* does not belong to the folder"):
        read_split(folder, "validation")


def test_no_flipped_byte_anywhere_in_a_file_is_read(folder):
    content = shard(folder).read_bytes()
    rng = np.random.default_rng(0)
    for position in rng.integers(0, len(content), 24):
        damaged = bytearray(content)
        damaged[position] ^= 1 << int(rng.integers(8))
        shard(folder).write_bytes(damaged)
        with pytest.raises(UserError, match=f"{re.escape(str(shard(folder)))} is damaged: record {position // FRAMED}"):
            read_split(folder, "train", in_memory=False)


@pytest.mark.parametrize("memory", [8.0, 0.0])
@pytest.mark.parametrize("split", ["train", "validation"])
def test_training_stops_before_its_first_step(folder, split, memory):
    content = bytearray(shard(folder, split).read_bytes())
    content[-300] ^= 1
    shard(folder, split).write_bytes(content)
    run = folder.parent / "run"
    with pytest.raises(UserError, match=f"faces-{split}.* is damaged: record"):
        train.main(Config(data=(str(folder),), run=str(run), memory=memory, steps=2))
    assert not run.exists()


def test_a_picture_left_on_disk_that_changes_during_training_stops_it(folder):
    triplets = Triplets(reading.read_faces([folder], "train", memory=0.0))
    expected = f"{re.escape(str(shard(folder)))} has changed since it was opened: the picture at byte "
    stream = batches(triplets, seed=0, start=0, stop=500, batch=8)  # far more than are prepared ahead
    next(stream)
    with shard(folder).open("r+b") as file:  # in place, as bytes go bad on a disk
        for record in range(12):
            file.seek(record * FRAMED + 6000)
            file.write(b"\x01\xfe\x01")
    with pytest.raises(UserError, match=expected):
        triplets.faces.image[0]
    with pytest.raises(UserError, match=expected):
        list(stream)


def test_the_content_hash_is_that_of_the_records_alone(whole, tmp_path):
    again = tmp_path / "again"
    build.build(again, reversed(items()), Plan("mug", "haar", options={"raw": "/elsewhere"}))
    content = verify.verify(whole).content
    assert verify.verify(again).content == content
    assert json.loads((whole / "prep.json").read_text())["content"] == content
    split = {name: [r for r in recorded(whole, name)] for name in ("train", "validation", "test")}
    other = write_folder(tmp_path / "files", {name: records[::-1] for name, records in split.items()})
    for name in verify.TFDS_FILES:
        (other / name).write_text("{}")
    records = examples(shard(other))
    shard(other).unlink()
    write(other / "faces-train.tfrecord-00000-of-00002", records[:5])
    write(other / "faces-train.tfrecord-00001-of-00002", records[5:])
    found = verify.verify(other)
    assert found.content == content
    assert found.counts == {"train": (12, 4, 2), "validation": (3, 1, 1), "test": (3, 1, 1)}


def recorded(folder: Path, split: str) -> list[Record]:
    faces = read_split(folder, split)
    names = ("subject", "expression", "sequence", "condition", "frame", "intensity")
    return [Record(faces.image[k], *(getattr(faces, name)[k].item() for name in names)) for k in range(len(faces))]


def another_picture(folder: Path) -> None:
    changed(folder, set_bytes("image", flat_face(77, 0.5).tobytes()))


UNSEEN = {
    "another picture": another_picture,
    "another intensity": lambda f: changed(f, set_float("intensity", 0.31)),
    "another condition": lambda f: changed(f, set_bytes("condition", b"051_07")),
    "a record twice, another not at all": lambda f: write(shard(f), [examples(shard(f))[0], *examples(shard(f))[:11]]),
}


@pytest.mark.parametrize("kind", UNSEEN)
def test_records_that_were_exchanged_for_others_are_found_by_the_content_hash(folder, kind):
    UNSEEN[kind](folder)
    with pytest.raises(UserError, match="content hash is .* was written when it was prepared"):
        verify.verify(folder)


def test_verify_prints_counts_and_a_hash(folder, capsys):
    main(["verify", str(folder)])
    said = capsys.readouterr().out
    assert re.search(r"train +12 +4 +1\n", said) and re.search(r"content hash [0-9a-f]{64}\n", said)


VERIFIED = {
    "features.json is missing": lambda f: (f / "features.json").unlink(),
    "dataset_info.json is damaged": lambda f: (f / "dataset_info.json").write_text("{"),
    "faces-extra.tfrecord-0 does not belong": lambda f: (f / "faces-extra.tfrecord-0").write_bytes(b""),
    "test.* is damaged: record 1, at byte ": lambda f: damage_test(f),
}


@pytest.mark.parametrize("said", VERIFIED)
def test_verify_ends_with_a_sentence_on_damage(folder, said):
    VERIFIED[said](folder)
    with pytest.raises(SystemExit) as stopped:
        main(["verify", str(folder)])
    sentence = str(stopped.value.code)  # what Python prints, ending with code 1
    assert re.match(f"data_prep: .*{said}", sentence) and "\n" not in sentence


def damage_test(folder: Path) -> None:
    content = bytearray(shard(folder, "test").read_bytes())
    content[20_000] ^= 1
    shard(folder, "test").write_bytes(content)
