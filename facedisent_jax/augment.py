"""Random changes of training pictures on the device, alike for the three pictures of a triplet."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from facedisent_jax.config import AugmentConfig

MIX_GRID = 4
"""Parts of two faces are chosen on 4x4 points: an eye or a cheek at a time."""
WARP_GRID = 5
"""A smooth warp is drawn on 5x5 points and enlarged: it bends a face, and does not tear it."""


def sample_bilinear(
    images: Float[Array, "batch height width channels"],
    rows: Float[Array, "batch height width"],
    columns: Float[Array, "batch height width"],
) -> Float[Array, "batch height width channels"]:
    """Pictures read at fractional pixel places, beyond the edge the edge's colour.

    images: [batch, height, width, channels]; rows, columns: [batch, height, width] in pixels.
    """
    _, height, width, _ = images.shape
    rows, columns = jnp.clip(rows, 0, height - 1), jnp.clip(columns, 0, width - 1)
    top = jnp.minimum(jnp.floor(rows).astype(jnp.int32), height - 2)
    left = jnp.minimum(jnp.floor(columns).astype(jnp.int32), width - 2)
    down, right = (rows - top)[..., None], (columns - left)[..., None]
    flat = images.reshape(images.shape[0], height * width, -1)

    def read(row, column):
        index = (row * width + column).reshape(len(flat), -1, 1)
        return jnp.take_along_axis(flat, index, axis=1).reshape(images.shape)

    upper = read(top, left) * (1 - right) + read(top, left + 1) * right
    lower = read(top + 1, left) * (1 - right) + read(top + 1, left + 1) * right
    return upper * (1 - down) + lower * down


def mix(config: AugmentConfig, key: Array, images: Array, label: Float[Array, "batch 3 64"]) -> Array:
    """New people: parts of two triplets with equal labels put together along soft edges, alike in all three pictures.

    images: [batch, 3, 64, 64, 3]; label: their label vectors. Faces are cropped alike, so that the left eye of one fits
    beside the right eye of the other; a and b stay one (new) person.
    """
    n, _, height, width, _ = images.shape
    pick, chance, edge = jax.random.split(key, 3)
    alike = jnp.all(label[:, None] == label[None], axis=(2, 3)) & ~jnp.eye(n, dtype=bool)
    score = jnp.where(alike, jax.random.uniform(pick, (n, n)), -1.0)
    partner = images[jnp.argmax(score, axis=1)]
    chosen = jax.random.bernoulli(chance, config.mix, (n,)) & alike.any(axis=1)
    field = jax.image.resize(jax.random.normal(edge, (n, 1, MIX_GRID, MIX_GRID, 1)), (n, 1, height, width, 1), "cubic")
    share = jnp.where(chosen[:, None, None, None, None], jax.nn.sigmoid(4 * field), 1.0)
    return share * images + (1 - share) * partner


def augment(
    config: AugmentConfig, key: Array, images: Float[Array, "batch 3 64 64 3"], label: Float[Array, "batch 3 64"]
) -> Float[Array, "batch 3 64 64 3"]:
    """Mix, flip, shift and warp, light and colour, drawn once a triplet and applied to its three pictures.

    images: [batch, 3, 64, 64, 3] float in [0, 1]; label: [batch, 3, 64], their label vectors.
    """
    if not config.enabled:
        return images
    n, _, height, width, _ = images.shape
    join, flip, bend, move, bright, contrast, colour = jax.random.split(key, 7)
    if config.mix:
        images = mix(config, join, images, label)
    # The pictures of a triplet share their sample places: as channels of one picture they are read together.
    x = jnp.moveaxis(images, 1, 3).reshape(n, height, width, 9)
    if config.flip:
        x = jnp.where(jax.random.bernoulli(flip, shape=(n, 1, 1, 1)), x[:, :, ::-1], x)
    if config.warp or config.shift:
        grid = config.warp * jax.random.normal(bend, (n, WARP_GRID, WARP_GRID, 2))
        offset = jax.image.resize(grid, (n, height, width, 2), "cubic")
        offset += config.shift * jax.random.normal(move, (n, 1, 1, 2))
        rows, columns = jnp.arange(height)[None, :, None], jnp.arange(width)[None, None, :]
        x = sample_bilinear(x, rows + offset[..., 0], columns + offset[..., 1])
    x = jnp.moveaxis(x.reshape(n, height, width, 3, 3), 3, 1)
    x = (x - 0.5) * (1 + config.light * jax.random.normal(contrast, (n, 1, 1, 1, 1))) + 0.5
    factor = 1 + config.light * jax.random.normal(bright, (n, 1, 1, 1, 1))
    x *= factor + config.colour * jax.random.normal(colour, (n, 1, 1, 1, 3))
    return jnp.clip(x, 0, 1)
