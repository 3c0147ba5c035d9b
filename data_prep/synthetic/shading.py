"""Soft-edged shapes, colours and light for the built-in faces. Numpy only.

Shapes are signed distances in pixels, positive inside. Colours are linear light, channels first, until `to_image`.
"""

from collections.abc import Sequence

import numpy as np

from data_prep.synthetic.identity import Identity
from facedisent_jax.config import IMAGE_SIZE

SCALE = 2  # images are drawn at 128x128 and averaged

# Screen colours: from fair to dark, from black to blond, from brown to blue.
SKIN = ((0.97, 0.84, 0.77), (0.92, 0.74, 0.62), (0.82, 0.61, 0.46), (0.64, 0.43, 0.30), (0.47, 0.30, 0.21))
HAIR = ((0.09, 0.075, 0.07), (0.20, 0.13, 0.09), (0.38, 0.25, 0.15), (0.62, 0.46, 0.27), (0.86, 0.72, 0.48))
IRIS = ((0.20, 0.11, 0.06), (0.38, 0.24, 0.12), (0.42, 0.40, 0.22), (0.36, 0.50, 0.50), (0.40, 0.56, 0.74))


def pixel_grid() -> tuple[np.ndarray, np.ndarray]:
    """x (from the midline) and y (from the top edge) of each drawn point, [128, 128] each, in pixels of the image."""
    steps = (np.arange(IMAGE_SIZE * SCALE, dtype=np.float32) + 0.5) / SCALE
    y, x = np.meshgrid(steps, steps - IMAGE_SIZE / 2, indexing="ij")
    return x, y


def coverage(distance: np.ndarray, width: float = 1.0) -> np.ndarray:
    """Coverage of a shape, 0 outside to 1 inside, by a smooth step of `width` pixels (signed distance, inside > 0)."""
    ramp = np.clip(distance / width + 0.5, 0, 1)
    return ramp * ramp * (3 - 2 * ramp)


def intersect(a: np.ndarray, b: np.ndarray, radius: float) -> np.ndarray:
    """Signed distance of the intersection of two shapes, with corners rounded over `radius` pixels."""
    h = np.clip(0.5 + (b - a) * (0.5 / radius), 0, 1)
    return b + (a - b) * h - radius * h * (1 - h)


def bump(x: np.ndarray, y: np.ndarray, cx: float, cy: float, sx: float, sy: float) -> np.ndarray:
    """A Gaussian bump of height 1 with centre (cx, cy) and widths (sx, sy)."""
    return np.exp(-(((y - cy) * (1 / sy)) ** 2) - ((x - cx) * (1 / sx)) ** 2)


def two_bumps(x: np.ndarray, y: np.ndarray, cx: float, cy: float, sx: float, sy: float) -> np.ndarray:
    """A Gaussian bump and its mirror image on the other side of the midline."""
    return bump(np.abs(x), y, cx, cy, sx, sy)


def blend(under: np.ndarray, over: np.ndarray, amount: np.ndarray | float) -> np.ndarray:
    """Images or colours [3, h, w] laid over each other; amount ([h, w] or a number): 0 all under, 1 all over."""
    return under + (over - under) * amount


def to_linear(*rgb: float) -> np.ndarray:
    """A screen colour in linear light, [3, 1, 1]. Gamma 2: close to sRGB, and its inverse is a cheap square root."""
    return np.asarray(rgb, np.float32)[:, None, None] ** 2


def colour_ramp(stops: Sequence[tuple[float, float, float]], position: float) -> np.ndarray:
    """The colour at `position` in [0, 1] on a line through the stops (screen colours), in linear light."""
    table = np.asarray(stops)
    positions = np.linspace(0, 1, len(table))
    return to_linear(*(float(np.interp(position, positions, table[:, channel])) for channel in range(3)))


def skin_colour(identity: Identity) -> np.ndarray:
    warmth = 1 + identity.skin_warmth * np.array([0.0, 0.05, -0.09], np.float32)[:, None, None]
    return colour_ramp(SKIN, identity.skin_tone) * warmth


def hair_colour(identity: Identity) -> np.ndarray:
    colour = blend(colour_ramp(HAIR, identity.hair_tone), to_linear(0.58, 0.26, 0.12), 0.75 * identity.hair_red)
    return blend(colour, to_linear(0.72, 0.71, 0.70), identity.hair_grey)


def light_direction(identity: Identity) -> np.ndarray:
    """Unit vector towards the lamp: x to the right, y down, z towards the viewer."""
    direction = np.array([1.1 * identity.light_x, -0.25 - 0.75 * identity.light_y, 1.25], np.float32)
    return direction / np.linalg.norm(direction)


def _normals(height: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """x, y and z of the unit normals of a height field."""
    dy, dx = np.gradient(height, np.float32(1 / SCALE))
    length = 1 / np.sqrt(dx * dx + dy * dy + 1)
    return -dx * length, -dy * length, length


def shade(identity: Identity, height: np.ndarray, albedo: np.ndarray, gloss: float) -> np.ndarray:
    """A lit surface: sky from above, one soft lamp, and a highlight. Skin: red wraps further around a shadow's edge.

    height: [h, w]; albedo: [3, h, w]; gloss: strength of the highlight. Returns [3, h, w] in linear light.
    """
    nx, ny, nz = _normals(height)
    lamp = light_direction(identity)
    cosine = nx * lamp[0] + ny * lamp[1] + nz * lamp[2]
    hard = 0.35 + 0.55 * identity.light_hard
    sky = (0.70 - 0.28 * ny) * (0.5 + 0.5 * nz)
    diffuse = np.empty((3, *height.shape), np.float32)
    for channel, wrap in enumerate((0.34, 0.22, 0.18)):
        wrapped = np.maximum(cosine + wrap, 0) * (1 / (1 + wrap))
        diffuse[channel] = (1 - hard) * sky + 1.1 * hard * wrapped
    half = lamp + np.array([0, 0, 1], np.float32)  # Blinn-Phong
    half /= np.linalg.norm(half)
    highlight = np.maximum(nx * half[0] + ny * half[1] + nz * half[2], 0) ** 2
    highlight = (highlight * highlight) ** 2
    highlight = highlight * highlight * (gloss * hard)  # the 16th power
    return identity.exposure * (diffuse * albedo + highlight)


def to_image(light: np.ndarray) -> np.ndarray:
    """Linear light [3, 2h, 2w] -> [h, w, 3] uint8: averaged, with highlights compressed so that they do not clip."""
    small = 0.25 * (light[:, ::2, ::2] + light[:, ::2, 1::2] + light[:, 1::2, ::2] + light[:, 1::2, 1::2])
    small = np.sqrt(np.maximum(small, 0))
    small = np.where(small > 0.8, 0.8 + 0.2 * np.tanh((small - 0.8) / 0.2), small)
    return (small * 255 + 0.5).astype(np.uint8).transpose(1, 2, 0)
