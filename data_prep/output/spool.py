"""Finished crops wait here for the splits, which are known once all crops have arrived, and then go into shards."""

import re
from collections.abc import Container, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from data_prep.layouts.scan import Rejected
from data_prep.output import writer
from data_prep.output.splits import canonical_subject, split_of
from facedisent_jax.config import IMAGE_SIZE
from facedisent_jax.data.record import SPLITS, Record, digest

if TYPE_CHECKING:
    from data_prep.cropping.crop import Crops

NO_IMAGE = np.empty(0, np.uint8)
MAX_FRAME = 2**63  # frame numbers are stored as int64


class Item(NamedTuple):
    """A finished crop, or a file that was left out (record None), or a remark.

    key:      name of the file in reports; key of the record.
    record:   None if the file was left out, or for a remark.
    reason:   why the file was left out, or the remark.
    found_by: the detector that found the face.
    remark:   whether `reason` is a remark on something that is used.
    digest:   hash of the image as it is stored in RAW, b"" if it is not from there.
    """

    key: str
    record: Record | None
    reason: str = ""
    found_by: str = ""
    remark: bool = False
    digest: bytes = b""


def items_from_reasons(entries: Iterable[Rejected], remark: bool = False) -> Iterator[Item]:
    for entry in entries:
        yield Item(entry.key, None, entry.reason, remark=remark)


def items_from_crops(crops: "Crops") -> Iterator[Item]:
    for source, image, found_by in zip(crops.sources, crops.images, crops.found_by, strict=True):
        record = Record(
            image,
            source.subject,
            source.expression,
            source.sequence,
            source.condition,
            source.frame,
            source.intensity,
        )
        yield Item(source.key, record, found_by=found_by, digest=source.digest)
    yield from items_from_reasons(crops.rejected)
    yield from items_from_reasons(crops.remarks, remark=True)


def validate_item(item: Item, subject_pattern: re.Pattern[str] | None) -> Item:
    """The item with the canonical name of its subject, or with its record left out if that cannot be stored."""
    if item.record is None:
        return item
    image = item.record.image
    if image.shape != (IMAGE_SIZE, IMAGE_SIZE, 3) or image.dtype != np.uint8:
        raise ValueError(f"{item.key}: the image must be uint8 [64, 64, 3], got {image.dtype} {list(image.shape)}.")
    if item.record.frame >= MAX_FRAME:
        return item._replace(record=None, reason="frame number of more than 18 digits")
    subject = canonical_subject(item.record.subject, subject_pattern)
    return item._replace(record=item.record._replace(subject=subject))


class Selection(NamedTuple):
    """Which crops are written, and where.

    copies: keys of those that are not.
    counts: split -> number of images.
    """

    split_by_subject: Mapping[str, str]
    copies: Container[str]
    counts: Mapping[str, int]


class CropStore(Protocol):
    """Keeps crops until the splits are known, then writes them into shards: `Spool`, or `BeamStore` with Beam."""

    def add_all(self, items: Iterable[Item]) -> Iterator[Item]:
        """Keep the crops of the items. Yields each item, validated, with an empty image."""
        ...

    def write(self, selection: Selection) -> tuple[Path, list[bytes]]:
        """Write the shards. Returns the folder that holds them, and the digests of all records."""
        ...

    def __enter__(self) -> "CropStore": ...

    def __exit__(self, *_) -> None: ...


class Spool:
    """Keeps crops in a file of raw bytes in `folder`. The shards are written below the same folder, by this process."""

    def __init__(self, folder: Path, subject_pattern: re.Pattern[str] | None):
        self._folder, self._subject_pattern = folder, subject_pattern
        self._path = folder / "crops.raw"
        self._records: list[Record] = []  # with empty images
        self._keys: list[str] = []
        self._digests: list[bytes] = []  # of the records that have been written

    def __enter__(self) -> "Spool":
        self._file = self._path.open("wb")
        return self

    def __exit__(self, *_) -> None:
        self._file.close()
        self._path.unlink(missing_ok=True)

    def add_all(self, items: Iterable[Item]) -> Iterator[Item]:
        for unchecked in items:
            item = validate_item(unchecked, self._subject_pattern)
            if item.record is not None:
                self._file.write(np.ascontiguousarray(item.record.image).data)
                record = item.record._replace(image=NO_IMAGE)
                self._records.append(record)
                self._keys.append(item.key)
                item = item._replace(record=record)
            yield item

    def write(self, selection: Selection) -> tuple[Path, list[bytes]]:
        streams = {split: self._stream(split, selection) for split in SPLITS if selection.counts[split]}
        return writer.write_shards(self._folder, streams), self._digests

    def _stream(self, split: str, selection: Selection):
        """A function that yields the (key, record) pairs of a split, with a progress bar."""

        def records() -> Iterator[tuple[str, Record]]:
            from tqdm import tqdm

            self._file.flush()
            images = np.memmap(self._path, np.uint8, "r").reshape(-1, IMAGE_SIZE, IMAGE_SIZE, 3)
            indices = (
                k
                for k, row in enumerate(self._records)
                if split_of(row.subject, selection.split_by_subject) == split and self._keys[k] not in selection.copies
            )
            for k in tqdm(indices, f"Writing {split}", selection.counts[split], unit=" images", leave=False):
                record = self._records[k]._replace(image=images[k])
                self._digests.append(digest(split, record))
                yield self._keys[k], record

        return records
