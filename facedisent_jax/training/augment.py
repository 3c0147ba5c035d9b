"""Random changes of training pictures on the device, alike for those of a triplet but for a motion between them."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from facedisent_jax.config import AugmentConfig
from facedisent_jax.models.sampling import warp_image

MIX_GRID = 4
"""Parts of two faces are chosen on 4x4 points: an eye or a cheek at a time."""
WARP_GRID = 5
"""A smooth warp is drawn on 5x5 points and enlarged: it bends a face, and does not tear it."""


def mix(config: AugmentConfig, key: Array, images: Array, label: Float[Array, "batch k 64"]) -> Array:
    """New people: parts of two triplets with equal labels put together along soft edges, alike in all their pictures.

    images: [batch, k, 64, 64, 3]; label: their label vectors. Faces are cropped alike, so that the left eye of one fits
    beside the right eye of the other; a and b stay one (new) person.
    """
    n, _, height, width, _ = images.shape
    pick, chance, edge = jax.random.split(key, 3)
    partner = partners(pick, label.reshape(n, -1))
    chosen = jax.random.bernoulli(chance, config.face_mix_prob, (n,)) & (partner != jnp.arange(n))
    field = jax.image.resize(jax.random.normal(edge, (n, 1, MIX_GRID, MIX_GRID, 1)), (n, 1, height, width, 1), "cubic")
    share = jnp.where(chosen[:, None, None, None, None], jax.nn.sigmoid(4 * field), 1.0)
    return share * images + (1 - share) * images[partner]


def partners(key: Array, label: Float[Array, "batch numbers"]) -> Int[Array, "batch"]:
    """For each row of label (numbers in [0, 1]) another one that equals it, at random; its own where there is none.

    In time n log n of the n rows: sorted by a hash of their numbers and at random within it, each is followed by its
    partner, the last of equal ones by the first.
    """
    n, numbers = label.shape
    odd = 2 * jax.random.bits(jax.random.key(0), (numbers,)) + 1
    hashed = (1000 * label).astype(jnp.uint32) @ odd
    order = jnp.lexsort((jax.random.uniform(key, (n,)), hashed))
    hashed, place = hashed[order], jnp.arange(n)
    first, end = (jnp.searchsorted(hashed, hashed, side=side) for side in ("left", "right"))
    following = order[jnp.where(place + 1 < end, place + 1, first)]
    partner = jnp.zeros_like(order).at[order].set(following)
    return jnp.where(jnp.all(label[partner] == label, axis=1), partner, place)


def motion(config: AugmentConfig, key: Array, shape: tuple[int, int, int]) -> Float[Array, "batch height width 2"]:
    """Displacements in pixels: a shift, a slight turn and scaling about the middle, and a smooth warp."""
    n, height, width = shape
    bend, move, turn = jax.random.split(key, 3)
    field = jax.image.resize(jax.random.normal(bend, (n, WARP_GRID, WARP_GRID, 2)), (*shape, 2), "cubic")
    across = jnp.stack(jnp.meshgrid(jnp.linspace(-1, 1, height), jnp.linspace(-1, 1, width), indexing="ij"), axis=-1)
    linear = jnp.einsum("hwi,nij->nhwj", across, 0.5 * jax.random.normal(turn, (n, 2, 2)))
    return config.motion * (field + linear + 0.5 * jax.random.normal(move, (n, 1, 1, 2)))


def augment(
    config: AugmentConfig,
    key: Array,
    images: Float[Array, "batch k 64 64 3"],
    label: Float[Array, "batch k 64"],
    moved: Float[Array, "batch k"] | None = None,
) -> Float[Array, "batch k 64 64 3"]:
    """Mix, flip, shift and warp, light and colour, drawn once a triplet and applied to its pictures.

    images: [batch, k, 64, 64, 3] float in [0, 1]; label: [batch, k, 64], their label vectors. moved: [batch, k], how
    much of a motion drawn for the triplet each picture has made: from pictures that differ in light and smile alone a
    decoder learns to fade, from those that move it has to learn to move.
    """
    if not config.enabled:
        return images
    n, k, height, width, _ = images.shape
    join, flip, bend, move, bright, contrast, colour = jax.random.split(key, 7)
    fold = jax.random.fold_in(key, 7)
    if config.face_mix_prob:
        images = mix(config, join, images, label)
    # The pictures of a triplet share their sample places: as channels of one picture they are read together.
    x = jnp.moveaxis(images, 1, 3).reshape(n, height, width, 3 * k)
    if config.flip:
        x = jnp.where(jax.random.bernoulli(flip, shape=(n, 1, 1, 1)), x[:, :, ::-1], x)
    if config.warp or config.shift:
        grid = config.warp * jax.random.normal(bend, (n, WARP_GRID, WARP_GRID, 2))
        offset = jax.image.resize(grid, (n, height, width, 2), "cubic")
        offset += config.shift * jax.random.normal(move, (n, 1, 1, 2))
        if config.motion and moved is not None:
            offset = offset[:, None] + moved[:, :, None, None, None] * motion(config, fold, (n, height, width))[:, None]
            x = jnp.moveaxis(x.reshape(n, height, width, k, 3), 3, 1).reshape(n * k, height, width, 3)
            x = warp_image(x, offset.reshape(n * k, height, width, 2)).reshape(n, k, height, width, 3)
            x = jnp.moveaxis(x, 1, 3)
        else:
            x = warp_image(x, offset)
    x = jnp.moveaxis(x.reshape(n, height, width, k, 3), 3, 1)
    x = (x - 0.5) * (1 + config.light * jax.random.normal(contrast, (n, 1, 1, 1, 1))) + 0.5
    factor = 1 + config.light * jax.random.normal(bright, (n, 1, 1, 1, 1))
    x *= factor + config.colour * jax.random.normal(colour, (n, 1, 1, 1, 3))
    return jnp.clip(x, 0, 1)
