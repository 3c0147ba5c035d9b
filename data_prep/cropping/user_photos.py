"""Photographs and crops as the commands of eval.py take them. Imports faces, landmarks and pictures."""

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from data_prep.cropping import face_crop, face_mesh
from data_prep.cropping.image_io import read_image
from facedisent_jax.errors import UserError


def crop_photos(paths: Sequence[Path], crop: dict, landmarker: Path | None) -> np.ndarray:
    """The photographs as [n, 64, 64, 3] uint8: those of 64x64 pixels as they are, others cropped as in prep."""
    given = crop["detector"] in ("boxes", "points")  # by hand, as no photograph has them: all aim at the same square
    detector = "haar" if given else crop["detector"]
    cut = np.stack([face_crop.crop_photo(path, detector, crop["margin"], landmarker) for path in paths])
    if detector == "none" and any(read_image(path).size != (face_crop.SIZE, face_crop.SIZE) for path in paths):
        print("No face is looked for, as in this run's own pictures: give crops of a face.", file=sys.stderr)
    return cut


def crop_landmark_finder(landmarker: Path | None):
    """The face mesh of 64x64 crops, as judges.FaceMesh; or a sentence that says why there is none. Fetches nothing."""
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
    side = 256  # the mesh network's own

    def points(picture: np.ndarray) -> np.ndarray | None:
        large = cv2.resize(picture, (side, side), interpolation=cv2.INTER_CUBIC)
        found = mesh.points(large, (0, 0, side, side))  # the crop is where the face is: no need to look for it
        return None if found is None else (found[:, :2] + 0.5) * picture.shape[0] / side - 0.5

    return points
