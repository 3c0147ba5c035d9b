"""The face mesh of MediaPipe's Face Landmarker, run by LiteRT (extra `landmarks`).

The model file, face_landmarker.task, is a zip of two .tflite networks: a face detector for near faces (128x128 pixels)
and a mesh of 478 points (256x256 pixels). It is by Google under Apache-2.0 and is not part of this package.
"""

import contextlib
import functools
import hashlib
import os
import urllib.request
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from facedisent_jax.environment import cache_folder
from facedisent_jax.errors import UserError
from facedisent_jax.files import write_atomically

URL = "https://storage.googleapis.com/mediapipe-models/face_landmarker/face_landmarker/float16/1/face_landmarker.task"
SHA256 = "64184e229b263107bc2b804c6625db1341ff2bb731874b0bcc2fe6544e0bc9ff"
EYE_CORNERS = ((33, 133), (362, 263))  # points of the mesh at the corners of each eye
NETWORKS = ("face_detector", "face_landmarks_detector")


def cached_model_file() -> Path:
    """Path of the model file in the user's cache folder, where it is once it has been fetched."""
    return cache_folder() / "face_landmarker.task"


def model_file(landmarker: Path | str | None, url: str = URL) -> Path:
    """Path of the model file: `landmarker`, else the one in the user's cache folder, else fetched once and checked."""
    _interpreter_class()  # fetch nothing that could not be run
    if landmarker is not None:
        if not Path(landmarker).is_file():
            raise UserError(f"--landmarker must be the file face_landmarker.task, got {landmarker}, which is no file.")
        return Path(landmarker)
    path = cached_model_file()
    if path.is_file():
        return path
    try:
        with urllib.request.urlopen(url, timeout=60) as response:
            content = response.read()
    except OSError as error:
        raise UserError(
            f"The face mesh model could not be fetched from {url} ({error}). "
            "Download it by other means and give it by --landmarker FILE, in Python as `landmarker`."
        ) from error
    if hashlib.sha256(content).hexdigest() != SHA256:
        raise UserError(
            f"{url} must send the face mesh model with sha256 {SHA256}, got {len(content)} other bytes. "
            "Give the right file by --landmarker FILE."
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, content)
    return path


def _interpreter_class() -> Any:
    """LiteRT's class that runs a network. Raises UserError if LiteRT is not installed."""
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError as error:
        raise UserError(
            "The face mesh needs LiteRT, which is not installed: pip install 'facedisent-jax[landmarks]'."
        ) from error
    return Interpreter


@functools.lru_cache(maxsize=1)
def load_mesh(path: Path) -> "Mesh":
    """Load the networks in a model file. Raises UserError if it does not hold them."""
    interpreter_class = _interpreter_class()
    try:
        with zipfile.ZipFile(path) as bundle:
            content = [bundle.read(f"{name}.tflite") for name in NETWORKS]
        with _silent_stderr():
            networks = [interpreter_class(model_content=network, num_threads=1) for network in content]
            for network in networks:
                network.allocate_tensors()
    except (zipfile.BadZipFile, KeyError, OSError, ValueError, RuntimeError) as error:
        raise UserError(f"{path} must be a face_landmarker.task file, got {error}.") from error
    return Mesh(*networks)


@contextlib.contextmanager
def _silent_stderr():
    """Silence the greeting that LiteRT writes from C++, which would break the progress bar."""
    stderr, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    try:
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        os.close(null)


class Mesh:
    """Finds a face and its 478 points. `detector` and `landmarks` are interpreters that are ready to run."""

    def __init__(self, detector, landmarks):
        self._detector, self._landmarks = detector, landmarks
        cells = [(np.stack(np.meshgrid(np.arange(n), np.arange(n)), -1).reshape(-1, 2) + 0.5) / n for n in (16, 8)]
        # two boxes for each cell of the 16x16 grid, six for each cell of the 8x8 grid
        self._anchors = np.concatenate([np.repeat(cells[0], 2, 0), np.repeat(cells[1], 6, 0)])

    def points(self, image: np.ndarray, face: tuple[float, float, float, float] | None = None) -> np.ndarray | None:
        """The mesh of a face, [478, 3] in pixels (z is the relative depth); None if there is no face.

        image: [h, w, 3] uint8.
        face:  left, top, right, bottom of the face; without it the network looks for one.
        """
        import cv2

        if face is None:
            face = next(iter(self.detect(image)), None)
        if face is None:
            return None
        x, y, side = _centre_and_side(face)
        side *= 1.5  # the mesh network expects some space around the face
        scale = 256 / side
        # the centre of a pixel is at +0.5 in our coordinates, at +0 in OpenCV's
        affine = np.array([[scale, 0, 127.5 - scale * (x - 0.5)], [0, scale, 127.5 - scale * (y - 0.5)]], np.float32)
        crop = cv2.warpAffine(image, affine, (256, 256), flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REPLICATE)
        outputs = _run(self._landmarks, crop[None].astype(np.float32) / 255)
        mesh, presence = (next(output for output in outputs if output.size == size) for size in (478 * 3, 1))
        if presence.item() < 0:  # a logit: 30 on a face, -15 on noise
            return None
        return mesh.reshape(478, 3) / scale + [x - side / 2, y - side / 2, 0]

    def eyes(self, image: np.ndarray, face=None) -> tuple[np.ndarray, np.ndarray] | None:
        """The middle between the corners of each eye, [2] in pixels."""
        points = self.points(image, face)
        if points is None:
            return None
        return points[list(EYE_CORNERS[0]), :2].mean(0), points[list(EYE_CORNERS[1]), :2].mean(0)

    def detect(self, image: np.ndarray) -> list[tuple[float, float, float, float]]:
        """Left, top, right and bottom of faces in pixels, the clearest first. A face may be there several times."""
        import cv2

        longer = max(image.shape[:2])
        padded = np.zeros((longer, longer, 3), np.uint8)
        padded[: image.shape[0], : image.shape[1]] = image
        small = cv2.resize(padded, (128, 128), interpolation=cv2.INTER_AREA)
        outputs = _run(self._detector, small[None].astype(np.float32) / 127.5 - 1)
        boxes, scores = sorted(outputs, key=lambda output: -output.shape[-1])
        likely = [
            k for k in np.argsort(-scores[0, :, 0], kind="stable") if scores[0, k, 0] >= 0
        ]  # logits: 0 is as likely as not
        centres = (boxes[0, likely, :2] / 128 + self._anchors[likely]) * longer
        half = boxes[0, likely, 2:4].max(-1, keepdims=True) / 128 * longer / 2
        return [tuple(edges) for edges in np.concatenate([centres - half, centres + half], -1).tolist()]


def _centre_and_side(box: tuple[float, float, float, float]) -> tuple[float, float, float]:
    left, top, right, bottom = box
    return (left + right) / 2, (top + bottom) / 2, right - left


def _run(network, values: np.ndarray) -> list[np.ndarray]:
    network.set_tensor(network.get_input_details()[0]["index"], values.astype(np.float32))
    network.invoke()
    return [network.get_tensor(details["index"]) for details in network.get_output_details()]
