"""The record: one 64x64 face with what is known of it. The only description of it, used to write and to read.

Imports mapped. TensorFlow is imported inside the functions that need it, so that `Record` is cheap to import.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np

from facedisent_jax.config import IMAGE_SIZE
from facedisent_jax.data.mapped_images import MappedImages
from facedisent_jax.data.tf_environment import quiet_tensorflow

NEUTRAL = "neutral"
"""The expression of a picture that shows none: intensity 0 of any action."""
BYTES = IMAGE_SIZE * IMAGE_SIZE * 3
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
        return cls(arrays[0].reshape(-1, IMAGE_SIZE, IMAGE_SIZE, 3), *arrays[1:])

    @classmethod
    def join(cls, parts: Sequence["Faces"]) -> "Faces":
        """The pictures of all parts, images in memory."""
        names = [field.name for field in fields(cls)]
        return cls(*(np.concatenate([getattr(part, name)[:] for part in parts]) for name in names))


_DTYPES = (np.uint8, str, str, str, str, np.int64, np.float32)


def features():
    """The TFDS features of a record. The image as raw bytes: decoding PNG or JPEG costs 7-14 times more."""
    quiet_tensorflow()
    import tensorflow_datasets as tfds

    raw = tfds.features.Tensor(shape=(IMAGE_SIZE, IMAGE_SIZE, 3), dtype=np.uint8, encoding=tfds.features.Encoding.BYTES)
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


MOUTH = (slice(38, 60), slice(14, 50))
"""Rows and columns of the mouth in a tight 64x64 crop."""


NEUTRAL = "neutral"
