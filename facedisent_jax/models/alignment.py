"""How a head has moved between two images: a shift, a rotation and a scaling, estimated without learning."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from facedisent_jax.models.layers import space_to_depth
from facedisent_jax.models.sampling import warp_image

# Coarse to fine: {downsampling factor: Gauss-Newton steps}. The coarse level has the wider basin of convergence.
PYRAMID = {4: 3, 1: 3}
OUTLIER = 1.5  # times the mean difference: where a pixel's weight is a quarter. A mouth that opens is no head motion.
MIN_IMPROVEMENT = 0.02  # relative decrease of the difference at which a motion counts in full; below, in proportion


def head_motion(
    first: Float[Array, "batch size size channels"], second: Float[Array, "batch size size channels"]
) -> Float[Array, "batch size size 2"]:
    """The flow, in pixels (rows, columns), with which `warp_image` aligns the first image to the second.

    It is the similarity transform with the least difference (Lucas and Kanade 1981; weights of Geman and McClure),
    whatever the light and contrast of the two. Zero where no motion makes them more alike. Finds motions of a few
    pixels, but not of much more than a tenth of the image.
    """
    first, second = (_standardize(images) for images in (first, second))
    coefficients = jnp.zeros((first.shape[0], 4))
    for factor, steps in PYRAMID.items():
        basis = similarity_basis(first.shape[1], factor)
        start, end = (jnp.mean(space_to_depth(images, factor), axis=-1, keepdims=True) for images in (first, second))

        def improve(_, coefficients, basis=basis, start=start, end=end):
            warped = warp_image(start, jnp.einsum("hwdk,nk->nhwd", basis, coefficients))
            return coefficients - _gauss_newton_step(basis, warped, end)

        coefficients = jax.lax.fori_loop(0, steps, improve, coefficients)  # a loop is compiled once
    flow = jnp.einsum("hwdk,nk->nhwd", similarity_basis(first.shape[1]), coefficients)
    before, after = (jnp.mean(jnp.abs(x - second), axis=(1, 2, 3)) for x in (first, warp_image(first, flow)))
    return jnp.clip((before - after) / (MIN_IMPROVEMENT * before + 1e-6), 0, 1)[:, None, None, None] * flow


def _standardize(images: Float[Array, "batch size size channels"]) -> Float[Array, "batch size size 1"]:
    """Grey images with mean 0 and standard deviation 1. An image of one colour becomes 0."""
    grey = jnp.mean(images, axis=-1, keepdims=True)
    grey -= jnp.mean(grey, axis=(1, 2), keepdims=True)
    return grey / (jnp.sqrt(jnp.mean(grey**2, axis=(1, 2), keepdims=True)) + 0.01)


def similarity_basis(size: int, factor: int = 1) -> Float[Array, "pixels pixels 2 4"]:
    """Flows of a shift down and a shift right by one pixel, a scaling and a rotation, at size / factor.

    Scaling and rotation are about the centre and move the middle of an edge by one pixel. One pixel is one of the full
    size; the flow is in those of the downsampled image.
    """
    axis = (2 * jnp.arange(size // factor, dtype=jnp.float32) + 1) * (factor / size) - 1
    y, x = jnp.meshgrid(axis, axis, indexing="ij")
    ones, zeros = jnp.ones_like(y), jnp.zeros_like(y)
    rows, columns = jnp.stack([ones, zeros, y, x], axis=-1), jnp.stack([zeros, ones, x, -y], axis=-1)
    return jnp.stack([rows, columns], axis=2) / factor


def _gauss_newton_step(
    basis: Float[Array, "size size 2 4"],
    start: Float[Array, "batch size size 1"],
    end: Float[Array, "batch size size 1"],
) -> Float[Array, "batch 4"]:
    """The step to subtract from the coefficients of the motion. start: the first image, warped by them."""
    start, end = start[..., 0], end[..., 0]
    padded = jnp.pad(start, ((0, 0), (1, 1), (1, 1)), mode="edge")
    dy, dx = padded[:, 2:, 1:-1] - padded[:, :-2, 1:-1], padded[:, 1:-1, 2:] - padded[:, 1:-1, :-2]
    jacobian = jnp.einsum("nhwd,hwdk->nhwk", jnp.stack([dy, dx], axis=-1) / 2, basis)
    difference = start - end
    residual_scale = OUTLIER * jnp.mean(jnp.abs(difference), axis=(1, 2), keepdims=True) + 1e-4
    weight = 1 / (1 + (difference / residual_scale) ** 2) ** 2
    hessian = jnp.einsum("nhwk,nhwl,nhw->nkl", jacobian, jacobian, weight)
    damping = 1e-6 + 1e-4 * jnp.trace(hessian, axis1=1, axis2=2)  # an image of one colour has no gradient
    hessian += damping[:, None, None] * jnp.eye(4)[None]
    rhs = jnp.einsum("nhwk,nhw,nhw->nk", jacobian, difference, weight)
    return _solve(hessian, rhs)


def _solve(matrix: Float[Array, "batch k k"], rhs: Float[Array, "batch k"]) -> Float[Array, "batch k"]:
    """x of matrix x = rhs, for small positive definite matrices, by Gauss-Jordan elimination.

    On a GPU or TPU `jnp.linalg.solve` calls a library that takes one small matrix after the other.
    """
    rows = jnp.concatenate([matrix, rhs[..., None]], axis=-1)
    for k in range(matrix.shape[-1]):
        pivot = rows[:, k] / rows[:, k, k, None]
        rows = (rows - rows[:, :, k, None] * pivot[:, None]).at[:, k].set(pivot)
    return rows[..., -1]
