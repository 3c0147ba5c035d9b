"""Draws one parametric face: an identity and a smile intensity in, a shaded, antialiased 64x64 picture out. Numpy only.

The face is a height field (head, nose, brows, cheeks, lips) lit from a direction, painted with skin, lips, eyes and
hair; shapes have soft edges one pixel wide and are drawn at twice the size in linear light, then averaged. Lengths are
pixels of the 64x64 picture, x from the midline to the right, y from the top edge down. The framing is the tight crop
of DATA: side 2.6 eye distances, centre 0.45 eye distances below the eye line.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from data_prep.identity import Identity

SIZE = 64
SCALE = 2  # drawn at 128x128
EYE_X = SIZE / 2.6 / 2  # half the eye distance
EYE_Y = SIZE / 2 - 0.45 * 2 * EYE_X
STILL_ROWS = 12  # rows at the top that no smile reaches: drawn once a subject


class Still(NamedTuple):
    """What of a face does not change with the smile. Arrays [128, 128] or [128, 128, 3], in linear light."""

    height: np.ndarray
    albedo: np.ndarray
    behind: np.ndarray  # background, hair behind the head, neck
    head: np.ndarray  # coverage of the head
    hair: np.ndarray  # coverage of the hair in front, and its colour
    hair_colour: np.ndarray


def _grid() -> tuple[np.ndarray, np.ndarray]:
    steps = (np.arange(SIZE * SCALE, dtype=np.float32) + 0.5) / SCALE
    return steps[None, :] - SIZE / 2, steps[:, None]


def _edge(distance: np.ndarray, width: float = 1.0) -> np.ndarray:
    """Coverage of a shape: 0 outside, 1 inside, smooth over `width` pixels (signed distance, inside > 0)."""
    ramp = np.clip(distance / width + 0.5, 0, 1)
    return ramp * ramp * (3 - 2 * ramp)


def _bump(x: np.ndarray, y: np.ndarray, cx: float, cy: float, sx: float, sy: float) -> np.ndarray:
    """A Gaussian bump of height 1; x is separable from y, so it is an outer product."""
    return np.exp(-(((y - cy) / sy) ** 2)) * np.exp(-(((x - cx) / sx) ** 2))


def _pair(x: np.ndarray, y: np.ndarray, cx: float, cy: float, sx: float, sy: float) -> np.ndarray:
    """Two bumps, mirrored at the midline."""
    return np.exp(-(((y - cy) / sy) ** 2)) * np.exp(-(((np.abs(x) - cx) / sx) ** 2))


def _mix(under: np.ndarray, over: np.ndarray, amount: np.ndarray | float) -> np.ndarray:
    return under + (over - under) * (amount[..., None] if isinstance(amount, np.ndarray) else amount)


def _linear(*rgb: float) -> np.ndarray:
    """A colour as seen on the screen -> linear light (gamma 2: close to sRGB, and a square root back is cheap)."""
    return np.asarray(rgb, np.float32) ** 2


def _between(stops: Sequence[tuple[float, float, float]], where: float) -> np.ndarray:
    """A colour on the line through `stops`, where in [0, 1]; in linear light."""
    table = np.asarray(stops)
    at = np.linspace(0, 1, len(table))
    return _linear(*(float(np.interp(where, at, table[:, channel])) for channel in range(3)))


_SKIN = ((0.97, 0.84, 0.77), (0.92, 0.74, 0.62), (0.80, 0.59, 0.45), (0.58, 0.39, 0.28), (0.40, 0.26, 0.19))
_HAIR = ((0.09, 0.075, 0.07), (0.20, 0.13, 0.09), (0.38, 0.25, 0.15), (0.62, 0.46, 0.27), (0.86, 0.72, 0.48))
_IRIS = ((0.20, 0.11, 0.06), (0.38, 0.24, 0.12), (0.42, 0.40, 0.22), (0.36, 0.50, 0.50), (0.40, 0.56, 0.74))


def skin_colour(who: Identity) -> np.ndarray:
    golden = 1 + who.skin_warmth * np.array([0.0, 0.05, -0.09], np.float32)
    return _between(_SKIN, who.skin_tone) * golden


def hair_colour(who: Identity) -> np.ndarray:
    colour = _mix(_between(_HAIR, who.hair_tone), _linear(0.58, 0.26, 0.12), 0.75 * who.hair_red)
    return _mix(colour, _linear(0.72, 0.71, 0.70), who.hair_grey)


def _light(who: Identity) -> np.ndarray:
    direction = np.array([1.1 * who.light_x, -0.25 - 0.75 * who.light_y, 1.25], np.float32)
    return direction / np.linalg.norm(direction)


def _normals(height: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Unit normals of a height field, x right, y down, z towards the viewer."""
    dy, dx = np.gradient(height, np.float32(1 / SCALE))
    length = 1 / np.sqrt(dx * dx + dy * dy + 1)
    return -dx * length, -dy * length, length


def _shade(who: Identity, height: np.ndarray, albedo: np.ndarray, gloss: float) -> np.ndarray:
    """Light on a surface: sky from above, one soft lamp, a sheen. Red wraps further round the edge of shadows: skin."""
    nx, ny, nz = _normals(height)
    lamp = _light(who)
    towards = nx * lamp[0] + ny * lamp[1] + nz * lamp[2]
    hard = 0.35 + 0.5 * who.light_hard
    sky = (0.72 - 0.28 * ny) * (0.55 + 0.45 * nz)
    light = np.empty((*height.shape, 3), np.float32)
    for channel, wrap in enumerate((0.34, 0.22, 0.18)):
        lit = np.maximum(towards + wrap, 0) * (1 / (1 + wrap))
        light[..., channel] = (1 - hard) * sky + 1.1 * hard * lit
    half = lamp + np.array([0, 0, 1], np.float32)
    half /= np.linalg.norm(half)
    sheen = np.maximum(nx * half[0] + ny * half[1] + nz * half[2], 0) ** 18
    return who.exposure * (light * albedo + (gloss * hard) * sheen[..., None])


def _outline(who: Identity, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The head: its level (0 in the middle, 1 on the outline) and the signed distance to the outline, inside > 0."""
    middle = 27.0
    up = (middle - y) / (middle + 5)
    down = np.maximum(y - middle, 0) / (who.chin_y - middle)
    half_width = who.face_width * (1 - 0.30 * who.jaw_taper * np.minimum(down, 1.3) ** 2)
    across = np.abs(x) / half_width
    power = 2.0 + 0.9 * who.jaw_square
    level = np.where(
        y < middle, np.sqrt(across**2 + up**2), (across ** (power - 0.2) + down**power + 1e-9) ** (1 / power)
    ).astype(np.float32)
    dy, dx = np.gradient(level, 1 / SCALE)
    return level, (1 - level) / np.sqrt(dx * dx + dy * dy + 1e-6)


def _hair_front(who: Identity, x: np.ndarray, y: np.ndarray, head: np.ndarray) -> np.ndarray:
    """Signed distance (inside > 0) of the hair over the forehead and down the sides, in front of the face."""
    across = x / who.face_width
    line = who.hairline + who.hair_temple * across**2 + 5 * who.hair_parting * across * (1 - 0.5 * across**2)
    top = (line - y) / np.sqrt(1 + (0.12 * who.hair_temple * across) ** 2)
    inner = who.face_width - who.hair_side + 0.02 * (y - 24)
    side = np.minimum(np.abs(x) - inner, (who.hair_length - y) * 0.6)
    k = 2.0  # the forehead hair runs into the side hair in a rounded corner
    h = np.clip(0.5 + 0.5 * (top - side) / k, 0, 1)
    return side + (top - side) * h + k * h * (1 - h)


def still(who: Identity) -> Still:
    """Everything that a smile does not change."""
    x, y = _grid()
    ones = np.ones((SIZE * SCALE, SIZE * SCALE), np.float32)
    level, distance = _outline(who, x, y)
    height = 20 * np.sqrt(np.clip(1 - level**2.6, 0, None) + 0.04)
    nose = who.nose_y
    rise = np.clip((y - EYE_Y + 4) / (nose - EYE_Y + 4), 0, 1) ** 1.6 * _edge(nose + 1.2 - y, 4.5)
    height += who.nose_relief * rise * np.exp(-((x / (2.3 + 0.12 * who.nose_width * rise)) ** 2))
    height += 0.30 * who.nose_relief * _bump(x, y, 0, nose - 1, 2.6, 2.4)
    height += 0.34 * who.nose_relief * _pair(x, y, who.nose_width - 1.4, nose, 1.7, 1.9)
    height += 1.3 * _pair(x, y, 10, EYE_Y - who.brow_y, 7, 2.8)
    height -= 2.2 * _pair(x, y, EYE_X - 1, EYE_Y - 1, 6.0, 4.2)
    height += 1.5 * _pair(x, y, EYE_X, EYE_Y + 0.3, 4.2, 3.0)
    height += who.cheekbones * _pair(x, y, 16, 33, 7, 6)
    height += 1.6 * _bump(x, y, 0, who.mouth_y, 10, 7)
    height -= 0.5 * _bump(x, y, 0, who.mouth_y - 5, 1.3, 2.2)
    height -= 0.9 * _bump(x, y, 0, who.mouth_y + who.lip_lower + 3.2, 6, 1.8)
    height += who.chin_relief * _bump(x, y, 0, who.chin_y - 5, 6, 4.5)

    skin, hair = skin_colour(who), hair_colour(who)
    rosy = skin * np.array([1.04, 0.72, 0.70], np.float32)
    albedo = ones[..., None] * skin
    albedo = _mix(albedo, rosy, 0.15 + 0.75 * who.blush * _pair(x, y, 16, 35, 6.5, 5.5))
    albedo = _mix(albedo, rosy, 0.5 * _bump(x, y, 0, nose, 4, 3))
    shadow = 1 - 0.26 * _pair(x, y, EYE_X - 1.5, EYE_Y - 0.2, 6.0, 3.8)
    shadow *= 1 - 0.30 * _pair(x, y, 7.5, EYE_Y - 1, 2.5, 4)
    shadow *= 1 - 0.16 * _bump(x, y, 0, nose + 3.0, 5, 1.6)
    shadow *= 1 - 0.38 * _pair(x, y, 0.56 * who.nose_width, nose + 1.3, 1.15, 0.75)
    shadow *= 1 - 0.20 * _pair(x, y, who.nose_width + 0.7, nose + 0.2, 0.9, 1.9)
    shadow *= 1 - 0.18 * _bump(x, y, 0, who.mouth_y + who.lip_lower + 2.6, 5.5, 1.3)
    albedo *= shadow[..., None]
    chin_side = _edge(level - 0.62, 0.45) * _edge(y - 35, 9)
    moustache = _bump(x, y, 0, who.mouth_y - 3.6, 9, 2.0)
    goatee = _bump(x, y, 0, who.chin_y - 3, 9, 6.5)
    beard = np.clip(np.maximum(np.maximum(chin_side, 0.9 * moustache), goatee), 0, 1) * who.beard
    albedo = _mix(albedo, _mix(hair, skin, 0.18), 0.85 * beard)
    albedo = _mix(albedo, 0.7 * hair + 0.06 * skin, 0.9 * _brow(who, x, y))

    cover = _edge(distance, 1.2)
    front = _hair_front(who, x, y, distance)
    # hair and its shadow lie on the skin; strands follow the head: a fixed pattern, so nothing to memorise
    albedo *= (1 - 0.35 * np.clip(1 + front / 4, 0, 1) ** 2)[..., None]
    strands = 1 + 0.10 * np.sin(2.1 * x + 0.16 * who.hair_parting * y) * np.sin(0.9 * x - 0.1 * y)
    lamp = _light(who)
    angle = (x - 16 * lamp[0]) / 18
    shine = np.exp(-(angle**2)) * np.exp(-(((y - 3.5 - 0.012 * x * x) / 4.0) ** 2))
    limb = 0.55 + 0.45 * np.clip(1 - (np.abs(x) / 38) ** 2 + 0.4 * x * lamp[0] / 32, 0, 1.3)
    hair_lit = (strands * limb * (0.75 + 0.2 * who.light_hard) * (1 + 0.5 * shine))[..., None] * hair
    hair_lit = who.exposure * (hair_lit + (0.07 * shine)[..., None])
    outer = distance + who.hair_volume
    reach = np.minimum(outer, (who.hair_length - y + 2) * 0.6)
    back = _edge(np.where(y < 16, outer, reach) if who.hairline > -2 else reach, 1.6)
    front_cover = _edge(np.minimum(front, outer), 1.5)

    paper = 0.10 + 0.75 * who.background
    tint = np.array([1 - 0.10 * who.background_hue, 1.0, 1 + 0.12 * who.background_hue], np.float32)
    glow = 1 - 0.22 * ((x / 32) ** 2 + ((y - 24) / 40) ** 2) + 0.10 * lamp[0] * x / 32
    behind = (glow * paper**2)[..., None] * tint
    ear = _edge(1 - np.hypot((np.abs(x) - who.face_width - 0.5) / 3.2, (y - 28) / 6.5), 0.35)
    behind = _mix(behind, who.exposure * 0.62 * rosy * (1 + 0.3 * np.sign(x) * lamp[0])[..., None], ear)
    behind = _mix(behind, 0.55 * hair_lit, back)
    neck = _edge(0.62 * who.face_width + 0.25 * np.maximum(y - 56, 0) - np.abs(x), 1.5) * _edge(y - 44, 2)
    behind = _mix(behind, who.exposure * 0.42 * skin, neck)
    return Still(height.astype(np.float32), albedo.astype(np.float32), behind, cover, front_cover, hair_lit)


def _brow(who: Identity, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    along = (np.abs(x) - EYE_X) / 7.0  # -1 at the inner end, 1 at the outer
    line = EYE_Y - who.brow_y - who.brow_tilt * along / 2 - who.brow_arch * (1 - (along - 0.25) ** 2)
    thick = who.brow_thick * np.clip(1 - 0.45 * np.clip(along + 0.2, 0, 2) ** 1.3, 0.15, 1)
    inside = thick / 2 - np.abs(y - line)
    return _edge(inside, 1.3) * _edge(1.05 - np.abs(along), 0.35)


class _Mouth(NamedTuple):
    """Rows of the four edges of the lips above each column, and the half width."""

    upper_outer: np.ndarray
    upper_inner: np.ndarray
    lower_inner: np.ndarray
    lower_outer: np.ndarray
    half_width: float
    corner_y: float


def _mouth(who: Identity, intensity: float, x: np.ndarray) -> _Mouth:
    t = intensity
    half = who.mouth_width * (1 + who.smile_widen * t)
    u = np.clip(x / half, -1, 1)
    arch = 1 - u * u
    corner = who.mouth_y - who.mouth_bend - 0.8 * who.smile_lift * t
    middle = who.mouth_y + 0.2 * who.smile_lift * t
    line = corner + (middle - corner) * arch ** (1.0 + 0.25 * t)
    gap = who.smile_open * t * (0.35 + 0.65 * t)
    bow = 1 - 0.22 * (1 - 0.5 * t) * np.exp(-((u / 0.16) ** 2))
    upper_inner = line - 0.45 * gap * arch + 0.35 * (1 - t) * np.exp(-((u / 0.25) ** 2))
    lower_inner = line + 0.55 * gap * arch + 0.35 * (1 - t) * np.exp(-((u / 0.25) ** 2))
    upper_outer = upper_inner - who.lip_upper * (1 - 0.22 * t) * bow * arch**0.85
    lower_outer = lower_inner + who.lip_lower * (1 - 0.15 * t) * arch**0.75
    return _Mouth(upper_outer, upper_inner, lower_inner, lower_outer, half, corner)


def _face(who: Identity, base: Still, intensity: float, rows: slice) -> np.ndarray:
    """The picture in linear light at 128x128, of some rows."""
    x, y = _grid()
    y = y[rows]
    t = intensity
    mouth = _mouth(who, t, x)
    height, albedo = base.height[rows].copy(), base.albedo[rows].copy()

    # cheeks rise and bulge; a fold runs from the nose past the corner of the mouth
    if t > 0:
        height += 2.3 * t * _pair(x, y, 15.5, 34.5 - 2 * t, 5.5, 4.5)
        height -= 0.8 * t * _pair(x, y, mouth.half_width + 2.6, mouth.corner_y + 1.5, 1.8, 3.0)
        height += 0.7 * t * who.smile_squint * _pair(x, y, EYE_X, EYE_Y + 4.2, 4.5, 1.3)
    down = np.clip((y - who.nose_y + 1) / (mouth.corner_y + 2 - who.nose_y + 1), 0, 1.15)
    fold_x = who.nose_width + 1.0 + (mouth.half_width + 2.2 - who.nose_width - 1.0) * down**0.8
    fold = np.exp(-(((np.abs(x) - fold_x) / 1.3) ** 2)) * _edge(down - 0.2, 0.4) * _edge(1.0 - down, 0.3)
    dark = 1 - (0.07 + 0.30 * t) * fold
    dark *= 1 - (0.22 + 0.12 * t) * _pair(x, y, mouth.half_width + 0.5, mouth.corner_y + 0.2, 1.5, 1.3)
    albedo *= dark[..., None]

    # lips: two rolls
    over = np.minimum(y - mouth.upper_outer, mouth.upper_inner - y)
    under = np.minimum(y - mouth.lower_inner, mouth.lower_outer - y)
    ends = _edge(mouth.half_width - np.abs(x), 1.2)
    lips = np.maximum(_edge(over, 1.1), _edge(under, 1.1)) * ends
    between = np.minimum(y - mouth.upper_inner, mouth.lower_inner - y)
    height += ends * (1.1 * np.sqrt(np.clip(over, 0, None) + 0.01) + 1.5 * np.sqrt(np.clip(under, 0, None) + 0.01))
    skin = skin_colour(who)
    lip = _mix(skin * np.array([0.82, 0.56, 0.56], np.float32), _linear(0.74, 0.28, 0.30), 0.55 * who.lip_colour)
    albedo = _mix(albedo, lip, 0.9 * lips)
    face = _shade(who, height, albedo, gloss=0.10)

    # the opening: dark, teeth above; closed lips meet in a dark line
    opening = _edge(between + 0.25, 1.1) * ends
    inside = who.exposure * _linear(0.24, 0.09, 0.09) * np.ones((*height.shape, 1), np.float32)
    u = x / mouth.half_width
    gap = who.smile_open * t * (0.35 + 0.65 * t)
    teeth = _edge(mouth.upper_inner + 0.82 * gap * np.clip(1 - u * u, 0, 1) - y, 1.0) * _edge(0.92 - np.abs(u), 0.3)
    tooth = (0.80 - 0.34 * u * u) * (1 - 0.07 * np.cos(np.pi * x / 1.45) ** 8)
    tooth = tooth * (0.72 + 0.28 * _edge(y - mouth.upper_inner - 0.6, 1.6))
    inside = _mix(inside, (who.exposure * tooth)[..., None] * _linear(0.97, 0.945, 0.90), teeth * min(1.0, gap / 1.2))
    face = _mix(face, inside, opening * (0.55 + 0.45 * min(1.0, gap)))

    face = _eyes(who, t, x, y, face)
    out = _mix(base.behind[rows], face, base.head[rows])
    out = _mix(out, base.hair_colour[rows], base.hair[rows])
    if who.glasses > 0:
        rim = np.abs(np.hypot((np.abs(x) - EYE_X) / 1.12, (y - EYE_Y - 1.0) / 0.95) - 8.2)
        bridge = np.minimum(3.6 - np.abs(x), 0.6 - np.abs(y - EYE_Y + 0.8 - 0.06 * x * x))
        frame = np.maximum(_edge(0.75 - rim, 1.1), _edge(bridge, 1.0))
        out = _mix(out, _linear(0.13, 0.11, 0.11), 0.9 * who.glasses * frame)
    return out


def _eyes(who: Identity, t: float, x: np.ndarray, y: np.ndarray, face: np.ndarray) -> np.ndarray:
    """Both eyes onto the face: they narrow with the smile, from below more than from above."""
    ax = np.abs(x)
    v = (ax - EYE_X) / who.eye_width
    arch = np.clip(1 - v * v, 0, None)
    axis = EYE_Y + 0.3 - who.eye_tilt * v / 2
    squint = who.smile_squint * t
    upper = axis - who.eye_open * (1.12 - 0.18 * squint) * arch**0.8
    lower = axis + who.eye_open * (0.82 - 0.62 * squint) * arch**0.9 - 0.35 * squint
    ends = _edge(1 - np.abs(v), 0.25)
    opening = _edge(np.minimum(y - upper, lower - y), 1.0) * ends
    lid_shadow = 0.55 + 0.45 * _edge(y - upper - 1.0, 2.2)
    ball = (who.exposure * lid_shadow * (0.82 - 0.25 * v * v))[..., None] * _linear(0.93, 0.91, 0.90)
    centre_y = EYE_Y - 0.25
    radius = np.hypot(ax - EYE_X, y - centre_y)
    iris = _between(_IRIS, who.eye_colour) * (0.75 + 0.5 * _edge(y - centre_y - 0.5, 3))[..., None] * who.exposure
    iris = iris * (1 - 0.45 * _edge(radius - 1.9, 0.9))[..., None]
    ball = _mix(ball, iris, _edge(2.55 - radius, 1.0))
    ball = _mix(ball, _linear(0.03, 0.03, 0.03), _edge(1.15 - radius, 0.9))
    side = np.sign(x) * (EYE_X + np.sign(x) * (0.9 * np.sign(who.light_x) if who.light_x else 0.0))
    glint = np.exp(-((x - side) ** 2 + (y - centre_y + 1.0) ** 2) / 0.45)
    ball = _mix(ball, _linear(0.98, 0.98, 0.98), 0.85 * glint)
    face = _mix(face, ball, opening)
    dark = hair_colour(who) * 0.25 + 0.004
    lash = np.exp(-(((y - upper + 0.2) / 0.65) ** 2)) * _edge(1.12 - np.abs(v), 0.3)
    crease = np.exp(-(((y - upper + 1.9) / 0.75) ** 2)) * _edge(1.05 - np.abs(v), 0.5)
    under = np.exp(-(((y - lower - 0.35) / 0.6) ** 2)) * _edge(1.0 - np.abs(v), 0.5)
    crow = np.exp(-((np.abs(y - axis - 0.8) / 1.1) ** 2)) * np.exp(-(((ax - EYE_X - who.eye_width - 2) / 1.8) ** 2))
    face = face * (1 - 0.32 * crease - (0.16 + 0.16 * squint) * under - 0.18 * squint * crow)[..., None]
    return _mix(face, dark, 0.85 * lash)


def _develop(linear: np.ndarray) -> np.ndarray:
    """Linear light [2h, 2w, 3] -> [h, w, 3] uint8, averaged and with a soft shoulder so that highlights do not clip."""
    small = linear.reshape(linear.shape[0] // 2, 2, linear.shape[1] // 2, 2, 3).mean((1, 3))
    small = np.sqrt(np.clip(small, 0, None))
    small = np.where(small > 0.8, 0.8 + 0.2 * np.tanh((small - 0.8) / 0.2), small)
    return (small * 255 + 0.5).astype(np.uint8)


def draw_levels(who: Identity, intensities: Sequence[float] | np.ndarray) -> np.ndarray:
    """The face of `who` at several smile intensities in [0, 1]: [n, 64, 64, 3] uint8."""
    levels = np.asarray(intensities, float)
    if not ((levels >= 0) & (levels <= 1)).all():
        raise ValueError(f"Smile intensities run from 0 to 1, found {levels.min():g} to {levels.max():g}.")
    base = still(who)
    cut = STILL_ROWS * SCALE
    top = _develop(_face(who, base, 0.0, slice(0, cut)))
    out = np.empty((len(levels), SIZE, SIZE, 3), np.uint8)
    for picture, level in zip(out, levels, strict=True):
        picture[:STILL_ROWS] = top
        picture[STILL_ROWS:] = _develop(_face(who, base, float(level), slice(cut, None)))
    return out


def draw(who: Identity, intensity: float) -> np.ndarray:
    """The face of `who` at one smile intensity in [0, 1]: [64, 64, 3] uint8."""
    return draw_levels(who, [intensity])[0]
