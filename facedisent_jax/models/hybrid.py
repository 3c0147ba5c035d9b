"""The default encoder and decoder: dense blocks and convolutions beside a linear path."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from facedisent_jax.config import CODE_DIMS, IMAGE_SIZE, ModelConfig
from facedisent_jax.models.codes import PIXELS, EncoderOutput
from facedisent_jax.models.layers import ConvBlock, DenseBlock, conv, dense, mixed_matmul, space_to_depth

HEAD_INIT = nn.initializers.normal(0.002)  # small: the codes start close to the linear path


class HybridEncoder(nn.Module):
    """Dense blocks for identity, convolutions for expression, and a linear path for both.

    The two heads share no layer: what the label asks of the expression does not disturb the identity. A smile is local
    and looks alike wherever the mouth is, which convolutions learn from fewer people than dense layers (measured).
    muP (Yang et al. 2022): inputs of the widest layers are divided by sqrt(fan_in) and their weights are sqrt(fan_in)
    larger, because Adam moves every weight equally and 12,288 equal moves add up.
    The linear path and the first dense layer are one matrix with a row per pixel value, and so are the last two of the
    decoder: its gradient costs half as much as that of its transpose, and one large product less than two (measured
    with XLA on CPU).
    """

    config: ModelConfig

    @nn.compact
    def __call__(self, images: Float[Array, "n 64 64 3"]) -> EncoderOutput:
        dtype, width = self.config.dtype, self.config.width
        mean = self.param("mean", nn.initializers.constant(0.5), (PIXELS,))
        kernel = self.param("pixel_kernel", nn.initializers.normal(1.0), (PIXELS, width + 2 * CODE_DIMS))
        # The mean is not trained: the heads have biases, and its gradient would cost as much as another layer.
        flat = (images.reshape(len(images), -1) - jax.lax.stop_gradient(mean)[None]) / PIXELS**0.5
        y = mixed_matmul(dtype, flat, kernel)
        y, linear = y[:, :width], y[:, width:]

        for _ in range(self.config.blocks):
            y = DenseBlock(dtype)(y)
        identity = dense(dtype, CODE_DIMS, kernel_init=HEAD_INIT, name="identity")(nn.LayerNorm()(y))

        y = conv(dtype, width // 16)(space_to_depth(images - 0.5, 4))
        y = nn.silu(nn.GroupNorm(num_groups=8)(y))
        y = ConvBlock(dtype)(conv(dtype, width // 8)(space_to_depth(y, 2)))
        y = nn.silu(nn.GroupNorm(num_groups=8)(y)).reshape(len(y), -1)
        y = dense(dtype, width // 4, kernel_init=nn.initializers.normal(1.0))(y / y.shape[-1] ** 0.5)
        y = nn.silu(nn.LayerNorm()(y))
        logits = dense(dtype, CODE_DIMS, kernel_init=HEAD_INIT, name="expression")(y)

        return EncoderOutput(identity + linear[:, :CODE_DIMS], logits + linear[:, CODE_DIMS:])


class HybridDecoder(nn.Module):
    """Dense blocks and a linear path; both end in one matrix.

    No convolutions: the decoder runs on eight pairs of codes per triplet, and a matrix product makes an image in a
    fraction of the time of convolutions with few channels (measured with XLA on CPU).
    """

    config: ModelConfig

    @nn.compact
    def __call__(self, identity: Float[Array, "n 64"], expression: Float[Array, "n 64"]) -> Float[Array, "n 64 64 3"]:
        dtype, width = self.config.dtype, self.config.width
        codes = jnp.concatenate([identity, 2 * expression - 1], axis=-1)
        y = dense(dtype, width)(codes)
        for _ in range(self.config.blocks):
            y = DenseBlock(dtype)(y)
        nonlinear, linear = nn.LayerNorm()(y) / width**0.5, codes / (2 * CODE_DIMS) ** 0.5
        y = jnp.concatenate([nonlinear, linear], axis=-1)
        mean = self.param("mean", nn.initializers.constant(0.5), (PIXELS,))
        kernel = self.param("pixel_kernel", nn.initializers.normal(0.1), (PIXELS, width + 2 * CODE_DIMS))
        images = mixed_matmul(dtype, y, kernel, axis=1) + mean[None]
        return images.reshape(-1, IMAGE_SIZE, IMAGE_SIZE, 3)
