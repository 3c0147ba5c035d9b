"""Writes records as plain TFRecord shards with TensorFlow Datasets. Imports facedisent_jax.records.

The only module of data_prep that imports TensorFlow and TFDS, and only when something is written.
"""

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from facedisent_jax.data.record import NAME, Record, features
from facedisent_jax.data.tf_environment import quiet_tensorflow as quiet_tensorflow

VERSION = "1.0.0"
Stream = Iterator[tuple[str, Record]]


def write(folder: Path, splits: Mapping[str, Callable[[], Stream]]) -> Path:
    """Write each split's (key, record) stream, of at least one, below `folder`; the folder that holds the shards.

    Records are shuffled by a hash of their keys, so that the files do not depend on the order of the stream.
    """

    def generators(self, dl_manager):
        return {split: self._generate_examples(stream) for split, stream in splits.items()}

    return _prepare(folder, generators)


def write_by_beam(folder: Path, splits: Callable[[Any], Mapping[str, Any]], runner, options) -> Path:
    """The same by Apache Beam: `splits` adds to a pipeline each split's collection of (key, record as a dictionary)."""

    def generators(self, dl_manager, pipeline):  # by this name TFDS knows that it is to make a pipeline
        return splits(pipeline)

    return _prepare(folder, generators, beam_runner=runner, beam_options=options)


def _prepare(folder: Path, generators: Callable, **settings) -> Path:
    quiet_tensorflow()
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
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        builder.download_and_prepare(download_config=tfds.download.DownloadConfig(**settings))
    return folder / NAME / VERSION
