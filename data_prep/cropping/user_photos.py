"""Photographs and crops as the evaluation commands take them."""

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from data_prep.cropping import face_crop, face_mesh, jobs
from data_prep.cropping.crop import Cropping
from data_prep.cropping.image_io import read_image
from data_prep.layouts.scan import Source
from facedisent_jax.config import IMAGE_SIZE
from facedisent_jax.errors import UserError


def crop_photos(paths: Sequence[Path], crop: dict, landmarker: Path | None) -> np.ndarray:
    """Crop the faces in photographs to [n, 64, 64, 3] uint8. Those of 64x64 pixels stay as they are.

    crop: the detector and the margin with which a run's own data were cropped.
    """
    detector = _detector(crop)
    crops = np.stack([face_crop.crop_photo(path, detector, crop["margin"], landmarker) for path in paths])
    if detector == "none" and any(read_image(path).size != (IMAGE_SIZE, IMAGE_SIZE) for path in paths):
        print("No face is looked for, as in the data of this run: give images cropped to the face.", file=sys.stderr)
    return crops


def crop_in_workers(
    paths: Sequence[Path], crop: dict, landmarker: Path | None, workers: int
) -> Iterator[tuple[int, np.ndarray | str]]:
    """Crop many photographs in worker processes, as data preparation does.

    Yields the position in `paths` and the crop, [64, 64, 3] uint8, or the reason why there is none, in the order in
    which the processes finish. crop: as in `crop_photos`. workers: number of processes.
    """
    sources = [Source(path, key=str(k), crop_group=str(k)) for k, path in enumerate(paths)]
    cropping = Cropping(_detector(crop), crop["margin"], landmarker)
    if cropping.needs_mesh:
        cropping = cropping._replace(landmarker=face_mesh.model_file(landmarker))
        face_mesh.load_mesh(cropping.landmarker)  # so that anything missing is reported before the work begins
    with contextlib.closing(jobs.crop_all(sources, cropping, workers)) as parts:
        for crops in parts:
            yield from ((int(source.key), image) for source, image in zip(crops.sources, crops.images, strict=True))
            yield from ((int(entry.key), entry.reason) for entry in crops.rejected)


def _detector(crop: dict) -> str:
    # Boxes and points were given by hand, and no photograph has them; every detector aims at the same square.
    return "haar" if crop["detector"] in ("boxes", "points") else crop["detector"]


def crop_landmark_finder(landmarker: Path | None) -> Callable[[np.ndarray], np.ndarray | None] | str:
    """A function that finds the face mesh in a 64x64 crop, or a sentence that says why there is none.

    The function is a judges.FaceMesh: it returns [478, 2] in pixels of the crop, None if there is no face. Nothing is
    fetched.
    """
    import cv2

    cached = face_mesh.cached_model_file()
    if landmarker is None and not cached.is_file():
        extra = "pip install 'facedisent-jax[judges]'"
        return f"The face mesh needs {extra} and its model file: give it by --landmarker FILE."
    try:
        mesh = face_mesh.load_mesh(face_mesh.model_file(landmarker or cached))
    except UserError as error:
        if landmarker is not None:
            raise
        return str(error)
    side = 256  # the input size of the mesh network

    def find_landmarks(image: np.ndarray) -> np.ndarray | None:
        large = cv2.resize(image, (side, side), interpolation=cv2.INTER_CUBIC)
        points = mesh.points(large, (0, 0, side, side))  # the face fills the crop: no need to look for it
        return None if points is None else (points[:, :2] + 0.5) * image.shape[0] / side - 0.5

    return find_landmarks
