"""From a picture of a person, or two, and an expression code to that person with that expression.

Each source picture is laid on where the head is to be, bent by a displacement field, and what it cannot show (teeth,
folds) is painted over it through a mask; of two sources the results are blended. After Deforming Autoencoders (Shu et
al. 2018) and GANimation (Pumarola et al. 2018). What the codes ask for is seen in the blurred pictures that they alone
decode to: paint adds what these show beyond the bent source. The field and what else is painted are in proportion to
how far the expression code is from the source's own, so that no change of either code is an exact copy. Two passes: the
second sees the sources as the first has bent them, and where two still differ.
Imports config, layers and sampling.
"""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from facedisent_jax.config import ModelConfig
from facedisent_jax.models.cpu import scale_pixels
from facedisent_jax.models.layers import SeparableBlock, dense, depth_to_space, space_to_depth
from facedisent_jax.models.sampling import warp_image

GRID, PATCH = 16, 4
"""The network works on 16x16 patches of 4x4 pixels: convolutions at 64x64 are slow on CPU."""
CONDITION_CHANNELS = 16
"""Channels by which the codes tell the convolutions what moves where."""
COARSE_FLOW_SCALE = 4.0
"""Pixels that a unit of the coarse displacement moves: smiles move lips by 1 to 3."""
EPSILON = 1e-3
CHANGE_SOFTENING = 0.02
"""A change of expression of this extent (a full smile: about 0.4) counts half as a direction."""
FLOW_CHANNELS = {"coarse": 2, "fine": 2 * PATCH**2}
OUTPUT_CHANNELS = FLOW_CHANNELS | {"mask": PATCH**2, "texture": 3 * PATCH**2, "preference": PATCH**2}
"""Channels at 16x16 of what the first pass and the second say of a source."""


class Source(NamedTuple):
    """Pictures of the people to be shown [n, 64, 64, 3] in [0, 1], their codes [n, 64], and what these alone decode to,
    as the pictures."""

    pictures: Float[Array, "batch 64 64 3"]
    identity: Float[Array, "batch 64"]
    expression: Float[Array, "batch 64"]
    decoded: Float[Array, "batch 64 64 3"]


class WarpOutput(NamedTuple):
    """What `show` makes, and of the k sources the displacement in pixels (rows, columns), beside the head's own motion,
    and the mask in [0, 1]."""

    pictures: Float[Array, "batch 64 64 3"]
    displacement: Float[Array, "sources batch 64 64 2"]
    mask: Float[Array, "sources batch 64 64 1"]


def rms(change: Float[Array, "*batch dim"]) -> Float[Array, "*batch"]:
    """Root mean square of a change of expression: exactly 0, with a finite gradient, where there is none."""
    return jnp.sqrt(jnp.mean(change**2, axis=-1) + EPSILON**2) - EPSILON


class FlowNetwork(nn.Module):
    """Convolutions at 16x16 over a source picture, told by the codes: what moves, what is painted.

    seen [n, 64, 64, 9]: the picture; the second source less this one, zeros where there is none; what the codes alone
    show beyond it. codes [n, c] -> {name: [n, 16, 16, channels]} of the heads, all zeros at first.
    """

    config: ModelConfig
    heads: tuple[tuple[str, int], ...]

    @nn.compact
    def __call__(self, seen, codes):
        dtype, width = self.config.dtype, self.config.width
        channels = 3 * width // 8
        told = nn.silu(dense(dtype, width // 2)(codes))
        places = dense(dtype, GRID * GRID * CONDITION_CHANNELS)(told).reshape(-1, GRID, GRID, CONDITION_CHANNELS)
        y = dense(dtype, channels)(jnp.concatenate([space_to_depth(seen, PATCH), places], axis=-1))
        for k in range(2 * self.config.blocks):
            y = y + dense(dtype, channels)(told)[:, None, None]
            y = SeparableBlock(dtype, apart=1 + k % 2)(y)
        y = nn.LayerNorm()(y)
        names, sizes = zip(*self.heads, strict=True)
        y = dense(dtype, sum(sizes), kernel_init=nn.initializers.zeros)(y)
        return dict(zip(names, jnp.split(y, np.cumsum(sizes)[:-1], axis=-1), strict=True))


def _passes(config: ModelConfig) -> dict[str, FlowNetwork]:
    return {
        name: FlowNetwork(config, tuple(heads.items()))
        for name, heads in (("first", FLOW_CHANNELS), ("second", OUTPUT_CHANNELS))
    }


def warp_sources(
    config: ModelConfig,
    params: Any,
    expression: Float[Array, "batch 64"],
    decoded: Float[Array, "batch 64 64 3"],
    sources: tuple[Source, ...],
    head: Float[Array, "sources batch 64 64 2"],
    place: Any = None,
    sharp: bool = False,
) -> WarpOutput:
    """The people of one source, or of two pictures of each, with the expressions of the codes.

    expression: [n, 64]. decoded: what the codes asked for alone decode to. head: displacements that lay each source on
    where the head is to be, before it is bent. place: [n] where between two sources, 0 at the first and 1 at the
    second; beyond, the nearer one alone is moved. sharp: the sources are read by cubic convolution, which costs more
    and blurs less.
    """
    k, n = len(sources), len(expression)
    change = jnp.stack([expression - source.expression for source in sources])
    pictures = jnp.stack([source.pictures for source in sources])
    if k == 2:
        other_change, share = change[::-1], jnp.clip(place, 0, 1)
        shares = jnp.stack([1 - share, share])
    else:
        other_change, shares = jnp.zeros_like(change), jnp.ones((1, n))
    far = rms(change)
    # The network is told the direction of the change, as number and as picture; its size multiplies the field, which
    # so grows in proportion along a straight line.
    form = change / (far[..., None] + CHANGE_SOFTENING)
    begun = jnp.stack([2 * source.expression - 1 for source in sources])
    codes = jnp.concatenate([form, begun, 2 * other_change, jnp.full((k, n, 1), float(k - 1))], axis=-1)
    codes, far = codes.reshape(k * n, -1), far.reshape(k * n, 1, 1, 1)
    moves = config.warp_ablation != "paint"
    head = moves * head.reshape(k * n, *head.shape[2:])
    asked = jnp.concatenate(k * [decoded])
    both = jnp.concatenate([pictures, jnp.stack([source.decoded for source in sources])], axis=-1)
    both = both.reshape(k * n, *both.shape[2:])

    def laid(displacement, cubic=False):
        """The sources where they are to be, and what the codes asked for show beyond that: [k * n, 64, 64, 3] each."""
        picture, blurred = jnp.split(warp_image(both, displacement, cubic), 2, axis=-1)
        return picture, asked - blurred

    def heads(name, displacement):
        picture, new = laid(displacement)
        pair = picture.reshape(pictures.shape)
        other = (pair[::-1] - pair).reshape(picture.shape)  # zeros where there is one alone
        seen = jnp.concatenate([picture - 0.5, 2 * other, 2 * new / (far + CHANGE_SOFTENING)], axis=-1)
        said = _passes(config)[name].apply({"params": params[name]}, seen, codes)
        coarse = jax.image.resize(said["coarse"], (k * n, GRID * PATCH, GRID * PATCH, 2), "bilinear")  # type: ignore[index]
        return said, moves * far * (COARSE_FLOW_SCALE * coarse + depth_to_space(said["fine"], PATCH))  # type: ignore[index]

    _, bent = heads("first", head)
    said, further = heads("second", head + bent)

    def fine(name):
        return depth_to_space(said[name], PATCH)

    bent += further
    mask = nn.sigmoid(fine("mask")) * (config.warp_ablation != "flow")
    picture, new = laid(head + bent, sharp)
    made = picture + scale_pixels(new + jnp.minimum(2 * far, 1) * fine("texture"), mask)
    weight = shares[:, :, None, None, None] * jnp.exp(jnp.clip(fine("preference"), -3, 3)).reshape(k, n, 64, 64, 1)
    share = weight / jnp.sum(weight, axis=0, keepdims=True)
    blended = jnp.sum(scale_pixels(made.reshape(k, n, 64, 64, 3), share), axis=0)
    return WarpOutput(blended, bent.reshape(k, n, 64, 64, 2), mask.reshape(k, n, 64, 64, 1))


def init(config: ModelConfig, key: Array) -> Any:
    """New weights, as a plain pytree."""
    seen, codes = jnp.zeros((1, 64, 64, 9)), jnp.zeros((1, 3 * 64 + 1))
    keys = jax.random.split(key)
    passes = zip(keys, _passes(config).items(), strict=True)
    return {name: network.init(key, seen, codes)["params"] for key, (name, network) in passes}
