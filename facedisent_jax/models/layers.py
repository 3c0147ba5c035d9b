"""Layers that the networks are made of.

dtype: "float32" or "bfloat16". With "bfloat16", matrix products and convolutions round their inputs to bfloat16 and sum
in float32. Everything else is float32.
"""

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from facedisent_jax.config import ModelConfig
from facedisent_jax.models.cpu import conv3x3, matmul, outer_product


def mixed_matmul(dtype: str, x: Float[Array, "*n k"], w: Float[Array, "_ _"], axis: int = 0) -> Float[Array, "*n p"]:
    """x [..., k] times w [k, p], or [p, k] with axis 1, in this precision."""
    return _bf16_matmul(x, w, axis) if dtype == "bfloat16" else matmul(x, w, axis)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _bf16_matmul(x: Float[Array, "*n k"], w: Float[Array, "_ _"], axis: int) -> Float[Array, "*n p"]:
    return _bf16_forward(x, w, axis)[0]


def _bf16_forward(x, w, axis):
    x, w = x.astype(jnp.bfloat16), w.astype(jnp.bfloat16)
    return matmul(x, w, axis), (x, w)


def _bf16_backward(axis, saved, gradient):
    # JAX's own rule would multiply a float32 gradient by bfloat16 operands; no hardware is fast at that.
    x, w = saved
    gradient = gradient.astype(jnp.bfloat16)
    x_rows, gradient_rows = x.reshape(-1, x.shape[-1]), gradient.reshape(-1, gradient.shape[-1])
    a, b = (x_rows, gradient_rows) if axis == 0 else (gradient_rows, x_rows)
    return matmul(gradient, w, 1 - axis), outer_product(a, b)


_bf16_matmul.defvjp(_bf16_forward, _bf16_backward)


def dense(dtype: str, features: int, **options: Any) -> nn.Dense:
    """A dense layer in this precision."""
    return nn.Dense(features, dot_general=lambda x, w, dimensions, precision: mixed_matmul(dtype, x, w), **options)


def bottleneck(config: ModelConfig, logits: Float[Array, "n dim"]) -> Float[Array, "n dim"]:
    """Logits through `expression_rank` numbers, unchanged if that is 0. Adds two layers to the module that calls."""
    if not config.expression_rank:
        return logits
    numbers = dense(config.dtype, config.expression_rank, use_bias=False, name="expression_down")(logits)
    return dense(config.dtype, config.code_dims, name="expression_up")(numbers)


def conv(dtype: str, features: int, kernel_init: Any = nn.linear.default_kernel_init) -> nn.Conv:
    """A 3x3 convolution in this precision, with stride 1 and padded to the size of its input."""

    def convolve(x, kernel, *_, **__):  # Flax also passes stride and padding, which are fixed here
        return conv3x3(x.astype(dtype), kernel.astype(dtype))

    return nn.Conv(features, (3, 3), kernel_init=kernel_init, conv_general_dilated=convolve)


def space_to_depth(x: Float[Array, "b h w c"], n: int) -> Float[Array, "b h2 w2 c2"]:
    """[b, h, w, c] -> [b, h/n, w/n, n*n*c]: the n x n pixels of a patch side by side."""
    b, h, w, c = x.shape
    return x.reshape(b, h // n, n, w // n, n, c).transpose(0, 1, 3, 2, 4, 5).reshape(b, h // n, w // n, n * n * c)


def depth_to_space(x: Float[Array, "b h w c"], n: int) -> Float[Array, "b h2 w2 c2"]:
    """The inverse of `space_to_depth`."""
    b, h, w, c = x.shape
    return x.reshape(b, h, w, n, n, c // n**2).transpose(0, 1, 3, 2, 4, 5).reshape(b, h * n, w * n, c // n**2)


class DenseBlock(nn.Module):
    """Pre-activation residual block of two dense layers; starts as the identity."""

    dtype: str

    @nn.compact
    def __call__(self, x: Float[Array, "n c"]) -> Float[Array, "n c"]:
        y = dense(self.dtype, 2 * x.shape[-1])(nn.LayerNorm()(x))
        return x + dense(self.dtype, x.shape[-1], kernel_init=nn.initializers.zeros)(nn.silu(y))


class ConvBlock(nn.Module):
    """Pre-activation residual block of two 3x3 convolutions; starts as the identity."""

    dtype: str

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
        y = nn.silu(nn.GroupNorm(num_groups=8)(x))
        y = conv(self.dtype, x.shape[-1])(y)
        y = nn.silu(nn.GroupNorm(num_groups=8)(y))
        return x + conv(self.dtype, x.shape[-1], kernel_init=nn.initializers.zeros)(y)
