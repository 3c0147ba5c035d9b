"""Checks that a data folder is complete, and computes the hash of its content that two machines can compare."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from facedisent_jax.data.factors import read_factors, values_of
from facedisent_jax.data.reading import read_info, read_split
from facedisent_jax.data.record import NAME, SPLITS, Faces, Record, content_hash, digest
from facedisent_jax.errors import UserError

TFDS_FILES = ("dataset_info.json", "features.json")
CHUNK_IMAGES = 1024  # in memory at a time


class Verified(NamedTuple):
    """What a complete folder holds.

    counts:  split -> number of images, subjects and files.
    content: hash of all records.
    """

    counts: dict[str, tuple[int, int, int]]
    content: str


def verify_folder(folder: Path) -> Verified:
    """Read and check every byte of a data folder. Raises UserError for the first damage."""
    info = read_info(folder)
    _check_files(folder)
    factors = read_factors(folder)
    counts: dict[str, tuple[int, int, int]] = {}
    digests: list[bytes] = []
    split_by_subject: dict[str, str] = {}
    for split in SPLITS:
        faces = read_split(folder, split, in_memory=False)
        if factors is not None:
            values_of(factors, faces)
        subjects = set(faces.subject.tolist()) - {""}
        for subject in sorted(subjects):
            first_split = split_by_subject.setdefault(subject, split)
            if first_split != split:
                raise UserError(f"{folder}: a subject must be in one split, got {subject!r} in {first_split}, {split}.")
        counts[split] = len(faces), len(subjects), len(list(folder.glob(f"{NAME}-{split}.tfrecord-*")))
        digests += [digest(split, record) for record in _records(faces)]
    content = content_hash(digests)
    expected = info.get("content", content)
    if content != expected:
        raise UserError(
            f"{folder}: the content hash must be {expected}, as when it was prepared, got {content}: records were "
            "changed, lost or duplicated since. Prepare the folder again."
        )
    return Verified(counts, content)


def describe(folder: Path, verified: Verified) -> str:
    """What was verified, as text."""
    lines = [f"{'split':14}{'images':>9}{'subjects':>9}{'files':>9}"]
    lines += [f"{split:14}" + "".join(f"{count:9}" for count in counts) for split, counts in verified.counts.items()]
    return "\n".join([*lines, f"content hash {verified.content}", f"{folder} is complete and undamaged."])


def _check_files(folder: Path) -> None:
    """Check that the files of TFDS can be read, and that all records belong to one of the three splits."""
    for name in TFDS_FILES:
        try:
            json.loads((folder / name).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise UserError(f"{folder / name} is missing.") from None
        except (ValueError, RecursionError) as error:
            raise UserError(f"{folder / name} is damaged: it must be a JSON file ({error}).") from error
    for path in sorted(folder.glob("*.tfrecord*")):
        if not any(path.name.startswith(f"{NAME}-{split}.tfrecord-") for split in SPLITS):
            raise UserError(f"{path} does not belong to the folder.")


def _records(faces: Faces) -> Iterator[Record]:
    """The records one by one, of which `CHUNK_IMAGES` are in memory."""
    for start in range(0, len(faces), CHUNK_IMAGES):
        chunk = faces.take(np.arange(start, min(start + CHUNK_IMAGES, len(faces))))
        columns = (chunk.subject, chunk.expression, chunk.sequence, chunk.condition, chunk.frame, chunk.intensity)
        for image, *fields in zip(chunk.image[:], *columns, strict=True):
            yield Record(image, *(value.item() for value in fields))
