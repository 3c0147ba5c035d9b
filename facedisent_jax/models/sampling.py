"""Images read at fractional positions, and warped by a flow."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from facedisent_jax.models.cpu import scale_pixels

CUBIC_SLOPE = -0.75  # of cubic convolution one pixel away, as in OpenCV and PyTorch; -0.5 is smoother


def warp_image(
    images: Float[Array, "batch height width channels"],
    flow: Float[Array, "batch height width 2"],
    cubic: bool = False,
) -> Float[Array, "batch height width channels"]:
    """Images whose every pixel is read `flow` pixels (rows, columns) away. A flow of 0 gives an exact copy.

    cubic: sample by cubic convolution, not bilinearly.
    """
    _, height, width, _ = images.shape
    rows, columns = jnp.arange(height, dtype=flow.dtype)[:, None], jnp.arange(width, dtype=flow.dtype)
    sample = sample_cubic if cubic else sample_bilinear
    return sample(images, rows[None] + flow[..., 0], columns[None, None] + flow[..., 1])


def sample_bilinear(
    images: Float[Array, "batch height width channels"],
    rows: Float[Array, "batch height width"],
    columns: Float[Array, "batch height width"],
) -> Float[Array, "batch height width channels"]:
    """Images read at fractional positions (rows, columns), in pixels. Beyond the edge: the colour at the edge."""
    n, height, width, channels = images.shape
    top, dy = _floor_and_fraction(rows, height)
    left, dx = _floor_and_fraction(columns, width)
    dy, dx = dy[..., None], dx[..., None]
    pixels = images.reshape(n, height * width, channels)
    index = top * width + left

    def read(offset):
        return _read_pixels(pixels, index + offset)

    upper = scale_pixels(read(0), 1 - dx) + scale_pixels(read(1), dx)
    lower = scale_pixels(read(width), 1 - dx) + scale_pixels(read(width + 1), dx)
    return scale_pixels(upper, 1 - dy) + scale_pixels(lower, dy)


def sample_cubic(
    images: Float[Array, "batch height width channels"],
    rows: Float[Array, "batch height width"],
    columns: Float[Array, "batch height width"],
) -> Float[Array, "batch height width channels"]:
    """`sample_bilinear` by cubic convolution (Keys 1981): sharper between pixels, 16 reads for 4."""
    n, height, width, channels = images.shape
    top, dy = _floor_and_fraction(rows, height)
    left, dx = _floor_and_fraction(columns, width)
    pixels = images.reshape(n, height * width, channels)

    out = jnp.zeros_like(images)
    for i, row_weight in enumerate(_cubic_weights(dy)):
        row_start = jnp.clip(top + i - 1, 0, height - 1) * width
        for j, column_weight in enumerate(_cubic_weights(dx)):
            index = row_start + jnp.clip(left + j - 1, 0, width - 1)
            out += (row_weight * column_weight)[..., None] * _read_pixels(pixels, index)
    return out


@jax.vmap
def _read_pixels(
    pixels: Float[Array, "pixels channels"], index: Int[Array, "height width"]
) -> Float[Array, "height width channels"]:
    """The pixels of one image at `index`. Mapped over the images, the gather can be split over devices."""
    return pixels.at[index].get(mode="promise_in_bounds")


def _floor_and_fraction(
    position: Float[Array, "batch height width"], size: int
) -> tuple[Int[Array, "batch height width"], Float[Array, "batch height width"]]:
    """The pixel before each position on an axis of `size` pixels, and the distance beyond it, 0 to 1."""
    position = jnp.clip(position, 0, size - 1)
    floor = jnp.minimum(jnp.floor(position).astype(jnp.int32), size - 2)
    return floor, position - floor.astype(position.dtype)


def _cubic_weights(t: Float[Array, "batch height width"]) -> tuple[Array, Array, Array, Array]:
    """Weights of the pixels at -1, 0, 1 and 2, for a position at t in [0, 1]."""
    a = CUBIC_SLOPE
    return (
        a * ((t - 2) * t + 1) * t,
        ((a + 2) * t - (a + 3)) * t * t + 1,
        ((-(a + 2) * t + 2 * a + 3) * t - a) * t,
        a * (1 - t) * t * t,
    )
