"""Sources -> 64x64 crops, in worker processes. Imports sources, pictures, faces, landmarks, workers; never TensorFlow.

One worker handles a crop group whole: it finds the face in the first picture that shows one and cuts all of them there.
"""

import contextlib
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data_prep import faces, pictures, workers
from data_prep.faces import Box
from data_prep.sources import PrepError, Rejected, Source

JOB_PICTURES = 16
"""Small crop groups are handed to a worker together, up to this many pictures: a message costs about 1 ms."""
PART_PICTURES = 256
"""Longer crop groups are cut in parts, so that no message holds more than 3 MB of crops."""
LOOK_PIXELS = 800
"""Longer side at which a face is looked for at least; a large JPEG is read no larger than needed."""
FINE_SIDE = 2 * faces.SIZE
"""Side (pixels) that a crop still has in a JPEG read at reduced size."""


class Cropping(NamedTuple):
    """How faces are found and cut: for the options, see `python -m data_prep folder --help`."""

    detector: str = "haar"
    margin: float = 0.0
    landmarker: Path | None = None


class Crops(NamedTuple):
    """The crops of some sources.

    sources: those that were cropped; images: [n, 64, 64, 3] uint8, theirs. found_by: finder of each one's crop.
    rejected: the rest.
    """

    sources: list[Source]
    images: np.ndarray
    found_by: list[str]
    rejected: list[Rejected]


class Place(NamedTuple):
    """Where a crop group's face is: a tight crop in pixels of a picture of this size, and who found it."""

    box: Box
    size: tuple[int, int]
    found_by: str


def crop_group(
    group: Sequence[Source], how: Cropping, place: Place | None = None, mesh=None
) -> tuple[Crops, Place | None]:
    """The crops of one crop group (or part of one, whose place is known from the part before)."""
    cropped: dict[int, tuple[np.ndarray, str]] = {}
    refused: dict[int, str] = {}
    for index, source in enumerate(group):
        if place is not None:
            break
        try:
            place, crop = _first(source, how, mesh)
        except pictures.PictureError as error:
            refused[index] = str(error)
            continue
        if crop is not None:
            cropped[index] = crop, place.found_by if place else "as it is"
    for index, source in enumerate(group):
        if index in cropped or index in refused:
            continue
        if place is None:
            refused[index] = {"boxes": "no box given", "points": "no points given"}.get(how.detector, "no face found")
            continue
        try:
            cropped[index] = _cut(source, how, place), place.found_by
        except pictures.PictureError as error:
            refused[index] = str(error)
    order = sorted(cropped)
    images = np.stack([cropped[k][0] for k in order]) if order else np.empty((0, faces.SIZE, faces.SIZE, 3), np.uint8)
    rejected = [Rejected(group[k].key, refused[k]) for k in sorted(refused)]
    return Crops([group[k] for k in order], images, [cropped[k][1] for k in order], rejected), place


def _first(source: Source, how: Cropping, mesh) -> tuple[Place | None, np.ndarray | None]:
    """Look for the face in one picture: its place, None if it shows none, and the picture's crop if it is made."""
    given, found_by = _given(source)
    if given is None and how.detector in ("boxes", "points"):
        return None, None
    picture = pictures.read(source.path, longest=None if given else LOOK_PIXELS)
    if picture.size == (faces.SIZE, faces.SIZE):
        return None, np.asarray(picture.image)
    scale = picture.size[0] / picture.image.size[0]
    if given is not None:
        box = given
    else:
        seen = faces.find(picture.image, how.detector, mesh)
        if seen is None:
            return None, None
        box, found_by = seen.scaled(scale), how.detector
    place = Place(box, picture.size, found_by)
    if scale > 1 and box.side / scale < FINE_SIDE:
        return place, None  # read again, larger
    return place, _cut_from(picture, how, place)


def _given(source: Source) -> tuple[Box | None, str]:
    """The tight crop that the user gave for a picture, and in which form."""
    if source.box is not None:
        return Box(*source.box).square(), "given"
    if source.points is not None:
        from data_prep import labels

        points = labels.read_points(source.points)
        if points is not None:
            return faces.square_on_points(points), "labels"
    return None, ""


def _cut(source: Source, how: Cropping, place: Place) -> np.ndarray:
    picture = pictures.read(source.path, shrink=min(1.0, FINE_SIDE / place.box.side))
    if picture.size == (faces.SIZE, faces.SIZE):
        return np.asarray(picture.image)
    return _cut_from(picture, how, place)


def _cut_from(picture: pictures.Picture, how: Cropping, place: Place) -> np.ndarray:
    (width, height), (placed_width, placed_height) = picture.size, place.size
    if abs(width * placed_height - height * placed_width) > 0.01 * width * placed_height:
        raise pictures.PictureError("not of the same shape as the picture in which its sequence's face was found")
    square = place.box.square(how.margin).scaled(width / placed_width)
    if reason := faces.unusable(square, picture.size):
        raise pictures.PictureError(reason)
    return faces.cut(picture.image, square.scaled(picture.image.size[0] / width))


class _Job(NamedTuple):
    groups: list[list[Source]]
    place: Place | None = None  # of the only group's earlier part
    rest: list[Source] = []  # the only group's later part


def _jobs(sources: Iterable[Source]) -> Iterator[_Job]:
    waiting: list[list[Source]] = []
    for _, group in groupby(sources, key=lambda source: source.crop_group):
        members = list(group)
        if len(members) > PART_PICTURES:
            yield _Job([members[:PART_PICTURES]], rest=members[PART_PICTURES:])
            continue
        waiting.append(members)
        if sum(map(len, waiting)) >= JOB_PICTURES:
            yield _Job(waiting)
            waiting = []
    if waiting:
        yield _Job(waiting)


def crop_all(sources: Sequence[Source], how: Cropping, count: int) -> Generator[Crops, None, None]:
    """The crops of all sources, in the order in which `count` processes finish them; little is held in memory."""
    jobs, later = _jobs(sources), deque[_Job]()
    done = workers.run(partial(_work, how), lambda: later.popleft() if later else next(jobs, None), count)
    try:
        with contextlib.closing(done):
            for job, (crops, place) in done:
                if job.rest:
                    later.append(_Job([job.rest[:PART_PICTURES]], place, job.rest[PART_PICTURES:]))
                yield crops
    except workers.DiedError as error:
        keys = [source.key for group in error.job.groups for source in group]
        raise PrepError(
            f"A worker process died at work on {keys[0]} or one of the next {len(keys) - 1} pictures, "
            "most likely for want of memory: try again with --workers 1."
        ) from error


def _work(how: Cropping, job: _Job) -> tuple[Crops, Place | None]:
    """In a worker process: the crops of a job, and the place of its last group."""
    import cv2

    cv2.setNumThreads(1)
    mesh = None
    if how.detector == "mesh":
        from data_prep import landmarks

        mesh = landmarks.load(landmarks.model_file(how.landmarker))
    done = [crop_group(group, how, job.place, mesh) for group in job.groups]
    parts = [crops for crops, _ in done]
    joined = Crops(
        [source for part in parts for source in part.sources],
        np.concatenate([part.images for part in parts]),
        [name for part in parts for name in part.found_by],
        [entry for part in parts for entry in part.rejected],
    )
    return joined, done[-1][1]
