"""The TFRecord files of a data folder: which belong to a split, and their records, every byte checked."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int64, UInt8

from facedisent_jax.data.record import IMAGE_BYTES, NAME, PREP_FILE, Record
from facedisent_jax.data.stream import without_autotune
from facedisent_jax.environment import import_tensorflow
from facedisent_jax.errors import UserError

CHUNK_RECORDS = 128  # records read at a time: more do not stay in the processor's cache
HEADER_BYTES, FOOTER_BYTES = 12, 4  # TFRecord: length and its CRC before a record, the record's CRC after it
SHARD_NAME = re.compile(rf"{NAME}-(\w+)\.tfrecord-(\d+)-of-(\d+)")


class RecordFault(Exception):
    """What is wrong with one of the records that are being read."""


class Chunk(NamedTuple):
    """Consecutive records of a shard.

    columns: the fields of Faces except the image.
    image: raw bytes.
    serialized: the records as they lie in the file, a TensorFlow tensor of strings.
    start: offset in the file of each serialized record.
    end: offset after the last record and its frame.
    """

    columns: dict[str, np.ndarray]
    image: UInt8[np.ndarray, "n 12288"]
    serialized: Any
    start: Int64[np.ndarray, "n"]
    end: int

    def image_offsets(self) -> Int64[np.ndarray, "n"]:
        """Offset of each image in the file."""
        offsets, at = self.start.copy(), 0
        for k, (record, image) in enumerate(zip(self.serialized.numpy(), self.image, strict=True)):
            image_bytes = image.tobytes()
            if not record.startswith(image_bytes, at):  # usually where it was in the record before
                at = record.index(image_bytes)
            offsets[k] += at
        return offsets


def list_shards(folder: Path, split: str, expected: int) -> list[Path]:
    """The shards of a split in order. Raises UserError for the first that is missing or does not belong.

    expected: number of records of the split in prep.json.
    """
    shard_paths = {path.name: path for path in sorted(folder.glob(f"{NAME}-{split}.tfrecord-*"))}
    if expected and not shard_paths:
        raise UserError(f"{folder} has no file {NAME}-{split}.tfrecord-*; {PREP_FILE} says {expected} {split} records.")
    for name, path in shard_paths.items():
        match = SHARD_NAME.fullmatch(name)
        if not match or not expected:
            raise UserError(f"{path} does not belong to the folder: {PREP_FILE} says {expected} {split} records.")
        if not path.stat().st_size:
            raise UserError(f"{path} is empty.")
        for k in range(int(match[3])):
            if (sibling := f"{NAME}-{split}.tfrecord-{k:05}-of-{match[3]}") not in shard_paths:
                raise UserError(f"{folder / sibling} is missing, but {name} exists.")
    return list(shard_paths.values())


def read_chunks(path: Path, size: int = CHUNK_RECORDS) -> Iterator[Chunk]:
    """The records of a shard, `size` at a time. Raises RecordFault for a damaged record."""
    tf = import_tensorflow()
    spec = {name: tf.io.FixedLenFeature([], tf.string) for name in Record._fields}
    spec["frame"] = tf.io.FixedLenFeature([], tf.int64)
    spec["intensity"] = tf.io.FixedLenFeature([], tf.float32)

    def parse(serialized):
        columns = tf.io.parse_example(serialized, spec)
        image = columns.pop("image")
        pixels = tf.io.decode_raw(image, tf.uint8, fixed_length=IMAGE_BYTES)
        return serialized, tf.strings.length(serialized), tf.strings.length(image), pixels, columns

    end = 0
    try:
        # Parsed in other threads while the next are read: a record takes as long to parse as to read.
        dataset = tf.data.TFRecordDataset(str(path)).batch(size).map(parse, 2, deterministic=True).prefetch(2)
        for serialized, *numbers, columns in without_autotune(dataset):
            length, image_length, image = (tensor.numpy() for tensor in numbers)
            if (wrong := image_length[image_length != IMAGE_BYTES]).size:
                raise RecordFault(f"its image must have {IMAGE_BYTES} bytes, got {wrong[0]}")
            ends = end + np.cumsum(length.astype(np.int64) + HEADER_BYTES + FOOTER_BYTES)
            start = ends - length - FOOTER_BYTES
            end = int(ends[-1])
            columns = {name: tensor.numpy() for name, tensor in columns.items()}
            yield Chunk(_check_intensity(_decode_text(columns)), image, serialized, start, end)
    except tf.errors.DataLossError as error:
        is_cut = "truncated" in error.message
        raise RecordFault(
            "the file ends in the middle of it" if is_cut else "its checksum does not fit its bytes"
        ) from error
    except tf.errors.InvalidArgumentError as error:
        match = re.search(r"(?:Feature|Key): (\w+)", error.message)
        raise RecordFault(
            f"its feature {match[1]!r} is missing or of a wrong type" if match else "it is not a tf.train.Example"
        ) from error
    except tf.errors.OpError as error:
        raise UserError(f"{path} cannot be read: {error.message.splitlines()[0]}") from error


def _decode_text(columns: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    for name in ("subject", "expression", "sequence", "condition"):
        try:
            columns[name] = np.char.decode(columns[name].astype(bytes), "utf-8")
        except UnicodeDecodeError:
            raise RecordFault(f"its feature {name!r} is not UTF-8") from None
    return columns


def _check_intensity(columns: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    intensity = columns["intensity"][~np.isnan(columns["intensity"])]
    if (wrong := intensity[~((intensity >= 0) & (intensity <= 1))]).size:
        raise RecordFault(f"its intensity must be from 0 to 1, got {wrong[0]:g}")
    return columns


def describe_fault(path: Path, fault: RecordFault) -> UserError:
    """The error for a shard with a fault, with record and offset: reads the shard once more, record by record."""
    records = start = 0
    try:
        for chunk in read_chunks(path, 1):
            records, start = records + 1, chunk.end
    except RecordFault as located_fault:
        fault = located_fault
    return UserError(
        f"{path} is damaged: record {records}, at byte {start}: {fault}. "
        "Copy the file again, or prepare the folder again."
    )
