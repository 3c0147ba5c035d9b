"""Layers that the networks are made of. Imports none of ours."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float


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

    dtype: Any

    @nn.compact
    def __call__(self, x):
        y = nn.Dense(2 * x.shape[-1], dtype=self.dtype)(nn.LayerNorm(dtype=self.dtype)(x))
        return x + nn.Dense(x.shape[-1], dtype=self.dtype, kernel_init=nn.initializers.zeros)(nn.silu(y))


class ConvBlock(nn.Module):
    """Pre-activation residual block of two 3x3 convolutions; begins as the identity."""

    dtype: Any

    @nn.compact
    def __call__(self, x):
        y = nn.silu(nn.GroupNorm(num_groups=8, dtype=self.dtype)(x))
        y = nn.Conv(x.shape[-1], (3, 3), dtype=self.dtype)(y)
        y = nn.silu(nn.GroupNorm(num_groups=8, dtype=self.dtype)(y))
        return x + nn.Conv(x.shape[-1], (3, 3), dtype=self.dtype, kernel_init=nn.initializers.zeros)(y)


def depthwise(x: Float[Array, "b h w c"], kernel: Float[Array, "3 3 c"], apart: int) -> Float[Array, "b h w c"]:
    """3x3 convolution of each channel alone, its taps `apart` places apart, written as nine products: the gradient of
    XLA's own is many times slower on CPU."""
    _, h, w, _ = x.shape
    x = jnp.pad(x, ((0, 0), (apart, apart), (apart, apart), (0, 0)))
    taps = [(i, j, x[:, i * apart : i * apart + h, j * apart : j * apart + w]) for i in range(3) for j in range(3)]
    return sum(kernel[i, j][None, None, None] * part for i, j, part in taps)  # type: ignore[return-value]


class SeparableBlock(nn.Module):
    """Residual block of a depthwise 3x3 convolution and two dense layers over the channels (Liu et al. 2022); begins as
    the identity. A fifth of the time of `ConvBlock` where pictures are many (measured with XLA on CPU)."""

    dtype: Any
    apart: int = 1

    @nn.compact
    def __call__(self, x):
        channels = x.shape[-1]
        kernel = self.param("kernel", nn.initializers.normal(1 / 3), (3, 3, channels))
        y = nn.LayerNorm(dtype=self.dtype)(depthwise(x, kernel.astype(self.dtype), self.apart))
        y = nn.silu(nn.Dense(2 * channels, dtype=self.dtype)(y))
        return x + nn.Dense(channels, dtype=self.dtype, kernel_init=nn.initializers.zeros)(y)
