"""Layers that the networks are made of. Imports none of ours.

dtype: "float32", or "bfloat16": matrix products and convolutions then take their inputs rounded to bfloat16 and add
up in float32, in which all else remains.
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from facedisent_jax.models.cpu import (
    _backward,
    _convolution,
    _depthwise_gradients,
    _forward,
    _gradients,
    _rounded_matmul,
    depthwise,
    matmul,
)


def dense(dtype: str, features: int, **options: Any) -> nn.Dense:
    """A dense layer of this precision."""
    return nn.Dense(features, dot_general=lambda x, w, dimensions, precision: matmul(dtype, x, w), **options)


def conv(dtype: str, features: int, kernel_init: Any = nn.linear.default_kernel_init) -> nn.Conv:
    """A 3x3 convolution of this precision, of stride 1 and padded to the input's size."""

    def convolve(x, kernel, *_, **__):  # what else Flax says is stride and padding, as above
        rounded = jnp.bfloat16 if dtype == "bfloat16" else jnp.float32
        return _convolution(x.astype(rounded), kernel.astype(rounded))

    return nn.Conv(features, (3, 3), kernel_init=kernel_init, conv_general_dilated=convolve)


_rounded_matmul.defvjp(_forward, _backward)


_convolution.defvjp(lambda x, kernel: (_convolution(x, kernel), (x, kernel)), _gradients)


def space_to_depth(x: Float[Array, "b h w c"], n: int) -> Float[Array, "b h2 w2 c2"]:
    """[b, h, w, c] -> [b, h/n, w/n, n*n*c]: the n x n pixels of a patch side by side."""
    b, h, w, c = x.shape
    return x.reshape(b, h // n, n, w // n, n, c).transpose(0, 1, 3, 2, 4, 5).reshape(b, h // n, w // n, n * n * c)


def depth_to_space(x: Float[Array, "b h w c"], n: int) -> Float[Array, "b h2 w2 c2"]:
    """The inverse of `space_to_depth`."""
    b, h, w, c = x.shape
    return x.reshape(b, h, w, n, n, c // n**2).transpose(0, 1, 3, 2, 4, 5).reshape(b, h * n, w * n, c // n**2)


class DenseBlock(nn.Module):
    """Pre-activation residual block of two dense layers; begins as the identity."""

    dtype: str

    @nn.compact
    def __call__(self, x):
        y = dense(self.dtype, 2 * x.shape[-1])(nn.LayerNorm()(x))
        return x + dense(self.dtype, x.shape[-1], kernel_init=nn.initializers.zeros)(nn.silu(y))


class ConvBlock(nn.Module):
    """Pre-activation residual block of two 3x3 convolutions; begins as the identity."""

    dtype: str

    @nn.compact
    def __call__(self, x):
        y = nn.silu(nn.GroupNorm(num_groups=8)(x))
        y = conv(self.dtype, x.shape[-1])(y)
        y = nn.silu(nn.GroupNorm(num_groups=8)(y))
        return x + conv(self.dtype, x.shape[-1], kernel_init=nn.initializers.zeros)(y)


depthwise.defvjp(lambda x, kernel, apart: (depthwise(x, kernel, apart), (x, kernel)), _depthwise_gradients)


class SeparableBlock(nn.Module):
    """Residual block of a depthwise 3x3 convolution and two dense layers over the channels (Liu et al. 2022); begins as
    the identity. A fifth of the time of `ConvBlock` where pictures are many (measured with XLA on CPU)."""

    dtype: str
    apart: int = 1

    @nn.compact
    def __call__(self, x):
        channels = x.shape[-1]
        kernel = self.param("kernel", nn.initializers.normal(1 / 3), (3, 3, channels))
        y = nn.LayerNorm()(depthwise(x, kernel, self.apart))
        y = nn.silu(dense(self.dtype, 2 * channels)(y))
        return x + dense(self.dtype, channels, kernel_init=nn.initializers.zeros)(y)
