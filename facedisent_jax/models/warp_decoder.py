"""The decoder that gives the person of one source image, or of two, another expression.

1. Align the source to the target pose. 2. Warp it by a flow field. 3. Paint what it cannot show (teeth, folds) through
a mask. 4. Blend, if there are two sources. Flow and paint scale with the change of expression, so an unchanged code
returns an exact copy.

After Deforming Autoencoders (Shu et al. 2018) and GANimation (Pumarola et al. 2018). The target is seen in the blurred
image that its codes alone decode to: paint adds what that shows beyond the warped source. The flow is predicted in two
passes; the second sees the sources as the first has warped them, and where two still differ.
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
from facedisent_jax.models.layers import SeparableBlock, dense, depth_to_space, space_to_depth
from facedisent_jax.models.sampling import warp_image

GRID, PATCH = 16, 4  # the network works on 16x16 patches of 4x4 pixels: convolutions at 64x64 are slow on CPU
CONDITION_CHANNELS = 16  # by which the codes tell the convolutions what moves where
COARSE_FLOW_SCALE = 4.0  # pixels per unit of the coarse flow: smiles move lips by 1 to 3
EPSILON = 1e-3  # of `rms`
CHANGE_SOFTENING = 0.02  # RMS of a change of expression that counts half as a direction (a full smile: about 0.4)
# Channels at 16x16 of the outputs for each source, in the first pass and in the second.
FLOW_CHANNELS = {"coarse_flow": 2, "fine_flow": 2 * PATCH**2}
OUTPUT_CHANNELS = FLOW_CHANNELS | {"mask": PATCH**2, "texture": 3 * PATCH**2, "blend_logit": PATCH**2}


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


class FlowNetwork(nn.Module):
    """Convolutions at 16x16 over a source image, conditioned on the codes: what moves, and what is painted.

    inputs:    the image; the other source minus this one, zeros if there is none; what the target decodes to beyond it.
    condition: from `change_features`.
    Returns {name: [n, 16, 16, channels]} of `outputs`, all zeros at the start of training.
    """

    config: ModelConfig
    outputs: tuple[tuple[str, int], ...]

    @nn.compact
    def __call__(self, inputs: Float[Array, "n 64 64 9"], condition: Float[Array, "n c"]) -> dict[str, Array]:
        dtype, width = self.config.dtype, self.config.width
        channels = 3 * width // 8
        condition = nn.silu(dense(dtype, width // 2)(condition))
        spatial_condition = dense(dtype, GRID * GRID * CONDITION_CHANNELS)(condition)
        spatial_condition = spatial_condition.reshape(-1, GRID, GRID, CONDITION_CHANNELS)
        y = dense(dtype, channels)(jnp.concatenate([space_to_depth(inputs, PATCH), spatial_condition], axis=-1))
        for k in range(2 * self.config.blocks):
            y = y + dense(dtype, channels)(condition)[:, None, None]
            y = SeparableBlock(dtype, dilation=1 + k % 2)(y)
        y = nn.LayerNorm()(y)
        names, sizes = zip(*self.outputs, strict=True)
        y = dense(dtype, sum(sizes), kernel_init=nn.initializers.zeros)(y)
        return dict(zip(names, jnp.split(y, np.cumsum(sizes)[:-1], axis=-1), strict=True))


def _networks(config: ModelConfig) -> dict[str, FlowNetwork]:
    """The networks of the two passes."""
    return {
        "first": FlowNetwork(config, tuple(FLOW_CHANNELS.items())),
        "second": FlowNetwork(config, tuple(OUTPUT_CHANNELS.items())),
    }


def init(config: ModelConfig, key: Array) -> Any:
    """New weights, as a plain pytree."""
    inputs, condition = jnp.zeros((1, IMAGE_SIZE, IMAGE_SIZE, 9)), jnp.zeros((1, 3 * config.code_dims + 1))
    networks = _networks(config)
    keys = jax.random.split(key, len(networks))
    return {
        name: network.init(key, inputs, condition)["params"]
        for key, (name, network) in zip(keys, networks.items(), strict=True)
    }


def warp_sources(
    config: ModelConfig,
    params: Any,
    expression: Float[Array, "batch dim"],
    target_decoded: Float[Array, "batch 64 64 3"],
    sources: tuple[Source, ...],
    alpha: Float[Array, "batch"] | None = None,
    cubic: bool = False,
) -> WarpOutput:
    """The people of one source each, or of two, with the target expression.

    expression:     the target code.
    target_decoded: what the target codes alone decode to.
    alpha:          with two sources, the position between them: 0 at the first, 1 at the second. Beyond, the nearer
                    one alone is used.
    cubic:          sample the sources by cubic convolution, which costs more and blurs less.
    """
    k, n = len(sources), len(expression)
    # 1. Align
    pose_flow = float(config.warp_ablation != "paint") * _merge(align(sources, target_decoded, alpha))
    # 2. Warp
    stack = _stack(expression, target_decoded, sources)
    _, flow = predict_flow(config, params, "first", stack, pose_flow)
    outputs, flow_update = predict_flow(config, params, "second", stack, pose_flow + flow)
    flow += flow_update
    # 3. Paint
    painted, mask = paint(config, outputs, stack, pose_flow + flow, cubic)
    # 4. Blend
    if alpha is None:
        source_weight = jnp.ones((1, n))
    else:
        alpha = jnp.clip(alpha, 0, 1)
        source_weight = jnp.stack([1 - alpha, alpha])
    blended = blend(painted, to_pixels(outputs["blend_logit"]), source_weight)
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
    k, n = len(sources), len(expression)
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


def warp_and_residual(
    stack: _Stack, flow: Float[Array, "rows 64 64 2"], cubic: bool = False
) -> tuple[Float[Array, "rows 64 64 3"], Float[Array, "rows 64 64 3"]]:
    """The sources warped by the flow, and what the target decodes to beyond their warped reconstructions."""
    warped, warped_decoded = jnp.split(warp_image(stack.images_and_decoded, flow, cubic), 2, axis=-1)
    return warped, stack.target_decoded - warped_decoded


def predict_flow(
    config: ModelConfig, params: Any, name: str, stack: _Stack, flow: Float[Array, "rows 64 64 2"]
) -> tuple[dict[str, Array], Float[Array, "rows 64 64 2"]]:
    """One pass: the outputs of the network `name` for the sources warped by the flow so far, and what to add to it."""
    warped, residual = warp_and_residual(stack, flow)
    pair = warped.reshape(stack.count, -1, *warped.shape[1:])
    other_source = (pair[::-1] - pair).reshape(warped.shape)  # zeros if there is one source
    residual = 2 * residual / (stack.change_norm + CHANGE_SOFTENING)
    inputs = jnp.concatenate([warped - 0.5, 2 * other_source, residual], axis=-1)
    outputs: Any = _networks(config)[name].apply({"params": params[name]}, inputs, stack.condition)
    coarse_flow = jax.image.resize(outputs["coarse_flow"], flow.shape, "bilinear")
    use_flow = float(config.warp_ablation != "paint")
    flow_update = COARSE_FLOW_SCALE * coarse_flow + to_pixels(outputs["fine_flow"])
    return outputs, use_flow * stack.change_norm * flow_update


def paint(
    config: ModelConfig, outputs: dict[str, Array], stack: _Stack, flow: Float[Array, "rows 64 64 2"], cubic: bool
) -> tuple[Float[Array, "rows 64 64 3"], Float[Array, "rows 64 64 1"]]:
    """The warped sources with the residual and the texture painted over them, and the mask of the paint."""
    mask = nn.sigmoid(to_pixels(outputs["mask"])) * float(config.warp_ablation != "flow")
    warped, residual = warp_and_residual(stack, flow, cubic)
    texture = jnp.minimum(2 * stack.change_norm, 1) * to_pixels(outputs["texture"])
    return warped + scale_pixels(residual + texture, mask), mask


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


def to_pixels(output: Float[Array, "rows 16 16 _"]) -> Float[Array, "rows 64 64 _"]:
    """An output of the network at 16x16, a patch of pixels per cell, at 64x64."""
    return depth_to_space(output, PATCH)
