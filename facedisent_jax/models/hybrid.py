"""The default encoder and decoder: dense blocks and convolutions beside a linear path."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from facedisent_jax.config import IMAGE_SIZE, ModelConfig
from facedisent_jax.models.codes import PIXELS, EncoderOutput
from facedisent_jax.models.layers import ConvBlock, DenseBlock, bottleneck, conv, dense, mixed_matmul, space_to_depth
from facedisent_jax.models.sampling import warp_image

FLOW_GRID, FLOW_SCALE = 16, 4.0  # the flow that displaces a decoded image: size of its grid, pixels per unit
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
        dtype, width, code_dims = self.config.dtype, self.config.width, self.config.code_dims
        mean = self.param("mean", nn.initializers.constant(0.5), (PIXELS,))
        kernel = self.param("pixel_kernel", nn.initializers.normal(1.0), (PIXELS, width + 2 * code_dims))
        # The mean is not trained: the heads have biases, and its gradient would cost as much as another layer.
        flat = (images.reshape(images.shape[0], -1) - jax.lax.stop_gradient(mean)[None]) / PIXELS**0.5
        y = mixed_matmul(dtype, flat, kernel)
        y, linear = y[:, :width], y[:, width:]

        for _ in range(self.config.blocks):
            y = DenseBlock(dtype)(y)
        identity = dense(dtype, code_dims, kernel_init=HEAD_INIT, name="identity")(nn.LayerNorm()(y))

        y = conv(dtype, width // 16)(space_to_depth(images - 0.5, 4))
        y = nn.silu(nn.GroupNorm(num_groups=8)(y))
        y = ConvBlock(dtype)(conv(dtype, width // 8)(space_to_depth(y, 2)))
        y = nn.silu(nn.GroupNorm(num_groups=8)(y)).reshape(y.shape[0], -1)
        y = dense(dtype, width // 4, kernel_init=nn.initializers.normal(1.0))(y / y.shape[-1] ** 0.5)
        y = nn.silu(nn.LayerNorm()(y))
        logits = dense(dtype, code_dims, kernel_init=HEAD_INIT, name="expression")(y)

        return EncoderOutput(identity + linear[:, :code_dims], bottleneck(self.config, logits + linear[:, code_dims:]))


class HybridDecoder(nn.Module):
    """Dense blocks and a linear path; both end in one matrix.

    No convolutions: the decoder runs on eight pairs of codes per triplet, and a matrix product makes an image in a
    fraction of the time of convolutions with few channels (measured with XLA on CPU).
    The image is then displaced by a smooth flow: appearance and shape apart, after Shu et al. 2018.
    """

    config: ModelConfig

    @nn.compact
    def __call__(self, identity: Float[Array, "n dim"], expression: Float[Array, "n dim"]) -> Float[Array, "n 64 64 3"]:
        dtype, width, code_dims = self.config.dtype, self.config.width, self.config.code_dims
        codes = jnp.concatenate([identity, 2 * expression - 1], axis=-1)
        y = dense(dtype, width)(codes)
        for _ in range(self.config.blocks):
            y = DenseBlock(dtype)(y)
        y = nn.LayerNorm()(y)
        flow = dense(dtype, 2 * FLOW_GRID**2, kernel_init=nn.initializers.zeros, name="flow")(
            jnp.concatenate([y, codes], axis=-1)
        )
        y = jnp.concatenate([y / width**0.5, codes / (2 * code_dims) ** 0.5], axis=-1)
        mean = self.param("mean", nn.initializers.constant(0.5), (PIXELS,))
        kernel = self.param("pixel_kernel", nn.initializers.normal(0.1), (PIXELS, width + 2 * code_dims))
        images = (mixed_matmul(dtype, y, kernel, axis=1) + mean[None]).reshape(-1, IMAGE_SIZE, IMAGE_SIZE, 3)
        flow = FLOW_SCALE * flow.reshape(-1, FLOW_GRID, FLOW_GRID, 2)
        return warp_image(images, jax.image.resize(flow, (*images.shape[:3], 2), "bilinear"))
