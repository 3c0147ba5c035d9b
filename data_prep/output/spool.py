"""Finished pictures on their way into the shards: the splits are known when all have come.

Imports sources, splits, cropping's Crops, shards and facedisent_jax.records.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from data_prep.layouts.scan import Rejected
from data_prep.output import splits, writer
from facedisent_jax.config import IMAGE_SIZE
from facedisent_jax.data.record import SPLITS, Record, digest

if TYPE_CHECKING:
    from data_prep.cropping.crop import Crops

NO_IMAGE = np.empty(0, np.uint8)


class Item(NamedTuple):
    """One finished picture on its way into the folder, or (record None) a file that was left out, with the reason.

    remark: nothing was left out, the reason is something noticed.
    """

    key: str
    record: Record | None
    reason: str = ""
    found_by: str = ""
    remark: bool = False


def left_out(entries: Iterable[Rejected], remark: bool = False) -> Iterator[Item]:
    for entry in entries:
        yield Item(entry.key, None, entry.reason, remark=remark)


def of_crops(crops: "Crops") -> Iterator[Item]:
    for source, image, by in zip(crops.sources, crops.images, crops.found_by, strict=True):
        known = (source.subject, source.expression, source.sequence, source.condition)
        yield Item(source.key, Record(image, *known, source.frame, source.intensity), found_by=by)
    yield from left_out(crops.rejected)
    yield from left_out(crops.remarks, remark=True)


def checked(item: Item, pattern: re.Pattern[str] | None) -> Item:
    """The item with its person's name in every data set; one that cannot be stored is left out."""
    if item.record is None:
        return item
    image = item.record.image
    if image.shape != (IMAGE_SIZE, IMAGE_SIZE, 3) or image.dtype != np.uint8:
        raise ValueError(f"{item.key}: image {image.dtype} {image.shape}, uint8 [64, 64, 3] was expected.")
    if item.record.frame >= 2**63:
        return item._replace(record=None, reason="frame number of more than 18 digits")
    return item._replace(record=item.record._replace(subject=splits.canonical(item.record.subject, pattern)))


def split_of(subject: str, placed: Mapping[str, str]) -> str:
    """The split of a person's pictures: those of whom nobody knows whom they show train."""
    return placed.get(subject, "train")


class CropStore(Protocol):
    """Keeps pictures until the splits are known, and then has them written to shards."""

    def passing(self, items: Iterable[Item]) -> Iterator[Item]:
        """The items, checked, as their pictures are kept: none holds its picture any more."""
        ...

    def write(self, placed: Mapping[str, str]) -> tuple[Path, list[bytes]]:
        """Write the shards, given each person's split; the folder that holds them and the digests of all records."""
        ...

    def __enter__(self) -> "CropStore": ...

    def __exit__(self, *_) -> None: ...


class Spool:
    """Keeps pictures in a file of raw bytes in `folder`; the shards are written there too, by this process."""

    def __init__(self, folder: Path, pattern: re.Pattern[str] | None):
        self._folder, self._pattern = folder, pattern
        self._path = folder / "crops.raw"
        self._rows: list[Record] = []  # with an empty image
        self._keys: list[str] = []
        self._digests: list[bytes] = []  # of the records that were streamed

    def __enter__(self) -> "Spool":
        self._file = self._path.open("wb")
        return self

    def __exit__(self, *_) -> None:
        self._file.close()
        self._path.unlink(missing_ok=True)

    def passing(self, items: Iterable[Item]) -> Iterator[Item]:
        for given in items:
            item = checked(given, self._pattern)
            if item.record is not None:
                self._file.write(np.ascontiguousarray(item.record.image).data)
                row = item.record._replace(image=NO_IMAGE)
                self._rows.append(row)
                self._keys.append(item.key)
                item = item._replace(record=row)
            yield item

    def write(self, placed: Mapping[str, str]) -> tuple[Path, list[bytes]]:
        counts = Counter(split_of(row.subject, placed) for row in self._rows)
        streams = {split: self._stream(split, placed, counts[split]) for split in SPLITS if counts[split]}
        return writer.write(self._folder, streams), self._digests

    def _stream(self, split: str, placed: Mapping[str, str], total: int):
        """A function that gives the (key, record) pairs of a split, with a progress bar."""

        def records() -> Iterator[tuple[str, Record]]:
            from tqdm import tqdm

            self._file.flush()
            pixels = np.memmap(self._path, np.uint8, "r").reshape(-1, IMAGE_SIZE, IMAGE_SIZE, 3)
            numbers = (k for k, row in enumerate(self._rows) if split_of(row.subject, placed) == split)
            for number in tqdm(numbers, f"Writing {split}", total, unit=" pictures", leave=False):
                record = self._rows[number]._replace(image=pixels[number])
                self._digests.append(digest(split, record))
                yield self._keys[number], record

        return records
