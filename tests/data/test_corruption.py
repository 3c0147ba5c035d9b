"""Damaged data folders: the error names file, record and offset, and training stops before it uses them."""

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
RECORD_BYTES = 12460  # of a record of these folders, with its frame


def items(levels=LEVELS) -> list[Item]:
    records = [record for number in range(PEOPLE) for record in person(number, levels, sequence="take")]
    return [Item(f"{record.subject}/{record.frame}", record) for record in records]


@pytest.fixture(scope="module")
def intact_folder(tmp_path_factory) -> Path:
    """A folder as data_prep makes it, with 12 training images."""
    out = tmp_path_factory.mktemp("undamaged") / "faces"
    build.build_folder(out, items(), Plan("folder"))
    return out


@pytest.fixture
def folder(intact_folder, tmp_path) -> Path:
    return shutil.copytree(intact_folder, tmp_path / "faces")


def shard(folder: Path, split: str = "train") -> Path:
    (path,) = folder.glob(f"faces-{split}.tfrecord-*")
    return path


def examples(path: Path) -> list[bytes]:
    import tensorflow as tf

    return [raw.numpy() for raw in tf.data.TFRecordDataset(str(path))]


def write_shard(path: Path, records: list[bytes]) -> None:
    import tensorflow as tf

    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in records:
            writer.write(record)


def offset(folder: Path, record: int) -> int:
    """The offset of a record's frame."""
    return sum(len(raw) + 16 for raw in examples(shard(folder))[:record])


def flip_bit(folder: Path, position: int) -> None:
    content = bytearray(shard(folder).read_bytes())
    content[position] ^= 4
    shard(folder).write_bytes(content)


def cut(folder: Path, length: int) -> None:
    shard(folder).write_bytes(shard(folder).read_bytes()[:length])


def rewrite(folder: Path, change: Callable) -> None:
    """Rewrite record 5 after change(its features); all checksums fit."""
    import tensorflow as tf

    records = examples(shard(folder))
    example = tf.train.Example.FromString(records[5])
    change(example.features.feature)
    write_shard(shard(folder), [*records[:5], example.SerializeToString(), *records[6:]])


def set_bytes(name: str, value: bytes) -> Callable:
    def change(feature):
        feature[name].bytes_list.value[0] = value

    return change


def set_float(name: str, value: float) -> Callable:
    def change(feature):
        feature[name].float_list.value[:] = [value]

    return change


def replace_by_text(folder: Path) -> None:
    records = examples(shard(folder))
    write_shard(shard(folder), [*records[:5], b"no example", *records[6:]])


IN_RECORD_5 = {
    "flipped bit in an image": (lambda f: flip_bit(f, offset(f, 5) + 300), "its checksum does not fit"),
    "flipped bit in a length": (lambda f: flip_bit(f, offset(f, 5)), "its checksum does not fit"),
    "flipped bit in a checksum": (lambda f: flip_bit(f, offset(f, 6) - 1), "its checksum does not fit"),
    "truncated in an image": (lambda f: cut(f, offset(f, 5) + 300), "the file ends in the middle of it"),
    "not an example": (replace_by_text, "not a tf.train.Example"),
    "missing feature": (
        lambda f: rewrite(f, lambda feature: feature.pop("frame")),
        "'frame' is missing or of a wrong",
    ),
    "feature of a wrong type": (
        lambda f: rewrite(f, set_float("frame", 1.0)),
        "'frame' is missing or of a wrong type",
    ),
    "text that is not UTF-8": (lambda f: rewrite(f, set_bytes("subject", b"\xff")), "'subject' is not UTF-8"),
    "impossible intensity": (
        lambda f: rewrite(f, set_float("intensity", 1.5)),
        "intensity must be .*, got 1.5",
    ),
    "image too short": (
        lambda f: rewrite(f, set_bytes("image", bytes(12285))),
        "must have 12288 bytes, got 12285",
    ),
    "image too long": (
        lambda f: rewrite(f, set_bytes("image", bytes(12289))),
        "must have 12288 bytes, got 12289",
    ),
}


@pytest.mark.parametrize("in_memory", [True, False])
@pytest.mark.parametrize("kind", IN_RECORD_5)
def test_a_damaged_record_is_named_with_file_number_and_offset(folder, kind, in_memory):
    damage, message = IN_RECORD_5[kind]
    start = offset(folder, 5)
    damage(folder)
    location = f"{shard(folder)} is damaged: record 5, at byte {start}: "
    with pytest.raises(UserError, match=re.escape(location) + f".*{message}"):
        read_split(folder, "train", in_memory)


def rename_shard(folder: Path) -> None:
    shard(folder).rename(folder / "faces-train.tfrecord-00000-of-00002")


def extra_shard(folder: Path) -> None:
    shutil.copy(shard(folder), folder / "faces-train.tfrecord-00001-of-00002")


def copy_from_another_preparation(folder: Path) -> None:
    """The training file of a folder in which other people are held out."""
    other_folder = folder.parent / "other"
    build.build_folder(other_folder, items(), Plan("folder", split_seed=1))
    shutil.copy(shard(other_folder), shard(folder))


IN_FILES = {
    "missing shard": (lambda f: shard(f).unlink(), "has no file faces-train.tfrecord-*; prep.json says 12 train"),
    "missing second shard": (rename_shard, "faces-train.tfrecord-00001-of-00002 is missing"),
    "shards of two sets": (extra_shard, "faces-train.tfrecord-00001-of-00001 is missing|-00000-of-00002 is missing"),
    "empty shard": (lambda f: shard(f).write_bytes(b""), "faces-train.tfrecord-00000-of-00001 is empty"),
    "truncated between records": (lambda f: cut(f, offset(f, 5)), "must have 12 train records .*, got 5 in 1 files"),
    "truncated in a frame": (lambda f: cut(f, offset(f, 5) + 7), "at byte .*the file ends in the middle of a record"),
    "bytes after the end": (lambda f: shard(f).write_bytes(shard(f).read_bytes() + b"x"), "ends in the middle"),
    "people who are held out": (
        copy_from_another_preparation,
        "subject .* is in the train records but not in",
    ),
    "no prep.json": (lambda f: (f / "prep.json").unlink(), "has no prep.json"),
    "prep.json cut": (lambda f: (f / "prep.json").write_text('{"version": 1, '), "prep.json is damaged.*not JSON"),
    "prep.json is a list": (lambda f: (f / "prep.json").write_text("[1]"), "prep.json is damaged"),
    "prep.json nested too deeply": (lambda f: (f / "prep.json").write_text("[" * 100_000), "prep.json is damaged"),
    "prep.json is not text": (lambda f: (f / "prep.json").write_bytes(b"\xff\xfe{"), "prep.json is damaged"),
    "prep.json without splits": (lambda f: set_info(f, "splits", None), "prep.json is damaged: 'splits' is None"),
    "split count is not a number": (lambda f: set_info(f, "splits", {"train": "12"}), "split 'train' has '12' images"),
    "subjects are not a list": (
        lambda f: set_info(f, "subjects", {"train": "p1"}),
        "subjects of 'train' must be a list",
    ),
}


def set_info(folder: Path, name: str, value) -> None:
    info = json.loads((folder / "prep.json").read_text())
    (folder / "prep.json").write_text(json.dumps(info | {name: value}))


@pytest.mark.parametrize("kind", IN_FILES)
def test_the_error_for_a_damaged_folder_names_the_file(folder, kind):
    damage, message = IN_FILES[kind]
    damage(folder)
    with pytest.raises(UserError, match=message.replace("*;", r"\*;")) as error:
        read_split(folder, "train")
    assert str(folder) in str(error.value)


def test_shards_of_a_split_that_must_be_empty_are_refused(folder):
    set_info(folder, "splits", {"train": 12, "test": 3})
    with pytest.raises(UserError, match="faces-validation.* does not belong to the folder"):
        read_split(folder, "validation")


@pytest.mark.slow
def test_a_flipped_bit_anywhere_in_a_shard_is_found(folder):
    content = shard(folder).read_bytes()
    rng = np.random.default_rng(0)
    for position in rng.integers(0, len(content), 24):
        flipped_content = bytearray(content)
        flipped_content[position] ^= 1 << int(rng.integers(8))
        shard(folder).write_bytes(flipped_content)
        with pytest.raises(
            UserError, match=f"{re.escape(str(shard(folder)))} is damaged: record {position // RECORD_BYTES}"
        ):
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


def test_a_mapped_image_that_changes_during_training_stops_it(folder):
    triplets = Triplets(reading.read_faces([folder], "train", memory=0.0))
    expected = f"{re.escape(str(shard(folder)))} has changed since it was opened: the image at byte "
    stream = batches(triplets, seed=0, start=0, stop=500, batch=8)  # far more than it prepares ahead
    next(stream)
    with shard(folder).open("r+b") as file:  # in place, as bytes go bad on a disk
        for record in range(12):
            file.seek(record * RECORD_BYTES + 6000)
            file.write(b"\x01\xfe\x01")
    with pytest.raises(UserError, match=expected):
        triplets.faces.image[0]
    with pytest.raises(UserError, match=expected):
        list(stream)


def test_the_content_hash_depends_on_the_records_alone(intact_folder, tmp_path):
    second_folder = tmp_path / "again"
    build.build_folder(second_folder, reversed(items()), Plan("mug", "haar", options={"raw": "/elsewhere"}))
    content = verify.verify_folder(intact_folder).content
    assert verify.verify_folder(second_folder).content == content
    assert json.loads((intact_folder / "prep.json").read_text())["content"] == content
    split = {name: [r for r in read_records(intact_folder, name)] for name in ("train", "validation", "test")}
    sharded_folder = write_folder(tmp_path / "files", {name: records[::-1] for name, records in split.items()})
    for name in verify.TFDS_FILES:
        (sharded_folder / name).write_text("{}")
    records = examples(shard(sharded_folder))
    shard(sharded_folder).unlink()
    write_shard(sharded_folder / "faces-train.tfrecord-00000-of-00002", records[:5])
    write_shard(sharded_folder / "faces-train.tfrecord-00001-of-00002", records[5:])
    verification = verify.verify_folder(sharded_folder)
    assert verification.content == content
    assert verification.counts == {"train": (12, 4, 2), "validation": (3, 1, 1), "test": (3, 1, 1)}


def read_records(folder: Path, split: str) -> list[Record]:
    faces = read_split(folder, split)
    names = ("subject", "expression", "sequence", "condition", "frame", "intensity")
    return [Record(faces.image[k], *(getattr(faces, name)[k].item() for name in names)) for k in range(len(faces))]


def replace_image(folder: Path) -> None:
    rewrite(folder, set_bytes("image", flat_face(77, 0.5).tobytes()))


ONLY_IN_HASH = {
    "another image": replace_image,
    "another intensity": lambda f: rewrite(f, set_float("intensity", 0.31)),
    "another condition": lambda f: rewrite(f, set_bytes("condition", b"051_07")),
    "a record twice, another not at all": lambda f: write_shard(
        shard(f), [examples(shard(f))[0], *examples(shard(f))[:11]]
    ),
}


@pytest.mark.parametrize("kind", ONLY_IN_HASH)
def test_the_content_hash_finds_replaced_records(folder, kind):
    ONLY_IN_HASH[kind](folder)
    with pytest.raises(UserError, match="content hash must be .*, as when it was prepared, got"):
        verify.verify_folder(folder)


def test_verify_prints_counts_and_a_hash(folder, capsys):
    main(["verify", str(folder)])
    printed = capsys.readouterr().out
    assert re.search(r"train +12 +4 +1\n", printed) and re.search(r"content hash [0-9a-f]{64}\n", printed)


VERIFIED = {
    "features.json is missing": lambda f: (f / "features.json").unlink(),
    "dataset_info.json is damaged": lambda f: (f / "dataset_info.json").write_text("{"),
    "faces-extra.tfrecord-0 does not belong": lambda f: (f / "faces-extra.tfrecord-0").write_bytes(b""),
    "test.* is damaged: record 1, at byte ": lambda f: damage_test_split(f),
}


@pytest.mark.parametrize("message", VERIFIED)
def test_verify_ends_with_a_sentence_on_damage(folder, message):
    VERIFIED[message](folder)
    with pytest.raises(SystemExit) as system_exit:
        main(["verify", str(folder)])
    sentence = str(system_exit.value.code)  # what Python prints, ending with code 1
    assert re.match(f"data_prep: .*{message}", sentence) and "\n" not in sentence


def damage_test_split(folder: Path) -> None:
    content = bytearray(shard(folder, "test").read_bytes())
    content[20_000] ^= 1
    shard(folder, "test").write_bytes(content)
