"""Operations rewritten for XLA on CPU, each above its plain twin. They differ in speed alone.

    rewrite          plain twin             gain on CPU
    matmul           plain_matmul           no transposed copy for the gradient of the weights
    outer_product    plain_outer_product    5 times as fast (bfloat16, with AMX)
    conv3x3          plain_conv3x3          gradient 100 times as fast inside a loop; bfloat16 at all
    scale_pixels     plain_scale_pixels     gradient 3 times as fast
    computed_once    plain_computed_once    a training step takes 20 % less time

On a GPU you can do without this file. Each operation is imported by name, so one line swaps it for its twin:
`from facedisent_jax.models.cpu import plain_conv3x3 as conv3x3`. Keep the twins and delete the rest: nothing is lost.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

# --- Matrix products -------------------------------------------------------------------------------------------------


def matmul(x: Float[Array, "*n k"], w: Float[Array, "_ _"], axis: int = 0) -> Float[Array, "*n p"]:
    """x [..., k] times w [k, p], or [p, k] with axis 1. Sums in float32.

    Flattens to 2-D: with several batch axes XLA on CPU materialises a transpose in the gradient of the weights.
    """
    rows = x.reshape(-1, x.shape[-1])
    return _dot(rows, w, 1, axis).reshape(*x.shape[:-1], w.shape[1 - axis])


def plain_matmul(x: Float[Array, "*n k"], w: Float[Array, "_ _"], axis: int = 0) -> Float[Array, "*n p"]:
    return _dot(x, w, x.ndim - 1, axis)


def outer_product(a: Float[Array, "n p"], b: Float[Array, "n q"]) -> Float[Array, "p q"]:
    """a^T b of bfloat16 matrices. Sums in float32.

    XLA on CPU has no product for a transposed bfloat16 matrix and falls back to float32. For a batch of two it writes
    the transpose and uses its bfloat16 product: a fifth of the time (measured with AMX).
    """
    return jax.lax.platform_dependent(a, b, cpu=_outer_product_in_halves, default=plain_outer_product)


def plain_outer_product(a: Float[Array, "n p"], b: Float[Array, "n q"]) -> Float[Array, "p q"]:
    return _dot(a, b, 0, 0)


def _outer_product_in_halves(a: Float[Array, "n p"], b: Float[Array, "n q"]) -> Float[Array, "p q"]:
    n, p = a.shape
    if p % 2:
        return plain_outer_product(a, b)
    return _dot(a.reshape(n, 2, p // 2).transpose(1, 2, 0), b, 2, 0).reshape(p, -1)


def _dot(a: Array, b: Array, axis_a: int, axis_b: int) -> Array:
    """Product of a and b, summed in float32 over one axis of each."""
    return jax.lax.dot_general(a, b, (((axis_a,), (axis_b,)), ((), ())), preferred_element_type=jnp.float32)


# --- 3x3 convolution -------------------------------------------------------------------------------------------------


@jax.custom_vjp
def conv3x3(x: Float[Array, "b h w c"], kernel: Float[Array, "3 3 c p"]) -> Float[Array, "b h w p"]:
    """3x3 convolution with stride 1, padded to the size of x. Sums in float32.

    XLA on CPU has no convolution in bfloat16, so the rounded inputs are converted back to float32.
    """

    def in_float32(x, kernel):
        return plain_conv3x3(x.astype(jnp.float32), kernel.astype(jnp.float32))

    return jax.lax.platform_dependent(x, kernel, cpu=in_float32, default=plain_conv3x3)


def plain_conv3x3(
    x: Float[Array, "b h w c"], kernel: Float[Array, "kh kw c p"], padding: Any = "SAME"
) -> Float[Array, "b h2 w2 p"]:
    layout = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), padding, dimension_numbers=layout).astype(jnp.float32)


def _conv3x3_gradients(saved, gradient):
    def as_forward_convolutions(x, kernel, gradient):
        # XLA on CPU moves the axes of a convolution into the layout of its fast kernels only outside loops and
        # branches. Inside the loop of `train_steps` JAX's own gradients take 100 times as long (measured).
        x_gradient = plain_conv3x3(gradient, _flip_kernel(kernel).astype(jnp.float32))
        kernel_gradient = _kernel_gradient(x.astype(jnp.float32), gradient)
        return x_gradient.astype(x.dtype), kernel_gradient.astype(kernel.dtype)

    def plain_gradients(x, kernel, gradient):
        return jax.vjp(plain_conv3x3, x, kernel)[1](gradient)

    return jax.lax.platform_dependent(*saved, gradient, cpu=as_forward_convolutions, default=plain_gradients)


def _flip_kernel(kernel: Float[Array, "3 3 c p"]) -> Float[Array, "3 3 p c"]:
    """The kernel that takes gradients back to the input."""
    return kernel[::-1, ::-1].swapaxes(2, 3)


def _kernel_gradient(x: Float[Array, "b h w c"], gradient: Float[Array, "b h w p"]) -> Float[Array, "3 3 c p"]:
    def correlate(a, b):
        batch_as_channels = plain_conv3x3(a.transpose(3, 1, 2, 0), b.transpose(1, 2, 0, 3), ((1, 1), (1, 1)))
        return batch_as_channels.transpose(1, 2, 0, 3)

    # With the wider of the two last; the other order takes up to twice as long.
    return correlate(x, gradient) if x.shape[-1] < gradient.shape[-1] else _flip_kernel(correlate(gradient, x))


conv3x3.defvjp(lambda x, kernel: (conv3x3(x, kernel), (x, kernel)), _conv3x3_gradients)


# --- Elementwise -----------------------------------------------------------------------------------------------------


@jax.custom_vjp
def scale_pixels(images: Float[Array, "*n channels"], weight: Float[Array, "*n 1"]) -> Float[Array, "*n channels"]:
    """images * weight.

    The gradient of the weight adds the channels one by one: as a sum over the last, short axis it takes XLA on CPU
    three times as long.
    """
    return images * weight


def plain_scale_pixels(
    images: Float[Array, "*n channels"], weight: Float[Array, "*n 1"]
) -> Float[Array, "*n channels"]:
    return images * weight


def _scale_gradients(saved, gradient):
    images, weight = saved
    product = gradient * images
    return gradient * weight, sum(product[..., k : k + 1] for k in range(product.shape[-1]))


scale_pixels.defvjp(lambda images, weight: (images * weight, (images, weight)), _scale_gradients)


def computed_once(step: Array, make: Callable[[], Array]) -> Array:
    """make(), computed exactly once. step: any number that is not negative, and that the compiler cannot know.

    XLA on CPU fuses elementwise producers into every consumer, and so recomputed the augmented images about twelve
    times a step, 20 % of its time. It does not fuse across `lax.cond`, so this puts an always-true one in between.
    (XLA removes optimization barriers before it fuses. On accelerators a branch would cost time.)
    """
    output = jax.eval_shape(make)

    def in_a_branch() -> Array:
        return jax.lax.cond(step >= 0, make, lambda: jnp.zeros(output.shape, output.dtype))

    return jax.lax.platform_dependent(cpu=in_a_branch, default=make)


def plain_computed_once(step: Array, make: Callable[[], Array]) -> Array:
    return make()
