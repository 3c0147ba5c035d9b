"""Crops and shards made by Apache Beam (extra `beam`) on whatever runs its pipelines, in place of this one process.

Two pipelines, as the splits are known when everybody is: the first crops, the second has TFDS write the shards. Between
them, jobs and crops are files in the staging folder beside OUT, so that pipelines are small (they hold numbers of jobs)
and a job that is done twice, as runners may, leaves one file. All workers must see RAW and OUT under the same paths.

The only module that imports Apache Beam. Imports cropping, shards, spool, sources, workers and facedisent_jax.records.
"""
# pyright: reportMissingImports=false, reportAttributeAccessIssue=false

import contextlib
import difflib
import io
import os
import pickle
import re
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import apache_beam as beam
import grpc
import numpy as np
from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions
from apache_beam.portability.api import beam_provision_api_pb2
from apache_beam.runners.portability.fn_api_runner.fn_runner import ExtendedProvisionInfo, FnApiRunner
from apache_beam.runners.portability.portable_runner import JobServiceHandle
from apache_beam.runners.runner import create_runner

from data_prep.cropping import crop, workers
from data_prep.layouts.scan import Source
from data_prep.output import writer
from data_prep.output.spool import NO_IMAGE, Item, checked, of_crops, split_of
from facedisent_jax.config import IMAGE_SIZE
from facedisent_jax.data.record import SPLITS, digest
from facedisent_jax.errors import UserError

JOB_PICTURES = 256
"""A job holds whole crop groups, up to this many pictures: seconds of work, and 3 MB of crops."""
SERVED = ("flinkrunner", "sparkrunner", "portablerunner", "prismrunner")
"""Runners behind a job server, which has options of its own (Flink's parallelism) that Beam does not list."""


class Configured(NamedTuple):
    """What runs the pipelines: a runner can be made once a pipeline."""

    runner: Callable[[], Any]
    options: Callable[[], PipelineOptions]
    name: str


def configured(given: Sequence[str]) -> Configured:
    """Beam's options from NAME=VALUE (or NAME, for a switch). Raises PrepError for one it does not know."""
    for option in given:
        if not re.match(r"[A-Za-z]\w*(=|$)", option):
            raise UserError(f"--beam-option {option!r}: NAME=VALUE was expected, such as runner=FlinkRunner.")
    flags = [f"--{option}" for option in given]
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            known = PipelineOptions(flags).get_all_options()
            every = PipelineOptions(flags).get_all_options(retain_unknown_options=True)
    except SystemExit:  # argparse has explained itself
        why = said.getvalue().strip().splitlines()[-1].partition("error: ")[2]
        raise UserError(f"--beam-option: {why}.") from None
    name = known["runner"] or "DirectRunner"
    options = partial(PipelineOptions, flags)
    runner = partial(_local if name.lower() in ("directrunner", "direct") else _named, name, options)
    served = type(runner()).__name__.lower() in SERVED
    for option in sorted(set(every) - set(known)) if not served else ():
        near = difflib.get_close_matches(option, known, 1)
        hint = f"; did you mean {near[0]}?" if near else "."
        raise UserError(f"--beam-option {option}: Beam has no such option{hint}")
    return Configured(runner, options, name)


def _named(name: str, options: Callable[[], PipelineOptions]):
    try:
        return create_runner(name)
    except ValueError as error:
        known = ", ".join(StandardOptions.KNOWN_RUNNER_NAMES)
        raise UserError(f"--beam-option runner={name}: Beam has no such runner; it has {known}.") from error
    except (ImportError, AttributeError) as error:
        raise UserError(f"--beam-option runner={name}: {error}.") from error


def _local(name: str, options: Callable[[], PipelineOptions]):
    """What DirectRunner comes down to; it would first try to fetch another runner from the internet."""
    given = options().get_all_options()
    given["default_sdk_harness_log_level"] = given["default_sdk_harness_log_level"] or "ERROR"  # INFO is 40 lines each
    encoded = JobServiceHandle.encode_pipeline_options(given)
    provision = beam_provision_api_pb2.ProvisionInfo(pipeline_options=encoded)
    return FnApiRunner(provision_info=ExtendedProvisionInfo(provision))


class Crops:
    """Has sources cropped, and keeps the crops in files in `folder`; see spool.Keeper."""

    def __init__(
        self,
        sources: Sequence[Source],
        how: crop.Cropping,
        by: Configured,
        folder: Path,
        pattern: re.Pattern[str] | None,
    ):
        self._sources, self._how, self._by, self._folder, self._pattern = sources, how, by, folder, pattern
        self._count = 0  # of jobs
        self._people: set[str] = set()

    def __enter__(self) -> "Crops":
        for name in ("jobs", "crops", "digests"):
            (self._folder / name).mkdir()
        return self

    def __exit__(self, *_) -> None:
        """The folder is taken away by whoever made it."""

    def passing(self, items: Iterable[Item]) -> Iterator[Item]:
        yield from items
        how = self._how
        if how.needs_mesh and how.landmarker:
            # this user's cache folder is not there on other machines
            how = how._replace(landmarker=Path(shutil.copy(how.landmarker, self._folder / "jobs")))
        for job in _jobs(self._sources):
            _save(self._folder / "jobs" / str(self._count), job)
            self._count += 1
        with _explained(self._by), beam.Pipeline(self._by.runner(), self._by.options()) as pipeline:
            _ = self._numbers(pipeline) | "Crop" >> beam.ParDo(_Crop(self._folder, how, self._pattern))
        for number in range(self._count):
            (items,) = _load(self._folder / "crops" / str(number), 1)
            self._people.update(item.record.subject for item in items if item.record is not None)
            yield from items

    def write(self, placed: Mapping[str, str]) -> tuple[Path, list[bytes]]:
        def streams(pipeline) -> Mapping[str, Any]:
            read = beam.FlatMap(_examples, self._folder, placed).with_outputs(*SPLITS)
            found = self._numbers(pipeline) | "Read" >> read
            return {split: found[split] for split in SPLITS if split in used}

        used = {split_of(who, placed) for who in self._people}  # TFDS writes no empty split
        with _explained(self._by):
            made = writer.write_by_beam(self._folder, streams, self._by.runner(), self._by.options())
        digests = [_load(self._folder / "digests" / str(number), 1)[0] for number in range(self._count)]
        return made, [one for part in digests for one in part]

    def _numbers(self, pipeline):
        return pipeline | "Jobs" >> beam.Create(range(self._count)) | "Spread" >> beam.Reshuffle()


def _jobs(sources: Iterable[Source]) -> Iterator[list[Source]]:
    """Whole crop groups, with paths that do not depend on where a process was started."""
    job: list[Source] = []
    for _, group in groupby(sources, key=lambda source: source.crop_group):
        for one in group:
            landmarks = one.landmark_file and Path(os.path.abspath(one.landmark_file))
            job.append(one._replace(path=Path(os.path.abspath(one.path)), landmark_file=landmarks))
        if len(job) >= JOB_PICTURES:
            yield job
            job = []
    if job:
        yield job


class _Crop(beam.DoFn):
    """Crops jobs, in a process of its own that may die of a picture, as in a run without Beam."""

    def __init__(self, folder: Path, how: crop.Cropping, pattern: re.Pattern[str] | None):
        self._folder, self._how, self._pattern = folder, how, pattern

    def setup(self) -> None:
        self._kept: list[workers.Worker] = []

    def teardown(self) -> None:
        for worker in self._kept:
            workers.stop_worker(worker)

    def process(self, number: int):
        items: list[Item] = []
        images: list[np.ndarray] = []
        (sources,) = _load(self._folder / "jobs" / str(number), 1)
        with contextlib.closing(crop.crop_all(sources, self._how, 1, self._kept)) as parts:
            for item in (checked(item, self._pattern) for crops in parts for item in of_crops(crops)):
                if item.record is not None:
                    images.append(item.record.image)
                    item = item._replace(record=item.record._replace(image=NO_IMAGE))
                items.append(item)
        _save(self._folder / "crops" / str(number), items, np.asarray(images, np.uint8))


def _examples(number: int, folder: Path, placed: Mapping[str, str]):
    """The records of a job, each with its key, as TFDS takes them, for the split that it is in."""
    items, images = _load(folder / "crops" / str(number), 2)
    kept = [(item.key, item.record) for item in items if item.record is not None]
    digests = []
    for (key, row), image in zip(kept, images.reshape(-1, IMAGE_SIZE, IMAGE_SIZE, 3), strict=True):
        split = split_of(row.subject, placed)
        record = row._replace(image=image)
        digests.append(digest(split, record))
        yield beam.pvalue.TaggedOutput(split, (key, record._asdict()))
    _save(folder / "digests" / str(number), digests)


def _save(path: Path, *parts: Any) -> None:
    """Whole or not at all; if two do it at once, one of them."""
    partial = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
    with partial.open("wb") as file:
        for part in parts:
            pickle.dump(part, file)
    partial.replace(path)


def _load(path: Path, count: int) -> list[Any]:
    """The first `count` parts of what was saved there."""
    with path.open("rb") as file:
        return [pickle.load(file) for _ in range(count)]


@contextlib.contextmanager
def _explained(by: Configured) -> Iterator[None]:
    try:
        yield
    except UserError:
        raise
    except grpc.FutureTimeoutError as error:
        raise UserError(
            f"{by.name}: no job server answered. --beam-option job_endpoint=HOST:PORT says where it is, "
            "job_server_timeout=SECONDS how long to wait (300)."
        ) from error
    except Exception as error:  # from whatever runs the pipeline, or from a worker by its text alone
        last = (str(error).strip().splitlines() or [""])[-1].rstrip(".")
        raise UserError(f"The Beam pipeline on {by.name} failed: {type(error).__name__}: {last}.") from error
