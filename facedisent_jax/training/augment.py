"""Random changes of training images, on the device. All images of a triplet change alike, but for a head motion."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from facedisent_jax.config import AugmentConfig
from facedisent_jax.models.sampling import warp_image

MIX_GRID = 4
"""Two faces are mixed along a smooth field of 4x4 points: an eye or a cheek at a time."""
WARP_GRID = 5
"""A smooth warp is drawn on 5x5 points: it bends a face and does not tear it."""


def augment(
    config: AugmentConfig,
    key: Array,
    images: Float[Array, "k batch 64 64 3"],
    label: Float[Array, "k batch 64"],
    motion_share: Float[Array, "k batch"] | None = None,
) -> Float[Array, "k batch 64 64 3"]:
    """Mix faces, flip, shift, warp, and change tone, light and colour, drawn once a triplet.

    images: in [0, 1]. label: their label vectors.
    motion_share: share of the triplet's head motion that each image gets, 0 to 1. From images that differ in light and
    smile alone a decoder learns to fade; if the head moves, it has to warp.
    """
    if not config.enabled:
        return images
    k, n, height, width, _ = images.shape
    mix_key, flip_key, warp_key, shift_key, brightness_key, contrast_key, colour_key = jax.random.split(key, 7)
    if config.face_mix_prob:
        images = mix_faces(config, mix_key, images, label)
    # The images of a triplet are sampled at the same positions: as channels of one image they are read together.
    x = jnp.moveaxis(images, 0, 3).reshape(n, height, width, 3 * k)
    if config.flip:
        x = jnp.where(jax.random.bernoulli(flip_key, shape=(n, 1, 1, 1)), x[:, :, ::-1], x)
    if config.warp or config.shift or config.motion:
        # Cubic: read bilinearly, a mouth keeps 0.75 of its sharpness, and a decoder learns that blur.
        grid = config.warp * jax.random.normal(warp_key, (n, WARP_GRID, WARP_GRID, 2))
        flow = jax.image.resize(grid, (n, height, width, 2), "cubic")
        flow += config.shift * jax.random.normal(shift_key, (n, 1, 1, 2))
        if config.motion and motion_share is not None:
            motion = head_motion(config, jax.random.fold_in(key, 7), (n, height, width))
            flows = flow[:, None] + motion_share.T[:, :, None, None, None] * motion[:, None]
            x = jnp.moveaxis(x.reshape(n, height, width, k, 3), 3, 1).reshape(n * k, height, width, 3)
            x = warp_image(x, flows.reshape(n * k, height, width, 2), cubic=True).reshape(n, k, height, width, 3)
            x = jnp.moveaxis(x, 1, 3)
        else:
            x = warp_image(x, flow, cubic=True)
    x = jnp.moveaxis(x.reshape(n, height, width, k, 3), 3, 0)
    if config.tone:
        gamma = jnp.exp(config.tone * jax.random.normal(jax.random.fold_in(key, 8), (1, n, 1, 1, 1)))
        x = jnp.clip(x, 0, 1) ** gamma
    x = (x - 0.5) * (1 + config.light * jax.random.normal(contrast_key, (1, n, 1, 1, 1))) + 0.5
    factor = 1 + config.light * jax.random.normal(brightness_key, (1, n, 1, 1, 1))
    x *= factor + config.colour * jax.random.normal(colour_key, (1, n, 1, 1, 3))
    return jnp.clip(x, 0, 1)


def mix_faces(
    config: AugmentConfig, key: Array, images: Float[Array, "k batch h w 3"], label: Float[Array, "k batch 64"]
) -> Float[Array, "k batch h w 3"]:
    """New people: parts of two triplets with equal labels, joined along soft edges, alike in all their images.

    Faces are cropped alike, so the left eye of one fits beside the right eye of another. a and b stay one (new) person.
    """
    _, n, height, width, _ = images.shape
    partner_key, chance_key, field_key = jax.random.split(key, 3)
    partner = random_partner(partner_key, jnp.moveaxis(label, 0, 1).reshape(n, -1))
    is_mixed = jax.random.bernoulli(chance_key, config.face_mix_prob, (n,)) & (partner != jnp.arange(n))
    grid = jax.random.normal(field_key, (n, MIX_GRID, MIX_GRID, 1))
    field = jax.image.resize(grid, (n, height, width, 1), "cubic")
    share = jnp.where(is_mixed[:, None, None, None], jax.nn.sigmoid(4 * field), 1.0)[None]
    return share * images + (1 - share) * images[:, partner]


def random_partner(key: Array, label: Float[Array, "batch dims"]) -> Int[Array, "batch"]:
    """For each row of `label`, numbers in [0, 1], another row that equals it, at random; the row itself if none does.

    O(n log n): sort by (hash of the row, random). The partner of a row is the next one with the same hash, cyclically.
    """
    n, dims = label.shape
    odd = 2 * jax.random.bits(jax.random.key(0), (dims,)) + 1
    row_hash = (1000 * label).astype(jnp.uint32) @ odd
    order = jnp.lexsort((jax.random.uniform(key, (n,)), row_hash))
    row_hash, position = row_hash[order], jnp.arange(n)
    first, end = (jnp.searchsorted(row_hash, row_hash, side=side) for side in ("left", "right"))
    following = order[jnp.where(position + 1 < end, position + 1, first)]
    partner = jnp.zeros_like(order).at[order].set(following)
    return jnp.where(jnp.all(label[partner] == label, axis=1), partner, position)


def head_motion(config: AugmentConfig, key: Array, shape: tuple[int, int, int]) -> Float[Array, "batch h w 2"]:
    """A flow in pixels: a shift, a slight rotation and scaling about the middle, and a smooth warp.

    shape: (batch, height, width).
    """
    n, height, width = shape
    warp_key, shift_key, linear_key = jax.random.split(key, 3)
    smooth = jax.image.resize(jax.random.normal(warp_key, (n, WARP_GRID, WARP_GRID, 2)), (*shape, 2), "cubic")
    position = jnp.stack(jnp.meshgrid(jnp.linspace(-1, 1, height), jnp.linspace(-1, 1, width), indexing="ij"), axis=-1)
    linear = jnp.einsum("hwi,nij->nhwj", position, 0.5 * jax.random.normal(linear_key, (n, 2, 2)))
    return config.motion * (smooth + linear + 0.5 * jax.random.normal(shift_key, (n, 1, 1, 2)))
