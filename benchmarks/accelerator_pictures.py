"""Pictures of a data folder in one .npz, for machines without TensorFlow, and what accelerator.py trains on them."""

import zipfile
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import timing  # noqa: F401  (puts this checkout on the path)

from facedisent_jax.config import IMAGE_SIZE, Config, ModelConfig
from facedisent_jax.data.mapped_images import MappedImages
from facedisent_jax.data.one_factor import OneFactor
from facedisent_jax.data.record import IMAGE_BYTES, SPLITS, Faces
from facedisent_jax.data.triplets import Batch, Triplets
from facedisent_jax.errors import UserError
from facedisent_jax.files import check_out, check_suffix, replacing
from facedisent_jax.presets import PRESETS

SMALL = {
    "hybrid": ModelConfig(width=128, blocks=0),
    "plain": ModelConfig(kind="plain", width=8),
    "warp": ModelConfig(kind="warp", width=128, blocks=0),
}
"""Networks of the rehearsal, by kind."""
SMALL_BATCH, SMALL_CALL = 4, 2  # triplets a step, and steps a call


def pack(folder: Path, out: Path) -> None:
    """Write all records of a data folder, every field of `Faces`, to `out`. The only function that needs TensorFlow."""
    from facedisent_jax.data.reading import read_split

    check_suffix(out, [".npz"])
    check_out(out, [folder])
    parts = {split: read_split(folder, split) for split in SPLITS}
    columns = {
        f"{split}/{field.name}": getattr(faces, field.name) for split, faces in parts.items() for field in fields(Faces)
    }
    with replacing(out) as partial:
        np.savez_compressed(partial, **columns)
    counts = ", ".join(f"{len(faces)} {split}" for split, faces in parts.items())
    print(f"{out}: {counts} images, {out.stat().st_size / 1e6:.1f} MB.")


def load(path: Path) -> tuple[Faces, Faces]:
    """The training images of a file of `pack`, and those that it holds out (validation and test).

    Raises UserError where it is missing, damaged or something else.
    """
    if not path.is_file():
        raise UserError(f"The pictures must be a file written with --pack, got {path}, which is not there.")
    try:
        with np.load(path, allow_pickle=False) as columns:
            train, *held_out = (
                Faces(*(columns[f"{split}/{field.name}"] for field in fields(Faces))) for split in SPLITS
            )
    except (KeyError, ValueError, OSError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"The pictures must be a file written with --pack, got {path} ({error}).") from error
    if not (len(train) and sum(map(len, held_out))):
        raise UserError(f"{path} must have training images and others, got {len(train)} training images.")
    return train, Faces.join(held_out)


def map_images(faces: Faces, path: Path) -> Faces:
    """The same faces with images on disk, in a new file `path`, read as those of a large data folder are."""
    faces.image[:].tofile(path)
    n = len(faces)
    crc = np.array([zlib.crc32(np.ascontiguousarray(image)) for image in faces.image], np.uint32)
    offset = IMAGE_BYTES * np.arange(n)
    images = MappedImages([path], np.zeros(n, int), offset, crc, shape=(IMAGE_SIZE, IMAGE_SIZE, 3))
    return replace(faces, image=images)


def preset_config(preset: str, rehearse: bool, **changes: Any) -> Config:
    """The config of a preset with some fields changed; `dtype` is the model's. rehearse: all is small."""
    config = PRESETS[preset].config
    model = SMALL[config.model.kind] if rehearse else config.model
    config = replace(config, model=replace(model, dtype=changes.pop("dtype", model.dtype)), **changes)
    if not rehearse:
        return config
    return replace(config, batch=min(config.batch, SMALL_BATCH), steps_per_call=min(config.steps_per_call, SMALL_CALL))


def without_augmentation(config: Config) -> Config:
    return replace(config, augment=replace(config.augment, enabled=False))


def triplets_of(config: Config, faces: Faces) -> Triplets:
    """The triplets that `train.py` trains this config on."""
    sampler = OneFactor if config.method == "clamping" else Triplets
    return sampler(faces, config.intensity_step, config.model.kind == "warp", config.full_changes)


def draw_call(config: Config, triplets: Triplets) -> Callable[[int], Batch]:
    """A function that gathers the batch of a call to the device, the K-th, K + 1-th, ... steps of the run.

    With several steps per call the fields have an axis of steps in front.
    """
    k, with_images = config.steps_per_call, not config.dataset_on_device

    def draw(call: int) -> Batch:
        if k == 1:
            return triplets.batch(config.seed, call, config.batch, with_images=with_images)
        return triplets.batches(config.seed, range(call * k, (call + 1) * k), config.batch, with_images=with_images)

    return draw


def stream(config: Config, triplets: Triplets) -> Iterator[Batch]:
    """The batches of one call after the other, without end, gathered ahead by a thread of the host."""
    draw = draw_call(config, triplets)
    with ThreadPoolExecutor(1) as thread:
        ahead = [thread.submit(draw, 0), thread.submit(draw, 1)]
        for call in count(2):
            batch = ahead.pop(0).result()
            ahead.append(thread.submit(draw, call))
            yield batch
