"""Whether a data folder is whole, and what two machines can compare. Imports facedisent_jax.records."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from facedisent_jax.data.reading import read_info, read_split
from facedisent_jax.data.record import NAME, SPLITS, Faces, Record, content_hash, digest
from facedisent_jax.errors import UserError

TFDS_FILES = ("dataset_info.json", "features.json")
CHUNK = 1024
"""Pictures that are in memory at a time."""


class Verified(NamedTuple):
    """Counts of a whole folder: split -> (pictures, subjects, files); and the hash of its content."""

    counts: dict[str, tuple[int, int, int]]
    content: str


def verify(folder: Path) -> Verified:
    """Read all of a data folder and check it. Raises RecordError, a sentence, for the first damage."""
    info = read_info(folder)
    _check_files(folder)
    counts, digests, seen = {}, [], {}
    for split in SPLITS:
        faces = read_split(folder, split, in_memory=False)
        people = set(faces.subject.tolist()) - {""}
        for who in sorted(people):
            if seen.setdefault(who, split) != split:
                raise UserError(f"{folder}: subject {who!r} is in the {seen[who]} and the {split} split.")
        counts[split] = len(faces), len(people), len(list(folder.glob(f"{NAME}-{split}.tfrecord-*")))
        digests += [digest(split, record) for record in _records(faces)]
    content = content_hash(digests)
    if info.get("content", content) != content:
        raise UserError(
            f"{folder}: the content hash is {content}, and {info['content']} was written when it was prepared: "
            "records were changed, lost or doubled since; prepare the folder again."
        )
    return Verified(counts, content)


def describe(folder: Path, verified: Verified) -> str:
    """What was verified, as text."""
    lines = [f"{'split':14}{'pictures':>9}{'subjects':>9}{'files':>9}"]
    lines += [f"{split:14}" + "".join(f"{number:9}" for number in row) for split, row in verified.counts.items()]
    return "\n".join([*lines, f"content hash {verified.content}", f"{folder} is whole."])


def _check_files(folder: Path) -> None:
    """TFDS's own files can be read, and no records are there but those of the three splits."""
    for name in TFDS_FILES:
        try:
            json.loads((folder / name).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise UserError(f"{folder / name} is missing.") from None
        except (ValueError, RecursionError) as error:
            raise UserError(f"{folder / name} is damaged, it is not JSON ({error}).") from error
    for path in sorted(folder.glob("*.tfrecord*")):
        if not any(path.name.startswith(f"{NAME}-{split}.tfrecord-") for split in SPLITS):
            raise UserError(f"{path} does not belong to the folder.")


def _records(faces: Faces) -> Iterator[Record]:
    for start in range(0, len(faces), CHUNK):
        part = faces.take(np.arange(start, min(start + CHUNK, len(faces))))
        columns = (part.subject, part.expression, part.sequence, part.condition, part.frame, part.intensity)
        for image, *known in zip(part.image[:], *columns, strict=True):
            yield Record(image, *(value.item() for value in known))
