"""The poster's kind of network: a plain stack of convolutions."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from facedisent_jax.config import ModelConfig
from facedisent_jax.models.codes import EncoderOutput
from facedisent_jax.models.layers import bottleneck, conv, dense, depth_to_space, space_to_depth


class PlainEncoder(nn.Module):
    """Four halving convolutions, 64x64 -> 4x4, and a dense layer."""

    config: ModelConfig

    @nn.compact
    def __call__(self, images: Float[Array, "n 64 64 3"]) -> EncoderOutput:
        dtype = self.config.dtype
        y = images - 0.5
        for scale in range(4):
            # Space-to-depth and a dense convolution: the gradient of a strided one is dilated, and slow in XLA on CPU.
            y = conv(dtype, self.config.width << scale)(space_to_depth(y, 2))
            y = nn.relu(nn.GroupNorm(num_groups=8)(y))
        y = dense(dtype, 2 * self.config.code_dims)(y.reshape(y.shape[0], -1))
        identity, logits = jnp.split(y, 2, axis=-1)
        return EncoderOutput(identity, bottleneck(self.config, logits))


class PlainDecoder(nn.Module):
    """A dense layer to 4x4, then four doubling sub-pixel convolutions (Shi et al. 2016), not transposed ones."""

    config: ModelConfig

    @nn.compact
    def __call__(self, identity: Float[Array, "n dim"], expression: Float[Array, "n dim"]) -> Float[Array, "n 64 64 3"]:
        dtype = self.config.dtype
        width = self.config.width << 3
        y = dense(dtype, 16 * width)(jnp.concatenate([identity, 2 * expression - 1], axis=-1))
        y = y.reshape(-1, 4, 4, width)
        for scale in (2, 1, 0):
            y = nn.relu(nn.GroupNorm(num_groups=8)(y))
            y = depth_to_space(conv(dtype, 4 * (self.config.width << scale))(y), 2)
        y = nn.relu(nn.GroupNorm(num_groups=8)(y))
        return depth_to_space(conv(dtype, 12)(y), 2) + 0.5
