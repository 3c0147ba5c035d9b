"""The record, one 64x64 face with its labels: the only description of it, used to write and to read data folders.

TensorFlow Datasets is imported where it is needed, so that `Record` is cheap to import.
"""

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Int64, UInt8

from facedisent_jax.config import IMAGE_SIZE
from facedisent_jax.data.mapped_images import MappedImages
from facedisent_jax.environment import import_tensorflow

IMAGE_BYTES = IMAGE_SIZE * IMAGE_SIZE * 3
MOUTH = (slice(38, 60), slice(14, 50))  # rows and columns of the mouth in a tight crop

NEUTRAL = "neutral"  # the expression of an image that shows none: intensity 0 of any action
NEUTRAL_BELOW = 0.05  # an image below it counts as neutral
APEX_ABOVE = 0.95  # an image above it counts as the full expression

SPLITS = ("train", "validation", "test")
NAME = "faces"  # the TFDS name of a data folder, and so the beginning of the names of its shards
PREP_FILE = "prep.json"  # source, detector, margin, splits, what was left out and why; beside TFDS's dataset_info.json
FACTORS_FILE = "factors.npz"  # what each image was drawn from; in folders of the built-in faces alone


class Record(NamedTuple):
    """One image.

    subject:    name of the person, "" if unknown.
    expression: the action ("smile", "surprise", ...) or "neutral", "" if unknown.
    sequence:   images shot in one go: a take (MUG) or session (Multi-PIE), "" if there is only one.
    condition:  camera and illumination, "" if there is only one.
    frame:      position in the sequence (MUG frame number, Multi-PIE recording number).
    intensity:  0 (neutral) to 1 (full expression), NaN if unknown.
    """

    image: UInt8[np.ndarray, "64 64 3"]
    subject: str = ""
    expression: str = ""
    sequence: str = ""
    condition: str = ""
    frame: int = 0
    intensity: float = float("nan")


def spelling_key(subject: str) -> str:
    """The same for subjects that differ only by case, leading zeros, Unicode form or blanks at the ends, such as S002
    and s2: they may be one person."""
    name = unicodedata.normalize("NFC", subject).strip().casefold()
    return re.sub(r"(?<!\d)0+(?=\d)", "", name)


@dataclass(frozen=True)
class Faces:
    """n records as columns, the same fields as `Record`.

    folder: which of the data folders each was read from, counted from 0.
    """

    image: UInt8[np.ndarray, "n 64 64 3"] | MappedImages
    subject: np.ndarray
    expression: np.ndarray
    sequence: np.ndarray
    condition: np.ndarray
    frame: Int64[np.ndarray, "n"]
    intensity: Float32[np.ndarray, "n"]
    folder: Int64[np.ndarray, "n"]

    def __len__(self) -> int:
        return len(self.subject)

    def take(self, index: np.ndarray) -> "Faces":
        """The records at `index` (integers or a boolean mask), with images in memory."""
        return Faces(*(getattr(self, field.name)[index] for field in fields(self)))

    @classmethod
    def of(cls, records: Iterable[Record]) -> "Faces":
        """The columns of `records`, with images in memory."""
        columns = list(zip(*records, strict=True)) or [()] * len(_DTYPES)
        arrays = [np.asarray(column, dtype) for column, dtype in zip(columns, _DTYPES, strict=True)]
        folder = np.zeros(len(arrays[0]), np.int64)
        return cls(arrays[0].reshape(-1, IMAGE_SIZE, IMAGE_SIZE, 3), *arrays[1:], *[folder])

    @classmethod
    def join(cls, parts: Sequence["Faces"]) -> "Faces":
        """The records of all parts, with images in memory."""
        names = [field.name for field in fields(cls)]
        return cls(*(np.concatenate([getattr(part, name)[:] for part in parts]) for name in names))


_DTYPES = (np.uint8, str, str, str, str, np.int64, np.float32)


def features():
    """The TFDS features of a record. Images are raw bytes: decoding PNG or JPEG costs 7 to 14 times more."""
    import_tensorflow()
    import tensorflow_datasets as tfds

    image = tfds.features.Tensor(
        shape=(IMAGE_SIZE, IMAGE_SIZE, 3), dtype=np.uint8, encoding=tfds.features.Encoding.BYTES
    )
    text = tfds.features.Text()
    return tfds.features.FeaturesDict(
        {
            "image": image,
            "subject": text,
            "expression": text,
            "sequence": text,
            "condition": text,
            "frame": tfds.features.Scalar(np.int64),
            "intensity": tfds.features.Scalar(np.float32),
        }
    )


def digest(split: str, record: Record) -> bytes:
    """SHA-256 of a record and its split."""
    out = hashlib.sha256(np.ascontiguousarray(record.image, np.uint8).tobytes())
    for text in (split, record.subject, record.expression, record.sequence, record.condition):
        out.update(len(text.encode()).to_bytes(8, "little") + text.encode())
    out.update(int(record.frame).to_bytes(8, "little", signed=True))
    intensity = np.float32(record.intensity)
    out.update(b"nan" if np.isnan(intensity) else np.array(intensity + 0, "<f4").tobytes())  # -0 + 0 is 0
    return out.digest()


def content_hash(digests: Iterable[bytes]) -> str:
    """One hash for all records of a folder, independent of their order and of the files they lie in."""
    return hashlib.sha256(b"".join(sorted(digests))).hexdigest()
