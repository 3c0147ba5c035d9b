"""PyTorch twins of `facedisent_jax.models`, with the same weights. For the benchmarks alone.

Images are [n, channels, height, width] in one of two memory layouts: contiguous, or channels_last (the channels of a
pixel side by side). Flattening keeps the order of the layout, so neither is slowed down by copies; `tensors` sorts the
weights to match.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from facedisent_jax.config import IMAGE_SIZE, ModelConfig
from facedisent_jax.models.alignment import MIN_IMPROVEMENT, OUTLIER, PYRAMID
from facedisent_jax.models.codes import PIXELS
from facedisent_jax.models.hybrid import FLOW_GRID, FLOW_SCALE
from facedisent_jax.models.warp_decoder import (
    CHANGE_SOFTENING,
    CHANNELS,
    COARSE,
    COARSE_FLOW_SCALE,
    EPSILON,
    FULL_CHANGE,
    MASK_START,
    OUTPUT_CHANNELS,
)


class Codes(NamedTuple):
    """Identity code, and the expression code or its logits, [n, 64] each."""

    identity: Tensor
    expression: Tensor


class Source(NamedTuple):
    """Source images [n, 3, 64, 64], their codes [n, 64], and the reconstruction from these codes alone."""

    images: Tensor
    identity: Tensor
    expression: Tensor
    decoded: Tensor


class WarpOutput(NamedTuple):
    """Images [n, 3, 64, 64]; for each of k sources the flow without the head pose [k, n, 64, 64, 2] and the mask
    [k, n, 1, 64, 64]."""

    images: Tensor
    flow: Tensor
    mask: Tensor


def tensors(params: Any, channels_last: bool) -> Any:
    """Our weights in PyTorch's form: the same tree, dense kernels [out, in], convolutions [out, in, 3, 3].

    Matrices with a row per pixel value keep their form: the decoder's is [out, in], the encoder's [in, out].
    """
    if isinstance(params, dict):
        return {name: tensors(value, channels_last) for name, value in params.items()}
    value = np.array(params, np.float32)
    if not channels_last:  # the values of an image are sorted by channel first
        order = np.arange(PIXELS).reshape(IMAGE_SIZE, IMAGE_SIZE, 3).transpose(2, 0, 1).ravel()
        for axis in range(value.ndim):
            value = np.take(value, order, axis) if value.shape[axis] == PIXELS else value
    if value.ndim == 2 and len(value) != PIXELS:
        value = value.T
    if value.ndim == 4 and value.shape[0] == 3:
        value = value.transpose(3, 2, 0, 1)
    tensor = torch.tensor(np.ascontiguousarray(value))
    return to_layout(tensor, channels_last) if tensor.ndim == 4 else tensor


def to_layout(x: Tensor, channels_last: bool) -> Tensor:
    """x [n, channels, height, width] in the layout."""
    return x.contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)


def flatten(x: Tensor, channels_last: bool) -> Tensor:
    """[n, channels, height, width] -> [n, values] in the order of the layout."""
    return (x.permute(0, 2, 3, 1) if channels_last else x).reshape(len(x), -1)


def unflatten(x: Tensor, channels_last: bool) -> Tensor:
    """[n, 12288] -> images [n, 3, 64, 64]: the inverse of `flatten`."""
    return (
        x.reshape(-1, IMAGE_SIZE, IMAGE_SIZE, 3).permute(0, 3, 1, 2)
        if channels_last
        else x.reshape(-1, 3, IMAGE_SIZE, IMAGE_SIZE)
    )


def space_to_depth(x: Tensor, r: int, channels_last: bool) -> Tensor:
    """[n, c, h, w] -> [n, r*r*c, h/r, w/r], the channels in the order of `layers.space_to_depth`, with one copy."""
    n, c, h, w = x.shape
    x = x.reshape(n, c, h // r, r, w // r, r)
    if channels_last:
        return x.permute(0, 2, 4, 3, 5, 1).reshape(n, h // r, w // r, r * r * c).permute(0, 3, 1, 2)
    return x.permute(0, 3, 5, 1, 2, 4).reshape(n, r * r * c, h // r, w // r)


def depth_to_space(x: Tensor, r: int, channels_last: bool) -> Tensor:
    """The inverse of `space_to_depth`."""
    n, c, h, w = x.shape
    x = x.reshape(n, r, r, c // r**2, h, w)
    if channels_last:
        return x.permute(0, 4, 1, 5, 2, 3).reshape(n, h * r, w * r, c // r**2).permute(0, 3, 1, 2)
    return x.permute(0, 3, 4, 1, 5, 2).reshape(n, c // r**2, h * r, w * r)


def dense(x: Tensor, p: Any) -> Tensor:
    return F.linear(x, p["kernel"], p["bias"])


def conv(x: Tensor, p: Any) -> Tensor:
    return F.conv2d(x, p["kernel"], p["bias"], padding=1)


def layer_norm(x: Tensor, p: Any) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], p["scale"], p["bias"], eps=1e-6)


def group_norm(x: Tensor, p: Any) -> Tensor:
    return F.group_norm(x, 8, p["scale"], p["bias"], eps=1e-6)


def dense_block(x: Tensor, p: Any) -> Tensor:
    return x + dense(F.silu(dense(layer_norm(x, p["LayerNorm_0"]), p["Dense_0"])), p["Dense_1"])


def conv_block(x: Tensor, p: Any) -> Tensor:
    y = conv(F.silu(group_norm(x, p["GroupNorm_0"])), p["Conv_0"])
    return x + conv(F.silu(group_norm(y, p["GroupNorm_1"])), p["Conv_1"])


def encode_logits(config: ModelConfig, params: Any, x: Tensor, channels_last: bool) -> Codes:
    """Images [n, 3, 64, 64] -> identity code and expression logits."""
    p = params["encoder"]
    if config.kind == "plain":
        y = x - 0.5
        for scale in range(4):
            y = conv(space_to_depth(y, 2, channels_last), p[f"Conv_{scale}"])
            y = F.relu(group_norm(y, p[f"GroupNorm_{scale}"]))
        y = dense(y.permute(0, 2, 3, 1).reshape(len(y), -1), p["Dense_0"])
        return Codes(y[:, : config.code_dims], y[:, config.code_dims :])
    values = (flatten(x, channels_last) - p["mean"].detach()) / PIXELS**0.5
    y, linear = (values @ p["pixel_kernel"]).split([config.width, 2 * config.code_dims], dim=-1)

    for k in range(config.blocks):
        y = dense_block(y, p[f"DenseBlock_{k}"])
    identity = dense(layer_norm(y, p["LayerNorm_0"]), p["identity"])

    y = conv(space_to_depth(x - 0.5, 4, channels_last), p["Conv_0"])
    y = F.silu(group_norm(y, p["GroupNorm_0"]))
    y = conv_block(conv(space_to_depth(y, 2, channels_last), p["Conv_1"]), p["ConvBlock_0"])
    y = F.silu(group_norm(y, p["GroupNorm_1"])).permute(0, 2, 3, 1).reshape(len(y), -1)
    y = F.silu(layer_norm(dense(y / y.shape[-1] ** 0.5, p["Dense_0"]), p["LayerNorm_1"]))
    expression = dense(y, p["expression"])

    return Codes(identity + linear[:, : config.code_dims], expression + linear[:, config.code_dims :])


def encode(config: ModelConfig, params: Any, x: Tensor, channels_last: bool) -> Codes:
    identity, logits = encode_logits(config, params, x, channels_last)
    return Codes(identity, torch.sigmoid(logits))


def decode(config: ModelConfig, params: Any, codes: Codes, channels_last: bool) -> Tensor:
    """Codes -> images [n, 3, 64, 64], from the codes alone."""
    p, signed_codes = params["decoder"], torch.cat([codes.identity, 2 * codes.expression - 1], dim=-1)
    y = dense(signed_codes, p["Dense_0"])
    if config.kind == "plain":
        y = to_layout(y.reshape(-1, 4, 4, config.width << 3).permute(0, 3, 1, 2), channels_last)
        for scale in range(4):
            y = F.relu(group_norm(y, p[f"GroupNorm_{scale}"]))
            y = depth_to_space(conv(y, p[f"Conv_{scale}"]), 2, channels_last)
        return y + 0.5
    for k in range(config.blocks):
        y = dense_block(y, p[f"DenseBlock_{k}"])
    y = layer_norm(y, p["LayerNorm_0"])
    flow = dense(torch.cat([y, signed_codes], dim=-1), p["flow"]).reshape(-1, FLOW_GRID, FLOW_GRID, 2)
    flow = F.interpolate(flow.permute(0, 3, 1, 2), size=IMAGE_SIZE, mode="bilinear").permute(0, 2, 3, 1)
    y = torch.cat([y / config.width**0.5, signed_codes / (2 * config.code_dims) ** 0.5], dim=-1)
    images = unflatten(F.linear(y, p["pixel_kernel"], p["mean"]), channels_last)
    return warp_image(images, FLOW_SCALE * flow)


def warp_image(images: Tensor, flow: Tensor) -> Tensor:
    """Images [n, 3, h, w] read `flow` pixels (rows, columns) [n, h, w, 2] away, bilinearly."""
    size = images.shape[-1]
    axis = torch.arange(size, dtype=torch.float32, device=images.device) * (2 / (size - 1)) - 1
    positions = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), dim=-1)  # columns first, as in grid_sample
    grid = positions + flow.flip(-1) * (2 / (size - 1))
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=True)


def head_motion(first: Tensor, second: Tensor) -> Tensor:
    """`alignment.head_motion`: images [n, 3, h, w] each -> flow [n, h, w, 2]."""
    first, second = standardize(first), standardize(second)
    size, coefficients = first.shape[-1], torch.zeros(len(first), 4, device=first.device)
    for factor, steps in PYRAMID.items():
        basis = similarity_basis(size, factor, first.device)
        start, end = F.avg_pool2d(first, factor), F.avg_pool2d(second, factor)
        for _ in range(steps):
            warped = warp_image(start, torch.einsum("hwdk,nk->nhwd", basis, coefficients))
            coefficients = coefficients - gauss_newton_step(basis, warped, end)
    flow = torch.einsum("hwdk,nk->nhwd", similarity_basis(size, 1, first.device), coefficients)
    before, after = ((x - second).abs().mean((1, 2, 3)) for x in (first, warp_image(first, flow)))
    return ((before - after) / (MIN_IMPROVEMENT * before + 1e-6)).clamp(0, 1)[:, None, None, None] * flow


def standardize(images: Tensor) -> Tensor:
    """Grey images with mean 0 and standard deviation 1, [n, 1, h, w]."""
    grey = images.mean(1, keepdim=True)
    grey = grey - grey.mean((2, 3), keepdim=True)
    return grey / ((grey**2).mean((2, 3), keepdim=True).sqrt() + 0.01)


def similarity_basis(size: int, factor: int, device: torch.device) -> Tensor:
    """`alignment.similarity_basis`."""
    axis = (2 * torch.arange(size // factor, device=device) + 1) * (factor / size) - 1
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    ones, zeros = torch.ones_like(y), torch.zeros_like(y)
    rows, columns = torch.stack([ones, zeros, y, x], -1), torch.stack([zeros, ones, x, -y], -1)
    return torch.stack([rows, columns], 2) / factor


def gauss_newton_step(basis: Tensor, start: Tensor, end: Tensor) -> Tensor:
    """The step to subtract from the coefficients, [n, 4]; images of one channel."""
    padded = F.pad(start, (1, 1, 1, 1), mode="replicate")[:, 0]
    dy, dx = padded[:, 2:, 1:-1] - padded[:, :-2, 1:-1], padded[:, 1:-1, 2:] - padded[:, 1:-1, :-2]
    jacobian = torch.einsum("nhwd,hwdk->nhwk", torch.stack([dy, dx], -1) / 2, basis)
    difference = (start - end)[:, 0]
    residual_scale = OUTLIER * difference.abs().mean((1, 2), keepdim=True) + 1e-4
    weighted_jacobian = jacobian / ((1 + (difference / residual_scale) ** 2) ** 2)[..., None]
    jacobian, weighted_jacobian = jacobian.flatten(1, 2), weighted_jacobian.flatten(1, 2)
    hessian = weighted_jacobian.transpose(1, 2) @ jacobian
    damping = 1e-6 + 1e-4 * hessian.diagonal(dim1=1, dim2=2).sum(-1)
    hessian = hessian + damping[:, None, None] * torch.eye(4, device=start.device)
    rhs = weighted_jacobian.transpose(1, 2) @ difference.flatten(1)[..., None]
    return torch.linalg.solve(hessian, rhs)[..., 0]


def align(sources: tuple[Source, ...], target_decoded: Tensor, alpha: Tensor | None) -> Tensor:
    """`warp_decoder.align`: [k, n, 64, 64, 2]."""
    if alpha is None:
        return head_motion(sources[0].decoded, target_decoded)[None]
    alpha = alpha.clamp(0, 1)[:, None, None, None]
    motion = head_motion(sources[0].images, sources[1].images)
    return torch.stack([alpha * motion, (alpha - 1) * motion])


def u_net(config: ModelConfig, p: Any, inputs: Tensor, condition: Tensor, channels_last: bool) -> dict[str, Tensor]:
    """`warp_decoder.UNet`: inputs [n, 9, 64, 64] -> {name: [n, channels, 16, 16] or [n, channels, 64, 64]}."""
    counts = {"Conv": 0, "GroupNorm": 0}

    def next_layer(kind: str) -> Any:
        counts[kind] += 1
        return p[f"{kind}_{counts[kind] - 1}"]

    def block(y: Tensor) -> Tensor:
        return F.silu(group_norm(conv(y, next_layer("Conv")), next_layer("GroupNorm")))

    y, skips, outputs = block(inputs), [], {}
    for _ in range(len(CHANNELS) - 1):
        skips.append(y)
        y = block(space_to_depth(y, 2, channels_last))
    y = y + dense(condition, p["Dense_0"])[:, :, None, None]
    for _ in range(config.blocks):
        y = y + block(y)
    for skip in reversed(skips):
        y = block(torch.cat([F.interpolate(y, scale_factor=2), skip], 1))
        if skip.shape[2] == COARSE:
            outputs["coarse_flow"] = conv(y, next_layer("Conv"))
    y = conv(y, next_layer("Conv"))
    return outputs | dict(zip(OUTPUT_CHANNELS, y.split(list(OUTPUT_CHANNELS.values()), dim=1), strict=True))


def change_features(expression: Tensor, sources: tuple[Source, ...]) -> tuple[Tensor, Tensor]:
    """`warp_decoder.change_features`, with the axes of sources and batch as one: [k * n, c], [k * n, 1, 1, 1]."""
    k, n = len(sources), len(expression)
    change = torch.stack([expression - source.expression for source in sources])
    change_of_other_source = change.flip(0) if k == 2 else torch.zeros_like(change)
    change_norm = torch.sqrt((change**2).mean(-1) + EPSILON**2) - EPSILON
    change_direction = change / (change_norm[..., None] + CHANGE_SOFTENING)
    source_expression = torch.stack([2 * source.expression - 1 for source in sources])
    has_other_source = torch.full((k, n, 1), float(k - 1), device=expression.device)
    condition = [change_direction, source_expression, 2 * change_of_other_source, has_other_source]
    return torch.cat(condition, dim=-1).flatten(0, 1), change_norm.reshape(k * n, 1, 1, 1)


def decode_from_sources(
    config: ModelConfig,
    params: Any,
    codes: Codes,
    sources: tuple[Source, ...],
    channels_last: bool,
    alpha: Tensor | None = None,
) -> WarpOutput:
    """`models.decode_from_sources` with bilinear sampling, as training uses it."""
    identity, expression = codes
    k, n = len(sources), len(expression)
    source_weight = torch.ones(1, n, device=expression.device)
    if alpha is not None:
        source_weight = torch.stack([1 - alpha.clamp(0, 1), alpha.clamp(0, 1)])
        identity = source_weight[0][:, None] * sources[0].identity + source_weight[1][:, None] * sources[1].identity
    with torch.no_grad():
        target_decoded = decode(config, params, Codes(identity, expression), channels_last)
        pose_flow = align(sources, target_decoded, alpha).flatten(0, 1)
    condition, change_norm = change_features(expression, sources)
    images = torch.stack([source.images for source in sources])
    decoded = torch.stack([source.decoded for source in sources]).detach()
    images_and_decoded = to_layout(torch.cat([images, decoded], dim=2).flatten(0, 1), channels_last)
    target_decoded = torch.cat([target_decoded] * k)

    aligned, aligned_decoded = warp_image(images_and_decoded, pose_flow).split(3, dim=1)
    pair = aligned.reshape(k, n, 3, IMAGE_SIZE, IMAGE_SIZE)
    other_source = (pair.flip(0) - pair).reshape(aligned.shape)
    residual = 2 * (target_decoded - aligned_decoded) / (change_norm + CHANGE_SOFTENING)
    inputs = torch.cat([aligned - 0.5, 2 * other_source, residual], 1)
    outputs = u_net(config, params["warp"], inputs, condition, channels_last)
    coarse_flow = F.interpolate(outputs["coarse_flow"], size=IMAGE_SIZE, mode="bilinear")
    flow = change_norm / FULL_CHANGE * (COARSE_FLOW_SCALE * coarse_flow + outputs["fine_flow"])
    flow = flow.permute(0, 2, 3, 1)
    mask = (change_norm / FULL_CHANGE).clamp(max=1) * torch.sigmoid(outputs["mask"] + MASK_START)
    warped = warp_image(images_and_decoded[:, :3], pose_flow + flow)
    painted = warped + mask * (torch.sigmoid(outputs["paint"]) - warped)
    preference = torch.exp(outputs["blend_logit"].clamp(-3, 3))
    weight = source_weight[:, :, None, None, None] * preference.reshape(k, n, 1, IMAGE_SIZE, IMAGE_SIZE)
    blended = (weight * painted.reshape(k, n, 3, IMAGE_SIZE, IMAGE_SIZE)).sum(0) / weight.sum(0)
    return WarpOutput(
        blended,
        flow.reshape(k, n, IMAGE_SIZE, IMAGE_SIZE, 2),
        mask.reshape(k, n, 1, IMAGE_SIZE, IMAGE_SIZE),
    )
