"""Pictures read at fractional places. Imports none of ours."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from facedisent_jax.models.cpu import _scale_gradients, scale_pixels

scale_pixels.defvjp(lambda images, weight: (images * weight, (images, weight)), _scale_gradients)


def _cell(at: Float[Array, "batch height width"], size: int) -> tuple[Array, Array]:
    """The pixel before each place along an axis of `size` pixels, and how far beyond it the place is, 0 to 1."""
    at = jnp.clip(at, 0, size - 1)
    first = jnp.minimum(jnp.floor(at).astype(jnp.int32), size - 2)
    return first, at - first


def sample_bilinear(
    images: Float[Array, "batch height width channels"],
    rows: Float[Array, "batch height width"],
    columns: Float[Array, "batch height width"],
) -> Float[Array, "batch height width channels"]:
    """Pictures read at fractional pixel places, beyond the edge the edge's colour.

    images: [batch, height, width, channels]; rows, columns: [batch, height, width] in pixels.
    """
    n, height, width, channels = images.shape
    top, below = _cell(rows, height)
    left, beside = _cell(columns, width)
    down, right = below[..., None], beside[..., None]
    pixels = images.reshape(n * height * width, channels)
    corner = (jnp.arange(n)[:, None, None] * height + top) * width + left

    def read(offset):
        return pixels.at[corner + offset].get(mode="promise_in_bounds")

    upper = scale_pixels(read(0), 1 - right) + scale_pixels(read(1), right)
    lower = scale_pixels(read(width), 1 - right) + scale_pixels(read(width + 1), right)
    return scale_pixels(upper, 1 - down) + scale_pixels(lower, down)


def sample_cubic(
    images: Float[Array, "batch height width channels"],
    rows: Float[Array, "batch height width"],
    columns: Float[Array, "batch height width"],
) -> Float[Array, "batch height width channels"]:
    """As `sample_bilinear`, by cubic convolution (Keys 1981, a = -1/2): sharper between pixels, 16 reads."""
    n, height, width, channels = images.shape
    top, below = _cell(rows, height)
    left, beside = _cell(columns, width)
    pixels, first = images.reshape(n * height * width, channels), jnp.arange(n)[:, None, None] * height

    def weights(t):
        return (
            ((1 - t / 2) * t - 0.5) * t,
            (1.5 * t - 2.5) * t * t + 1,
            ((2 - 1.5 * t) * t + 0.5) * t,
            (t - 1) * t * t / 2,
        )

    out = jnp.zeros_like(images)
    for i, down in enumerate(weights(below)):
        start = (first + jnp.clip(top + i - 1, 0, height - 1)) * width
        for j, right in enumerate(weights(beside)):
            corner = start + jnp.clip(left + j - 1, 0, width - 1)
            out += (down * right)[..., None] * pixels.at[corner].get(mode="promise_in_bounds")
    return out


def warp_image(
    images: Float[Array, "batch height width channels"],
    displacement: Float[Array, "batch height width 2"],
    sharp: bool = False,
) -> Float[Array, "batch height width channels"]:
    """Pictures whose every pixel is read `displacement` pixels (rows, columns) away; 0 gives an exact copy.

    sharp: read by cubic convolution, not bilinearly.
    """
    _, height, width, _ = images.shape
    rows, columns = jnp.arange(height)[None, :, None], jnp.arange(width)[None, None, :]
    sample = sample_cubic if sharp else sample_bilinear
    return sample(images, rows + displacement[..., 0], columns + displacement[..., 1])
