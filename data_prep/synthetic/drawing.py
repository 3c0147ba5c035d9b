"""Draws one parametric face: an identity and a smile intensity in, a shaded, antialiased 64x64 picture out. Numpy only.

The face is a height field (head, nose, brows, cheeks, lips) lit from a direction, painted with skin, lips, eyes and
hair; shapes have soft edges one pixel wide and are drawn at twice the size in linear light, then averaged. Lengths are
pixels of the 64x64 picture, x from the midline to the right, y from the top edge down. The framing is the tight crop
of DATA: side 2.6 eye distances, centre 0.45 eye distances below the eye line.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from data_prep.synthetic.identity import Identity
from data_prep.synthetic.shading import (
    IRIS,
    SCALE,
    SIZE,
    between,
    both,
    bump,
    develop,
    edge,
    grid,
    hair_colour,
    light,
    linear,
    mix,
    pair,
    shade,
    skin_colour,
)

EYE_X = SIZE / 2.6 / 2  # half the eye distance
EYE_Y = SIZE / 2 - 0.45 * 2 * EYE_X
STILL_ROWS = 12  # rows at the top that no smile reaches: drawn once a subject
EYE_ROWS = 31  # the eyes with their lines are above this row, however the head leans
MOUTH_ROWS = 30  # the mouth and its folds are below this row
ROSY = np.array([1.04, 0.72, 0.70], np.float32)[:, None, None]  # skin where blood shows, relative to skin


class StaticLayers(NamedTuple):
    """What of a face does not change with the smile. Arrays [128, 128], or [3, 128, 128] of linear light."""

    x: np.ndarray  # places on the upright face
    y: np.ndarray
    height: np.ndarray
    albedo: np.ndarray
    around: np.ndarray  # all that is not face: background, neck, ears, hair, glasses
    shows: np.ndarray  # share of the face in each point, 0..1: face * shows + around is the picture


def _pose(who: Identity, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points of the picture -> points of the upright, frontal face. A turn moves the face's middle, not its rim."""
    roll = np.deg2rad(who.roll)
    cos, sin = float(np.cos(roll)), float(np.sin(roll))
    down = y - 36
    upright_x, upright_y = cos * x + sin * down, 36 + cos * down - sin * x
    return upright_x - who.turn * np.clip(1 - (upright_x / 30) ** 2, 0, 1), upright_y


def _outline(who: Identity, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The head: its level (0 in the middle, 1 on the outline) and the signed distance to the outline, inside > 0."""
    middle = 27.0
    up = (middle - y) / (middle + 5)
    down = np.maximum(y - middle, 0) / (who.chin_y - middle)
    half_width = who.face_width * (1 - (0.10 + 0.30 * who.jaw_taper) * np.minimum(down, 1.3) ** 2)
    across = np.abs(x) / half_width
    power = 2.0 + 0.9 * who.jaw_square * np.clip(2.5 * down, 0, 1)
    upper = np.sqrt(across**2 + np.maximum(up, 0) ** 2)
    level = np.where(up > 0, upper, (across**power + down**power + 1e-9) ** (1 / power)).astype(np.float32)
    dy, dx = np.gradient(level, 1 / SCALE)
    return level, (1 - level) / np.sqrt(dx * dx + dy * dy + 1e-6)


def _curtain(who: Identity, x: np.ndarray, y: np.ndarray, head: np.ndarray, flare: float) -> np.ndarray:
    """Signed distance to the line that hair follows: the head down to the cheeks, then straight down."""
    straight = who.face_width - 0.6 + flare * (y - 28) - np.abs(x)
    return head + (straight - head) * edge(y - 34, 12)


def _hair_front(who: Identity, x: np.ndarray, y: np.ndarray, head: np.ndarray) -> np.ndarray:
    """Signed distance (inside > 0) of the hair over the forehead and down the sides, in front of the face."""
    across = (x - 9 * who.hair_parting) / who.face_width
    top = who.hairline + who.hair_temple * np.abs(across) ** 1.8 - y
    side = both(who.hair_side - _curtain(who, x, y, head, 0.0), (who.hair_length - y) * 0.7, 2.0)
    return -both(-top, -side, 4.0)  # the forehead hair runs into the side hair in a rounded corner


def _relief(who: Identity, x: np.ndarray, y: np.ndarray, level: np.ndarray) -> np.ndarray:
    """Height of the face at rest."""
    nose = who.nose_y
    height = 20 * np.sqrt(np.clip(1 - level**2.6, 0, None) + 0.04)
    rise = np.clip((y - EYE_Y + 4) / (nose - EYE_Y + 4), 0, 1) ** 1.6 * edge(nose + 1.2 - y, 4.5)
    height += who.nose_relief * rise * np.exp(-((x / (2.3 + 0.12 * who.nose_width * rise)) ** 2))
    height += 0.30 * who.nose_relief * bump(x, y, 0, nose - 1, 2.6, 2.4)
    height += 0.34 * who.nose_relief * pair(x, y, who.nose_width - 1.4, nose, 1.7, 1.9)
    height += 1.3 * pair(x, y, 10, EYE_Y - who.brow_y, 7, 2.8)
    height -= 2.2 * pair(x, y, EYE_X - 1, EYE_Y - 1, 6.0, 4.2)
    height += 1.5 * pair(x, y, EYE_X, EYE_Y + 0.3, 4.2, 3.0)
    height += who.cheekbones * pair(x, y, 16, 33, 7, 6)
    height += 1.6 * bump(x, y, 0, who.mouth_y, 10, 7)
    height -= 0.5 * bump(x, y, 0, who.mouth_y - 5, 1.3, 2.2)
    height -= 0.9 * bump(x, y, 0, who.mouth_y + who.lip_lower + 3.2, 6, 1.8)
    height += who.chin_relief * bump(x, y, 0, who.chin_y - 5, 6, 4.5)
    return height


def _paint(who: Identity, x: np.ndarray, y: np.ndarray, level: np.ndarray) -> np.ndarray:
    """Colour of the skin with its lasting shadows, the beard and the brows."""
    skin, hair, nose = skin_colour(who), hair_colour(who), who.nose_y
    rosy = skin * ROSY
    albedo = mix(skin, rosy, 0.15 + 0.75 * who.blush * pair(x, y, 16, 35, 6.5, 5.5))
    albedo = mix(albedo, rosy, 0.5 * bump(x, y, 0, nose, 4, 3))
    shadow = 1 - 0.26 * pair(x, y, EYE_X - 1.5, EYE_Y - 0.2, 6.0, 3.8)
    shadow *= 1 - 0.30 * pair(x, y, 7.5, EYE_Y - 1, 2.5, 4)
    shadow *= 1 - 0.16 * bump(x, y, 0, nose + 3.0, 5, 1.6)
    shadow *= 1 - 0.38 * pair(x, y, 0.56 * who.nose_width, nose + 1.3, 1.15, 0.75)
    shadow *= 1 - 0.20 * pair(x, y, who.nose_width + 0.7, nose + 0.2, 0.9, 1.9)
    shadow *= 1 - 0.18 * bump(x, y, 0, who.mouth_y + who.lip_lower + 2.6, 5.5, 1.3)
    shadow *= 1 - (0.05 + 0.20 * who.age) * pair(x, y, EYE_X - 0.5, EYE_Y + 4.4, 4.2, 1.2)
    for side in (-1, 1):  # the nose throws a soft shadow away from the lamp
        cast = 0.42 * (0.3 + 0.7 * who.light_hard) * max(0.0, -side * who.light_x)
        shadow *= 1 - cast * bump(x, y, side * (who.nose_width + 1.0), nose - 1.5, 2.6, 4.0)
    albedo *= shadow
    jaw = edge(level - 0.68, 0.34) * edge(y - 37, 10)
    chin = edge(1 - np.hypot(x / 13.5, (y - who.chin_y + 5) / 11.5), 0.40)
    moustache = edge(1 - np.hypot(x / 12.5, (y - who.mouth_y + 2.2 - 0.012 * x * x) / 3.6), 0.7)
    beard = (1 - (1 - jaw) * (1 - chin) * (1 - 0.9 * moustache)) * (1 - (1 - who.beard) ** 2)
    albedo = mix(albedo, 0.45 * hair + 0.05 * skin, 0.9 * beard)
    return mix(albedo, 0.7 * hair + 0.06 * skin, 0.9 * _brow(who, x, y))


def _brow(who: Identity, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    along = (np.abs(x) - EYE_X) / 7.0  # -1 at the inner end, 1 at the outer
    line = EYE_Y - who.brow_y - who.brow_tilt * along / 2 - who.brow_arch * (1 - (along - 0.25) ** 2)
    thick = who.brow_thick * np.clip(1 - 0.45 * np.clip(along + 0.2, 0, 2) ** 1.3, 0.15, 1)
    inside = thick / 2 - np.abs(y - line)
    return edge(inside, 1.3) * edge(1.05 - np.abs(along), 0.35)


def _hair_lit(who: Identity, x: np.ndarray, y: np.ndarray, outer: np.ndarray, front: np.ndarray) -> np.ndarray:
    """Colour of the hair under the light; outer, front: signed distances to its outer and its inner line.

    Strands run from the parting in one fixed pattern: nothing to learn by heart.
    """
    lamp = light(who)
    fan = np.arctan2(x - 9 * who.hair_parting, y + 16)
    strands = 1 + 0.09 * np.sin(34 * fan) + 0.06 * np.sin(57 * fan + 1)
    across = np.clip(outer / (who.hair_volume + max(who.hair_side, 0.0) + 3), 0, 1)
    body = 0.50 + 0.60 * np.sin(np.pi * (0.12 + 0.8 * across)) + 0.28 * lamp[0] * x / 32
    shine = np.exp(-(((x - 14 * lamp[0]) / 20) ** 2) - ((y - 2.5 - 0.016 * x * x) / 3.6) ** 2)
    tuck = 1 - 0.30 * np.clip(1 - front / 3.0, 0, 1) * edge(y - 16, 14)  # the inner edge lies in its own shade
    lit = strands * body * tuck * (0.75 + 0.25 * who.light_hard) * (1 + 0.7 * shine)
    return who.exposure * (lit * hair_colour(who) + (0.05 * shine * strands))


def _glasses(who: Identity, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Coverage of the frame."""
    rim = (np.abs((np.abs(x) - EYE_X) / 1.15) ** 2.8 + np.abs(y - EYE_Y - 1.2) ** 2.8 + 1e-3) ** (1 / 2.8)
    bridge = np.minimum(3.6 - np.abs(x), 0.6 - np.abs(y - EYE_Y + 0.8 - 0.06 * x * x))
    return 0.9 * who.glasses * np.maximum(edge(0.55 - np.abs(rim - 7.6), 1.1), edge(bridge, 1.0))


def _behind(who: Identity, x: np.ndarray, y: np.ndarray, outer: np.ndarray, hair_lit: np.ndarray) -> np.ndarray:
    """Background, then ears, hair and neck before it; the background is still when the head leans."""
    picture_x, picture_y = grid()
    lamp, skin = light(who), skin_colour(who)
    tint = np.array([1 - 0.10 * who.background_hue, 1.0, 1 + 0.12 * who.background_hue], np.float32)[:, None, None]
    glow = 1 - 0.22 * ((picture_x / 32) ** 2 + ((picture_y - 24) / 40) ** 2) + 0.10 * lamp[0] * picture_x / 32
    behind = (glow * (0.10 + 0.75 * who.background) ** 2) * tint
    ear = edge(1 - np.hypot((np.abs(x) - who.face_width - 0.5) / 3.2, (y - 28) / 6.5), 0.35)
    ear *= min(1.0, max(0.0, (36 - who.hair_length) / 4))  # long hair lies over them
    behind = mix(behind, who.exposure * 0.62 * skin * ROSY * (1 + 0.3 * np.sign(x) * lamp[0]), ear)
    ends = who.hair_length - y + 2 + 0.4 * np.sin(0.8 * x)
    back = edge(both(outer, 0.7 * ends, 5.0), 1.8) * min(1.0, max(0.0, who.hairline + 8))
    behind = mix(behind, 0.55 * hair_lit, back)
    neck = edge(0.62 * who.face_width + 0.25 * np.maximum(y - 56, 0) - np.abs(x), 1.5) * edge(y - 44, 2)
    return mix(behind, who.exposure * 0.42 * skin, neck)


def still(who: Identity) -> StaticLayers:
    """Everything that a smile does not change."""
    x, y = _pose(who, *grid())
    level, distance = _outline(who, x, y)
    front = _hair_front(who, x, y, distance)
    outer = _curtain(who, x, y, distance, 0.05) + who.hair_volume
    albedo = _paint(who, x, y, level) * (1 - 0.40 * np.clip(1 + front / 4.5, 0, 1) ** 2)  # the hair's shadow

    hair_lit = _hair_lit(who, x, y, outer, front)
    head = edge(distance, 1.2)
    around = _behind(who, x, y, outer, hair_lit) * (1 - head)
    hair = edge(both(front, outer, 1.5), 1.8)
    around, shows = mix(around, hair_lit, hair), head * (1 - hair)
    if who.glasses > 0:
        frame = _glasses(who, x, y)
        around, shows = mix(around, linear(0.13, 0.11, 0.11), frame), shows * (1 - frame)
    return StaticLayers(x, y, _relief(who, x, y, level), albedo, around, shows)


class _Mouth(NamedTuple):
    """Rows of the four edges of the lips above each column, and the half width."""

    upper_outer: np.ndarray
    upper_inner: np.ndarray
    lower_inner: np.ndarray
    lower_outer: np.ndarray
    half_width: float
    corner_y: float
    gap: float  # rows between the lips in the middle


def _mouth(who: Identity, intensity: float, x: np.ndarray) -> _Mouth:
    t = intensity
    half = who.mouth_width * (1 + who.smile_widen * t)
    u = np.clip(x / half, -1, 1)
    arch = 1 - u * u
    corner = who.mouth_y - who.mouth_bend - 0.78 * who.smile_lift * t
    middle = who.mouth_y + 0.22 * who.smile_lift * t
    line = corner + (middle - corner) * arch
    gap = who.smile_open * t * (0.85 + 0.15 * t)
    full = arch**0.8  # rounder than a parabola
    bow = 1 - 0.22 * (1 - 0.5 * t) * np.exp(-((u / 0.16) ** 2))
    beak = 0.35 * (1 - t) * np.exp(-((u / 0.25) ** 2))
    upper_inner = line - 0.38 * gap * full + beak
    lower_inner = line + 0.62 * gap * full + beak
    upper_outer = upper_inner - who.lip_upper * (1 - 0.22 * t) * bow * full
    lower_outer = lower_inner + who.lip_lower * (1 - 0.15 * t) * full
    return _Mouth(upper_outer, upper_inner, lower_inner, lower_outer, half, corner, gap)


def _face(who: Identity, base: StaticLayers, t: float, first: int, last: int) -> np.ndarray:
    """Rows first..last of the picture at intensity t, [3, rows * 2, 128] in linear light."""
    rows = slice(first * SCALE, last * SCALE)
    x, y, height, albedo = base.x[rows], base.y[rows], base.height[rows].copy(), base.albedo[:, rows].copy()
    if t > 0:  # the cheeks rise and bulge
        height += 2.3 * t * pair(x, y, 15.5, 34.5 - 2 * t, 5.5, 4.5)
        height += 0.7 * t * who.smile_squint * pair(x, y, EYE_X, EYE_Y + 4.2, 4.5, 1.3)
    # eyes, folds and mouth only where they can be, for speed
    low = slice(max(0, (MOUTH_ROWS - first) * SCALE), None)
    mouth = _mouth(who, t, x[low])
    _lips(who, t, x[low], y[low], mouth, height[low], albedo[:, low])
    face = shade(who, height, albedo, gloss=0.05 + 0.05 * (1 - who.skin_tone))
    face[:, low] = _opening(who, x[low], y[low], mouth, face[:, low])
    eyes = slice(0, max(0, (EYE_ROWS - first) * SCALE))
    face[:, eyes] = _eyes(who, t, x[eyes], y[eyes], face[:, eyes])
    return face * base.shows[rows] + base.around[:, rows]


def _lips(who: Identity, t: float, x: np.ndarray, y: np.ndarray, mouth: _Mouth, height: np.ndarray, albedo: np.ndarray):
    """Folds from the nose past the corners of the mouth, and the lips: changes height and albedo in place."""
    height -= 0.8 * t * pair(x, y, mouth.half_width + 2.6, mouth.corner_y + 1.5, 1.8, 3.0)
    down = np.clip((y - who.nose_y + 1) / (mouth.corner_y + 1 - who.nose_y + 1), 0, 1.3)
    fold_x = who.nose_width + 0.8 + (mouth.half_width + 2.4 - who.nose_width - 0.8) * down**0.75
    reach = edge(down - 0.25, 0.5) * edge(1.02 - down, 0.45)
    beside = np.abs(x) - fold_x
    height += t * 0.9 * reach * edge(beside - 0.8, 4.0) * np.exp(-((np.maximum(beside, 0) / 7) ** 2))
    dark = 1 - (0.03 + 0.13 * who.age + 0.20 * t) * reach * np.exp(-((beside / 1.6) ** 2))
    dark *= 1 - (0.20 + 0.16 * t) * pair(x, y, mouth.half_width + 0.4, mouth.corner_y + 0.2, 1.5, 1.4)

    over = np.minimum(y - mouth.upper_outer, mouth.upper_inner - y)
    under = np.minimum(y - mouth.lower_inner, mouth.lower_outer - y)
    ends = edge(mouth.half_width - np.abs(x), 1.2)
    # two rolls
    height += ends * (1.1 * np.sqrt(np.maximum(over, 0) + 0.01) + 1.5 * np.sqrt(np.maximum(under, 0) + 0.01) - 0.26)
    pale = skin_colour(who) * np.array([0.82, 0.56, 0.56], np.float32)[:, None, None]
    lip = mix(pale, linear(0.74, 0.28, 0.30), 0.55 * who.lip_colour)
    albedo[:] = mix(albedo * dark, lip, 0.9 * ends * np.maximum(edge(over, 1.1), edge(under, 1.1)))


def _opening(who: Identity, x: np.ndarray, y: np.ndarray, mouth: _Mouth, face: np.ndarray) -> np.ndarray:
    """What is between the lips onto the face: dark, with the upper teeth; closed lips meet in a dark line."""
    between_lips = np.minimum(y - mouth.upper_inner, mouth.lower_inner - y)
    u = x / mouth.half_width
    arch = np.clip(1 - u * u, 0, 1)
    teeth = edge(mouth.upper_inner + 0.80 * mouth.gap * arch**0.8 - y, 1.0) * edge(0.86 - np.abs(u), 0.3)
    tooth = (0.76 - 0.36 * u * u) * (1 - 0.07 * np.cos(np.pi * x / 1.45) ** 8)
    tooth = tooth * (0.72 + 0.28 * edge(y - mouth.upper_inner - 0.6, 1.6))  # shade of the lip
    inside = mix(linear(0.24, 0.09, 0.09), tooth * linear(0.97, 0.945, 0.90), teeth * min(1.0, mouth.gap / 2.2))
    cover = edge(between_lips + 0.25, 1.1) * edge(mouth.half_width - np.abs(x), 1.2)
    return mix(face, who.exposure * inside, cover * (0.55 + 0.45 * min(1.0, mouth.gap / 1.2)))


def _eyes(who: Identity, t: float, x: np.ndarray, y: np.ndarray, face: np.ndarray) -> np.ndarray:
    """Both eyes onto the face: they narrow with the smile, from below more than from above."""
    ax = np.abs(x)
    v = (ax - EYE_X) / who.eye_width
    arch = np.clip(1 - v * v, 0, None)
    axis = EYE_Y + 0.3 - who.eye_tilt * v / 2
    squint = who.smile_squint * t
    upper = axis - who.eye_open * (1.12 - 0.14 * squint) * arch**0.8
    lower = axis + who.eye_open * (0.82 - 0.42 * squint) * arch**0.9 - 0.28 * squint
    ends = edge(1 - np.abs(v), 0.25)
    opening = edge(np.minimum(y - upper, lower - y), 1.0) * ends
    lid_shadow = 0.55 + 0.45 * edge(y - upper - 1.0, 2.2)
    ball = (who.exposure * lid_shadow * (0.74 - 0.25 * v * v)) * linear(0.92, 0.89, 0.88)
    centre_y = EYE_Y - 0.15
    radius = np.hypot(ax - EYE_X, y - centre_y)
    iris = between(IRIS, who.eye_colour) * (0.75 + 0.5 * edge(y - centre_y - 0.5, 3)) * who.exposure
    iris = iris * (1 - 0.45 * edge(radius - 2.05, 0.9))
    ball = mix(ball, iris, edge(2.75 - radius, 1.0))
    ball = mix(ball, linear(0.03, 0.03, 0.03), edge(1.15 - radius, 0.9))
    side = np.sign(x) * (EYE_X + np.sign(x) * (0.9 * np.sign(who.light_x) if who.light_x else 0.0))
    glint = np.exp(-((x - side) ** 2 + (y - centre_y + 1.0) ** 2) / 0.45)
    ball = mix(ball, linear(0.98, 0.98, 0.98), 0.85 * glint)
    face = mix(face, ball, opening)
    dark = hair_colour(who) * 0.25 + 0.004
    lash = np.exp(-(((y - upper + 0.2) / 0.65) ** 2)) * edge(1.12 - np.abs(v), 0.3)
    crease = np.exp(-(((y - upper + 1.9) / 0.75) ** 2)) * edge(1.05 - np.abs(v), 0.5)
    under = np.exp(-(((y - lower - 0.35) / 0.6) ** 2)) * edge(1.0 - np.abs(v), 0.5)
    crow = np.exp(-((np.abs(y - axis - 0.8) / 1.1) ** 2)) * np.exp(-(((ax - EYE_X - who.eye_width - 2) / 1.8) ** 2))
    face = face * (1 - 0.32 * crease - (0.16 + 0.16 * squint) * under - 0.18 * squint * crow)
    return mix(face, dark, 0.85 * lash)


def draw_levels(who: Identity, intensities: Sequence[float] | np.ndarray) -> np.ndarray:
    """The face of `who` at several smile intensities in [0, 1]: [n, 64, 64, 3] uint8."""
    levels = np.asarray(intensities, float)
    if not ((levels >= 0) & (levels <= 1)).all():
        raise ValueError(f"Smile intensities run from 0 to 1, found {levels.min():g} to {levels.max():g}.")
    base = still(who)
    # a row of overlap: the slope of the relief needs a neighbour
    top = develop(_face(who, base, 0.0, 0, STILL_ROWS + 1))[:-1]
    out = np.empty((len(levels), SIZE, SIZE, 3), np.uint8)
    for picture, level in zip(out, levels, strict=True):
        picture[:STILL_ROWS] = top
        picture[STILL_ROWS:] = develop(_face(who, base, float(level), STILL_ROWS - 1, SIZE))[1:]
    return out


def draw(who: Identity, intensity: float) -> np.ndarray:
    """The face of `who` at one smile intensity in [0, 1]: [64, 64, 3] uint8."""
    return draw_levels(who, [intensity])[0]


def draw_task(task: tuple[int, Identity, Sequence[float]]) -> np.ndarray:
    """`draw_levels` of one argument, for worker processes; the number is for the caller."""
    return draw_levels(*task[1:])
