"""Sources -> 64x64 crops, in worker processes. Imports what reads, finds and measures them; never TensorFlow.

One worker handles a crop group whole: it finds the face in the first picture that shows one and cuts all of them there.
Of a take it also measures the intensities.
"""

import contextlib
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data_prep import intensity
from data_prep.cropping import face_crop, image_io, video_io, workers
from data_prep.cropping.face_crop import Box
from data_prep.intensity import IntensityMethod
from data_prep.layouts.scan import VIDEO_TYPES, Rejected, Source
from facedisent_jax.errors import UserError

JOB_PICTURES = 16
"""Small crop groups are handed to a worker together, up to this many pictures: a message costs about 1 ms."""
PART_PICTURES = 256
"""Longer crop groups are cut in parts, so that no message holds more than 3 MB of crops."""
LOOK_PIXELS = 800
"""Longer side at which a face is looked for at least; a large JPEG is read no larger than needed."""
FINE_SIDE = 2 * face_crop.SIZE
"""Side (pixels) that a crop still has in a JPEG read at reduced size."""
MESH_SIDE = 256
"""The same for the mesh, whose network sees 256 pixels."""
PATIENCE = 120.0, 10.0
"""Seconds that a worker may take for a job, and besides for each of its pictures: some damaged files never end."""
MOST_LOST = 20
"""So many jobs in a row that end a worker are the machine's fault, not the pictures'."""


class Cropping(NamedTuple):
    """How faces are found and cut: for the options, see `python -m data_prep folder --help`.

    takes: crop groups are takes: of one size, and their intensities may be to be measured.
    """

    detector: str = "haar"
    margin: float = 0.0
    landmarker: Path | None = None
    takes: IntensityMethod | None = None

    @property
    def needs_mesh(self) -> bool:
        return self.detector == "mesh" or (self.takes is not None and self.takes.kind == "landmarks")


class Crops(NamedTuple):
    """The crops of some sources.

    sources: those that were cropped; images: [n, 64, 64, 3] uint8, theirs. found_by: finder of each one's crop.
    rejected: the rest. remarks: what was noticed of takes.
    """

    sources: list[Source]
    images: np.ndarray
    found_by: list[str]
    rejected: list[Rejected]
    remarks: Sequence[Rejected] = ()


class FaceLocation(NamedTuple):
    """Where a crop group's face is: a tight crop in pixels of a picture of this size, and who found it."""

    box: Box
    size: tuple[int, int]
    found_by: str


def crop_group(
    group: Sequence[Source], how: Cropping, place: FaceLocation | None = None, mesh=None
) -> tuple[Crops, FaceLocation | None]:
    """The crops of one crop group (or part of one, whose place is known from the part before)."""
    cropped: dict[int, tuple[np.ndarray, str]] = {}
    refused: dict[int, str] = {}
    for index, source in enumerate(group):
        if place is not None:
            break
        try:
            place, crop = _first(source, how, mesh)
        except image_io.ImageError as error:
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
        except image_io.ImageError as error:
            refused[index] = str(error)
    order = sorted(cropped)
    images = (
        np.stack([cropped[k][0] for k in order])
        if order
        else np.empty((0, face_crop.SIZE, face_crop.SIZE, 3), np.uint8)
    )
    rejected = [Rejected(group[k].key, refused[k]) for k in sorted(refused)]
    return Crops([group[k] for k in order], images, [cropped[k][1] for k in order], rejected), place


def _first(source: Source, how: Cropping, mesh) -> tuple[FaceLocation | None, np.ndarray | None]:
    """Look for the face in one picture: its place, None if it shows none, and the picture's crop if it is made."""
    given, found_by = _given(source)
    if given is None and how.detector in ("boxes", "points"):
        return None, None
    picture = _read(source, longest=None if given else LOOK_PIXELS)
    if picture.size == (face_crop.SIZE, face_crop.SIZE):
        whole = FaceLocation(Box(0, 0, *picture.size), picture.size, "as it is")
        return whole if how.takes else None, np.asarray(picture.image)
    scale = picture.size[0] / picture.image.size[0]
    if given is not None:
        box = given
    else:
        seen = face_crop.locate_face(picture.image, how.detector, mesh)
        if seen is None:
            return None, None
        box, found_by = seen.scaled(scale), how.detector
    place = FaceLocation(box, picture.size, found_by)
    if scale > 1 and box.side / scale < FINE_SIDE:
        return place, None  # read again, larger
    return place, _cut_from(picture, how, place)


def _given(source: Source) -> tuple[Box | None, str]:
    """The tight crop that the user gave for a picture, and in which form."""
    if source.box is not None:
        return Box(*source.box).square(), "given"
    if source.landmark_file is not None:
        from data_prep.layouts import mat_landmarks

        points = mat_landmarks.read_mat_landmarks(source.landmark_file)
        if points is not None:
            return face_crop.square_on_points(points), "labels"
    return None, ""


def _cut(source: Source, how: Cropping, place: FaceLocation) -> np.ndarray:
    picture = _read(source, shrink=min(1.0, FINE_SIDE / place.box.side))
    if how.takes and picture.size != place.size:
        sizes = [f"{width}x{height}" for width, height in (picture.size, place.size)]
        raise image_io.ImageError(f"not of its take's size: {sizes[0]} pixels, {sizes[1]} were expected")
    if picture.size == (face_crop.SIZE, face_crop.SIZE):
        return np.asarray(picture.image)
    return _cut_from(picture, how, place)


def _read(source: Source, shrink: float = 1.0, longest: int | None = None) -> image_io.UprightImage:
    if source.path.suffix.lower() in VIDEO_TYPES:
        return video_io.read_frame(source.path, source.frame)
    return image_io.read_image(source.path, shrink, longest)


def _cut_from(picture: image_io.UprightImage, how: Cropping, place: FaceLocation) -> np.ndarray:
    (width, height), (placed_width, placed_height) = picture.size, place.size
    if abs(width * placed_height - height * placed_width) > 0.01 * width * placed_height:
        raise image_io.ImageError("not of the same shape as the picture in which its sequence's face was found")
    square = place.box.square(how.margin).scaled(width / placed_width)
    if reason := face_crop.why_unusable(square, picture.size):
        raise image_io.ImageError(reason)
    return face_crop.cut_square(picture.image, square.scaled(picture.image.size[0] / width))


def measure_intensities(crops: Crops, place: FaceLocation | None, how: IntensityMethod, mesh=None) -> Crops:
    """The crops of a take, whole, in order and with their intensities; it is left out if they cannot be measured."""
    if not any(np.isnan(source.intensity) for source in crops.sources):
        return crops
    order = sorted(range(len(crops.sources)), key=lambda k: crops.sources[k].frame)
    rejected = list(crops.rejected)
    points = []
    if how.kind == "landmarks" and place:
        seen = [_mesh_of(crops.sources[k], place, mesh) for k in order]
        missed = [k for k, one in zip(order, seen, strict=True) if one is None]
        rejected += [Rejected(crops.sources[k].key, "no face mesh found") for k in missed]
        order = [k for k, one in zip(order, seen, strict=True) if one is not None]
        points = [one for one in seen if one is not None]
    sources, images = [crops.sources[k] for k in order], crops.images[order]
    try:
        smile = bool(sources) and sources[0].expression == "smile"
        values, remarks = intensity.measure_take(images, np.stack(points) if points else None, smile)
        remarks += intensity.check_onset(values, how.min_onset)
    except intensity.TakeError as error:
        rejected += [Rejected(source.key, str(error)) for source in sources]
        return Crops([], images[:0], [], rejected)
    remarked = [Rejected(sources[0].crop_group, remark) for remark in remarks]
    found_by = [crops.found_by[k] for k in order]
    if how.kind == "order":  # time tells the order of an onset alone; where it ends, the motion does
        kept = intensity.onset_frames(values)
        rejected += [Rejected(s.key, "not of the onset of its take") for k, s in enumerate(sources) if k not in kept]
        return Crops([sources[k] for k in kept], images[list(kept)], [found_by[k] for k in kept], rejected, remarked)
    known = [source._replace(intensity=float(value)) for source, value in zip(sources, values, strict=True)]
    return Crops(known, images, found_by, rejected, remarked)


def _mesh_of(source: Source, place: FaceLocation, mesh) -> np.ndarray | None:
    """The mesh of a frame, looked for where its take's face is; in a picture no larger than the network sees."""
    picture = _read(source, shrink=min(1.0, MESH_SIDE / place.box.side))
    scale = picture.image.size[0] / picture.size[0]
    return mesh.points(np.asarray(picture.image), place.box.scaled(scale))


class _Job(NamedTuple):
    groups: list[list[Source]]
    place: FaceLocation | None = None  # of the only group's earlier part
    rest: list[Source] = []  # the only group's later part
    again: bool = False  # a worker was lost on it already

    @property
    def sources(self) -> list[Source]:
        return [source for group in self.groups for source in group]


def _jobs(sources: Iterable[Source], whole: bool) -> Iterator[_Job]:
    """whole: groups are not cut in parts, as their intensities depend on all their frames."""
    waiting: list[list[Source]] = []
    for _, group in groupby(sources, key=lambda source: source.crop_group):
        members = list(group)
        if len(members) > PART_PICTURES and not whole:
            yield _Job([members[:PART_PICTURES]], rest=members[PART_PICTURES:])
            continue
        waiting.append(members)
        if sum(map(len, waiting)) >= JOB_PICTURES:
            yield _Job(waiting)
            waiting = []
    if waiting:
        yield _Job(waiting)


def crop_all(
    sources: Sequence[Source], how: Cropping, count: int, kept: list[workers.Worker] | None = None
) -> Generator[Crops, None, None]:
    """The crops of all sources, in the order in which `count` processes finish them; little is held in memory.

    kept: processes that crop like this already, see `workers.run`.
    A crop group that ends its process (a decoder's crash, an endless loop, too little memory) twice is rejected.
    """
    whole = how.takes is not None and how.takes.needs_images
    jobs, later, lost = _jobs(sources, whole), deque[_Job](), 0
    next_job = lambda: later.popleft() if later else next(jobs, None)  # noqa: E731
    with contextlib.closing(workers.run_jobs(partial(_work, how), next_job, count, _patience, kept)) as done:
        for job, answer in done:
            if not isinstance(answer, workers.Lost):
                lost = 0
                crops, place = answer
                if job.rest:
                    later.append(_Job([job.rest[:PART_PICTURES]], place, job.rest[PART_PICTURES:]))
                yield crops
                continue
            lost += 1
            if lost > MOST_LOST:
                raise UserError(
                    f"{lost} worker processes in a row died or hung, the last one at work on {job.sources[0].key}, "
                    "most likely for want of memory: try again with --workers 1."
                )
            if not job.again:
                later.extend(job._replace(groups=[group], again=True) for group in job.groups)
            else:
                yield _refused(
                    [*job.sources, *job.rest],
                    f"its process {answer.why}: a picture that cannot be read, "
                    "or too little memory (--workers 1 needs the least)",
                )


def _refused(sources: Sequence[Source], reason: str) -> Crops:
    nothing = np.empty((0, face_crop.SIZE, face_crop.SIZE, 3), np.uint8)
    return Crops([], nothing, [], [Rejected(source.key, reason) for source in sources])


def _patience(job: _Job) -> float:
    return PATIENCE[0] + PATIENCE[1] * len(job.sources)


def _work(how: Cropping, job: _Job) -> tuple[Crops, FaceLocation | None]:
    """In a worker process: the crops of a job, and the place of its last group."""
    import cv2

    cv2.setNumThreads(1)
    mesh = None
    if how.needs_mesh:
        from data_prep.cropping import face_mesh

        mesh = face_mesh.load_mesh(face_mesh.model_file(how.landmarker))
    parts, place = [], None
    for group in job.groups:
        try:
            crops, place = crop_group(group, how, job.place, mesh)
            parts.append(
                measure_intensities(crops, place, how.takes, mesh) if how.takes and how.takes.needs_images else crops
            )
        except UserError:
            raise
        except Exception as error:  # one picture must not end the preparation of a hundred thousand
            place = None
            parts.append(_refused(group, f"unexpected {type(error).__name__}: {error}"))
    joined = Crops(
        [source for part in parts for source in part.sources],
        np.concatenate([part.images for part in parts]),
        [name for part in parts for name in part.found_by],
        [entry for part in parts for entry in part.rejected],
        [entry for part in parts for entry in part.remarks],
    )
    return joined, place
