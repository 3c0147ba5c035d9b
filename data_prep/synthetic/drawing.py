"""Draws the built-in faces: an identity and a smile intensity in, a shaded, antialiased 64x64 image out. Numpy only.

A face is a height field (head, nose, brows, cheeks, lips) with colours for skin, lips, eyes and hair, lit by a lamp.
Shapes have soft edges, one pixel wide. They are drawn at twice the size, in linear light, and averaged.

Lengths are pixels of the 64x64 image: x from the midline to the right, y from the top edge down. The framing is that of
a tight crop: its side is 2.6 eye distances, and its centre lies 0.45 eye distances below the eyes.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from data_prep.synthetic.identity import Identity
from data_prep.synthetic.shading import (
    IRIS,
    SCALE,
    blend,
    colour_ramp,
    coverage,
    hair_colour,
    shade,
    skin_colour,
    to_image,
    to_linear,
    two_bumps,
)
from data_prep.synthetic.static_layers import EYE_X, EYE_Y, StaticLayers, static_layers
from facedisent_jax.config import IMAGE_SIZE

STATIC_ROWS = 12  # no smile reaches these rows at the top: they are drawn once for each identity
EYE_ROWS = 31  # the eyes and the lines around them lie above this row, even if the head leans
MOUTH_ROWS = 30  # the mouth and its folds lie below this row


def draw(identity: Identity, intensity: float) -> np.ndarray:
    """The face of a person at one smile intensity in [0, 1]: [64, 64, 3] uint8."""
    return draw_levels(identity, [intensity])[0]


def draw_levels(identity: Identity, intensities: Sequence[float] | np.ndarray) -> np.ndarray:
    """The face of a person at several smile intensities in [0, 1]: [n, 64, 64, 3] uint8."""
    levels = np.asarray(intensities, float)
    if not ((levels >= 0) & (levels <= 1)).all():
        raise ValueError(f"Smile intensities must be from 0 to 1, got {levels.min():g} to {levels.max():g}.")
    layers = static_layers(identity)
    # one row of overlap, because the slope of the relief needs a neighbour
    top = to_image(_draw_rows(identity, layers, 0.0, 0, STATIC_ROWS + 1))[:-1]
    images = np.empty((len(levels), IMAGE_SIZE, IMAGE_SIZE, 3), np.uint8)
    for image, level in zip(images, levels, strict=True):
        image[:STATIC_ROWS] = top
        image[STATIC_ROWS:] = to_image(_draw_rows(identity, layers, float(level), STATIC_ROWS - 1, IMAGE_SIZE))[1:]
    return images


def draw_task(task: tuple[int, Identity, Sequence[float]]) -> np.ndarray:
    """`draw_levels` with a single argument, for worker processes; the number identifies the task to the caller."""
    return draw_levels(*task[1:])


def _draw_rows(identity: Identity, layers: StaticLayers, smile: float, first: int, last: int) -> np.ndarray:
    """Rows first..last of the image with a smile of this intensity: [3, rows * 2, 128] in linear light."""
    rows = slice(first * SCALE, last * SCALE)
    x, y, height, albedo = layers.x[rows], layers.y[rows], layers.height[rows].copy(), layers.albedo[:, rows].copy()
    if smile > 0:  # the cheeks rise and bulge
        height += 2.3 * smile * two_bumps(x, y, 15.5, 34.5 - 2 * smile, 5.5, 4.5)
        height += 0.7 * smile * identity.smile_squint * two_bumps(x, y, EYE_X, EYE_Y + 4.2, 4.5, 1.3)
    # Eyes, folds and mouth are drawn only in the rows that they can reach, to save time.
    low = slice(max(0, (MOUTH_ROWS - first) * SCALE), None)
    mouth = _mouth_shape(identity, smile, x[low])
    _add_folds_and_lips(identity, smile, x[low], y[low], mouth, height[low], albedo[:, low])
    face = shade(identity, height, albedo, gloss=0.05 + 0.05 * (1 - identity.skin_tone))
    face[:, low] = _add_mouth_opening(identity, x[low], y[low], mouth, face[:, low])
    eyes = slice(0, max(0, (EYE_ROWS - first) * SCALE))
    face[:, eyes] = _add_eyes(identity, smile, x[eyes], y[eyes], face[:, eyes])
    return face * layers.face_share[rows] + layers.surroundings[:, rows]


class _MouthShape(NamedTuple):
    """The lips. The edges are given as rows of the image, for each drawn point."""

    upper_outer: np.ndarray
    upper_inner: np.ndarray
    lower_inner: np.ndarray
    lower_outer: np.ndarray
    half_width: float  # of the mouth
    corner_y: float  # row of the corners
    gap: float  # rows between the lips, in the middle


def _mouth_shape(identity: Identity, smile: float, x: np.ndarray) -> _MouthShape:
    half_width = identity.mouth_width * (1 + identity.smile_widen * smile)
    u = np.clip(x / half_width, -1, 1)
    arch = 1 - u * u
    corner_y = identity.mouth_y - identity.mouth_bend - 0.78 * identity.smile_lift * smile
    middle_y = identity.mouth_y + 0.22 * identity.smile_lift * smile
    line = corner_y + (middle_y - corner_y) * arch
    gap = identity.smile_open * smile * (0.85 + 0.15 * smile)
    rounded = arch**0.8  # rounder than a parabola
    bow = 1 - 0.22 * (1 - 0.5 * smile) * np.exp(-((u / 0.16) ** 2))
    beak = 0.35 * (1 - smile) * np.exp(-((u / 0.25) ** 2))
    upper_inner = line - 0.38 * gap * rounded + beak
    lower_inner = line + 0.62 * gap * rounded + beak
    upper_outer = upper_inner - identity.lip_upper * (1 - 0.22 * smile) * bow * rounded
    lower_outer = lower_inner + identity.lip_lower * (1 - 0.15 * smile) * rounded
    return _MouthShape(upper_outer, upper_inner, lower_inner, lower_outer, half_width, corner_y, gap)


def _add_folds_and_lips(
    identity: Identity,
    smile: float,
    x: np.ndarray,
    y: np.ndarray,
    mouth: _MouthShape,
    height: np.ndarray,
    albedo: np.ndarray,
) -> None:
    """Change `height` and `albedo` in place: the folds between nose and mouth corners, and the lips."""
    height -= 0.8 * smile * two_bumps(x, y, mouth.half_width + 2.6, mouth.corner_y + 1.5, 1.8, 3.0)
    along = np.clip((y - identity.nose_y + 1) / (mouth.corner_y + 1 - identity.nose_y + 1), 0, 1.3)
    fold_x = identity.nose_width + 0.8 + (mouth.half_width + 2.4 - identity.nose_width - 0.8) * along**0.75
    reach = coverage(along - 0.25, 0.5) * coverage(1.02 - along, 0.45)
    from_fold = np.abs(x) - fold_x
    height += smile * 0.9 * reach * coverage(from_fold - 0.8, 4.0) * np.exp(-((np.maximum(from_fold, 0) / 7) ** 2))
    shadow = 1 - (0.03 + 0.13 * identity.age + 0.20 * smile) * reach * np.exp(-((from_fold / 1.6) ** 2))
    shadow *= 1 - (0.20 + 0.16 * smile) * two_bumps(x, y, mouth.half_width + 0.4, mouth.corner_y + 0.2, 1.5, 1.4)

    upper_lip = np.minimum(y - mouth.upper_outer, mouth.upper_inner - y)
    lower_lip = np.minimum(y - mouth.lower_inner, mouth.lower_outer - y)
    ends = coverage(mouth.half_width - np.abs(x), 1.2)
    # each lip is a roll
    height += ends * (
        1.1 * np.sqrt(np.maximum(upper_lip, 0) + 0.01) + 1.5 * np.sqrt(np.maximum(lower_lip, 0) + 0.01) - 0.26
    )
    lip_skin = skin_colour(identity) * np.array([0.82, 0.56, 0.56], np.float32)[:, None, None]
    lip_colour = blend(lip_skin, to_linear(0.74, 0.28, 0.30), 0.55 * identity.lip_colour)
    albedo[:] = blend(
        albedo * shadow, lip_colour, 0.9 * ends * np.maximum(coverage(upper_lip, 1.1), coverage(lower_lip, 1.1))
    )


def _add_mouth_opening(
    identity: Identity, x: np.ndarray, y: np.ndarray, mouth: _MouthShape, face: np.ndarray
) -> np.ndarray:
    """Paint what is between the lips onto `face`: darkness and the upper teeth, or a dark line if they are closed."""
    between_lips = np.minimum(y - mouth.upper_inner, mouth.lower_inner - y)
    u = x / mouth.half_width
    arch = np.clip(1 - u * u, 0, 1)
    teeth = coverage(mouth.upper_inner + 0.80 * mouth.gap * arch**0.8 - y, 1.0) * coverage(0.86 - np.abs(u), 0.3)
    tooth = (0.76 - 0.36 * u * u) * (1 - 0.07 * np.cos(np.pi * x / 1.45) ** 8)
    tooth = tooth * (0.72 + 0.28 * coverage(y - mouth.upper_inner - 0.6, 1.6))  # in the shade of the lip
    inside = blend(to_linear(0.24, 0.09, 0.09), tooth * to_linear(0.97, 0.945, 0.90), teeth * min(1.0, mouth.gap / 2.2))
    cover = coverage(between_lips + 0.25, 1.1) * coverage(mouth.half_width - np.abs(x), 1.2)
    return blend(face, identity.exposure * inside, cover * (0.55 + 0.45 * min(1.0, mouth.gap / 1.2)))


def _add_eyes(identity: Identity, smile: float, x: np.ndarray, y: np.ndarray, face: np.ndarray) -> np.ndarray:
    """Paint both eyes onto `face`. They narrow with the smile, more from below than from above."""
    from_midline = np.abs(x)
    v = (from_midline - EYE_X) / identity.eye_width
    arch = np.clip(1 - v * v, 0, None)
    axis = EYE_Y + 0.3 - identity.eye_tilt * v / 2
    squint = identity.smile_squint * smile
    upper = axis - identity.eye_open * (1.12 - 0.14 * squint) * arch**0.8
    lower = axis + identity.eye_open * (0.82 - 0.42 * squint) * arch**0.9 - 0.28 * squint
    ends = coverage(1 - np.abs(v), 0.25)
    opening = coverage(np.minimum(y - upper, lower - y), 1.0) * ends
    lid_shadow = 0.55 + 0.45 * coverage(y - upper - 1.0, 2.2)
    eyeball = (identity.exposure * lid_shadow * (0.74 - 0.25 * v * v)) * to_linear(0.92, 0.89, 0.88)
    centre_y = EYE_Y - 0.15
    radius = np.hypot(from_midline - EYE_X, y - centre_y)
    iris = colour_ramp(IRIS, identity.eye_colour) * (0.75 + 0.5 * coverage(y - centre_y - 0.5, 3)) * identity.exposure
    iris = iris * (1 - 0.45 * coverage(radius - 2.05, 0.9))
    eyeball = blend(eyeball, iris, coverage(2.75 - radius, 1.0))
    eyeball = blend(eyeball, to_linear(0.03, 0.03, 0.03), coverage(1.15 - radius, 0.9))
    glint_x = np.sign(x) * (EYE_X + np.sign(x) * (0.9 * np.sign(identity.light_x) if identity.light_x else 0.0))
    glint = np.exp(-((x - glint_x) ** 2 + (y - centre_y + 1.0) ** 2) / 0.45)
    eyeball = blend(eyeball, to_linear(0.98, 0.98, 0.98), 0.85 * glint)
    face = blend(face, eyeball, opening)
    lash_colour = hair_colour(identity) * 0.25 + 0.004
    lashes = np.exp(-(((y - upper + 0.2) / 0.65) ** 2)) * coverage(1.12 - np.abs(v), 0.3)
    crease = np.exp(-(((y - upper + 1.9) / 0.75) ** 2)) * coverage(1.05 - np.abs(v), 0.5)
    lower_line = np.exp(-(((y - lower - 0.35) / 0.6) ** 2)) * coverage(1.0 - np.abs(v), 0.5)
    crow_feet = np.exp(-((np.abs(y - axis - 0.8) / 1.1) ** 2)) * np.exp(
        -(((from_midline - EYE_X - identity.eye_width - 2) / 1.8) ** 2)
    )
    face = face * (1 - 0.32 * crease - (0.16 + 0.16 * squint) * lower_line - 0.18 * squint * crow_feet)
    return blend(face, lash_colour, 0.85 * lashes)
