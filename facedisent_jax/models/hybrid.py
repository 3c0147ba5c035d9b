"""TODO."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from facedisent_jax.config import CODE_DIMS, IMAGE_SIZE, ModelConfig
from facedisent_jax.models.codes import PIXELS, EncoderOutput
from facedisent_jax.models.cpu import matmul
from facedisent_jax.models.layers import ConvBlock, DenseBlock, conv, dense, space_to_depth

HEAD_INIT = nn.initializers.normal(0.002)
"""Heads begin near the linear path alone."""


class HybridEncoder(nn.Module):
    """Dense blocks for identity, convolutions for expression, beside a linear path: [n, 64, 64, 3] -> `Encoded`.

    The two heads share no layer: what the label asks of the expression does not disturb the identity. A smile is local
    and looks alike wherever the mouth is, which convolutions learn from fewer people than dense layers (measured).
    The inputs of the widest layers are divided by the root of their number, and the weights larger by as much: a step
    of Adam changes all weights alike, and thousands of changes at once would undo what was learnt (muP, Yang et al.
    2022). The linear path and the first dense layer are one matrix with a row a pixel, as the decoder's last are: its
    gradient costs half of that of its transpose, and one large product less than two (measured with XLA on CPU).
    """

    config: ModelConfig

    @nn.compact
    def __call__(self, x):
        dtype, width = self.config.dtype, self.config.width
        mean = self.param("mean", nn.initializers.constant(0.5), (PIXELS,))
        pixels = self.param("pixels", nn.initializers.normal(1.0), (PIXELS, width + 2 * CODE_DIMS))
        # The mean is not trained: the heads have biases, and its gradient would cost as much as another layer.
        flat = (x.reshape(len(x), -1) - jax.lax.stop_gradient(mean)[None]) / PIXELS**0.5
        y = matmul(dtype, flat, pixels)
        y, straight = y[:, :width], y[:, width:]

        for _ in range(self.config.blocks):
            y = DenseBlock(dtype)(y)
        identity = dense(dtype, CODE_DIMS, kernel_init=HEAD_INIT, name="identity")(nn.LayerNorm()(y))

        y = conv(dtype, width // 16)(space_to_depth(x - 0.5, 4))
        y = nn.silu(nn.GroupNorm(num_groups=8)(y))
        y = ConvBlock(dtype)(conv(dtype, width // 8)(space_to_depth(y, 2)))
        y = nn.silu(nn.GroupNorm(num_groups=8)(y)).reshape(len(y), -1)
        y = dense(dtype, width // 4, kernel_init=nn.initializers.normal(1.0))(y / y.shape[-1] ** 0.5)
        y = nn.silu(nn.LayerNorm()(y))
        expression = dense(dtype, CODE_DIMS, kernel_init=HEAD_INIT, name="expression")(y)

        return EncoderOutput(identity + straight[:, :CODE_DIMS], expression + straight[:, CODE_DIMS:])


class HybridDecoder(nn.Module):
    """Dense blocks beside a linear path: identity and expression code -> [n, 64, 64, 3]. Both end in one matrix.

    Without convolutions: it runs on eight codes for each triplet, and a matrix product makes a picture in a fraction of
    the time of convolutions with few channels (measured with XLA on CPU).
    """

    config: ModelConfig

    @nn.compact
    def __call__(self, identity, expression):
        dtype, width = self.config.dtype, self.config.width
        codes = jnp.concatenate([identity, 2 * expression - 1], axis=-1)
        y = dense(dtype, width)(codes)
        for _ in range(self.config.blocks):
            y = DenseBlock(dtype)(y)
        bent, straight = nn.LayerNorm()(y) / width**0.5, codes / (2 * CODE_DIMS) ** 0.5
        y = jnp.concatenate([bent, straight], axis=-1)
        mean = self.param("mean", nn.initializers.constant(0.5), (PIXELS,))
        pixels = self.param("pixels", nn.initializers.normal(0.1), (PIXELS, width + 2 * CODE_DIMS))
        picture = matmul(dtype, y, pixels, axis=1) + mean[None]
        return picture.reshape(-1, IMAGE_SIZE, IMAGE_SIZE, 3)
