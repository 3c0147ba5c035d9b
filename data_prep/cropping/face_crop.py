"""Finds the face in a picture and cuts the 64x64 picture out of it. Imports data_prep.pictures and landmarks.

The tight crop is the same square in every detector's terms: side 2.6 eye distances, centre 0.45 eye distances below
the middle between the eyes, sides parallel to the picture's.
"""

import functools
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image

from data_prep.cropping import image_io
from facedisent_jax.errors import UserError

if TYPE_CHECKING:
    from data_prep.cropping.face_mesh import Mesh

SIZE = 64
"""Height and width of the picture that is cut out (as facedisent_jax.records.SIZE)."""
DETECTORS = ("haar", "mesh", "boxes", "points", "none")
SIDE_IN_EYES, DOWN_IN_EYES = 2.6, 0.45
SMALLEST_SIDE = 16
"""Narrower faces (pixels) are left out: enlarged fourfold they show hardly more than a blur."""

# From a Haar box to the tight square, in sides of the box: measured on the 164 photographs of 82 people of the Face
# Research Lab London Set against the squares on their 478-point mesh's eye corners. Spread from picture to picture:
# 0.014 sides (down), 0.05 (side). Between the neutral and the smiling photograph of a person the middle of the eyes
# then moves by 0.40 px of 64 (95%: 0.79), the scale by 2.4%.
HAAR_DOWN, HAAR_SIDE = 0.0753, 0.9783
HAAR_COARSE, HAAR_SMALL = 160, 640
"""Longer side (pixels) of the picture in which a face of 32 pixels or more is looked for, at first and once again."""
LARGEST_LOOK = 1600
"""Larger pictures are reduced to this longer side before a face is looked for."""
HAAR_FINE = 180
"""Width (pixels) to which the face is brought for its exact place: 140 gave 0.40 px instead of 0.36, 220 no better."""


class Box(NamedTuple):
    """Left, top, right, bottom in pixels of the upright picture."""

    left: float
    top: float
    right: float
    bottom: float

    @property
    def side(self) -> float:
        """The longer side."""
        return max(self.right - self.left, self.bottom - self.top)

    def square(self, margin: float = 0.0) -> "Box":
        """The square around the same centre, as wide as the longer side plus `margin` as a fraction of it."""
        half = self.side * (1 + margin) / 2
        x, y = (self.left + self.right) / 2, (self.top + self.bottom) / 2
        return Box(x - half, y - half, x + half, y + half)

    def scaled(self, factor: float) -> "Box":
        """The same box in a picture `factor` times as large."""
        return Box(*(edge * factor for edge in self))


def square_on_eyes(one: np.ndarray, other: np.ndarray) -> Box:
    """The tight crop for the positions [2] of the two eyes (the middle between the corners of each)."""
    distance = float(np.linalg.norm(np.subtract(other, one)))
    x, y = np.add(one, other) / 2 + [0, DOWN_IN_EYES * distance]
    half = SIDE_IN_EYES * distance / 2
    return Box(x - half, y - half, x + half, y + half)


def square_on_points(points: np.ndarray) -> Box:
    """The tight crop for the usual 68 landmarks, [68, 2]; the corners of the eyes are 36, 39 and 42, 45."""
    return square_on_eyes(points[[36, 39]].mean(0), points[[42, 45]].mean(0))


def locate_face(picture: Image.Image, detector: str, mesh: "Mesh | None" = None) -> Box | None:
    """The tight crop of the face that is most plainly one, None if there is no face. detector: haar, mesh or none."""
    if detector == "none":
        (width, height), side = picture.size, min(picture.size)
        return Box((width - side) / 2, (height - side) / 2, (width + side) / 2, (height + side) / 2)
    longest = max(picture.size)
    if longest > LARGEST_LOOK:
        small = picture.resize(
            [max(1, round(edge * LARGEST_LOOK / longest)) for edge in picture.size], reducing_gap=2.0
        )
        seen = locate_face(small, detector, mesh)
        return seen and seen.scaled(longest / LARGEST_LOOK)
    if detector == "mesh":
        if mesh is None:
            raise ValueError("The mesh detector needs landmarks.Mesh.")
        image = np.asarray(picture)
        eyes = mesh.eyes(image)
        if eyes is None and (rough := detect_haar(picture)):  # its own detector sees near faces alone
            eyes = mesh.eyes(image, rough)
        return square_on_eyes(*eyes) if eyes else None
    box = detect_haar(picture)
    if box is None:
        return None
    x, y, side = (box.left + box.right) / 2, (box.top + box.bottom) / 2 + HAAR_DOWN * box.side, HAAR_SIDE * box.side
    return Box(x - side / 2, y - side / 2, x + side / 2, y + side / 2)


def detect_haar(picture: Image.Image) -> Box | None:
    """The face that OpenCV's `frontalface_alt2` cascade is surest of, as the cascade's own box.

    Found in a small picture, then placed in a larger one of that face and in its mirror image, and averaged: half the
    time of one search in the picture at full size, and steadier (0.36 px against 0.44, same photographs as above).
    """
    import cv2

    cascade = _cascade()
    image = np.asarray(picture.convert("L"))
    if min(image.shape) < 24:  # smaller than the cascade's own window
        return None
    longer = max(image.shape)
    for size in (HAAR_COARSE, HAAR_SMALL):
        scale = min(1.0, size / longer)
        small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else image
        boxes, _, sure = cascade.detectMultiScale3(small, 1.1, 3, minSize=(32, 32), outputRejectLevels=True)
        if len(boxes):
            found = np.asarray(boxes, float)
            left, top, side, _ = found[int(np.argmax(np.ravel(sure) * found[:, 2]))] / scale  # sure and large
            return _placed(image, Box(left, top, left + side, top + side))
        if scale == 1:
            break
    return None


def _placed(image: np.ndarray, rough: Box) -> Box:
    """The cascade's box of the face at `rough`, averaged over a large picture of that face and its mirror image."""
    import cv2

    around = rough.square(0.5)
    left, top = max(0, int(around.left)), max(0, int(around.top))
    cut = image[top : int(around.bottom), left : int(around.right)]
    scale = HAAR_FINE / rough.side
    way = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    large = cv2.resize(cut, None, fx=scale, fy=scale, interpolation=way)
    low, high = int(0.8 * HAAR_FINE), int(1.25 * HAAR_FINE)
    placed = []
    for mirrored in (False, True):
        seen = np.ascontiguousarray(large[:, ::-1]) if mirrored else large
        boxes = _cascade().detectMultiScale(seen, 1.03, 3, minSize=(low, low), maxSize=(high, high))
        if len(boxes):
            found = np.asarray(boxes, float)
            x, y, side, _ = found[np.argmax(found[:, 2])]
            x = seen.shape[1] - x - side if mirrored else x
            placed.append((x / scale + left, y / scale + top, side / scale))
    if not placed:
        return rough
    x, y, side = np.mean(placed, 0)
    return Box(x, y, x + side, y + side)


@functools.cache
def _cascade():
    import cv2

    folder = getattr(getattr(cv2, "data", None), "haarcascades", "")
    path = Path(folder) / "haarcascade_frontalface_alt2.xml"
    if not path.is_file():
        raise UserError(
            f"OpenCV {cv2.__version__} has no Haar cascades (5.x ships none): pip install 'opencv-python-headless<5'."
        )
    return cv2.CascadeClassifier(str(path))


def cut_square(picture: Image.Image, box: Box) -> np.ndarray:
    """What is in the square `box`, [64, 64, 3] uint8, antialiased; the edge pixels go on beyond the picture."""
    width, height = picture.size
    left, top = int(np.floor(box.left)), int(np.floor(box.top))
    right, bottom = int(np.ceil(box.right)), int(np.ceil(box.bottom))
    if left < 0 or top < 0 or right > width or bottom > height:
        inner = picture.crop((max(0, left), max(0, top), min(width, right), min(height, bottom)))
        beyond = ((max(0, -top), max(0, bottom - height)), (max(0, -left), max(0, right - width)), (0, 0))
        picture = Image.fromarray(np.pad(np.asarray(inner), beyond, mode="edge"))
        box = Box(box.left - left, box.top - top, box.right - left, box.bottom - top)
    # reducing_gap: first by a whole factor, which is twice as fast and changes a level of 255 on average
    small = picture.resize((SIZE, SIZE), Image.Resampling.LANCZOS, box=box, reducing_gap=1.5)
    return np.asarray(small)


def why_unusable(box: Box, size: tuple[int, int]) -> str | None:
    """Why a crop of a picture of this size would be worth nothing, None if it would be worth something."""
    if box.side < SMALLEST_SIDE:
        return f"face less than {SMALLEST_SIDE} pixels wide"
    width = min(box.right, size[0]) - max(box.left, 0)
    height = min(box.bottom, size[1]) - max(box.top, 0)
    if width <= 0 or height <= 0 or width * height < 0.5 * box.side**2:
        return "most of the crop lies outside the picture"
    return None


def crop_photo(
    path: Path | str, detector: str = "haar", margin: float = 0.0, landmarker: Path | str | None = None
) -> np.ndarray:
    """The face in a photograph, [64, 64, 3] uint8, cropped as in prep; a picture of 64x64 pixels is used as it is.

    detector: haar, mesh (with `landmarker`, the face_landmarker.task file, else fetched once), or none.
    Raises FaceError, a sentence, if the file cannot be read or shows no face.
    """
    try:
        picture = image_io.read_image(path)
    except image_io.ImageError as error:
        raise UserError(f"{path} cannot be used: {error}.") from error
    if picture.size == (SIZE, SIZE):
        return np.asarray(picture.image)
    mesh = None
    if detector == "mesh":
        from data_prep.cropping import face_mesh

        try:
            mesh = face_mesh.load_mesh(face_mesh.model_file(landmarker))
        except UserError as error:
            raise UserError(str(error)) from error
    box = locate_face(picture.image, detector, mesh)
    if box is None:
        raise UserError(
            f"No face was found in {path} ({picture.size[0]}x{picture.size[1]} pixels): "
            "give a picture of one upright face seen from the front."
        )
    square = box.square(margin)
    if reason := why_unusable(square, picture.size):
        raise UserError(f"{path} cannot be used: {reason}.")
    return cut_square(picture.image, square)
