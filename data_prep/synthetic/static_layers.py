"""The parts of a built-in face that a smile does not change: head, hair, skin, background. Numpy only."""

from typing import NamedTuple

import numpy as np

from data_prep.synthetic.identity import Identity
from data_prep.synthetic.shading import (
    SCALE,
    blend,
    bump,
    coverage,
    hair_colour,
    intersect,
    light_direction,
    pixel_grid,
    skin_colour,
    to_linear,
    two_bumps,
)
from facedisent_jax.config import IMAGE_SIZE

EYE_X = IMAGE_SIZE / 2.6 / 2  # half the eye distance
EYE_Y = IMAGE_SIZE / 2 - 0.45 * 2 * EYE_X
ROSY = np.array([1.04, 0.72, 0.70], np.float32)[:, None, None]  # flushed skin, relative to the skin colour


class StaticLayers(NamedTuple):
    """The parts of a face that do not change with the smile: arrays [128, 128], or [3, 128, 128] of linear light."""

    x: np.ndarray  # coordinates on the upright, frontal face
    y: np.ndarray
    height: np.ndarray
    albedo: np.ndarray
    surroundings: np.ndarray  # background, neck, ears, hair and glasses
    face_share: np.ndarray  # visible share of the face in each point, 0..1: face * face_share + surroundings = image


def static_layers(identity: Identity) -> StaticLayers:
    """Everything that a smile does not change."""
    x, y = _to_upright(identity, *pixel_grid())
    level, distance = _head_outline(identity, x, y)
    front = _front_hair(identity, x, y, distance)
    outer = _hair_line(identity, x, y, distance, 0.05) + identity.hair_volume
    hair_shadow = 1 - 0.40 * np.clip(1 + front / 4.5, 0, 1) ** 2
    albedo = _albedo(identity, x, y, level) * hair_shadow

    hair_light = _hair_light(identity, x, y, outer, front)
    head = coverage(distance, 1.2)
    surroundings = _background(identity, x, y, outer, hair_light) * (1 - head)
    hair = coverage(intersect(front, outer, 1.5), 1.8)
    surroundings, face_share = blend(surroundings, hair_light, hair), head * (1 - hair)
    if identity.glasses > 0:
        frame = _glasses_frame(identity, x, y)
        surroundings = blend(surroundings, to_linear(0.13, 0.11, 0.11), frame)
        face_share = face_share * (1 - frame)
    return StaticLayers(x, y, _relief(identity, x, y, level), albedo, surroundings, face_share)


def _to_upright(identity: Identity, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points of the image -> points of the upright, frontal face. A turn moves the middle of the face, not its rim."""
    roll = np.deg2rad(identity.roll)
    cos, sin = float(np.cos(roll)), float(np.sin(roll))
    down = y - 36
    upright_x, upright_y = cos * x + sin * down, 36 + cos * down - sin * x
    return upright_x - identity.turn * np.clip(1 - (upright_x / 30) ** 2, 0, 1), upright_y


def _head_outline(identity: Identity, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The head's level (0 in the middle, 1 on the outline) and the signed distance to its outline (inside > 0)."""
    middle = 27.0
    up = (middle - y) / (middle + 5)
    down = np.maximum(y - middle, 0) / (identity.chin_y - middle)
    half_width = identity.face_width * (1 - (0.10 + 0.30 * identity.jaw_taper) * np.minimum(down, 1.3) ** 2)
    across = np.abs(x) / half_width
    power = 2.0 + 0.9 * identity.jaw_square * np.clip(2.5 * down, 0, 1)
    upper = np.sqrt(across**2 + np.maximum(up, 0) ** 2)
    level = np.where(up > 0, upper, (across**power + down**power + 1e-9) ** (1 / power)).astype(np.float32)
    dy, dx = np.gradient(level, 1 / SCALE)
    return level, (1 - level) / np.sqrt(dx * dx + dy * dy + 1e-6)


def _hair_line(identity: Identity, x: np.ndarray, y: np.ndarray, distance: np.ndarray, flare: float) -> np.ndarray:
    """Signed distance to the line that the hair follows: the head down to the cheeks, then straight down.

    distance: signed distance to the outline of the head. flare: by how much the line widens per row.
    """
    straight = identity.face_width - 0.6 + flare * (y - 28) - np.abs(x)
    return distance + (straight - distance) * coverage(y - 34, 12)


def _front_hair(identity: Identity, x: np.ndarray, y: np.ndarray, distance: np.ndarray) -> np.ndarray:
    """Signed distance (inside > 0) of the hair in front of the face: over the forehead and down the sides."""
    across = (x - 9 * identity.hair_parting) / identity.face_width
    top = identity.hairline + identity.hair_temple * np.abs(across) ** 1.8 - y
    beside_face = identity.hair_side - _hair_line(identity, x, y, distance, 0.0)
    side = intersect(beside_face, (identity.hair_length - y) * 0.7, 2.0)
    return -intersect(-top, -side, 4.0)  # a rounded corner between forehead and side


def _relief(identity: Identity, x: np.ndarray, y: np.ndarray, level: np.ndarray) -> np.ndarray:
    """Height of the neutral face."""
    nose = identity.nose_y
    height = 20 * np.sqrt(np.clip(1 - level**2.6, 0, None) + 0.04)
    rise = np.clip((y - EYE_Y + 4) / (nose - EYE_Y + 4), 0, 1) ** 1.6 * coverage(nose + 1.2 - y, 4.5)
    height += identity.nose_relief * rise * np.exp(-((x / (2.3 + 0.12 * identity.nose_width * rise)) ** 2))
    height += 0.30 * identity.nose_relief * bump(x, y, 0, nose - 1, 2.6, 2.4)
    height += 0.34 * identity.nose_relief * two_bumps(x, y, identity.nose_width - 1.4, nose, 1.7, 1.9)
    height += 1.3 * two_bumps(x, y, 10, EYE_Y - identity.brow_y, 7, 2.8)
    height -= 2.2 * two_bumps(x, y, EYE_X - 1, EYE_Y - 1, 6.0, 4.2)
    height += 1.5 * two_bumps(x, y, EYE_X, EYE_Y + 0.3, 4.2, 3.0)
    height += identity.cheekbones * two_bumps(x, y, 16, 33, 7, 6)
    height += 1.6 * bump(x, y, 0, identity.mouth_y, 10, 7)
    height -= 0.5 * bump(x, y, 0, identity.mouth_y - 5, 1.3, 2.2)
    height -= 0.9 * bump(x, y, 0, identity.mouth_y + identity.lip_lower + 3.2, 6, 1.8)
    height += identity.chin_relief * bump(x, y, 0, identity.chin_y - 5, 6, 4.5)
    return height


def _albedo(identity: Identity, x: np.ndarray, y: np.ndarray, level: np.ndarray) -> np.ndarray:
    """Colour of the skin with the shadows that a smile does not change, beard and brows: [3, 128, 128]."""
    skin, hair, nose = skin_colour(identity), hair_colour(identity), identity.nose_y
    rosy = skin * ROSY
    albedo = blend(skin, rosy, 0.15 + 0.75 * identity.blush * two_bumps(x, y, 16, 35, 6.5, 5.5))
    albedo = blend(albedo, rosy, 0.5 * bump(x, y, 0, nose, 4, 3))
    shadow = 1 - 0.26 * two_bumps(x, y, EYE_X - 1.5, EYE_Y - 0.2, 6.0, 3.8)
    shadow *= 1 - 0.30 * two_bumps(x, y, 7.5, EYE_Y - 1, 2.5, 4)
    shadow *= 1 - 0.16 * bump(x, y, 0, nose + 3.0, 5, 1.6)
    shadow *= 1 - 0.38 * two_bumps(x, y, 0.56 * identity.nose_width, nose + 1.3, 1.15, 0.75)
    shadow *= 1 - 0.20 * two_bumps(x, y, identity.nose_width + 0.7, nose + 0.2, 0.9, 1.9)
    shadow *= 1 - 0.18 * bump(x, y, 0, identity.mouth_y + identity.lip_lower + 2.6, 5.5, 1.3)
    shadow *= 1 - (0.05 + 0.20 * identity.age) * two_bumps(x, y, EYE_X - 0.5, EYE_Y + 4.4, 4.2, 1.2)
    for side in (-1, 1):  # soft shadow of the nose, away from the lamp
        cast = 0.42 * (0.3 + 0.7 * identity.light_hard) * max(0.0, -side * identity.light_x)
        shadow *= 1 - cast * bump(x, y, side * (identity.nose_width + 1.0), nose - 1.5, 2.6, 4.0)
    albedo *= shadow
    jaw = coverage(level - 0.68, 0.34) * coverage(y - 37, 10)
    chin = coverage(1 - np.hypot(x / 13.5, (y - identity.chin_y + 5) / 11.5), 0.40)
    moustache = coverage(1 - np.hypot(x / 12.5, (y - identity.mouth_y + 2.2 - 0.012 * x * x) / 3.6), 0.7)
    beard = (1 - (1 - jaw) * (1 - chin) * (1 - 0.9 * moustache)) * (1 - (1 - identity.beard) ** 2)
    albedo = blend(albedo, 0.45 * hair + 0.05 * skin, 0.9 * beard)
    return blend(albedo, 0.7 * hair + 0.06 * skin, 0.9 * _brows(identity, x, y))


def _brows(identity: Identity, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Coverage of the brows."""
    along = (np.abs(x) - EYE_X) / 7.0  # -1 at the inner end, 1 at the outer
    line = EYE_Y - identity.brow_y - identity.brow_tilt * along / 2 - identity.brow_arch * (1 - (along - 0.25) ** 2)
    thickness = identity.brow_thick * np.clip(1 - 0.45 * np.clip(along + 0.2, 0, 2) ** 1.3, 0.15, 1)
    inside = thickness / 2 - np.abs(y - line)
    return coverage(inside, 1.3) * coverage(1.05 - np.abs(along), 0.35)


def _hair_light(identity: Identity, x: np.ndarray, y: np.ndarray, outer: np.ndarray, front: np.ndarray) -> np.ndarray:
    """The hair in linear light: [3, 128, 128].

    Strands run from the parting in the same pattern for everybody, so that no person can be told by them.

    outer, front: signed distances to the outer and the inner line of the hair.
    """
    lamp = light_direction(identity)
    angle = np.arctan2(x - 9 * identity.hair_parting, y + 16)
    strands = 1 + 0.09 * np.sin(34 * angle) + 0.06 * np.sin(57 * angle + 1)
    across = np.clip(outer / (identity.hair_volume + max(identity.hair_side, 0.0) + 3), 0, 1)
    body = 0.50 + 0.60 * np.sin(np.pi * (0.12 + 0.8 * across)) + 0.28 * lamp[0] * x / 32
    shine = np.exp(-(((x - 14 * lamp[0]) / 20) ** 2) - ((y - 2.5 - 0.016 * x * x) / 3.6) ** 2)
    shadow = 1 - 0.30 * np.clip(1 - front / 3.0, 0, 1) * coverage(y - 16, 14)  # along the inner edge
    light = strands * body * shadow * (0.75 + 0.25 * identity.light_hard) * (1 + 0.7 * shine)
    return identity.exposure * (light * hair_colour(identity) + (0.05 * shine * strands))


def _glasses_frame(identity: Identity, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Coverage of the frame of the glasses."""
    rim = (np.abs((np.abs(x) - EYE_X) / 1.15) ** 2.8 + np.abs(y - EYE_Y - 1.2) ** 2.8 + 1e-3) ** (1 / 2.8)
    bridge = np.minimum(3.6 - np.abs(x), 0.6 - np.abs(y - EYE_Y + 0.8 - 0.06 * x * x))
    return 0.9 * identity.glasses * np.maximum(coverage(0.55 - np.abs(rim - 7.6), 1.1), coverage(bridge, 1.0))


def _background(
    identity: Identity, x: np.ndarray, y: np.ndarray, outer: np.ndarray, hair_light: np.ndarray
) -> np.ndarray:
    """The background, which stays upright when the head leans; before it ears, the hair at the back, and the neck."""
    image_x, image_y = pixel_grid()
    lamp, skin = light_direction(identity), skin_colour(identity)
    hue = identity.background_hue
    tint = np.array([1 - 0.10 * hue, 1.0, 1 + 0.12 * hue], np.float32)[:, None, None]
    glow = 1 - 0.22 * ((image_x / 32) ** 2 + ((image_y - 24) / 40) ** 2) + 0.10 * lamp[0] * image_x / 32
    out = (glow * (0.10 + 0.75 * identity.background) ** 2) * tint
    ear = coverage(1 - np.hypot((np.abs(x) - identity.face_width - 0.5) / 3.2, (y - 28) / 6.5), 0.35)
    ear *= min(1.0, max(0.0, (36 - identity.hair_length) / 4))  # long hair covers the ears
    out = blend(out, identity.exposure * 0.62 * skin * ROSY * (1 + 0.3 * np.sign(x) * lamp[0]), ear)
    ends = identity.hair_length - y + 2 + 0.4 * np.sin(0.8 * x)
    back = coverage(intersect(outer, 0.7 * ends, 5.0), 1.8) * min(1.0, max(0.0, identity.hairline + 8))
    out = blend(out, 0.55 * hair_light, back)
    neck = coverage(0.62 * identity.face_width + 0.25 * np.maximum(y - 56, 0) - np.abs(x), 1.5) * coverage(y - 44, 2)
    return blend(out, identity.exposure * 0.42 * skin, neck)
