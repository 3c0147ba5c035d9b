"""The record: one 64x64 face with what is known of it. The only description of it, used to write and to read.

Imports none of ours. TensorFlow is imported inside the functions that need it, so that `Record` is cheap to import.
"""

import hashlib
import json
import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

SIZE = 64
"""Height and width of a stored picture, in pixels."""
NEUTRAL = "neutral"
"""The expression of a picture that shows none: intensity 0 of any action."""
BYTES = SIZE * SIZE * 3
SPLITS = ("train", "validation", "test")
NAME = "faces"
"""The TFDS name of a data folder, and so the beginning of its shards' names."""
PREP_FILE = "prep.json"
"""Written beside TFDS's dataset_info.json: source, detector, margin, splits, counts of what was left out and why."""


class Record(NamedTuple):
    """One picture.

    image:      [64, 64, 3] uint8.
    subject:    who it is, "" if not known.
    expression: the action ("smile", "surprise", ...) or "neutral", "" if not known.
    sequence:   pictures shot in one go: a take (MUG), a session (Multi-PIE), "" if there is but one.
    condition:  camera and illumination, "" if there is but one.
    frame:      place in the sequence (MUG frame number, Multi-PIE recording number).
    intensity:  0 (neutral) to 1 (full expression), NaN if not known.
    """

    image: np.ndarray
    subject: str = ""
    expression: str = ""
    sequence: str = ""
    condition: str = ""
    frame: int = 0
    intensity: float = float("nan")


class RecordError(ValueError):
    """A data folder that cannot be used; the message is a sentence for the person at the keyboard."""


class MappedImages:
    """Pictures left on disk, read when indexed: `images[index]` -> [len(index), 64, 64, 3] uint8.

    A record holds its picture as raw bytes, so the picture is a slice of the shard: a memory map, one offset and one
    CRC-32 a picture serve instead of a copy. A picture that is not any more what it was is a RecordError.
    """

    def __init__(self, shards: list[Path], shard: np.ndarray, offset: np.ndarray, check: np.ndarray):
        self._shards = shards
        self._maps = [np.memmap(path, mode="r") for path in shards]
        self._shard, self._offset, self._check = shard, offset, check
        self.shape = (len(offset), SIZE, SIZE, 3)

    def __len__(self) -> int:
        return len(self._offset)

    def __getitem__(self, index) -> np.ndarray:
        rows = np.arange(len(self))[index]
        out = np.empty((rows.size, BYTES), np.uint8)
        for k, row in enumerate(rows.ravel()):
            shard, start = self._shard[row], self._offset[row]
            out[k] = self._maps[shard][start : start + BYTES]
            if zlib.crc32(out[k].data) != self._check[row]:
                raise RecordError(
                    f"{self._shards[shard]} has changed since it was opened: the picture at byte {start} is not what "
                    "it was. Copy the file again, or prepare the folder again."
                )
        return out.reshape(*rows.shape, SIZE, SIZE, 3)


@dataclass(frozen=True)
class Faces:
    """Records as columns: n pictures, the same fields as `Record`."""

    image: np.ndarray | MappedImages
    subject: np.ndarray
    expression: np.ndarray
    sequence: np.ndarray
    condition: np.ndarray
    frame: np.ndarray
    intensity: np.ndarray

    def __len__(self) -> int:
        return len(self.subject)

    def take(self, index: np.ndarray) -> "Faces":
        """The pictures at `index` (integers or a boolean mask), images in memory."""
        return Faces(*(getattr(self, field.name)[index] for field in fields(self)))

    @classmethod
    def of(cls, records: Iterable[Record]) -> "Faces":
        """Columns of `records`, images in memory."""
        columns = list(zip(*records, strict=True)) or [()] * len(_DTYPES)
        arrays = [np.asarray(column, dtype) for column, dtype in zip(columns, _DTYPES, strict=True)]
        return cls(arrays[0].reshape(-1, SIZE, SIZE, 3), *arrays[1:])

    @classmethod
    def join(cls, parts: Sequence["Faces"]) -> "Faces":
        """The pictures of several data folders, images in memory unless there is but one part."""
        if len(parts) == 1:
            return parts[0]
        names = [field.name for field in fields(cls)]
        return cls(*(np.concatenate([getattr(part, name)[:] for part in parts]) for name in names))


_DTYPES = (np.uint8, str, str, str, str, np.int64, np.float32)


def features():
    """The TFDS features of a record. The image as raw bytes: decoding PNG or JPEG costs 7-14 times more."""
    import tensorflow_datasets as tfds

    raw = tfds.features.Tensor(shape=(SIZE, SIZE, 3), dtype=np.uint8, encoding=tfds.features.Encoding.BYTES)
    text, integer, real = tfds.features.Text(), tfds.features.Scalar(np.int64), tfds.features.Scalar(np.float32)
    return tfds.features.FeaturesDict(
        {
            "image": raw,
            "subject": text,
            "expression": text,
            "sequence": text,
            "condition": text,
            "frame": integer,
            "intensity": real,
        }
    )


def read_info(folder: Path | str) -> dict:
    """What prep wrote of the data folder: the content of prep.json. Raises RecordError where there is none."""
    folder = Path(folder)
    if not folder.is_dir():
        raise RecordError(f"There is no data folder {folder}: make one with `python -m data_prep`.")
    path = folder / PREP_FILE
    if not path.is_file():
        raise RecordError(f"{folder} has no {PREP_FILE}: it was not made by `python -m data_prep`, or not finished.")
    try:
        info = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise RecordError(f"{path} is damaged, it is not JSON ({error}): prepare the folder again.") from error
    if fault := _fault_of(info):
        raise RecordError(f"{path} is damaged: {fault}; prepare the folder again.")
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
    info = read_info(folder)
    expected = info["splits"].get(split, 0)
    shards = _shards(Path(folder), split, expected)
    columns: dict[str, list] = {field.name: [] for field in fields(Faces)}
    shard_of, offset_of, checks = [], [], []
    for number, path in enumerate(shards):
        start = 0
        try:
            for raws, parsed in _read(path, 512):
                images = parsed.pop("image")
                if in_memory:
                    columns["image"].append(np.frombuffer(b"".join(images), np.uint8).reshape(-1, SIZE, SIZE, 3))
                for raw, image in zip(raws, images, strict=True):
                    if not in_memory:
                        offset_of.append(start + _HEADER + raw.index(image))
                        checks.append(zlib.crc32(image))
                    start += len(raw) + _HEADER + _FOOTER
                shard_of.append(np.full(len(images), number))
                for name, value in parsed.items():
                    columns[name].append(value)
        except _Fault as fault:
            raise _located(path, fault) from fault
        if start != path.stat().st_size:  # TensorFlow passes over the beginning of a record's frame
            raise RecordError(f"{path} is damaged at byte {start}: the file ends in the middle of a record.")
    found = sum(map(len, shard_of))
    if found != expected:
        raise RecordError(
            f"{folder}: {found} {split} records found in {len(shards)} files, {PREP_FILE} says {expected}."
        )
    if not expected:
        return Faces.of([])
    table: dict[str, Any] = {name: np.concatenate(parts) for name, parts in columns.items() if parts}
    if strangers := set(table["subject"].tolist()) - {"", *info["subjects"].get(split, [])}:
        raise RecordError(
            f"{folder}: subject {min(strangers)!r} is in the {split} records and not in the {split} subjects of "
            f"{PREP_FILE}: files of two preparations were mixed; prepare the folder again."
        )
    if not in_memory:
        where = np.concatenate(shard_of), np.asarray(offset_of), np.asarray(checks, np.uint32)
        table["image"] = MappedImages(shards, *where)
    return Faces(**table)


_HEADER, _FOOTER = 12, 4  # TFRecord framing: length and its CRC before a record, the record's CRC after it
_SHARD = re.compile(rf"{NAME}-(\w+)\.tfrecord-(\d+)-of-(\d+)")


def _shards(folder: Path, split: str, expected: int) -> list[Path]:
    """The files of a split in order. Raises RecordError, which names the first that is missing or one too many."""
    there = {path.name: path for path in sorted(folder.glob(f"{NAME}-{split}.tfrecord-*"))}
    if expected and not there:
        raise RecordError(
            f"{folder} has no file {NAME}-{split}.tfrecord-*; {PREP_FILE} says {expected} {split} records."
        )
    for name, path in there.items():
        named = _SHARD.fullmatch(name)
        if not named or not expected:
            raise RecordError(f"{path} does not belong to the folder: {PREP_FILE} says {expected} {split} records.")
        if not path.stat().st_size:
            raise RecordError(f"{path} is empty.")
        for number in range(int(named[3])):
            if (wanted := f"{NAME}-{split}.tfrecord-{number:05}-of-{named[3]}") not in there:
                raise RecordError(f"{folder / wanted} is missing; {name} is there.")
    return list(there.values())


class _Fault(Exception):
    """What is wrong with one of the records that are being read."""


def _read(path: Path, size: int) -> Iterator[tuple[list[bytes], dict[str, np.ndarray]]]:
    """The records of a file, `size` at a time, as they lie there and as columns. Raises _Fault."""
    import tensorflow as tf

    spec = {field.name: tf.io.FixedLenFeature([], tf.string) for field in fields(Faces)}
    spec["frame"] = tf.io.FixedLenFeature([], tf.int64)
    spec["intensity"] = tf.io.FixedLenFeature([], tf.float32)
    try:
        for serialized in tf.data.TFRecordDataset(str(path)).batch(size):
            columns = {name: value.numpy() for name, value in tf.io.parse_example(serialized, spec).items()}
            yield serialized.numpy().tolist(), _checked(columns)
    except tf.errors.DataLossError as error:
        cut = "truncated" in error.message
        raise _Fault("the file ends in the middle of it" if cut else "its checksum does not fit its bytes") from error
    except tf.errors.InvalidArgumentError as error:
        named = re.search(r"(?:Feature|Key): (\w+)", error.message)
        what = f"its feature {named[1]!r} is missing or of a wrong type" if named else "it is not a tf.train.Example"
        raise _Fault(what) from error
    except tf.errors.OpError as error:
        raise RecordError(f"{path} cannot be read: {error.message.splitlines()[0]}") from error


def _checked(columns: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The columns with text decoded. Raises _Fault where a value is none that a record can have."""
    for image in columns["image"]:
        if len(image) != BYTES:
            raise _Fault(f"its image has {len(image)} bytes, {BYTES} were expected")
    for name in ("subject", "expression", "sequence", "condition"):
        try:
            columns[name] = np.char.decode(columns[name].astype(bytes), "utf-8")
        except UnicodeDecodeError:
            raise _Fault(f"its feature {name!r} is not UTF-8") from None
    known = columns["intensity"][~np.isnan(columns["intensity"])]
    if not ((known >= 0) & (known <= 1)).all():
        raise _Fault(f"its intensity is {known[(known < 0) | (known > 1)][0]:g}, a number from 0 to 1 was expected")
    return columns


def _located(path: Path, fault: _Fault) -> RecordError:
    """The error for a file in which a fault was found, with the record: it is read once more, one by one."""
    seen = start = 0
    try:
        for raws, _ in _read(path, 1):
            seen, start = seen + 1, start + len(raws[0]) + _HEADER + _FOOTER
    except _Fault as found:
        fault = found
    return RecordError(
        f"{path} is damaged: record {seen}, at byte {start}: {fault}. Copy the file again, or prepare the folder again."
    )


def digest(split: str, record: Record) -> bytes:
    """32 bytes that tell a record with its split from any other."""
    out = hashlib.sha256(np.ascontiguousarray(record.image, np.uint8).tobytes())
    for text in (split, record.subject, record.expression, record.sequence, record.condition):
        out.update(len(text.encode()).to_bytes(8, "little") + text.encode())
    out.update(int(record.frame).to_bytes(8, "little", signed=True))
    known = np.float32(record.intensity)
    out.update(b"nan" if np.isnan(known) else np.array(known + 0, "<f4").tobytes())  # -0 + 0 is 0
    return out.digest()


def content_hash(digests: Iterable[bytes]) -> str:
    """One hash of all records of a folder, whatever their order and the files that they lie in."""
    return hashlib.sha256(b"".join(sorted(digests))).hexdigest()
