"""Crops pictures and writes shards with Apache Beam (extra `beam`), on whatever runs its pipelines.

There are two pipelines, because the splits are known once all people are: the first crops, in the second TFDS writes
the shards. Between them, jobs and crops are files in the staging folder beside OUT. So the pipelines stay small (they
carry numbers of jobs), and a job that a runner does twice leaves one file. All workers must see RAW and OUT under the
same paths.

This is the only module that imports Apache Beam.
"""
# pyright: reportMissingImports=false, reportAttributeAccessIssue=false

import contextlib
import io
import os
import pickle
import re
import shutil
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

from data_prep.cropping import crop, jobs, workers
from data_prep.layouts.scan import Source
from data_prep.output import writer
from data_prep.output.build import core_count
from data_prep.output.splits import split_of
from data_prep.output.spool import NO_IMAGE, Item, Selection, items_from_crops, validate_item
from facedisent_jax.config import IMAGE_SIZE
from facedisent_jax.data.record import SPLITS, digest
from facedisent_jax.errors import UserError, did_you_mean
from facedisent_jax.files import replacing

JOB_PICTURES = 256  # a job holds whole crop groups, up to this many pictures: seconds of work, 3 MB of crops
# Runners behind a job server. It has options of its own, such as Flink's parallelism, that Beam does not list.
REMOTE_RUNNERS = ("flinkrunner", "sparkrunner", "portablerunner", "prismrunner")


class BeamSetup(NamedTuple):
    """What runs the pipelines.

    make_runner, make_options: called once for each pipeline.
    name: of the runner, for errors.
    """

    make_runner: Callable[[], Any]
    make_options: Callable[[], PipelineOptions]
    name: str


def parse_options(options: Sequence[str]) -> BeamSetup:
    """Beam's options from NAME=VALUE, or NAME for a switch. Raises UserError for an option that Beam does not have."""
    for option in options:
        if not re.match(r"[A-Za-z]\w*(=|$)", option):
            raise UserError(f"--beam-option must be NAME=VALUE, such as runner=FlinkRunner, got {option!r}.")
    flags = [f"--{option}" for option in options]
    messages = io.StringIO()
    try:
        with contextlib.redirect_stderr(messages):
            beam_options = PipelineOptions(flags).get_all_options()
            all_options = PipelineOptions(flags).get_all_options(retain_unknown_options=True)
    except SystemExit:  # argparse has printed what is wrong
        reason = messages.getvalue().strip().splitlines()[-1].partition("error: ")[2]
        raise UserError(f"--beam-option: {reason}.") from None
    name = beam_options["runner"] or "DirectRunner"
    make_options = partial(PipelineOptions, flags)
    make_runner = partial(_local_runner, make_options) if _is_local(name) else partial(_named_runner, name)
    is_remote = type(make_runner()).__name__.lower() in REMOTE_RUNNERS
    for option in sorted(set(all_options) - set(beam_options)) if not is_remote else ():
        hint = did_you_mean(option, beam_options)
        raise UserError(f"--beam-option must name an option of Beam, got {option!r}.{hint}")
    return BeamSetup(make_runner, make_options, name)


def _is_local(runner: str) -> bool:
    return runner.lower() in ("directrunner", "direct")


def _named_runner(name: str):
    try:
        return create_runner(name)
    except ValueError as error:
        names = ", ".join(StandardOptions.KNOWN_RUNNER_NAMES)
        raise UserError(f"--beam-option runner must be one of {names}, got {name}.") from error
    except (ImportError, AttributeError) as error:
        raise UserError(f"--beam-option runner={name}: {error}.") from error


def _local_runner(make_options: Callable[[], PipelineOptions]):
    """The runner that DirectRunner ends up with. DirectRunner itself first tries to download another one."""
    options = make_options().get_all_options()
    level = "default_sdk_harness_log_level"
    options[level] = options[level] or "ERROR"  # INFO, the default, prints 40 lines for each pipeline
    encoded = JobServiceHandle.encode_pipeline_options(options)
    provision = beam_provision_api_pb2.ProvisionInfo(pipeline_options=encoded)
    return FnApiRunner(provision_info=ExtendedProvisionInfo(provision))


class BeamStore:
    """Crops the sources and keeps the crops in files in `folder`: a `spool.CropStore`."""

    def __init__(
        self,
        sources: Sequence[Source],
        cropping: crop.Cropping,
        setup: BeamSetup,
        folder: Path,
        subject_pattern: re.Pattern[str] | None,
    ):
        self._sources, self._cropping, self._setup = sources, cropping, setup
        self._folder, self._subject_pattern = folder, subject_pattern
        self._job_count = 0

    def __enter__(self) -> "BeamStore":
        for name in ("jobs", "crops", "digests"):
            (self._folder / name).mkdir()
        return self

    def __exit__(self, *_) -> None:
        """Nothing to do: whoever made the folder deletes it."""

    def add_all(self, items: Iterable[Item]) -> Iterator[Item]:
        yield from items
        cropping = self._cropping
        if cropping.needs_mesh and cropping.landmarker:
            # other machines do not see the cache folder of this user
            cropping = cropping._replace(landmarker=Path(shutil.copy(cropping.landmarker, self._folder / "jobs")))
        for job in _jobs(self._sources):
            _save(self._folder / "jobs" / str(self._job_count), job)
            self._job_count += 1
        with _explain_errors(self._setup.name), self._pipeline() as pipeline:
            crop_jobs = beam.ParDo(_CropJob(self._folder, cropping, self._subject_pattern))
            _ = self._job_numbers(pipeline) | "Crop" >> crop_jobs
        places, unclear = [], []
        for number in range(self._job_count):
            items, more_places, more_unclear = _load(self._folder / "crops" / str(number), 3)
            places += more_places
            unclear += more_unclear
            yield from items
        # these need the places of all faces of a subject, and they are few: they are cropped here
        with contextlib.closing(jobs.crop_unclear(unclear, places, cropping, core_count())) as parts:
            yield from _save_crops(self._folder / "crops" / str(self._job_count), parts, self._subject_pattern)
        self._job_count += 1

    def write(self, selection: Selection) -> tuple[Path, list[bytes]]:
        def streams(pipeline) -> Mapping[str, Any]:
            read = beam.FlatMap(_read_job, self._folder, selection).with_outputs(*SPLITS)
            outputs = self._job_numbers(pipeline) | "Read" >> read
            return {split: outputs[split] for split in SPLITS if selection.counts[split]}  # TFDS writes no empty split

        with _explain_errors(self._setup.name):
            runner, options = self._setup.make_runner(), self._setup.make_options()
            shards = writer.write_shards_with_beam(self._folder, streams, runner, options)
        digests = []
        for number in range(self._job_count):
            digests += _load(self._folder / "digests" / str(number), 1)[0]
        return shards, digests

    def _pipeline(self):
        return beam.Pipeline(self._setup.make_runner(), self._setup.make_options())

    def _job_numbers(self, pipeline):
        return pipeline | "Jobs" >> beam.Create(range(self._job_count)) | "Spread" >> beam.Reshuffle()


def _jobs(sources: Iterable[Source]) -> Iterator[list[Source]]:
    """Whole crop groups, with absolute paths, because workers may run in another folder."""
    job: list[Source] = []
    for _, group in groupby(sources, key=lambda source: source.crop_group):
        for source in group:
            landmarks = source.landmark_file and Path(os.path.abspath(source.landmark_file))
            job.append(source._replace(path=Path(os.path.abspath(source.path)), landmark_file=landmarks))
        if len(job) >= JOB_PICTURES:
            yield job
            job = []
    if job:
        yield job


class _CropJob(beam.DoFn):
    """Crops the pictures of a job in a process of its own, because a damaged picture may crash it."""

    def __init__(self, folder: Path, cropping: crop.Cropping, subject_pattern: re.Pattern[str] | None):
        self._folder, self._cropping, self._subject_pattern = folder, cropping, subject_pattern

    def setup(self) -> None:
        self._idle_workers: list[workers.Worker] = []

    def teardown(self) -> None:
        for worker in self._idle_workers:
            workers.stop_worker(worker)

    def process(self, number: int):
        (sources,) = _load(self._folder / "jobs" / str(number), 1)
        with contextlib.closing(jobs.crop_clear(sources, self._cropping, 1, self._idle_workers)) as parts:
            _save_crops(self._folder / "crops" / str(number), parts, self._subject_pattern)


def _save_crops(path: Path, parts: Iterable[crop.Crops], subject_pattern: re.Pattern[str] | None) -> list[Item]:
    """Write crops to a file: their items without images, the places of faces, the unclear groups, the images."""
    items: list[Item] = []
    images: list[np.ndarray] = []
    places, unclear = [], []
    for crops in parts:
        places += crops.places
        unclear += crops.unclear
        for unchecked in items_from_crops(crops):
            item = validate_item(unchecked, subject_pattern)
            if item.record is not None:
                images.append(item.record.image)
                item = item._replace(record=item.record._replace(image=NO_IMAGE))
            items.append(item)
    _save(path, items, places, unclear, np.asarray(images, np.uint8))
    return items


def _read_job(number: int, folder: Path, selection: Selection):
    """The records of a job for TFDS: (key, record as a dictionary), tagged with the split."""
    items, _, _, images = _load(folder / "crops" / str(number), 4)
    keys_and_records = [(item.key, item.record) for item in items if item.record is not None]
    images = images.reshape(-1, IMAGE_SIZE, IMAGE_SIZE, 3)
    digests = []
    for (key, record), image in zip(keys_and_records, images, strict=True):
        if key in selection.copies:
            continue
        split = split_of(record.subject, selection.split_by_subject)
        record = record._replace(image=image)
        digests.append(digest(split, record))
        yield beam.pvalue.TaggedOutput(split, (key, record._asdict()))
    _save(folder / "digests" / str(number), digests)


def _save(path: Path, *parts: Any) -> None:
    """Write objects to a file that is whole, or not there; if two workers write it at once, one of them wins."""
    with replacing(path) as partial_path, partial_path.open("wb") as file:
        for part in parts:
            pickle.dump(part, file)


def _load(path: Path, count: int) -> list[Any]:
    """The first `count` objects in a file."""
    with path.open("rb") as file:
        return [pickle.load(file) for _ in range(count)]


@contextlib.contextmanager
def _explain_errors(runner: str) -> Iterator[None]:
    """Turn errors of a pipeline into sentences."""
    try:
        yield
    except UserError:
        raise
    except grpc.FutureTimeoutError as error:
        raise UserError(
            f"{runner}: no job server answered. Give its address by --beam-option job_endpoint=HOST:PORT, and how "
            "long to wait by --beam-option job_server_timeout=SECONDS (default 300)."
        ) from error
    except Exception as error:  # from the runner, or from a worker, of whose error only the text arrives
        reason = (str(error).strip().splitlines() or [""])[-1].rstrip(".")
        raise UserError(f"The Beam pipeline on {runner} failed: {type(error).__name__}: {reason}.") from error
