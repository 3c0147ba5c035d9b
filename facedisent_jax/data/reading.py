"""Data folders -> batches of triplets, streamed by tf.data. TensorFlow is imported when the stream is opened."""

import json
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from facedisent_jax.config import IMAGE_SIZE
from facedisent_jax.data.mapped_images import MappedImages
from facedisent_jax.data.record import BYTES, NAME, PREP_FILE, SPLITS, Faces
from facedisent_jax.data.stream import without_autotune
from facedisent_jax.data.tf_environment import quiet_tensorflow
from facedisent_jax.errors import UserError

GIB = 1024**3


def read_faces(folders: Sequence[str | Path], split: str, memory: float = 8.0, ends_only: bool = False) -> Faces:
    """The pictures of a split of one or several data folders, in memory if they take less than `memory` GiB.

    ends_only: the pictures of intensity below 0.05 or above 0.95 alone, which is what binary training sees of clips.
    Of several folders, a person held out in one is held out in all: no training picture shows anybody who is in the
    validation or test split of any folder. Raises RecordError for folders that cannot be used.
    """
    infos = [read_info(folder) for folder in folders]
    size = sum(info["splits"].get(split, 0) for info in infos) * 64 * 64 * 3
    hidden = np.array(sorted(held_out_subjects(folders)) if split == "train" and len(folders) > 1 else [], str)

    def keep(columns: dict[str, np.ndarray]) -> np.ndarray:
        end = (columns["intensity"] < 0.05) | (columns["intensity"] > 0.95)
        return ~np.isin(columns["subject"], hidden) & (end if ends_only else True)

    return read_splits(folders, split, size <= memory * GIB, keep if len(hidden) or ends_only else None)


def held_out_subjects(folders: Sequence[str | Path]) -> set[str]:
    """Everybody who is in the validation or test split of any of the folders."""
    lists = [read_info(folder)["subjects"] for folder in folders]
    return {who for subjects in lists for split in ("validation", "test") for who in subjects.get(split, [])}


def crop_of(folders: Sequence[str | Path]) -> dict:
    """The detector and margin that the folders were cropped with; folders that differ are an error."""
    crops = [{key: read_info(folder).get(key) for key in ("detector", "margin")} for folder in folders]
    margins = {crop["margin"] for crop in crops}
    if len(margins) > 1:
        listed = ", ".join(f"{folder} {crop['margin']}" for folder, crop in zip(folders, crops, strict=True))
        raise UserError(f"The data folders were cropped with different margins ({listed}): prepare them alike.")
    return crops[0]


def read_info(folder: Path | str) -> dict:
    """What prep wrote of the data folder: the content of prep.json. Raises RecordError where there is none."""
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"There is no data folder {folder}: make one with `python -m data_prep`.")
    path = folder / PREP_FILE
    if not path.is_file():
        raise UserError(f"{folder} has no {PREP_FILE}: it was not made by `python -m data_prep`, or not finished.")
    try:
        info = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged, it is not JSON ({error}): prepare the folder again.") from error
    if fault := _fault_of(info):
        raise UserError(f"{path} is damaged: {fault}; prepare the folder again.")
    return info


_INFO = {"source": str, "detector": str, "margin": int | float, "options": dict, "splits": dict, "subjects": dict}
"""What prep.json must hold, and as what."""


def _fault_of(info: Any) -> str:
    """What is wrong with the content of a prep.json, "" if nothing."""
    if not isinstance(info, dict):
        return "it holds no table of names and values"
    for name, kind in _INFO.items():
        if not isinstance(info.get(name), kind):
            return f"{name!r} is {info.get(name)!r}"
    for split, number in info["splits"].items():
        if split not in SPLITS or not isinstance(number, int) or number < 0:
            return f"the split {split!r} has {number!r} pictures"
    for split, people in info["subjects"].items():
        if split not in SPLITS or not isinstance(people, list) or not all(isinstance(who, str) for who in people):
            return f"the subjects of {split!r} are no list of names"
    return ""


def read_split(folder: Path | str, split: str, in_memory: bool = True) -> Faces:
    """All records of a split, in the order of the shards; images in memory, or left on disk and mapped.

    Every byte is read and checked in either case: the checksums, the features, the number of records, who they show.
    Raises RecordError, which names file, record and offset, for a missing folder or shard or what is damaged or not
    ours. Pictures left on disk are checked again whenever they are read.
    """
    return read_splits([folder], split, in_memory)


def read_splits(
    folders: Sequence[Path | str],
    split: str,
    in_memory: bool = True,
    keep: Callable[[dict[str, np.ndarray]], np.ndarray] | None = None,
) -> Faces:
    """As `read_split`, of several folders; pictures are read into the place where they stay, and take it once.

    keep: which of some records to keep, [n] bool, by their columns (those of Faces but the image).
    """
    number = sum(read_info(folder)["splits"].get(split, 0) for folder in folders)
    image = np.empty((number if in_memory else 0, BYTES), np.uint8)  # what is never written takes no memory
    shards: list[Path] = []
    parts: list[dict[str, np.ndarray]] = []
    kept = 0
    for folder in folders:
        for path, chunk in _chunks(Path(folder), split):
            if path not in shards[-1:]:
                shards.append(path)
            rows = slice(None) if keep is None else keep(chunk.columns)
            columns = {name: values[rows] for name, values in chunk.columns.items()}
            size = len(columns["frame"])
            if in_memory:
                image[kept : kept + size] = chunk.image[rows]
            else:
                columns |= {"shard": np.full(size, len(shards) - 1), "offset": chunk.offsets()[rows]}
                columns["check"] = np.fromiter(map(zlib.crc32, chunk.image[rows]), np.uint32, size)
            parts.append(columns)
            kept += size
    if not number:
        return Faces.of([])
    table = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    if in_memory:
        return Faces(image[:kept].reshape(-1, IMAGE_SIZE, IMAGE_SIZE, 3), **table)
    place = (table.pop(name) for name in ("shard", "offset", "check"))
    return Faces(MappedImages(shards, *place, shape=(IMAGE_SIZE, IMAGE_SIZE, 3)), **table)


def _chunks(folder: Path, split: str) -> Iterator[tuple[Path, "_Chunk"]]:
    """The records of a split with the files that they are in; what is wrong with any of them raises RecordError."""
    info = read_info(folder)
    expected, found = info["splits"].get(split, 0), 0
    shards = _shards(folder, split, expected)
    people: set[str] = set()
    for path in shards:
        end = 0
        try:
            for chunk in _read(path, _CHUNK):
                found, end = found + len(chunk.start), chunk.end
                people |= set(chunk.columns["subject"].tolist())
                if found <= expected:
                    yield path, chunk
        except _Fault as fault:
            raise _located(path, fault) from fault
        if end != path.stat().st_size:  # TensorFlow passes over the beginning of a record's frame
            raise UserError(f"{path} is damaged at byte {end}: the file ends in the middle of a record.")
    if found != expected:
        raise UserError(f"{folder}: {found} {split} records found in {len(shards)} files, {PREP_FILE} says {expected}.")
    if strangers := people - {"", *info["subjects"].get(split, [])}:
        raise UserError(
            f"{folder}: subject {min(strangers)!r} is in the {split} records and not in the {split} subjects of "
            f"{PREP_FILE}: files of two preparations were mixed; prepare the folder again."
        )


_CHUNK = 128  # records read at a time: more do not stay in the processor's cache


_HEADER, _FOOTER = 12, 4  # TFRecord framing: length and its CRC before a record, the record's CRC after it


_SHARD = re.compile(rf"{NAME}-(\w+)\.tfrecord-(\d+)-of-(\d+)")


def _shards(folder: Path, split: str, expected: int) -> list[Path]:
    """The files of a split in order. Raises RecordError, which names the first that is missing or one too many."""
    there = {path.name: path for path in sorted(folder.glob(f"{NAME}-{split}.tfrecord-*"))}
    if expected and not there:
        raise UserError(f"{folder} has no file {NAME}-{split}.tfrecord-*; {PREP_FILE} says {expected} {split} records.")
    for name, path in there.items():
        named = _SHARD.fullmatch(name)
        if not named or not expected:
            raise UserError(f"{path} does not belong to the folder: {PREP_FILE} says {expected} {split} records.")
        if not path.stat().st_size:
            raise UserError(f"{path} is empty.")
        for number in range(int(named[3])):
            if (wanted := f"{NAME}-{split}.tfrecord-{number:05}-of-{named[3]}") not in there:
                raise UserError(f"{folder / wanted} is missing; {name} is there.")
    return list(there.values())


class _Fault(Exception):
    """What is wrong with one of the records that are being read."""


class _Chunk(NamedTuple):
    """Some records of a file that follow each other.

    columns:    those of Faces but the image.
    image:      [n, 12288] uint8.
    serialized: [n] strings of TensorFlow, the records as they lie there.
    start:      [n] the first byte of each in the file; end: the byte after the last, frame included.
    """

    columns: dict[str, np.ndarray]
    image: np.ndarray
    serialized: Any
    start: np.ndarray
    end: int

    def offsets(self) -> np.ndarray:
        """[n] where the pictures lie in the file."""
        out, at = self.start.copy(), 0
        for k, (record, image) in enumerate(zip(self.serialized.numpy(), self.image, strict=True)):
            image = image.tobytes()
            if not record.startswith(image, at):  # mostly it lies where it lay in the record before
                at = record.index(image)
            out[k] += at
        return out


def _read(path: Path, size: int) -> Iterator[_Chunk]:
    """The records of a file, `size` at a time. Raises _Fault."""
    quiet_tensorflow()
    import tensorflow as tf

    spec = {field.name: tf.io.FixedLenFeature([], tf.string) for field in fields(Faces)}
    spec["frame"] = tf.io.FixedLenFeature([], tf.int64)
    spec["intensity"] = tf.io.FixedLenFeature([], tf.float32)

    def parse(serialized):
        columns = tf.io.parse_example(serialized, spec)
        text = columns.pop("image")
        image = tf.io.decode_raw(text, tf.uint8, fixed_length=BYTES)
        return serialized, tf.strings.length(serialized), tf.strings.length(text), image, columns

    end = 0
    try:
        # Parsed in other threads while the next are read: a record takes as long to parse as to read.
        stream = tf.data.TFRecordDataset(str(path)).batch(size).map(parse, 2, deterministic=True).prefetch(2)
        for found in without_autotune(stream):
            serialized, (length, pictured, image), columns = found[0], (v.numpy() for v in found[1:4]), found[4]
            if (wrong := pictured[pictured != BYTES]).size:
                raise _Fault(f"its image has {wrong[0]} bytes, {BYTES} were expected")
            ends = end + np.cumsum(length.astype(np.int64) + _HEADER + _FOOTER)
            start = ends - length - _FOOTER
            end = int(ends[-1])
            yield _Chunk(_checked({name: v.numpy() for name, v in columns.items()}), image, serialized, start, end)
    except tf.errors.DataLossError as error:
        cut = "truncated" in error.message
        raise _Fault("the file ends in the middle of it" if cut else "its checksum does not fit its bytes") from error
    except tf.errors.InvalidArgumentError as error:
        named = re.search(r"(?:Feature|Key): (\w+)", error.message)
        what = f"its feature {named[1]!r} is missing or of a wrong type" if named else "it is not a tf.train.Example"
        raise _Fault(what) from error
    except tf.errors.OpError as error:
        raise UserError(f"{path} cannot be read: {error.message.splitlines()[0]}") from error


def _checked(columns: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The columns with text decoded. Raises _Fault where a value is none that a record can have."""
    for name in ("subject", "expression", "sequence", "condition"):
        try:
            columns[name] = np.char.decode(columns[name].astype(bytes), "utf-8")
        except UnicodeDecodeError:
            raise _Fault(f"its feature {name!r} is not UTF-8") from None
    known = columns["intensity"][~np.isnan(columns["intensity"])]
    if not ((known >= 0) & (known <= 1)).all():
        raise _Fault(f"its intensity is {known[(known < 0) | (known > 1)][0]:g}, a number from 0 to 1 was expected")
    return columns


def _located(path: Path, fault: _Fault) -> UserError:
    """The error for a file in which a fault was found, with the record: it is read once more, one by one."""
    seen = start = 0
    try:
        for chunk in _read(path, 1):
            seen, start = seen + 1, chunk.end
    except _Fault as found:
        fault = found
    return UserError(
        f"{path} is damaged: record {seen}, at byte {start}: {fault}. Copy the file again, or prepare the folder again."
    )
