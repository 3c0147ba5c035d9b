"""The networks of `facedisent_jax.model` and `facedisent_jax.warp` in PyTorch, with the same weights, and
`facedisent_jax.align`.

For the benchmarks alone. Pictures are [n, channels, height, width] in one of two layouts in memory: contiguous, or
channels_last (the numbers of a pixel side by side). What is flattened keeps the order of its layout, so that copies put
neither at a disadvantage: `tensors` sorts the weights accordingly.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from facedisent_jax.config import CODE_DIMS, IMAGE_SIZE, ModelConfig
from facedisent_jax.models.alignment import MIN_IMPROVEMENT, OUTLIER, PYRAMID
from facedisent_jax.models.codes import PIXELS
from facedisent_jax.models.warp_decoder import (
    CHANGE_SOFTENING,
    COARSE_FLOW_SCALE,
    CONDITION_CHANNELS,
    EPSILON,
    FLOW_CHANNELS,
    GRID,
    OUTPUT_CHANNELS,
    PATCH,
)


class Codes(NamedTuple):
    """Identity code, and the expression code or its logits, [n, 64] each."""

    identity: Tensor
    expression: Tensor


class Source(NamedTuple):
    """Pictures of the people to be shown [n, 3, 64, 64], their codes [n, 64], and what these alone decode to."""

    pictures: Tensor
    identity: Tensor
    expression: Tensor
    decoded: Tensor


class Shown(NamedTuple):
    """Pictures [n, 3, 64, 64], and of the k sources the displacement beside the head's own motion [k, n, 64, 64, 2] and
    the mask [k, n, 1, 64, 64]."""

    pictures: Tensor
    displacement: Tensor
    mask: Tensor


def tensors(params: Any, channels_last: bool) -> Any:
    """Our weights as PyTorch stores its own: the same tree, dense kernels [out, in], convolutions [out, in, 3, 3].
    Matrices with a row a pixel stay as they are: the decoder's is [out, in], the encoder's [in, out]."""
    if isinstance(params, dict):
        return {name: tensors(value, channels_last) for name, value in params.items()}
    value = np.array(params, np.float32)
    if not channels_last:  # the numbers of a picture are sorted by colour first, not by place
        order = np.arange(PIXELS).reshape(IMAGE_SIZE, IMAGE_SIZE, 3).transpose(2, 0, 1).ravel()
        for axis in range(value.ndim):
            value = np.take(value, order, axis) if value.shape[axis] == PIXELS else value
    if value.ndim == 2 and len(value) != PIXELS:
        value = value.T
    if value.ndim == 3:  # a depthwise kernel
        value = value.transpose(2, 0, 1)[:, None]
    if value.ndim == 4 and value.shape[0] == 3:
        value = value.transpose(3, 2, 0, 1)
    tensor = torch.tensor(np.ascontiguousarray(value))
    return placed(tensor, channels_last) if tensor.ndim == 4 else tensor


def placed(x: Tensor, channels_last: bool) -> Tensor:
    """x [n, channels, height, width] in the layout asked for."""
    return x.contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)


def flat(x: Tensor, channels_last: bool) -> Tensor:
    """[n, channels, height, width] -> [n, numbers] in the order of the layout."""
    return (x.permute(0, 2, 3, 1) if channels_last else x).reshape(len(x), -1)


def unflat(x: Tensor, channels_last: bool) -> Tensor:
    """[n, 12288] -> pictures [n, 3, 64, 64]: the inverse of `flat`."""
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


def separable_block(x: Tensor, p: Any, apart: int, channels_last: bool) -> Tensor:
    """x: [n, height, width, channels], as dense layers want it."""
    y = placed(x.permute(0, 3, 1, 2), channels_last)
    y = F.conv2d(y, p["kernel"], padding=apart, dilation=apart, groups=y.shape[1]).permute(0, 2, 3, 1)
    return x + dense(F.silu(dense(layer_norm(y, p["LayerNorm_0"]), p["Dense_0"])), p["Dense_1"])


def encode_logits(config: ModelConfig, params: Any, x: Tensor, channels_last: bool) -> Codes:
    """Pictures [n, 3, 64, 64] -> identity code and expression logits."""
    p = params["encoder"]
    if config.kind == "plain":
        y = x - 0.5
        for scale in range(4):
            y = conv(space_to_depth(y, 2, channels_last), p[f"Conv_{scale}"])
            y = F.relu(group_norm(y, p[f"GroupNorm_{scale}"]))
        y = dense(y.permute(0, 2, 3, 1).reshape(len(y), -1), p["Dense_0"])
        return Codes(y[:, :CODE_DIMS], y[:, CODE_DIMS:])
    numbers = (flat(x, channels_last) - p["mean"].detach()) / PIXELS**0.5
    y, straight = (numbers @ p["pixels"]).split([config.width, 2 * CODE_DIMS], dim=-1)

    for k in range(config.blocks):
        y = dense_block(y, p[f"DenseBlock_{k}"])
    identity = dense(layer_norm(y, p["LayerNorm_0"]), p["identity"])

    y = conv(space_to_depth(x - 0.5, 4, channels_last), p["Conv_0"])
    y = F.silu(group_norm(y, p["GroupNorm_0"]))
    y = conv_block(conv(space_to_depth(y, 2, channels_last), p["Conv_1"]), p["ConvBlock_0"])
    y = F.silu(group_norm(y, p["GroupNorm_1"])).permute(0, 2, 3, 1).reshape(len(y), -1)
    y = F.silu(layer_norm(dense(y / y.shape[-1] ** 0.5, p["Dense_0"]), p["LayerNorm_1"]))
    expression = dense(y, p["expression"])

    return Codes(identity + straight[:, :CODE_DIMS], expression + straight[:, CODE_DIMS:])


def encode(config: ModelConfig, params: Any, x: Tensor, channels_last: bool) -> Codes:
    identity, logits = encode_logits(config, params, x, channels_last)
    return Codes(identity, torch.sigmoid(logits))


def decode(config: ModelConfig, params: Any, codes: Codes, channels_last: bool) -> Tensor:
    """Codes -> pictures [n, 3, 64, 64], from the codes alone."""
    p, both = params["decoder"], torch.cat([codes.identity, 2 * codes.expression - 1], dim=-1)
    y = dense(both, p["Dense_0"])
    if config.kind == "plain":
        y = placed(y.reshape(-1, 4, 4, config.width << 3).permute(0, 3, 1, 2), channels_last)
        for scale in range(4):
            y = F.relu(group_norm(y, p[f"GroupNorm_{scale}"]))
            y = depth_to_space(conv(y, p[f"Conv_{scale}"]), 2, channels_last)
        return y + 0.5
    for k in range(config.blocks):
        y = dense_block(y, p[f"DenseBlock_{k}"])
    y = torch.cat([layer_norm(y, p["LayerNorm_0"]) / config.width**0.5, both / (2 * CODE_DIMS) ** 0.5], dim=-1)
    return unflat(F.linear(y, p["pixels"], p["mean"]), channels_last)


def displaced(pictures: Tensor, displacement: Tensor) -> Tensor:
    """Pictures [n, 3, h, w] read `displacement` pixels (rows, columns) [n, h, w, 2] away, bilinearly."""
    size = pictures.shape[-1]
    middle = torch.arange(size, dtype=torch.float32) * (2 / (size - 1)) - 1
    places = torch.stack(torch.meshgrid(middle, middle, indexing="xy"), dim=-1)  # columns first, as grid_sample's
    grid = places + displacement.flip(-1) * (2 / (size - 1))
    return F.grid_sample(pictures, grid, mode="bilinear", padding_mode="border", align_corners=True)


def head_motion(first: Tensor, second: Tensor) -> Tensor:
    """`align.head_motion`: pictures [n, 3, h, w] each -> displacements [n, h, w, 2]."""
    first, second = standardised(first), standardised(second)
    size, moved = first.shape[-1], torch.zeros(len(first), 4)
    for side, steps in PYRAMID.items():
        basis, start, end = similarities(size, side), F.avg_pool2d(first, side), F.avg_pool2d(second, side)
        for _ in range(steps):
            moved = moved - gauss_newton(basis, displaced(start, torch.einsum("hwdk,nk->nhwd", basis, moved)), end)
    found = torch.einsum("hwdk,nk->nhwd", similarities(size), moved)
    before, after = ((x - second).abs().mean((1, 2, 3)) for x in (first, displaced(first, found)))
    return ((before - after) / (MIN_IMPROVEMENT * before + 1e-6)).clamp(0, 1)[:, None, None, None] * found


def standardised(pictures: Tensor) -> Tensor:
    """In grey, of mean 0 and standard deviation 1, [n, 1, h, w]."""
    grey = pictures.mean(1, keepdim=True)
    grey = grey - grey.mean((2, 3), keepdim=True)
    return grey / ((grey**2).mean((2, 3), keepdim=True).sqrt() + 0.01)


def similarities(size: int, side: int = 1) -> Tensor:
    """`align.similarities`."""
    across = (2 * torch.arange(size // side) + 1) * (side / size) - 1
    down, right = torch.meshgrid(across, across, indexing="ij")
    one, none = torch.ones_like(down), torch.zeros_like(down)
    rows, columns = torch.stack([one, none, down, right], -1), torch.stack([none, one, right, -down], -1)
    return torch.stack([rows, columns], 2) / side


def gauss_newton(basis: Tensor, start: Tensor, end: Tensor) -> Tensor:
    """What a step takes from the coefficients, [n, 4]; pictures of one channel."""
    padded = F.pad(start, (1, 1, 1, 1), mode="replicate")[:, 0]
    down, right = padded[:, 2:, 1:-1] - padded[:, :-2, 1:-1], padded[:, 1:-1, 2:] - padded[:, 1:-1, :-2]
    slope = torch.einsum("nhwd,hwdk->nhwk", torch.stack([down, right], -1) / 2, basis)
    difference = (start - end)[:, 0]
    usual = OUTLIER * difference.abs().mean((1, 2), keepdim=True) + 1e-4
    weighted = slope / ((1 + (difference / usual) ** 2) ** 2)[..., None]
    slope, weighted = slope.flatten(1, 2), weighted.flatten(1, 2)
    normal = weighted.transpose(1, 2) @ slope
    slack = 1e-6 + 1e-4 * normal.diagonal(dim1=1, dim2=2).sum(-1)
    normal = normal + slack[:, None, None] * torch.eye(4)
    return torch.linalg.solve(normal, weighted.transpose(1, 2) @ difference.flatten(1)[..., None])[..., 0]


def head(decoded: Tensor, sources: tuple[Source, ...], place: Any) -> Tensor:
    """`model._head`: [k, n, 64, 64, 2]."""
    if len(sources) == 2:
        share = place.clamp(0, 1)[:, None, None, None]
        found = head_motion(sources[0].pictures, sources[1].pictures)
        return torch.stack([share * found, (share - 1) * found])
    return head_motion(sources[0].decoded, decoded)[None]


def warp(config: ModelConfig, p: Any, heads: dict[str, int], seen: Tensor, codes: Tensor, channels_last: bool) -> dict:
    """`warp.Warp`: seen [n, 9, 64, 64] -> {name: [n, 16, 16, channels]}."""
    told = F.silu(dense(codes, p["Dense_0"]))
    places = dense(told, p["Dense_1"]).reshape(-1, GRID, GRID, CONDITION_CHANNELS)
    patches = space_to_depth(seen, PATCH, channels_last=True).permute(0, 2, 3, 1)
    y = dense(torch.cat([patches, places], dim=-1), p["Dense_2"])
    for k in range(2 * config.blocks):
        y = y + dense(told, p[f"Dense_{3 + k}"])[:, None, None]
        y = separable_block(y, p[f"SeparableBlock_{k}"], 1 + k % 2, channels_last)
    y = dense(layer_norm(y, p["LayerNorm_0"]), p[f"Dense_{3 + 2 * config.blocks}"])
    return dict(zip(heads, y.split(list(heads.values()), dim=-1), strict=True))


def show(
    config: ModelConfig,
    params: Any,
    codes: Codes,
    sources: tuple[Source, ...],
    channels_last: bool,
    place: Tensor | None = None,
) -> Shown:
    """`model.show` with bilinear reading, as training uses it."""
    identity, expression = codes
    if place is not None:
        share = place.clamp(0, 1)[:, None]
        identity = (1 - share) * sources[0].identity + share * sources[1].identity
    with torch.no_grad():
        decoded = decode(config, params, Codes(identity, expression), channels_last)
        begin = head(decoded, sources, place).flatten(0, 1)
    k, n = len(sources), len(expression)
    change = torch.stack([expression - source.expression for source in sources])
    pictures = torch.stack([source.pictures for source in sources])
    if place is not None:
        other_change, share = change.flip(0), place.clamp(0, 1)
        shares = torch.stack([1 - share, share])
    else:
        other_change, shares = torch.zeros_like(change), torch.ones(1, n)
    far = torch.sqrt((change**2).mean(-1) + EPSILON**2) - EPSILON
    form = change / (far[..., None] + CHANGE_SOFTENING)
    begun = torch.stack([2 * source.expression - 1 for source in sources])
    told = torch.cat([form, begun, 2 * other_change, torch.full((k, n, 1), float(k - 1))], dim=-1)
    told, far = told.reshape(k * n, -1), far.reshape(k * n, 1, 1, 1)
    own = torch.stack([source.decoded for source in sources]).detach()
    both = placed(torch.cat([pictures, own], dim=2).reshape(k * n, 6, IMAGE_SIZE, IMAGE_SIZE), channels_last)
    asked = torch.cat([decoded] * k)

    def fine(value: Tensor) -> Tensor:
        return depth_to_space(value.permute(0, 3, 1, 2), PATCH, channels_last)

    def laid(displacement: Tensor) -> tuple[Tensor, Tensor]:
        picture, blurred = displaced(both, displacement).split(3, dim=1)
        return picture, asked - blurred

    def heads(name: str, channels: dict[str, int], displacement: Tensor) -> tuple[dict, Tensor]:
        picture, new = laid(displacement)
        pair = picture.reshape(k, n, 3, IMAGE_SIZE, IMAGE_SIZE)
        other = (pair.flip(0) - pair).reshape(picture.shape)
        seen = torch.cat([picture - 0.5, 2 * other, 2 * new / (far + CHANGE_SOFTENING)], 1)
        said = warp(config, params["warp"][name], channels, seen, told, channels_last)
        coarse = F.interpolate(said["coarse"].permute(0, 3, 1, 2), scale_factor=PATCH, mode="bilinear")
        return said, far * (COARSE_FLOW_SCALE * coarse + fine(said["fine"])).permute(0, 2, 3, 1)

    _, bent = heads("first", FLOW_CHANNELS, begin)
    said, further = heads("second", OUTPUT_CHANNELS, begin + bent)
    bent = bent + further
    mask = torch.sigmoid(fine(said["mask"]))
    picture, new = laid(begin + bent)
    made = picture + mask * (new + (2 * far).clamp(max=1) * fine(said["texture"]))
    weight = torch.exp(fine(said["preference"]).clamp(-3, 3)).reshape(k, n, 1, IMAGE_SIZE, IMAGE_SIZE)
    weight = shares[:, :, None, None, None] * weight
    blended = (weight * made.reshape(k, n, 3, IMAGE_SIZE, IMAGE_SIZE)).sum(0) / weight.sum(0)
    return Shown(blended, bent.reshape(k, n, IMAGE_SIZE, IMAGE_SIZE, 2), mask.reshape(k, n, 1, IMAGE_SIZE, IMAGE_SIZE))
