"""What the built-in faces are drawn with: soft-edged shapes, colours, light. Numpy only, imports Identity alone.

Shapes are signed distances in pixels, inside > 0. Colours are linear light, channels first, until `develop`.
"""

from collections.abc import Sequence

import numpy as np

from data_prep.synthetic.identity import Identity

SIZE = 64
SCALE = 2  # drawn at 128x128 and averaged


def grid() -> tuple[np.ndarray, np.ndarray]:
    """x and y of each point of the picture, from the middle of the top edge."""
    steps = (np.arange(SIZE * SCALE, dtype=np.float32) + 0.5) / SCALE
    y, x = np.meshgrid(steps, steps - SIZE / 2, indexing="ij")
    return x, y


def edge(distance: np.ndarray, width: float = 1.0) -> np.ndarray:
    """Coverage of a shape: 0 outside, 1 inside, smooth over `width` pixels (signed distance, inside > 0)."""
    ramp = np.clip(distance / width + 0.5, 0, 1)
    return ramp * ramp * (3 - 2 * ramp)


def both(a: np.ndarray, b: np.ndarray, k: float) -> np.ndarray:
    """Signed distance of what is inside both shapes, their corner rounded over k pixels."""
    h = np.clip(0.5 + (b - a) * (0.5 / k), 0, 1)
    return b + (a - b) * h - k * h * (1 - h)


def bump(x: np.ndarray, y: np.ndarray, cx: float, cy: float, sx: float, sy: float) -> np.ndarray:
    """A Gaussian bump of height 1."""
    return np.exp(-(((y - cy) * (1 / sy)) ** 2) - ((x - cx) * (1 / sx)) ** 2)


def pair(x: np.ndarray, y: np.ndarray, cx: float, cy: float, sx: float, sy: float) -> np.ndarray:
    """Two bumps, mirrored at the midline."""
    return bump(np.abs(x), y, cx, cy, sx, sy)


def mix(under: np.ndarray, over: np.ndarray, amount: np.ndarray | float) -> np.ndarray:
    """Pictures or colours [3, h, w]; amount [h, w] or a number, 0 all under, 1 all over."""
    return under + (over - under) * amount


def linear(*rgb: float) -> np.ndarray:
    """A colour as on the screen -> linear light, [3, 1, 1]. Gamma 2: near sRGB, and a square root back is cheap."""
    return np.asarray(rgb, np.float32)[:, None, None] ** 2


def between(stops: Sequence[tuple[float, float, float]], where: float) -> np.ndarray:
    """A colour on the line through `stops`, where in [0, 1]; in linear light."""
    table = np.asarray(stops)
    at = np.linspace(0, 1, len(table))
    return linear(*(float(np.interp(where, at, table[:, channel])) for channel in range(3)))


_SKIN = ((0.97, 0.84, 0.77), (0.92, 0.74, 0.62), (0.82, 0.61, 0.46), (0.64, 0.43, 0.30), (0.47, 0.30, 0.21))
_HAIR = ((0.09, 0.075, 0.07), (0.20, 0.13, 0.09), (0.38, 0.25, 0.15), (0.62, 0.46, 0.27), (0.86, 0.72, 0.48))
IRIS = ((0.20, 0.11, 0.06), (0.38, 0.24, 0.12), (0.42, 0.40, 0.22), (0.36, 0.50, 0.50), (0.40, 0.56, 0.74))


def skin_colour(who: Identity) -> np.ndarray:
    golden = 1 + who.skin_warmth * np.array([0.0, 0.05, -0.09], np.float32)[:, None, None]
    return between(_SKIN, who.skin_tone) * golden


def hair_colour(who: Identity) -> np.ndarray:
    colour = mix(between(_HAIR, who.hair_tone), linear(0.58, 0.26, 0.12), 0.75 * who.hair_red)
    return mix(colour, linear(0.72, 0.71, 0.70), who.hair_grey)


def light(who: Identity) -> np.ndarray:
    direction = np.array([1.1 * who.light_x, -0.25 - 0.75 * who.light_y, 1.25], np.float32)
    return direction / np.linalg.norm(direction)


def _normals(height: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Unit normals of a height field, x right, y down, z towards the viewer."""
    dy, dx = np.gradient(height, np.float32(1 / SCALE))
    length = 1 / np.sqrt(dx * dx + dy * dy + 1)
    return -dx * length, -dy * length, length


def shade(who: Identity, height: np.ndarray, albedo: np.ndarray, gloss: float) -> np.ndarray:
    """Light on a surface: sky from above, one soft lamp, a sheen. Red wraps further round the edge of shadows: skin."""
    nx, ny, nz = _normals(height)
    lamp = light(who)
    towards = nx * lamp[0] + ny * lamp[1] + nz * lamp[2]
    hard = 0.35 + 0.55 * who.light_hard
    sky = (0.70 - 0.28 * ny) * (0.5 + 0.5 * nz)
    received = np.empty((3, *height.shape), np.float32)
    for channel, wrap in enumerate((0.34, 0.22, 0.18)):
        lit = np.maximum(towards + wrap, 0) * (1 / (1 + wrap))
        received[channel] = (1 - hard) * sky + 1.1 * hard * lit
    half = lamp + np.array([0, 0, 1], np.float32)
    half /= np.linalg.norm(half)
    sheen = np.maximum(nx * half[0] + ny * half[1] + nz * half[2], 0) ** 2
    sheen = (sheen * sheen) ** 2
    sheen = sheen * sheen * (gloss * hard)  # the 16th power
    return who.exposure * (received * albedo + sheen)


def develop(picture: np.ndarray) -> np.ndarray:
    """Linear light [3, 2h, 2w] -> [h, w, 3] uint8, averaged, with a soft shoulder so that highlights do not clip."""
    small = 0.25 * (picture[:, ::2, ::2] + picture[:, ::2, 1::2] + picture[:, 1::2, ::2] + picture[:, 1::2, 1::2])
    small = np.sqrt(np.maximum(small, 0))
    small = np.where(small > 0.8, 0.8 + 0.2 * np.tanh((small - 0.8) / 0.2), small)
    return (small * 255 + 0.5).astype(np.uint8).transpose(1, 2, 0)
