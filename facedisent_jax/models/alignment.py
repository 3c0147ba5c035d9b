"""How a head has moved from one picture to another: a shift, a turn and a scaling. Imports layers and sampling."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from facedisent_jax.models.layers import space_to_depth
from facedisent_jax.models.sampling import warp_image

PYRAMID = {4: 3, 1: 3}
"""Pixels that are put together along a side, and Gauss-Newton steps on them: small pictures tell from further away."""
OUTLIER = 1.5
"""Differences of so many times their mean count a quarter: a mouth that opens is no motion of the head."""
MIN_IMPROVEMENT = 0.02
"""A motion counts in full where it makes the difference of the pictures smaller by this share; less, by less."""


def head_motion(
    first: Float[Array, "batch size size channels"], second: Float[Array, "batch size size channels"]
) -> Float[Array, "batch size size 2"]:
    """Displacements in pixels (rows, columns) with which the first picture, read by `displaced`, lies on the second.

    The similarity transform that leaves the least difference (Lucas and Kanade 1981; Geman and McClure's weights),
    whatever the light and contrast of either picture. Zeros where it brings the two no nearer to each other. A few
    pixels are found; much more than a tenth of the picture is not.
    """
    first, second = (_standardised(images) for images in (first, second))
    moved = jnp.zeros((len(first), 4))
    for side, steps in PYRAMID.items():
        basis = similarity_basis(first.shape[1], side)
        start, end = (jnp.mean(space_to_depth(images, side), axis=-1, keepdims=True) for images in (first, second))
        for _ in range(steps):
            moved -= _step(basis, warp_image(start, jnp.einsum("hwdk,nk->nhwd", basis, moved)), end)
    found = jnp.einsum("hwdk,nk->nhwd", similarity_basis(first.shape[1]), moved)
    before, after = (jnp.mean(jnp.abs(x - second), axis=(1, 2, 3)) for x in (first, warp_image(first, found)))
    return jnp.clip((before - after) / (MIN_IMPROVEMENT * before + 1e-6), 0, 1)[:, None, None, None] * found


def _standardised(images: Float[Array, "batch size size channels"]) -> Float[Array, "batch size size 1"]:
    """In grey, of mean 0 and standard deviation 1 (a picture of one colour: 0)."""
    grey = jnp.mean(images, axis=-1, keepdims=True)
    grey -= jnp.mean(grey, axis=(1, 2), keepdims=True)
    return grey / (jnp.sqrt(jnp.mean(grey**2, axis=(1, 2), keepdims=True)) + 0.01)


def similarity_basis(size: int, side: int = 1) -> Float[Array, "pixels pixels 2 4"]:
    """The displacements of shifts down and to the right by a pixel, and of a scaling and a turn about the middle that
    move the edge's middle by one: [size / side, size / side, 2, 4] in pixels that are `side` large."""
    across = (2 * jnp.arange(size // side) + 1) * (side / size) - 1
    down, right = jnp.meshgrid(across, across, indexing="ij")
    one, none = jnp.ones_like(down), jnp.zeros_like(down)
    rows, columns = jnp.stack([one, none, down, right], axis=-1), jnp.stack([none, one, right, -down], axis=-1)
    return jnp.stack([rows, columns], axis=2) / side


def _step(basis, start, end) -> Float[Array, "batch 4"]:
    """What a Gauss-Newton step takes from the coefficients of the motion, the pictures laid over each other so far."""
    start, end = start[..., 0], end[..., 0]
    padded = jnp.pad(start, ((0, 0), (1, 1), (1, 1)), mode="edge")
    down, right = padded[:, 2:, 1:-1] - padded[:, :-2, 1:-1], padded[:, 1:-1, 2:] - padded[:, 1:-1, :-2]
    slope = jnp.einsum("nhwd,hwdk->nhwk", jnp.stack([down, right], axis=-1) / 2, basis)
    difference = start - end
    usual = OUTLIER * jnp.mean(jnp.abs(difference), axis=(1, 2), keepdims=True) + 1e-4
    weight = 1 / (1 + (difference / usual) ** 2) ** 2
    normal = jnp.einsum("nhwk,nhwl,nhw->nkl", slope, slope, weight)
    slack = 1e-6 + 1e-4 * jnp.trace(normal, axis1=1, axis2=2)  # a picture of one colour tells nothing
    normal += slack[:, None, None] * jnp.eye(4)[None]
    wanted = jnp.einsum("nhwk,nhw,nhw->nk", slope, difference, weight)
    return jnp.linalg.solve(normal, wanted[..., None])[..., 0]
