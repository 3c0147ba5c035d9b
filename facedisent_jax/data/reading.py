"""Data folders -> Faces, checked: what prep.json promises, which people are held out, all records of a split."""

import hashlib
import json
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool

from facedisent_jax.config import IMAGE_SIZE
from facedisent_jax.data.mapped_images import MappedImages
from facedisent_jax.data.record import (
    APEX_ABOVE,
    IMAGE_BYTES,
    NEUTRAL_BELOW,
    PREP_FILE,
    SPLITS,
    Faces,
    spelling_key,
)
from facedisent_jax.data.shards import Chunk, RecordFault, describe_fault, list_shards, read_chunks
from facedisent_jax.errors import UserError

GIB = 1024**3
PREP_KEYS = {"source": str, "detector": str, "margin": int | float, "options": dict, "splits": dict, "subjects": dict}
HELD_OUT = ("validation", "test")
Columns = dict[str, np.ndarray]  # the fields of Faces except the image


def read_faces(folders: Sequence[str | Path], split: str, memory: float = 8.0, ends_only: bool = False) -> Faces:
    """A split of one or several data folders.

    memory: in GiB. Larger splits stay on disk and are mapped.
    ends_only: only neutral images and full expressions, which is all that binary training sees of clips.

    What is held out in one folder is held out in all: no training image shows anybody, by whatever spelling of the
    name, who is in the validation or test split of any folder, nor equals an image there. Raises UserError for folders
    that cannot be used.
    """
    count = sum(read_info(folder)["splits"].get(split, 0) for folder in folders)
    check_held_out = split == "train" and len(folders) > 1
    people = held_out_people(folders) if check_held_out else set()
    images = _held_out_images(folders) if check_held_out else set()

    def keep(chunk: Chunk) -> Bool[np.ndarray, "n"]:
        intensity = chunk.columns["intensity"]
        is_used = (intensity < NEUTRAL_BELOW) | (intensity > APEX_ABOVE) if ends_only else np.ones(len(intensity), bool)
        if check_held_out:
            names, index = np.unique(chunk.columns["subject"], return_inverse=True)
            is_used &= ~np.array([spelling_key(str(name)) in people for name in names])[index]
            is_used &= [_image_digest(image) not in images for image in chunk.image]
        return is_used

    in_memory = count * IMAGE_BYTES <= memory * GIB
    return read_splits(folders, split, in_memory, keep if check_held_out or ends_only else None)


def held_out_people(folders: Sequence[str | Path]) -> set[str]:
    """The `spelling_key` of everybody who is in the validation or test split of any of the folders."""
    subjects_by_split = [read_info(folder)["subjects"] for folder in folders]
    names = {name for subjects in subjects_by_split for split in HELD_OUT for name in subjects.get(split, [])}
    return {spelling_key(name) for name in names - {""}}


def _held_out_images(folders: Sequence[str | Path]) -> set[bytes]:
    """Digests of all images of the validation and test splits."""
    parts = (_read_checked(Path(folder), split) for folder in folders for split in HELD_OUT)
    return {_image_digest(image) for part in parts for _, chunk in part for image in chunk.image}


def _image_digest(image: np.ndarray) -> bytes:
    return hashlib.blake2b(image.tobytes(), digest_size=16).digest()


def crop_of(folders: Sequence[str | Path]) -> dict:
    """Detector and margin that the folders were cropped with. Raises UserError if the margins differ."""
    crops = [{key: read_info(folder).get(key) for key in ("detector", "margin")} for folder in folders]
    if len({crop["margin"] for crop in crops}) > 1:
        margins = ", ".join(f"{crop['margin']} in {folder}" for folder, crop in zip(folders, crops, strict=True))
        raise UserError(f"All data folders must be cropped with the same margin, got {margins}.")
    return crops[0]


def read_info(folder: Path | str) -> dict:
    """The content of prep.json, which data_prep writes last. Raises UserError if it is missing or damaged."""
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"There is no data folder {folder}: make one with `python -m data_prep`.")
    path = folder / PREP_FILE
    if not path.is_file():
        raise UserError(f"{folder} has no {PREP_FILE}: it was not made by `python -m data_prep`, or not finished.")
    try:
        info = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged, it is not JSON ({error}). Prepare the folder again.") from error
    if fault := _info_fault(info):
        raise UserError(f"{path} is damaged: {fault}. Prepare the folder again.")
    return info


def _info_fault(info: Any) -> str:
    """What is wrong with the content of a prep.json, or ""."""
    if not isinstance(info, dict):
        return "it must hold names and values"
    for name, kind in PREP_KEYS.items():
        if not isinstance(info.get(name), kind):
            return f"{name!r} is {info.get(name)!r}"
    for split, count in info["splits"].items():
        if split not in SPLITS or not isinstance(count, int) or count < 0:
            return f"the split {split!r} has {count!r} images"
    for split, subjects in info["subjects"].items():
        is_names = isinstance(subjects, list) and all(isinstance(name, str) for name in subjects)
        if split not in SPLITS or not is_names:
            return f"the subjects of {split!r} must be a list of names"
    return ""


def read_split(folder: Path | str, split: str, in_memory: bool = True) -> Faces:
    """All records of a split in the order of the shards, with images in memory or mapped from disk.

    Either way every byte is read and checked: checksums, features, number of records, and who they show. Mapped images
    are checked again whenever they are read. Raises UserError, which names file, record and offset, for a missing
    folder or shard and for damaged records.
    """
    return read_splits([folder], split, in_memory)


def read_splits(
    folders: Sequence[Path | str],
    split: str,
    in_memory: bool = True,
    keep: Callable[[Chunk], Bool[np.ndarray, "n"]] | None = None,
) -> Faces:
    """`read_split` for several folders. Images take their memory once, even while they are read.

    keep: which records of a chunk to keep.
    """
    count = sum(read_info(folder)["splits"].get(split, 0) for folder in folders)
    image = np.empty((count if in_memory else 0, IMAGE_BYTES), np.uint8)  # rows never written take no memory
    shard_paths: list[Path] = []
    parts: list[Columns] = []
    filled = 0
    for number, folder in enumerate(folders):
        for path, chunk in _read_checked(Path(folder), split):
            if path not in shard_paths[-1:]:
                shard_paths.append(path)
            rows = slice(None) if keep is None else keep(chunk)
            columns = {name: values[rows] for name, values in chunk.columns.items()}
            size = len(columns["frame"])
            columns["folder"] = np.full(size, number)
            if in_memory:
                image[filled : filled + size] = chunk.image[rows]
            else:
                columns |= {"shard": np.full(size, len(shard_paths) - 1), "offset": chunk.image_offsets()[rows]}
                columns["crc"] = np.fromiter(map(zlib.crc32, chunk.image[rows]), np.uint32, size)
            parts.append(columns)
            filled += size
    if not count:
        return Faces.of([])
    table = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    if in_memory:
        return Faces(image[:filled].reshape(-1, IMAGE_SIZE, IMAGE_SIZE, 3), **table)
    shard, offset, crc = (table.pop(name) for name in ("shard", "offset", "crc"))
    return Faces(MappedImages(shard_paths, shard, offset, crc, shape=(IMAGE_SIZE, IMAGE_SIZE, 3)), **table)


def _read_checked(folder: Path, split: str) -> Iterator[tuple[Path, Chunk]]:
    """The records of a split, with their shard. Raises UserError where they are not those that prep.json promises."""
    info = read_info(folder)
    expected, count = info["splits"].get(split, 0), 0
    shard_paths = list_shards(folder, split, expected)
    subjects: set[str] = set()
    for path in shard_paths:
        end = 0
        try:
            for chunk in read_chunks(path):
                count, end = count + len(chunk.start), chunk.end
                subjects |= set(chunk.columns["subject"].tolist())
                if count <= expected:
                    yield path, chunk
        except RecordFault as fault:
            raise describe_fault(path, fault) from fault
        if end != path.stat().st_size:  # TensorFlow ignores an incomplete header at the end
            raise UserError(f"{path} is damaged at byte {end}: the file ends in the middle of a record.")
    if count != expected:
        raise UserError(
            f"{folder} must have {expected} {split} records ({PREP_FILE}), got {count} in {len(shard_paths)} files."
        )
    if unexpected := subjects - {"", *info["subjects"].get(split, [])}:
        raise UserError(
            f"{folder}: subject {min(unexpected)!r} is in the {split} records but not in the {split} subjects of "
            f"{PREP_FILE}. Files of two preparations were mixed; prepare the folder again."
        )
