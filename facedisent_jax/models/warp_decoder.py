"""The decoder that gives the person of one source image, or of two, another expression.

1. Align the source to the target pose. 2. Warp it by a flow field. 3. Paint what it cannot show (teeth, folds) through
a mask. 4. Blend, if there are two sources. Flow and paint scale with the change of expression, so an unchanged code
returns an exact copy.

After Deforming Autoencoders (Shu et al. 2018) and GANimation (Pumarola et al. 2018). The target is seen in the blurred
image that its codes alone decode to.
"""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from facedisent_jax.config import IMAGE_SIZE, ModelConfig
from facedisent_jax.models.alignment import head_motion
from facedisent_jax.models.cpu import scale_pixels
from facedisent_jax.models.layers import conv, dense, space_to_depth
from facedisent_jax.models.sampling import warp_image

CHANNELS = {64: 16, 32: 32, 16: 64, 8: 96}  # of the U-Net, by the size of its grid
COARSE = 16  # size of the grid of the coarse flow
COARSE_FLOW_SCALE = 4.0  # pixels per unit of the coarse flow: smiles move lips by 1 to 3
EPSILON = 1e-3  # of `rms`
CHANGE_SOFTENING = 0.02  # RMS of a change of expression that counts half as a direction
FULL_CHANGE = 0.5  # RMS of a change of expression from neutral to a full smile, about
NEW_PEOPLE_GAIN = 1.1  # of the flow, which is about a tenth too small for people who did not train (measured)
MASK_START = -3.0  # logit of the mask before training: nearly nothing is painted
# Channels of the outputs for each source, at 64x64 pixels.
OUTPUT_CHANNELS = {"fine_flow": 2, "mask": 1, "paint": 3, "blend_logit": 1}


class Source(NamedTuple):
    """Source images and what the model knows of them.

    images:               in [0, 1].
    identity, expression: their codes.
    decoded:              the reconstruction from these codes alone.
    """

    images: Float[Array, "batch 64 64 3"]
    identity: Float[Array, "batch dim"]
    expression: Float[Array, "batch dim"]
    decoded: Float[Array, "batch 64 64 3"]


class WarpOutput(NamedTuple):
    """images: the result, meant for [0, 1] and not clipped to it.
    flow:   by which each source was warped, in pixels (rows, columns), without the flow of the head pose.
    mask:   where each source was painted over, in [0, 1].
    """

    images: Float[Array, "batch 64 64 3"]
    flow: Float[Array, "sources batch 64 64 2"]
    mask: Float[Array, "sources batch 64 64 1"]


class UNet(nn.Module):
    """Convolutions over a source image at 64, 32, 16 and 8 pixels and back (Ronneberger et al. 2015), told the change.

    inputs:    the image; the other source minus this one, zeros if there is none; what the target decodes to beyond it.
    condition: from `change_features`.
    Returns "coarse_flow", [n, 16, 16, 2], and OUTPUT_CHANNELS at 64x64, all zeros at the start of training.
    """

    config: ModelConfig

    @nn.compact
    def __call__(self, inputs: Float[Array, "n 64 64 9"], condition: Float[Array, "n c"]) -> dict[str, Array]:
        dtype, zeros = self.config.dtype, nn.initializers.zeros

        def block(y: Float[Array, "n h w c"], channels: int) -> Float[Array, "n h w p"]:
            return nn.silu(nn.GroupNorm(num_groups=8)(conv(dtype, channels)(y)))

        y, skips = block(inputs, CHANNELS[IMAGE_SIZE]), []
        for channels in list(CHANNELS.values())[1:]:
            skips.append(y)
            y = block(space_to_depth(y, 2), channels)
        y = y + dense(dtype, y.shape[-1])(condition)[:, None, None]
        for _ in range(self.config.blocks):
            y = y + block(y, y.shape[-1])
        for skip in reversed(skips):
            y = block(jnp.concatenate([_enlarge(y), skip], axis=-1), skip.shape[-1])
            if skip.shape[1] == COARSE:
                coarse_flow = conv(dtype, 2, kernel_init=zeros)(y)
        sizes = np.cumsum(list(OUTPUT_CHANNELS.values()))
        y = conv(dtype, int(sizes[-1]), kernel_init=zeros)(y)
        outputs = dict(zip(OUTPUT_CHANNELS, jnp.split(y, sizes[:-1], axis=-1), strict=True))
        return outputs | {"coarse_flow": coarse_flow}


def _enlarge(y: Float[Array, "n h w c"]) -> Float[Array, "n h2 w2 c"]:
    """Twice as large: each pixel four times."""
    return jnp.repeat(jnp.repeat(y, 2, axis=1), 2, axis=2)


def init(config: ModelConfig, key: Array) -> Any:
    """New weights, as a plain pytree."""
    inputs, condition = jnp.zeros((1, IMAGE_SIZE, IMAGE_SIZE, 9)), jnp.zeros((1, 3 * config.code_dims + 1))
    return UNet(config).init(key, inputs, condition)["params"]


def warp_sources(
    config: ModelConfig,
    params: Any,
    expression: Float[Array, "batch dim"],
    target_decoded: Float[Array, "batch 64 64 3"],
    sources: tuple[Source, ...],
    alpha: Float[Array, "batch"] | None = None,
    refined: bool = False,
) -> WarpOutput:
    """The people of one source each, or of two, with the target expression.

    expression:     the target code.
    target_decoded: what the target codes alone decode to.
    alpha:          with two sources, the position between them: 0 at the first, 1 at the second. Beyond, the nearer
                    one alone is used.
    refined:        for images to look at: sources are sampled by cubic convolution, which blurs less, and points move
                    evenly (`move_evenly`) and a tenth farther (NEW_PEOPLE_GAIN). Training does without.
    """
    k, n = len(sources), expression.shape[0]
    # 1. Align
    pose_flow = float(config.warp_ablation != "paint") * _merge(align(sources, target_decoded, alpha))
    # 2. Warp
    stack = _stack(expression, target_decoded, sources)
    outputs, full_flow = predict_change(config, params, stack, pose_flow)
    if refined:
        full_flow = move_evenly(NEW_PEOPLE_GAIN * full_flow, stack.share)
    flow = stack.share * full_flow
    # 3. Paint
    painted, mask = paint(config, outputs, stack, pose_flow + flow, refined)
    # 4. Blend
    if alpha is None:
        source_weight = jnp.ones((1, n))
    else:
        alpha = jnp.clip(alpha, 0, 1)
        source_weight = jnp.stack([1 - alpha, alpha])
    blended = blend(painted, outputs["blend_logit"], source_weight)
    return WarpOutput(blended, flow.reshape(k, n, 64, 64, 2), mask.reshape(k, n, 64, 64, 1))


def align(
    sources: tuple[Source, ...], target_decoded: Float[Array, "batch 64 64 3"], alpha: Float[Array, "batch"] | None
) -> Float[Array, "sources batch 64 64 2"]:
    """The flow that moves the head of each source to the target pose. It is estimated, not learnt.

    Between two sources the head moves evenly from one to the other. With one source its motion is that between the
    reconstructions from the source's codes and from the target's, which are equally blurred.
    """
    if alpha is None:
        (source,) = sources
        return head_motion(source.decoded, target_decoded)[None]
    first, second = sources
    alpha = jnp.clip(alpha, 0, 1)[:, None, None, None]
    motion = head_motion(first.images, second.images)
    return jnp.stack([alpha * motion, (alpha - 1) * motion])


class _Stack(NamedTuple):
    """All sources of a batch in one axis of rows: the first source of everybody, then the second.

    count:                  of the sources of a person, 1 or 2.
    images_and_decoded:     channels of the source image, then of its reconstruction.
    target_decoded:         what the target codes alone decode to.
    condition, change_norm: from `change_features`.
    """

    count: int
    images_and_decoded: Float[Array, "rows 64 64 6"]
    target_decoded: Float[Array, "rows 64 64 3"]
    condition: Float[Array, "rows c"]
    change_norm: Float[Array, "rows 1 1 1"]

    @property
    def share(self) -> Float[Array, "rows 1 1 1"]:
        """The change as a share of a full one."""
        return self.change_norm / FULL_CHANGE


def _stack(
    expression: Float[Array, "batch dim"], target_decoded: Float[Array, "batch 64 64 3"], sources: tuple[Source, ...]
) -> _Stack:
    condition, change_norm = change_features(expression, sources)
    images = jnp.stack([source.images for source in sources])
    decoded = jnp.stack([source.decoded for source in sources])
    return _Stack(
        count=len(sources),
        images_and_decoded=_merge(jnp.concatenate([images, decoded], axis=-1)),
        target_decoded=jnp.concatenate(len(sources) * [target_decoded]),
        condition=_merge(condition),
        change_norm=change_norm.reshape(-1, 1, 1, 1),
    )


def _merge(values: Float[Array, "sources batch *shape"]) -> Float[Array, "rows *shape"]:
    """The axes of sources and batch as one."""
    return values.reshape(-1, *values.shape[2:])


def change_features(
    expression: Float[Array, "batch dim"], sources: tuple[Source, ...]
) -> tuple[Float[Array, "sources batch c"], Float[Array, "sources batch"]]:
    """The change from each source's expression to the target's, as a condition for the network and as a norm.

    The condition has only the direction of the change, and with it the source's expression and the change from the
    other source. The norm multiplies the flow, which so grows in proportion along a straight line.
    """
    k, n = len(sources), expression.shape[0]
    change = jnp.stack([expression - source.expression for source in sources])
    change_of_other_source = change[::-1] if k == 2 else jnp.zeros_like(change)
    change_norm = rms(change)
    change_direction = change / (change_norm[..., None] + CHANGE_SOFTENING)
    source_expression = jnp.stack([2 * source.expression - 1 for source in sources])
    has_other_source = jnp.full((k, n, 1), float(k - 1))
    condition = [change_direction, source_expression, 2 * change_of_other_source, has_other_source]
    return jnp.concatenate(condition, axis=-1), change_norm


def rms(change: Float[Array, "*batch dim"]) -> Float[Array, "*batch"]:
    """Root mean square of a change of expression: exactly 0, with a finite gradient, if there is none."""
    return jnp.sqrt(jnp.mean(change**2, axis=-1) + EPSILON**2) - EPSILON


def predict_change(
    config: ModelConfig, params: Any, stack: _Stack, pose_flow: Float[Array, "rows 64 64 2"]
) -> tuple[dict[str, Array], Float[Array, "rows 64 64 2"]]:
    """The outputs of the network for the aligned sources, and the flow of a full change, in pixels."""
    aligned, aligned_decoded = jnp.split(warp_image(stack.images_and_decoded, pose_flow), 2, axis=-1)
    pair = aligned.reshape(stack.count, -1, *aligned.shape[1:])
    other_source = (pair[::-1] - pair).reshape(aligned.shape)  # zeros if there is one source
    residual = 2 * (stack.target_decoded - aligned_decoded) / (stack.change_norm + CHANGE_SOFTENING)
    inputs = jnp.concatenate([aligned - 0.5, 2 * other_source, residual], axis=-1)
    outputs: Any = UNet(config).apply({"params": params}, inputs, stack.condition)
    coarse_flow = jax.image.resize(outputs["coarse_flow"], pose_flow.shape, "bilinear")
    use_flow = float(config.warp_ablation != "paint")
    return outputs, use_flow * (COARSE_FLOW_SCALE * coarse_flow + outputs["fine_flow"])


def move_evenly(
    full_flow: Float[Array, "rows 64 64 2"], share: Float[Array, "rows 1 1 1"]
) -> Float[Array, "rows 64 64 2"]:
    """At each pixel, the full flow of the point that is there after a share of the change, 0 to 1.

    A flow says where a pixel is read. Half of it does not move a point half of its way: halfway, the point is at a
    pixel whose flow is that of another point, and a lip starts slowly and ends fast. So the flow is read where the
    point is after the full change, which the flow of the pixel itself estimates.
    """
    return warp_image(full_flow, jnp.minimum(share - 1, 0) * full_flow)


def paint(
    config: ModelConfig, outputs: dict[str, Array], stack: _Stack, flow: Float[Array, "rows 64 64 2"], cubic: bool
) -> tuple[Float[Array, "rows 64 64 3"], Float[Array, "rows 64 64 1"]]:
    """The warped sources, painted over through the mask, and the mask."""
    strength = jnp.minimum(stack.share, 1) * float(config.warp_ablation != "flow")
    mask = strength * nn.sigmoid(outputs["mask"] + MASK_START)
    warped = warp_image(stack.images_and_decoded[..., :3], flow, cubic)
    return warped + scale_pixels(nn.sigmoid(outputs["paint"]) - warped, mask), mask


def blend(
    painted: Float[Array, "rows 64 64 3"],
    blend_logit: Float[Array, "rows 64 64 1"],
    source_weight: Float[Array, "sources batch"],
) -> Float[Array, "batch 64 64 3"]:
    """The mean of the painted sources. At each pixel the network can prefer one, by a factor of up to exp(3)."""
    shape = (*source_weight.shape, IMAGE_SIZE, IMAGE_SIZE)
    preference = jnp.exp(jnp.clip(blend_logit, -3, 3)).reshape(*shape, 1)
    weight = source_weight[:, :, None, None, None] * preference
    weight = weight / jnp.sum(weight, axis=0, keepdims=True)
    return jnp.sum(scale_pixels(painted.reshape(*shape, 3), weight), axis=0)
