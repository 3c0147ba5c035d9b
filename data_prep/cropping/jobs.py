"""Crops all sources in worker processes. Never imports TensorFlow.

One worker handles a whole crop group. Groups whose image shows several faces come last: their face is chosen by its
place on the subject's other images.
"""

import contextlib
from collections import defaultdict, deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from functools import partial
from itertools import groupby
from typing import NamedTuple

import numpy as np

from data_prep.cropping import workers
from data_prep.cropping.crop import (
    Cropping,
    Crops,
    FaceLocation,
    Place,
    UnclearGroup,
    crop_group,
    measure_intensities,
    no_crops,
)
from data_prep.layouts.scan import Rejected, Source
from facedisent_jax.errors import UserError

JOB_IMAGES = 16  # small crop groups go to a worker together, up to this many images: a message costs about 1 ms
PART_IMAGES = 256  # longer crop groups are sent in parts, so that no message holds more than 3 MB of crops
JOB_SECONDS, IMAGE_SECONDS = 120.0, 10.0  # a worker's time limit per job and per image: some damaged files never end
MAX_LOSSES = 20  # workers lost in a row, after which the machine is to blame and not the images


class Job(NamedTuple):
    """Crop groups for a worker; or a part of one long group, the location of its face, and what remains of it."""

    groups: list[list[Source]]
    location: FaceLocation | None = None
    remaining: list[Source] = []
    is_retry: bool = False  # a worker was lost on it before

    @property
    def sources(self) -> list[Source]:
        return [source for group in self.groups for source in group]

    @property
    def time_limit(self) -> float:
        return JOB_SECONDS + IMAGE_SECONDS * len(self.sources)


def _job_of_group(group: list[Source], in_parts: bool, location: FaceLocation | None = None) -> Job:
    count = PART_IMAGES if in_parts else len(group)
    return Job([group[:count]], location, group[count:])


def _jobs(sources: Iterable[Source], in_parts: bool) -> Iterator[Job]:
    groups: list[list[Source]] = []
    for _, group in groupby(sources, key=lambda source: source.crop_group):
        members = list(group)
        if len(members) > PART_IMAGES and in_parts:
            yield _job_of_group(members, in_parts)
            continue
        groups.append(members)
        if sum(map(len, groups)) >= JOB_IMAGES:
            yield Job(groups)
            groups = []
    if groups:
        yield Job(groups)


def crop_all(sources: Sequence[Source], cropping: Cropping, n_workers: int) -> Generator[Crops, None, None]:
    """Crop all sources. Crops come in the order in which the worker processes finish, so that few are in memory.

    A crop group is rejected if it ends its worker twice (a decoder crashes, never returns, or needs too much memory).
    """
    places: list[tuple[str, Place]] = []
    unclear: list[UnclearGroup] = []
    with contextlib.closing(crop_clear(sources, cropping, n_workers)) as parts:
        for crops in parts:
            places += crops.places
            unclear += crops.unclear
            yield crops
    with contextlib.closing(crop_unclear(unclear, places, cropping, n_workers)) as parts:
        yield from parts


def crop_clear(
    sources: Sequence[Source], cropping: Cropping, n_workers: int, idle_workers: list[workers.Worker] | None = None
) -> Generator[Crops, None, None]:
    """As `crop_all`, without the crop groups that are unclear.

    idle_workers: workers with the same `cropping` to use first, see `workers.run_jobs`.
    """
    in_parts = not cropping.measures_intensity  # the intensities depend on all frames of a take
    return _run(_jobs(sources, in_parts), cropping, n_workers, idle_workers)


def crop_unclear(
    unclear: Sequence[UnclearGroup], places: Sequence[tuple[str, Place]], cropping: Cropping, n_workers: int
) -> Generator[Crops, None, None]:
    """Crop the groups that were unclear, now that all others are known, each with a remark."""
    in_parts = not cropping.measures_intensity
    chosen = choose_faces(unclear, places)
    if chosen:
        yield no_crops(remarks=[remark for *_, remark in chosen])
    yield from _run((_job_of_group(group, in_parts, face) for group, face, _ in chosen), cropping, n_workers)


def choose_faces(
    unclear: Sequence[UnclearGroup], places: Sequence[tuple[str, Place]]
) -> list[tuple[list[Source], FaceLocation, Rejected]]:
    """The sources of each group, the face to crop, and a remark.

    It is the face nearest to the place and size of the face on the subject's other images (the median). If they all
    show several faces, the clearest one on the first of them takes that part.
    """
    by_subject: dict[str, list[Place]] = defaultdict(list)
    for subject, place in places:
        by_subject[subject].append(place)
    chosen = []
    for group, key, faces in sorted(unclear, key=lambda entry: entry.key):
        subject = group[0].subject
        known_places = by_subject[subject] if subject else []
        reference = np.median(known_places or [faces[0].place], axis=0)
        if subject and not known_places:
            known_places.append(faces[0].place)
        face = min(faces, key=lambda face: float(np.linalg.norm(reference - face.place)))
        x, y = ((low + high) / 2 for low, high in (face.box[::2], face.box[1::2]))
        remark = f"several faces: the one around pixel ({x:.0f}, {y:.0f}) is used, of {len(faces)}"
        chosen.append((group, face, Rejected(key, remark)))
    return chosen


def _run(
    jobs: Iterator[Job], cropping: Cropping, n_workers: int, idle_workers: list[workers.Worker] | None = None
) -> Generator[Crops, None, None]:
    follow_ups, losses = deque[Job](), 0
    next_job = lambda: follow_ups.popleft() if follow_ups else next(jobs, None)  # noqa: E731
    answers = workers.run_jobs(partial(work, cropping), next_job, n_workers, lambda job: job.time_limit, idle_workers)
    with contextlib.closing(answers):
        for job, answer in answers:
            if not isinstance(answer, workers.Lost):
                losses = 0
                crops, location = answer
                if crops.unclear and job.remaining:
                    (unclear,) = crops.unclear
                    crops = crops._replace(unclear=[unclear._replace(group=unclear.group + job.remaining)])
                elif job.remaining:
                    follow_ups.append(_job_of_group(job.remaining, True, location))
                yield crops
                continue
            losses += 1
            if losses > MAX_LOSSES:
                raise UserError(
                    f"{losses} worker processes in a row died or hung, the last one with {job.sources[0].key}, "
                    "most likely because memory is short. Try again with --workers 1."
                )
            if not job.is_retry:
                follow_ups.extend(job._replace(groups=[group], is_retry=True) for group in job.groups)
            else:
                yield _reject_all(
                    [*job.sources, *job.remaining],
                    f"its process {answer.reason}: a file that cannot be read, or too little memory "
                    "(--workers 1 needs the least)",
                )


def _reject_all(sources: Sequence[Source], reason: str) -> Crops:
    return no_crops([Rejected(source.key, reason) for source in sources])


def work(cropping: Cropping, job: Job) -> tuple[Crops, FaceLocation | None]:
    """In a worker process: the crops of a job, and the location of the face of its last group."""
    import cv2

    cv2.setNumThreads(1)
    mesh = None
    if cropping.needs_mesh:
        from data_prep.cropping import face_mesh

        mesh = face_mesh.load_mesh(face_mesh.model_file(cropping.landmarker))
    parts, location = [], None
    for group in job.groups:
        try:
            crops, location = crop_group(group, cropping, job.location, mesh)
            if cropping.intensity_method and cropping.measures_intensity:
                measured = measure_intensities(crops, location, cropping.intensity_method, mesh)
                crops = measured._replace(places=crops.places, unclear=crops.unclear)
            parts.append(crops)
        except UserError:
            raise
        except Exception as error:  # one image must not stop the preparation of a hundred thousand
            location = None
            parts.append(_reject_all(group, f"unexpected {type(error).__name__}: {error}"))
    return _join(parts), location


def _join(parts: list[Crops]) -> Crops:
    return Crops(
        [source for part in parts for source in part.sources],
        np.concatenate([part.images for part in parts]),
        [name for part in parts for name in part.found_by],
        [entry for part in parts for entry in part.rejected],
        [entry for part in parts for entry in part.remarks],
        [entry for part in parts for entry in part.places],
        [entry for part in parts for entry in part.unclear],
    )
