"""How a head has moved from one picture to another: a shift, a turn and a scaling. Imports sampling."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from facedisent_jax.sampling import displaced

ROUNDS = {2.0: 4, 0.0: 4}
"""Blur in pixels, and Gauss-Newton steps at it: blurred pictures tell where to go from further away."""
OUTLIER = 1.5
"""Differences of so many times their mean count a quarter: a mouth that opens is no motion of the head."""


def head_motion(
    first: Float[Array, "batch height width channels"], second: Float[Array, "batch height width channels"]
) -> Float[Array, "batch height width 2"]:
    """Displacements in pixels (rows, columns) with which the first picture, read by `displaced`, lies on the second.

    The similarity transform that leaves the least difference (Lucas and Kanade 1981; Geman and McClure's weights), the
    second picture lighter or darker by a factor and a constant. Zeros where that does not bring the two nearer to each
    other. A few pixels are found; much more than a tenth of the picture is not.
    """
    first, second = (jnp.mean(images, axis=-1, keepdims=True) for images in (first, second))  # a third of the work
    basis = similarities(*first.shape[1:3])
    moved = jnp.zeros((len(first), basis.shape[-1]))
    for blur, steps in ROUNDS.items():
        start, end = blurred(first, blur), blurred(second, blur)
        for _ in range(steps):
            moved -= _step(basis, displaced(start, jnp.einsum("hwdk,nk->nhwd", basis, moved)), end)
    found = jnp.einsum("hwdk,nk->nhwd", basis, moved)
    nearer = _distance(displaced(first, found), second) < _distance(first, second)
    return jnp.where(nearer, found, 0.0)


def _distance(first, second):
    return jnp.mean(jnp.abs(first - second), axis=(1, 2, 3), keepdims=True)


def similarities(height: int, width: int) -> Float[Array, "height width 2 4"]:
    """The displacements of shifts down and to the right, a scaling and a turn about the middle."""
    down, right = jnp.meshgrid(jnp.linspace(-1, 1, height), jnp.linspace(-1, 1, width), indexing="ij")
    one, none = jnp.ones_like(down), jnp.zeros_like(down)
    rows, columns = jnp.stack([one, none, down, right], axis=-1), jnp.stack([none, one, right, -down], axis=-1)
    return jnp.stack([rows, columns], axis=2)


def blurred(images: Float[Array, "batch height width channels"], sigma: float) -> Float[Array, "..."]:
    """A Gaussian blur, beyond the edge the edge's colour."""
    if not sigma:
        return images
    reach = int(2 * sigma)
    weights = jnp.exp(-0.5 * (jnp.arange(-reach, reach + 1) / sigma) ** 2)
    for axis in (1, 2):
        pad = [(reach, reach) if k == axis else (0, 0) for k in range(4)]
        padded = jnp.pad(images, pad, mode="edge")
        parts = [jax.lax.slice_in_dim(padded, k, k + images.shape[axis], axis=axis) for k in range(2 * reach + 1)]
        images = jnp.tensordot(weights / weights.sum(), jnp.stack(parts), 1)
    return images


def _step(basis, start, end) -> Float[Array, "batch 4"]:
    """What a Gauss-Newton step takes from the coefficients of the motion, the pictures laid over each other so far."""
    padded = jnp.pad(start, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
    down = (padded[:, 2:, 1:-1] - padded[:, :-2, 1:-1]) / 2
    right = (padded[:, 1:-1, 2:] - padded[:, 1:-1, :-2]) / 2
    slope = jnp.einsum("nhwcd,hwdk->nhwck", jnp.stack([down, right], axis=-1), basis)
    slope = jnp.concatenate([slope, jnp.ones_like(start)[..., None], start[..., None]], axis=-1)
    difference = start - end
    centred = jnp.abs(difference - jnp.mean(difference, axis=(1, 2), keepdims=True))
    usual = OUTLIER * jnp.mean(centred, axis=(1, 2, 3), keepdims=True) + 1e-4
    weight = 1 / (1 + (centred / usual) ** 2) ** 2
    normal = jnp.einsum("nhwck,nhwcl,nhwc->nkl", slope, slope, weight)
    slack = 1e-6 + 1e-5 * jnp.trace(normal, axis1=1, axis2=2)  # a picture of one colour tells nothing
    normal += slack[:, None, None] * jnp.eye(slope.shape[-1])[None]
    wanted = jnp.einsum("nhwck,nhwc,nhwc->nk", slope, difference, weight)
    return jnp.linalg.solve(normal, wanted[..., None])[:, : basis.shape[-1], 0]
