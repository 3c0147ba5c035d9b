"""Data folders -> batches of triplets, streamed by tf.data. TensorFlow is imported when the stream is opened."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from facedisent_jax.records import Faces, RecordError, read_info, read_splits, untuned
from facedisent_jax.triplets import Batch, Triplets

GIB = 1024**3
TOGETHER = 128
"""Triplets of several steps that are gathered at once, so that handing them over costs little beside it."""


def read_faces(folders: Sequence[str | Path], split: str, memory: float = 8.0, ends_only: bool = False) -> Faces:
    """The pictures of a split of one or several data folders, in memory if they take less than `memory` GiB.

    ends_only: the pictures of intensity below 0.05 or above 0.95 alone, which is what binary training sees of clips.
    Of several folders, a person held out in one is held out in all: no training picture shows anybody who is in the
    validation or test split of any folder. Raises RecordError for folders that cannot be used.
    """
    infos = [read_info(folder) for folder in folders]
    size = sum(info["splits"].get(split, 0) for info in infos) * 64 * 64 * 3
    hidden = np.array(sorted(held_out_subjects(folders)) if split == "train" and len(folders) > 1 else [], str)

    def keep(columns: dict[str, np.ndarray]) -> np.ndarray:
        end = (columns["intensity"] < 0.05) | (columns["intensity"] > 0.95)
        return ~np.isin(columns["subject"], hidden) & (end if ends_only else True)

    return read_splits(folders, split, size <= memory * GIB, keep if len(hidden) or ends_only else None)


def held_out_subjects(folders: Sequence[str | Path]) -> set[str]:
    """Everybody who is in the validation or test split of any of the folders."""
    lists = [read_info(folder)["subjects"] for folder in folders]
    return {who for subjects in lists for split in ("validation", "test") for who in subjects.get(split, [])}


def crop_of(folders: Sequence[str | Path]) -> dict:
    """The detector and margin that the folders were cropped with; folders that differ are an error."""
    crops = [{key: read_info(folder).get(key) for key in ("detector", "margin")} for folder in folders]
    margins = {crop["margin"] for crop in crops}
    if len(margins) > 1:
        listed = ", ".join(f"{folder} {crop['margin']}" for folder, crop in zip(folders, crops, strict=True))
        raise RecordError(f"The data folders were cropped with different margins ({listed}): prepare them alike.")
    return crops[0]


def batches(
    triplets: Triplets,
    seed: int,
    start: int,
    stop: int,
    batch: int,
    rows: slice = slice(None),
    pictures: bool = True,
) -> Iterator[Batch]:
    """The batches of steps start .. stop - 1, prepared ahead in another thread, in order.

    Step k's batch is `triplets.batch(seed, k, batch, rows, pictures)` however the stream was opened, so a resumed run
    needs no iterator state. Raises RecordError for a picture left on disk that is damaged since the folder was opened.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import tensorflow as tf

    tf.config.set_visible_devices([], "GPU")  # the GPU is JAX's
    picture = tf.uint8 if pictures else tf.int32
    types = Batch(*[picture if name in ("images", "between") else tf.float32 for name in Batch._fields])

    faults: list[RecordError] = []
    together = max(1, TOGETHER // batch)

    def several(first) -> tuple:
        try:
            return tuple(triplets.batches(seed, range(first, min(first + together, stop)), batch, rows, pictures))
        except RecordError as error:
            faults.append(error)  # TensorFlow would make it one of its own, with a traceback for a message
            raise

    def gather(first):
        return tf.numpy_function(several, [first], list(types))

    # In one thread: two take turns at the interpreter, and give a quarter fewer pictures from disk.
    stream = untuned(tf.data.Dataset.range(start, stop, together).map(gather).prefetch(2))

    def opened() -> Iterator[Batch]:
        try:
            for fields in stream.as_numpy_iterator():
                yield from map(Batch, *fields)
        except tf.errors.OpError:
            if faults:
                raise faults[0] from None
            raise

    return opened()
