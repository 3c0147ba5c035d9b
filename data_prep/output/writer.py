"""Writes records as plain TFRecord shards with TensorFlow Datasets.

This is the only module of data_prep that imports TensorFlow, and only when something is written.
"""

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from facedisent_jax.data.record import NAME, Record, features
from facedisent_jax.environment import import_tensorflow

VERSION = "1.0.0"
Stream = Iterator[tuple[str, Record]]


def write_shards(folder: Path, splits: Mapping[str, Callable[[], Stream]]) -> Path:
    """Write the (key, record) pairs of each split below `folder`. Returns the folder that holds the shards.

    Records are shuffled by a hash of their keys, so that the files do not depend on their order.

    splits: name -> a function that yields at least one pair.
    """

    def generators(self, dl_manager):
        return {split: self._generate_examples(stream) for split, stream in splits.items()}

    return _prepare(folder, generators)


def write_shards_with_beam(folder: Path, splits: Callable[[Any], Mapping[str, Any]], runner, options) -> Path:
    """Like `write_shards`, by Apache Beam.

    splits: adds to a pipeline a collection of (key, record as a dictionary) for each split.
    """

    def generators(self, dl_manager, pipeline):  # TFDS makes a pipeline because the argument has this name
        return splits(pipeline)

    return _prepare(folder, generators, beam_runner=runner, beam_options=options)


def _prepare(folder: Path, generators: Callable, **settings) -> Path:
    import_tensorflow()
    import tensorflow_datasets as tfds

    class Faces(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        """64x64 faces: who, which expression, how strong."""

        name = NAME
        VERSION = tfds.core.Version(VERSION)
        _split_generators = generators

        def _info(self):
            return tfds.core.DatasetInfo(builder=self, description=self.__doc__, features=features())

        def _generate_examples(self, stream: Callable[[], Stream]):
            return ((key, record._asdict()) for key, record in stream())

    tfds.disable_progress_bar()
    builder = Faces(data_dir=str(folder), file_format="tfrecord")
    with open(os.devnull, "w") as devnull, contextlib.redirect_stdout(devnull):
        builder.download_and_prepare(download_config=tfds.download.DownloadConfig(**settings))
    return folder / NAME / VERSION
