"""The record: one 64x64 face with what is known of it. The only description of it, used to write and to read.

Imports none of ours. TensorFlow is imported inside the functions that need it, so that `Record` is cheap to import.
"""

import json
from collections.abc import Iterable, Sequence
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

    A record holds its picture as raw bytes, so the picture is a slice of the shard: a memory map and one offset a
    picture serve instead of a copy.
    """

    def __init__(self, shards: list[Path], shard: np.ndarray, offset: np.ndarray):
        self._maps = [np.memmap(path, mode="r") for path in shards]
        self._shard, self._offset = shard, offset
        self.shape = (len(offset), SIZE, SIZE, 3)

    def __len__(self) -> int:
        return len(self._offset)

    def __getitem__(self, index) -> np.ndarray:
        rows = np.arange(len(self))[index]
        out = np.empty((rows.size, BYTES), np.uint8)
        for k, row in enumerate(rows.ravel()):
            start = self._offset[row]
            out[k] = self._maps[self._shard[row]][start : start + BYTES]
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
    if not (folder / PREP_FILE).is_file():
        raise RecordError(f"{folder} has no {PREP_FILE}: it was not made by `python -m data_prep`, or not finished.")
    return json.loads((folder / PREP_FILE).read_text())


def read_split(folder: Path | str, split: str, in_memory: bool = True) -> Faces:
    """All records of a split, in the order of the shards; images in memory, or left on disk and mapped.

    Raises RecordError for a missing folder, a missing shard or a record that is damaged or not ours.
    """
    import tensorflow as tf

    info = read_info(folder)
    shards = sorted(Path(folder).glob(f"{NAME}-{split}.tfrecord-*"))
    expected = info["splits"].get(split, 0)
    spec = {field.name: tf.io.FixedLenFeature([], tf.string) for field in fields(Faces)}
    spec["frame"] = tf.io.FixedLenFeature([], tf.int64)
    spec["intensity"] = tf.io.FixedLenFeature([], tf.float32)
    columns: dict[str, list] = {name: [] for name in spec}
    shard_of, offset_of = [], []
    for number, path in enumerate(shards):
        start, seen = 0, 0
        try:
            for serialized in tf.data.TFRecordDataset(str(path)).batch(512):
                parsed = {name: value.numpy() for name, value in tf.io.parse_example(serialized, spec).items()}
                for raw, image in zip(serialized.numpy(), parsed["image"], strict=True):
                    if len(image) != BYTES:
                        raise RecordError(f"{path}, record {seen}: image of {len(image)} bytes, expected {BYTES}.")
                    if not in_memory:
                        offset_of.append(start + _HEADER + raw.index(image))
                    start += len(raw) + _HEADER + _FOOTER
                    seen += 1
                shard_of.append(np.full(len(parsed["image"]), number))
                images = parsed.pop("image")
                if in_memory:
                    columns["image"].append(np.frombuffer(b"".join(images), np.uint8).reshape(-1, SIZE, SIZE, 3))
                for name, value in parsed.items():
                    text = value.dtype == object
                    columns[name].append(np.char.decode(value.astype(bytes), "utf-8") if text else value)
        except (tf.errors.DataLossError, tf.errors.InvalidArgumentError) as error:
            raise RecordError(f"{path} is damaged after record {seen}: {error.message.splitlines()[0]}") from error
    if sum(map(len, shard_of)) != expected:
        raise RecordError(f"{folder}: {sum(map(len, shard_of))} {split} records found, {PREP_FILE} says {expected}.")
    if not expected:
        return Faces.of([])
    table: dict[str, Any] = {name: np.concatenate(parts) for name, parts in columns.items() if parts}
    if not in_memory:
        table["image"] = MappedImages(shards, np.concatenate(shard_of), np.asarray(offset_of))
    return Faces(**table)


_HEADER, _FOOTER = 12, 4  # TFRecord framing: length and its CRC before a record, the record's CRC after it
