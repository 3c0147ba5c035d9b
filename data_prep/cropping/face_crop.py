"""Locates the face in an image and crops 64x64 pixels around it.

The tight crop is the same square for every detector: its side is 2.6 eye distances, its centre lies 0.45 eye distances
below the middle between the eyes, and its sides are parallel to those of the image.
"""

import functools
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image

from data_prep.cropping import image_io
from facedisent_jax.config import IMAGE_SIZE
from facedisent_jax.errors import UserError

if TYPE_CHECKING:
    from data_prep.cropping.face_mesh import Mesh

SIDE_IN_EYES, DOWN_IN_EYES = 2.6, 0.45  # the tight crop, in eye distances
MIN_FACE_PIXELS = 16  # narrower faces are left out: enlarged fourfold they show hardly more than a blur
MIN_SECOND_FACE = 0.5  # of the largest face's side: smaller faces are of people in the background
MAX_DETECTION_PIXELS = 1600  # larger images are reduced to this longer side before a face is looked for

# From a Haar box to the tight square, in sides of the box: measured on the 164 photographs of 82 people of the Face
# Research Lab London Set against the squares on the eye corners of their 478-point mesh. Standard deviation between
# images: 0.014 sides (down), 0.05 (side). Between the neutral and the smiling photograph of a person the middle of the
# eyes then moves by 0.40 px of 64 (95 %: 0.79), and the scale changes by 2.4 %.
HAAR_DOWN, HAAR_SIDE = 0.0753, 0.9783
HAAR_MIN_FACE = 32  # pixels, in the reduced image
HAAR_SMALL_FACE = 48  # pixels, in the reduced image: beside a smaller face, others below HAAR_MIN_FACE are looked for
HAAR_LONGER_SIDES = (160, 640)  # pixels: of the reduced images in which a face is looked for, one after the other
HAAR_WINDOW = 24  # pixels: the cascade's own window
HAAR_FINE = 180  # pixels to which the face is scaled for its exact position: 140 gave 0.40 px, not 0.36; 220 no better


class Box(NamedTuple):
    """Edges in pixels of the upright image."""

    left: float
    top: float
    right: float
    bottom: float

    @property
    def side(self) -> float:
        """The longer side."""
        return max(self.right - self.left, self.bottom - self.top)

    def square(self, margin: float = 0.0) -> "Box":
        """The square with the same centre whose side is (1 + margin) times the longer side."""
        half = self.side * (1 + margin) / 2
        x, y = (self.left + self.right) / 2, (self.top + self.bottom) / 2
        return Box(x - half, y - half, x + half, y + half)

    def overlaps(self, other: "Box") -> bool:
        """Whether the centre of one of the two lies in the other: then both are of one face."""
        dx = abs(self.left + self.right - other.left - other.right) / 2
        dy = abs(self.top + self.bottom - other.top - other.bottom) / 2
        return max(dx, dy) < max(self.side, other.side) / 2

    def scaled(self, factor: float) -> "Box":
        """The same box in an image `factor` times as large."""
        return Box(*(edge * factor for edge in self))


def square_on_eyes(eye_a: np.ndarray, eye_b: np.ndarray) -> Box:
    """The tight crop for the positions [2] of both eyes (the middle between the corners of each)."""
    distance = float(np.linalg.norm(np.subtract(eye_b, eye_a)))
    x, y = np.add(eye_a, eye_b) / 2 + [0, DOWN_IN_EYES * distance]
    half = SIDE_IN_EYES * distance / 2
    return Box(x - half, y - half, x + half, y + half)


def square_on_points(points: np.ndarray) -> Box:
    """The tight crop for the usual 68 landmarks, [68, 2]. Points 36, 39 and 42, 45 are the corners of the eyes."""
    return square_on_eyes(points[[36, 39]].mean(0), points[[42, 45]].mean(0))


def locate_face(image: Image.Image, detector: str, mesh: "Mesh | None" = None) -> Box | None:
    """The tight crop of the clearest face, None if there is no face. detector: "haar", "mesh" or "none"."""
    return next(iter(locate_faces(image, detector, mesh)), None)


def locate_faces(image: Image.Image, detector: str, mesh: "Mesh | None" = None) -> list[Box]:
    """The tight crop of the clearest face, then those of others of about its size. detector: as for `locate_face`."""
    if detector == "none":
        (width, height), side = image.size, min(image.size)
        return [Box((width - side) / 2, (height - side) / 2, (width + side) / 2, (height + side) / 2)]
    longest = max(image.size)
    if longest > MAX_DETECTION_PIXELS:
        size = [max(1, round(edge * MAX_DETECTION_PIXELS / longest)) for edge in image.size]
        boxes = locate_faces(image.resize(size, reducing_gap=2.0), detector, mesh)
        return [box.scaled(longest / MAX_DETECTION_PIXELS) for box in boxes]
    if detector == "mesh":
        return _locate_by_mesh(image, mesh)
    return [_square_on_haar(box) for box in detect_haar(image)]


def _locate_by_mesh(image: Image.Image, mesh: "Mesh | None") -> list[Box]:
    if mesh is None:
        raise ValueError("The detector mesh needs a face_mesh.Mesh.")
    pixels = np.asarray(image)
    near = faces_of_one_size([Box(*face) for face in mesh.detect(pixels)])
    # the mesh's own detector sees only near faces
    return _squares_on_mesh(pixels, near, mesh) or _squares_on_mesh(pixels, detect_haar(image), mesh)


def _squares_on_mesh(pixels: np.ndarray, faces: list[Box], mesh: "Mesh") -> list[Box]:
    eyes = [mesh.eyes(pixels, face) for face in faces]
    return [square_on_eyes(*pair) for pair in eyes if pair]


def faces_of_one_size(faces: list[Box]) -> list[Box]:
    """The first of some faces and all others that are at least half as large as the largest, each once."""
    separate_faces = faces[:1]
    smallest = MIN_SECOND_FACE * max((face.side for face in faces), default=0)
    for face in faces[1:]:
        if face.side >= smallest and not any(map(face.overlaps, separate_faces)):
            separate_faces.append(face)
    return separate_faces


def _square_on_haar(box: Box) -> Box:
    x, y, side = (box.left + box.right) / 2, (box.top + box.bottom) / 2 + HAAR_DOWN * box.side, HAAR_SIDE * box.side
    return Box(x - side / 2, y - side / 2, x + side / 2, y + side / 2)


def detect_haar(image: Image.Image) -> list[Box]:
    """The clearest faces for OpenCV's `frontalface_alt2` cascade, as the cascade's own boxes, see `faces_of_one_size`.

    They are detected in a reduced image. The exact position is the mean over a large image of a face and the mirror
    image. This takes half the time of one search at full size and is steadier (0.36 px against 0.44, on the same
    photographs as above).
    """
    import cv2

    grey = np.asarray(image.convert("L"))
    if min(grey.shape) < HAAR_WINDOW:
        return []
    longer = max(grey.shape)
    for size in HAAR_LONGER_SIDES:
        scale = min(1.0, size / longer)
        small = cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else grey
        faces = _haar_boxes(small, scale, HAAR_MIN_FACE)
        if faces:
            if faces[0].side * scale < HAAR_SMALL_FACE:
                faces += _haar_boxes(small, scale, HAAR_WINDOW)
            return [_refine_haar(grey, face) for face in faces_of_one_size(faces)]
        if scale == 1:
            break
    return []


def _haar_boxes(small: np.ndarray, scale: float, min_side: int) -> list[Box]:
    """The cascade's boxes of at least `min_side` pixels in an image that was reduced by `scale`, in pixels of the image
    as it was. The most certain and large ones come first."""
    min_size = (min_side, min_side)
    boxes, _, scores = _cascade().detectMultiScale3(small, 1.1, 3, minSize=min_size, outputRejectLevels=True)
    if not len(boxes):
        return []
    boxes = np.asarray(boxes, float)
    order = np.argsort(-np.ravel(scores) * boxes[:, 2], kind="stable")
    return [Box(left, top, left + side, top + side) for left, top, side, _ in (boxes[order] / scale).tolist()]


def _refine_haar(grey: np.ndarray, rough: Box) -> Box:
    """The cascade's box of the face at `rough`: the mean over a large image of that face and its mirror image."""
    import cv2

    around = rough.square(0.5)
    left, top = max(0, int(around.left)), max(0, int(around.top))
    face = grey[top : int(around.bottom), left : int(around.right)]
    scale = HAAR_FINE / rough.side
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    large = cv2.resize(face, None, fx=scale, fy=scale, interpolation=interpolation)
    low, high = int(0.8 * HAAR_FINE), int(1.25 * HAAR_FINE)
    positions = []
    for is_mirrored in (False, True):
        view = np.ascontiguousarray(large[:, ::-1]) if is_mirrored else large
        boxes = _cascade().detectMultiScale(view, 1.03, 3, minSize=(low, low), maxSize=(high, high))
        if len(boxes):
            boxes = np.asarray(boxes, float)
            x, y, side, _ = boxes[np.argmax(boxes[:, 2])]
            x = view.shape[1] - x - side if is_mirrored else x
            positions.append((x / scale + left, y / scale + top, side / scale))
    if not positions:
        return rough
    x, y, side = np.mean(positions, 0)
    return Box(x, y, x + side, y + side)


@functools.cache
def _cascade():
    import cv2

    folder = getattr(getattr(cv2, "data", None), "haarcascades", "")
    path = Path(folder) / "haarcascade_frontalface_alt2.xml"
    if not path.is_file():
        raise UserError(
            f"OpenCV must have Haar cascades, got {cv2.__version__} without them: "
            "pip install 'opencv-python-headless<5'."
        )
    return cv2.CascadeClassifier(str(path))


def cut_square(image: Image.Image, box: Box) -> np.ndarray:
    """The content of the square `box` as [64, 64, 3] uint8, antialiased. Beyond the image its edge pixels continue."""
    width, height = image.size
    left, top = int(np.floor(box.left)), int(np.floor(box.top))
    right, bottom = int(np.ceil(box.right)), int(np.ceil(box.bottom))
    if left < 0 or top < 0 or right > width or bottom > height:
        inside = image.crop((max(0, left), max(0, top), min(width, right), min(height, bottom)))
        padding = ((max(0, -top), max(0, bottom - height)), (max(0, -left), max(0, right - width)), (0, 0))
        image = Image.fromarray(np.pad(np.asarray(inside), padding, mode="edge"))
        box = Box(box.left - left, box.top - top, box.right - left, box.bottom - top)
    # reducing_gap: reduce by a whole factor first, twice as fast at a mean change of one level in 255
    small = image.resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.LANCZOS, box=box, reducing_gap=1.5)
    return np.asarray(small)


def why_unusable(box: Box, size: tuple[int, int]) -> str | None:
    """Why the crop `box` of an image of this width and height would show too little, None if it would not."""
    if box.side < MIN_FACE_PIXELS:
        return f"face less than {MIN_FACE_PIXELS} pixels wide"
    width = min(box.right, size[0]) - max(box.left, 0)
    height = min(box.bottom, size[1]) - max(box.top, 0)
    if width <= 0 or height <= 0 or width * height < 0.5 * box.side**2:
        return "most of the crop lies outside the image"
    return None


def crop_photo(
    path: Path | str, detector: str = "haar", margin: float = 0.0, landmarker: Path | str | None = None
) -> np.ndarray:
    """Crop the face in a photograph, as data preparation does, to [64, 64, 3] uint8.

    detector:   "haar", "mesh" or "none".
    margin:     how much wider than the tight crop, as a fraction.
    landmarker: face_landmarker.task for the mesh; without it the file is fetched once.

    A photograph of 64x64 pixels is returned as it is. Raises UserError if the file cannot be read or shows no face.
    """
    try:
        photo = image_io.read_image(path)
    except image_io.ImageError as error:
        raise UserError(f"{path} cannot be used: {error}.") from error
    if photo.size == (IMAGE_SIZE, IMAGE_SIZE):
        return np.asarray(photo.pixels)
    mesh = None
    if detector == "mesh":
        from data_prep.cropping import face_mesh

        mesh = face_mesh.load_mesh(face_mesh.model_file(landmarker))
    box = locate_face(photo.pixels, detector, mesh)
    if box is None:
        raise UserError(
            f"{path} must show one upright face from the front, got {photo.size[0]}x{photo.size[1]} pixels "
            "in which no face was found."
        )
    square = box.square(margin)
    if reason := why_unusable(square, photo.size):
        raise UserError(f"{path} cannot be used: {reason}.")
    return cut_square(photo.pixels, square)
