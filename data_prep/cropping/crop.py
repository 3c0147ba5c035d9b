"""Crops the images of one crop group to 64x64, and measures the intensities of a take.

The face is located in the first image that shows one, and all images are cropped there.
"""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data_prep import intensity
from data_prep.cropping import face_crop, image_io, video_io
from data_prep.cropping.face_crop import Box
from data_prep.cropping.face_mesh import Mesh
from data_prep.intensity import IntensityMethod
from data_prep.layouts.scan import VIDEO_TYPES, Rejected, Source
from facedisent_jax.config import IMAGE_SIZE

DETECTION_PIXELS = 800  # longer side at which a face is looked for; a large JPEG is decoded no larger than needed
CROP_PIXELS = 2 * IMAGE_SIZE  # minimum side of a crop in a JPEG that is decoded at reduced size
MESH_PIXELS = 256  # the same for the mesh: the input size of its network
NO_LOCATION = {"boxes": "no box given", "points": "no points given"}  # detector -> reason


class Cropping(NamedTuple):
    """How faces are located and cropped; see `python -m data_prep folder --help`.

    intensity_method: given if crop groups are takes, whose images must be of one size.
    """

    detector: str = "haar"
    margin: float = 0.0
    landmarker: Path | None = None
    intensity_method: IntensityMethod | None = None

    @property
    def needs_mesh(self) -> bool:
        method = self.intensity_method
        return self.detector == "mesh" or (method is not None and method.kind == "landmarks")

    @property
    def measures_intensity(self) -> bool:
        return self.intensity_method is not None and self.intensity_method.needs_images


class Crops(NamedTuple):
    """The crops of some sources.

    sources:  those that were cropped.
    images:   [n, 64, 64, 3] uint8, their crops.
    found_by: what located each face.
    rejected: the other sources.
    remarks:  on takes, and on images with several faces.
    places:   of crop groups whose image shows one face: the subject, and the place of that face.
    unclear:  crop groups that wait for `jobs.choose_faces`.
    """

    sources: list[Source]
    images: np.ndarray
    found_by: list[str]
    rejected: list[Rejected]
    remarks: Sequence[Rejected] = ()
    places: "Sequence[tuple[str, Place]]" = ()
    unclear: "Sequence[UnclearGroup]" = ()


class Place(NamedTuple):
    """Centre and side of a face, in widths of its image."""

    x: float
    y: float
    side: float


class FaceLocation(NamedTuple):
    """Where the face of a crop group is.

    box:  the tight crop, in pixels of an image of this size.
    size: width and height of that image.
    """

    box: Box
    size: tuple[int, int]
    found_by: str

    @property
    def place(self) -> Place:
        left, top, right, bottom = (edge / self.size[0] for edge in self.box)
        return Place((left + right) / 2, (top + bottom) / 2, right - left)


class UnclearGroup(NamedTuple):
    """A crop group whose face is looked for in an image that shows several of about one size.

    key:   of that image.
    faces: the clearest first.
    """

    group: list[Source]
    key: str
    faces: list[FaceLocation]


def crop_group(
    group: Sequence[Source], cropping: Cropping, location: FaceLocation | None = None, mesh: Mesh | None = None
) -> tuple[Crops, FaceLocation | None]:
    """Crop the images of one crop group (or of a later part of it, with its `location`); return where its face is.

    A group that shows several faces where one is looked for is not cropped: it is `unclear`.
    """
    places: list[tuple[str, Place]] = []
    cropped: dict[int, tuple[np.ndarray, str]] = {}  # index -> crop, what located the face
    reasons: dict[int, str] = {}  # index -> why there is no crop
    for index, source in enumerate(group):
        if location is not None:
            break
        try:
            faces, crop = _locate(source, cropping, mesh)
        except image_io.ImageError as error:
            reasons[index] = str(error)
            continue
        if len(faces) > 1:
            return no_crops(unclear=[UnclearGroup(list(group), source.key, faces)]), None
        if faces:
            location = faces[0]
            places.append((source.subject, location.place))
        if crop is not None:
            cropped[index] = crop, location.found_by if location else "as it is"
    for index, source in enumerate(group):
        if index in cropped or index in reasons:
            continue
        if location is None:
            reasons[index] = NO_LOCATION.get(cropping.detector, "no face found")
            continue
        try:
            cropped[index] = _crop_source(source, cropping, location), location.found_by
        except image_io.ImageError as error:
            reasons[index] = str(error)
    order = sorted(cropped)
    images = np.stack([cropped[k][0] for k in order]) if order else _no_images()
    rejected = [Rejected(group[k].key, reasons[k]) for k in sorted(reasons)]
    sources = [group[k]._replace(digest=_digest(group[k])) for k in order]
    return Crops(sources, images, [cropped[k][1] for k in order], rejected, places=places), location


def no_crops(rejected: Sequence[Rejected] = (), **more) -> Crops:
    return Crops([], _no_images(), [], list(rejected), **more)


def _no_images() -> np.ndarray:
    return np.empty((0, IMAGE_SIZE, IMAGE_SIZE, 3), np.uint8)


def _digest(source: Source) -> bytes:
    """The same for images that are stored in the same bytes."""
    if source.path.suffix.lower() in VIDEO_TYPES:
        return _video_digest(source.path) + source.frame.to_bytes(8, "little")
    return image_io.file_digest(source.path)


@functools.lru_cache(maxsize=1)  # the frames of a video come one after the other
def _video_digest(path: Path) -> bytes:
    return image_io.file_digest(path)


def _locate(source: Source, cropping: Cropping, mesh: Mesh | None) -> tuple[list[FaceLocation], np.ndarray | None]:
    """Look for the face in one image.

    Returns its location, none if there is no face, several if it is not clear which; and the crop if the image at hand
    allows it. An image that already has the size of a crop is its own crop; except in a take it does not locate the
    face for other images.
    """
    box, found_by = _box_of_user(source)
    if box is None and cropping.detector in ("boxes", "points"):
        return [], None
    image = _read_source(source, longest=None if box else DETECTION_PIXELS)
    if image.size == (IMAGE_SIZE, IMAGE_SIZE):
        whole = FaceLocation(Box(0, 0, *image.size), image.size, "as it is")
        return [whole] if cropping.intensity_method else [], np.asarray(image.pixels)
    scale = image.size[0] / image.pixels.size[0]
    if box is None:
        boxes = face_crop.locate_faces(image.pixels, cropping.detector, mesh)
        faces = [FaceLocation(box.scaled(scale), image.size, cropping.detector) for box in boxes]
        if len(faces) != 1:
            return faces, None
        (location,) = faces
    else:
        location = FaceLocation(box, image.size, found_by)
    if scale > 1 and location.box.side / scale < CROP_PIXELS:
        return [location], None  # too small for the crop: it is decoded again, larger
    return [location], _crop_image(image, cropping, location)


def _box_of_user(source: Source) -> tuple[Box | None, str]:
    """The tight crop that the user gave for an image, and in which form."""
    if source.box is not None:
        return Box(*source.box).square(), "given"
    if source.landmark_file is not None:
        from data_prep.layouts import mat_landmarks

        points = mat_landmarks.read_mat_landmarks(source.landmark_file)
        if points is not None:
            return face_crop.square_on_points(points), "labels"
    return None, ""


def _crop_source(source: Source, cropping: Cropping, location: FaceLocation) -> np.ndarray:
    image = _read_source(source, shrink=min(1.0, CROP_PIXELS / location.box.side))
    if cropping.intensity_method and image.size != location.size:
        size, expected = (f"{width}x{height}" for width, height in (image.size, location.size))
        raise image_io.ImageError(f"not of its take's size: must be {expected} pixels, got {size}")
    if image.size == (IMAGE_SIZE, IMAGE_SIZE):
        return np.asarray(image.pixels)
    return _crop_image(image, cropping, location)


def _read_source(source: Source, shrink: float = 1.0, longest: int | None = None) -> image_io.UprightImage:
    if source.path.suffix.lower() in VIDEO_TYPES:
        return video_io.read_frame(source.path, source.frame)
    return image_io.read_image(source.path, shrink, longest)


def _crop_image(image: image_io.UprightImage, cropping: Cropping, location: FaceLocation) -> np.ndarray:
    (width, height), (located_width, located_height) = image.size, location.size
    if abs(width * located_height - height * located_width) > 0.01 * width * located_height:
        raise image_io.ImageError("not of the same aspect ratio as the image in which its sequence's face was found")
    square = location.box.square(cropping.margin).scaled(width / located_width)
    if reason := face_crop.why_unusable(square, image.size):
        raise image_io.ImageError(reason)
    return face_crop.cut_square(image.pixels, square.scaled(image.pixels.size[0] / width))


def measure_intensities(
    crops: Crops, location: FaceLocation | None, method: IntensityMethod, mesh: Mesh | None = None
) -> Crops:
    """The crops of a whole take, in order and with their intensities. All are rejected if these cannot be measured."""
    if not any(np.isnan(source.intensity) for source in crops.sources):
        return crops
    crops = _subset(crops, sorted(range(len(crops.sources)), key=lambda k: crops.sources[k].frame))
    points = None
    if method.kind == "landmarks" and location:
        crops, points = _with_meshes(crops, location, mesh)
    sources, images, found_by, rejected = crops[:4]
    try:
        is_smile = bool(sources) and sources[0].expression == "smile"
        values, remarks = intensity.measure_take(images, points, is_smile)
        remarks += intensity.check_onset(values, method.min_onset)
    except intensity.TakeError as error:
        return Crops([], images[:0], [], rejected + [Rejected(source.key, str(error)) for source in sources])
    take_remarks = [Rejected(sources[0].crop_group, remark) for remark in remarks]
    if method.kind == "order":  # only the order of the onset is known, and the motion says where it ends
        onset = intensity.onset_frames(values)
        rejected += [Rejected(s.key, "not of the onset of its take") for k, s in enumerate(sources) if k not in onset]
        return Crops(
            [sources[k] for k in onset], images[list(onset)], [found_by[k] for k in onset], rejected, take_remarks
        )
    measured = [source._replace(intensity=float(value)) for source, value in zip(sources, values, strict=True)]
    return Crops(measured, images, found_by, rejected, take_remarks)


def _subset(crops: Crops, indices: list[int]) -> Crops:
    return Crops(
        [crops.sources[k] for k in indices],
        crops.images[indices],
        [crops.found_by[k] for k in indices],
        list(crops.rejected),
    )


def _with_meshes(crops: Crops, location: FaceLocation, mesh: Mesh | None) -> tuple[Crops, np.ndarray | None]:
    """The crops in which a face mesh is found, and these meshes, [n, 478, 3]; None if there are none."""
    meshes = {}
    missing = []
    for k, source in enumerate(crops.sources):
        points = _find_mesh(source, location, mesh)
        if points is None:
            missing.append(Rejected(source.key, "no face mesh found"))
        else:
            meshes[k] = points
    crops = _subset(crops, list(meshes))
    return crops._replace(rejected=crops.rejected + missing), np.stack(list(meshes.values())) if meshes else None


def _find_mesh(source: Source, location: FaceLocation, mesh) -> np.ndarray | None:
    """The face mesh of a frame at the location of its take's face, in an image no larger than the network needs."""
    image = _read_source(source, shrink=min(1.0, MESH_PIXELS / location.box.side))
    scale = image.pixels.size[0] / image.size[0]
    return mesh.points(np.asarray(image.pixels), location.box.scaled(scale))
