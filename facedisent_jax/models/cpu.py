"""TODO."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def matmul(dtype: str, x: Float[Array, "*n k"], w: Float[Array, "_ _"], axis: int = 0) -> Float[Array, "*n p"]:
    """x [..., k] and weights [k, p], or with axis 1 [p, k] -> [..., p], float32."""
    # As a matrix: XLA on CPU writes the gradient's transpose first where the sum of the weights' is over several axes.
    rows = x.reshape(-1, x.shape[-1])
    made: Array = _rounded_matmul(rows, w, axis) if dtype == "bfloat16" else _product(rows, w, 1, axis)
    return made.reshape(*x.shape[:-1], made.shape[-1])


def _product(a: Array, b: Array, i: int, j: int) -> Array:
    return jax.lax.dot_general(a, b, (((i,), (j,)), ((), ())), preferred_element_type=jnp.float32)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _rounded_matmul(x, w, axis):
    return _forward(x, w, axis)[0]


def _forward(x, w, axis):
    x, w = x.astype(jnp.bfloat16), w.astype(jnp.bfloat16)
    return _product(x, w, 1, axis), (x, w)


def _backward(axis, saved, gradient):
    # Of JAX's own rule the gradient would stay float32: products of two types, which hardware is not made for.
    x, w = saved
    gradient = gradient.astype(jnp.bfloat16)
    rows, columns = (x, gradient) if axis == 0 else (gradient, x)
    outer = jax.lax.platform_dependent(rows, columns, cpu=_outer_in_halves, default=partial(_product, i=0, j=0))
    return _product(gradient, w, 1, 1 - axis), outer


def _outer_in_halves(a: Float[Array, "n p"], b: Float[Array, "n q"]) -> Float[Array, "p q"]:
    """a^T b. XLA on CPU has no product of a transposed bfloat16 matrix, and would go back to float32; of a stack of two
    it writes the transpose and takes the product that it has: a fifth of the time with AMX (measured)."""
    n, p = a.shape
    if p % 2:
        return _product(a, b, 0, 0)
    return _product(a.reshape(n, 2, p // 2).transpose(1, 2, 0), b, 2, 0).reshape(p, -1)


def _convolved(x: Float[Array, "b h w c"], kernel: Float[Array, "3 3 c p"], padding: Any = "SAME") -> Array:
    """[b, h, w, p] float32."""
    layout = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), padding, dimension_numbers=layout).astype(jnp.float32)


@jax.custom_vjp
def _convolution(x, kernel):
    def exact(x, kernel):  # XLA on CPU has none in bfloat16
        return _convolved(x.astype(jnp.float32), kernel.astype(jnp.float32))

    return jax.lax.platform_dependent(x, kernel, cpu=exact, default=_convolved)


def _turned(kernel: Float[Array, "3 3 c p"]) -> Float[Array, "3 3 p c"]:
    """The kernel that takes gradients back."""
    return kernel[::-1, ::-1].swapaxes(2, 3)


def _kernel_gradient(x: Float[Array, "b h w c"], gradient: Float[Array, "b h w p"]) -> Float[Array, "3 3 c p"]:
    def correlated(a, b):
        return _convolved(a.transpose(3, 1, 2, 0), b.transpose(1, 2, 0, 3), ((1, 1), (1, 1))).transpose(1, 2, 0, 3)

    # The wider of the two last, or it takes up to twice as long.
    return correlated(x, gradient) if x.shape[-1] < gradient.shape[-1] else _turned(correlated(gradient, x))


def _gradients(saved, gradient):
    def in_layout(x, kernel, gradient):
        # XLA on CPU sorts the axes of a convolution into the layout of its fast ones only outside of loops and
        # branches; in the loop of `training.train_steps` JAX's own gradients would take a hundred times as long.
        back = _convolved(gradient, _turned(kernel).astype(jnp.float32))
        return back.astype(x.dtype), _kernel_gradient(x.astype(jnp.float32), gradient).astype(kernel.dtype)

    def own(x, kernel, gradient):
        return jax.vjp(_convolved, x, kernel)[1](gradient)

    return jax.lax.platform_dependent(*saved, gradient, cpu=in_layout, default=own)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def depthwise(x: Float[Array, "b h w c"], kernel: Float[Array, "3 3 c"], apart: int) -> Float[Array, "b h w c"]:
    """3x3 convolution of each channel alone, its taps `apart` places apart, written as nine products: the gradient of
    XLA's own is many times slower on CPU."""
    return sum(kernel[i, j][None, None, None] * part for i, j, part in _taps(x, apart))  # type: ignore[return-value]


def _taps(x: Float[Array, "b h w c"], apart: int) -> list[tuple[int, int, Array]]:
    """Row and column of each tap of the kernel, and what it sees of x."""
    _, h, w, _ = x.shape
    x = jnp.pad(x, ((0, 0), (apart, apart), (apart, apart), (0, 0)))
    return [(i, j, x[:, i * apart : i * apart + h, j * apart : j * apart + w]) for i in range(3) for j in range(3)]


def _depthwise_gradients(apart, saved, gradient):
    # The kernel's in two sums, the first of which XLA on CPU makes in one go, where JAX's own would write what each
    # tap sees to memory and take three times as long.
    x, kernel = saved
    rows = range(x.shape[1])
    columns = [sum(part[:, row] * gradient[:, row] for row in rows) for *_, part in _taps(x, apart)]
    return depthwise(gradient, kernel[::-1, ::-1], apart), jnp.sum(jnp.stack(columns), (1, 2)).reshape(kernel.shape)


@jax.custom_vjp
def scale_pixels(images: Float[Array, "*n channels"], weight: Float[Array, "*n 1"]) -> Float[Array, "*n channels"]:
    """images * weight. Of the weight's gradient the channels are added one by one: as a sum over the last, short axis
    they take XLA on CPU three times as long."""
    return images * weight


def _scale_gradients(saved, gradient):
    images, weight = saved
    product = gradient * images
    return gradient * weight, sum(product[..., k : k + 1] for k in range(product.shape[-1]))


def computed_once(step: Array, make: Callable[[], Array]) -> Array:
    """make(), computed once. XLA on CPU joins to each reader of an array what is elementwise in making it, and so drew
    the augmented pictures a dozen times a step, a fifth of its time. It joins nothing across a branch; that this one is
    always taken, it cannot know. (Barriers it drops before it joins; accelerators would wait for a branch.)"""
    made = jax.eval_shape(make)

    def apart() -> Array:
        return jax.lax.cond(step >= 0, make, lambda: jnp.zeros(made.shape, made.dtype))

    return jax.lax.platform_dependent(cpu=apart, default=make)
