"""From a picture of a person, or two, and an expression code to that person with that expression.

Each source picture is bent by a displacement field, and what it cannot show (teeth, folds) is painted over it through a
mask; of two sources the results are blended. After Deforming Autoencoders (Shu et al. 2018) and GANimation (Pumarola et
al. 2018). Everything is in proportion to how far the expression code is from the source's own, so that no change is an
exact copy. Imports config, layers and sampling.
"""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from facedisent_jax.config import ModelConfig
from facedisent_jax.layers import SeparableBlock, depth_to_space, space_to_depth
from facedisent_jax.sampling import displaced

GRID, PATCH = 16, 4
"""The network works on 16x16 patches of 4x4 pixels: convolutions at 64x64 are slow on CPU."""
PLACES = 16
"""Channels by which the codes tell the convolutions what moves where."""
COARSE = 4.0
"""Pixels that a unit of the coarse displacement moves: smiles move lips by 1 to 3."""
EPSILON = 1e-3
HEADS = {"coarse": 2, "fine": 2 * PATCH**2, "mask": PATCH**2, "texture": 3 * PATCH**2, "preference": PATCH**2}
"""Channels at 16x16 of what the network says of a source."""


class Source(NamedTuple):
    """Pictures of the people to be shown [n, 64, 64, 3] in [0, 1], and their expression codes [n, 64]."""

    pictures: Float[Array, "batch 64 64 3"]
    expression: Float[Array, "batch 64"]


class Shown(NamedTuple):
    """What `show` makes, and of the k sources the displacement in pixels (rows, columns) and the mask in [0, 1]."""

    pictures: Float[Array, "batch 64 64 3"]
    displacement: Float[Array, "sources batch 64 64 2"]
    mask: Float[Array, "sources batch 64 64 1"]


def extent(change: Float[Array, "*batch dim"]) -> Float[Array, "*batch"]:
    """Root mean square of a change of expression: exactly 0, with a finite gradient, where there is none."""
    return jnp.sqrt(jnp.mean(change**2, axis=-1) + EPSILON**2) - EPSILON


class Warp(nn.Module):
    """Convolutions at 16x16 over a source picture, told by the codes: what moves, what is painted.

    picture [n, 64, 64, 3]; other: the second source less this one, zeros where there is none; codes [n, c] ->
    {name: [n, 16, 16, channels]} of HEADS, all zeros at first.
    """

    config: ModelConfig

    @nn.compact
    def __call__(self, picture, other, codes):
        dtype, width = jnp.dtype(self.config.compute), self.config.width
        told = nn.silu(nn.Dense(width // 2, dtype=dtype)(codes))
        places = nn.Dense(GRID * GRID * PLACES, dtype=dtype)(told).reshape(-1, GRID, GRID, PLACES)
        seen = jnp.concatenate([picture - 0.5, 2 * other], axis=-1)
        y = nn.Dense(width // 8, dtype=dtype)(jnp.concatenate([space_to_depth(seen, PATCH), places], axis=-1))
        for k in range(2 * self.config.blocks):
            y = y + nn.Dense(width // 8, dtype=dtype)(told)[:, None, None]
            y = SeparableBlock(dtype, apart=1 + k % 2)(y)
        y = nn.LayerNorm(dtype=dtype)(y)
        y = nn.Dense(sum(HEADS.values()), dtype=dtype, kernel_init=nn.initializers.zeros)(y).astype(jnp.float32)
        ends = [sum(list(HEADS.values())[: k + 1]) for k in range(len(HEADS) - 1)]
        return dict(zip(HEADS, jnp.split(y, ends, axis=-1), strict=True))


def show(
    config: ModelConfig,
    params: Any,
    expression: Float[Array, "batch 64"],
    sources: tuple[Source, ...],
    place: Any = None,
) -> Shown:
    """The people of one source, or of two pictures of each, with the expressions of the codes.

    expression: [n, 64]. place: [n] where between two sources, 0 at the first and 1 at the second; beyond, the nearer
    one alone is moved.
    """
    k, n = len(sources), len(expression)
    change = jnp.stack([expression - source.expression for source in sources])
    pictures = jnp.stack([source.pictures for source in sources])
    if k == 2:
        other, other_change, share = pictures[::-1] - pictures, change[::-1], jnp.clip(place, 0, 1)
        shares = jnp.stack([1 - share, share])
    else:
        other, other_change, shares = jnp.zeros_like(pictures), jnp.zeros_like(change), jnp.ones((1, n))
    far = extent(change)
    # Beyond a full change the field keeps its form and grows in proportion.
    form = change / jnp.maximum(1.0, 1.4 * far)[..., None]
    begun = jnp.stack([2 * source.expression - 1 for source in sources])
    codes = jnp.concatenate([2 * form, begun, 2 * other_change, jnp.full((k, n, 1), float(k - 1))], axis=-1)
    flat = [value.reshape(k * n, *value.shape[2:]) for value in (pictures, other, codes)]
    heads = Warp(config).apply({"params": params}, *flat)

    def fine(name):
        return depth_to_space(heads[name], PATCH)  # type: ignore[index]

    far = far.reshape(k * n, 1, 1, 1)
    coarse = jax.image.resize(heads["coarse"], (k * n, GRID * PATCH, GRID * PATCH, 2), "bilinear")  # type: ignore[index]
    displacement = far * (COARSE * coarse + fine("fine"))
    mask = jnp.clip(2 * far, 0, 1) * nn.sigmoid(fine("mask") - 3)
    displacement = displacement * (config.parts != "paint")
    mask = mask * (config.parts != "displacement")
    made = displaced(flat[0], displacement) * (1 - mask) + (fine("texture") + 0.5) * mask
    weight = shares[:, :, None, None, None] * jnp.exp(jnp.clip(fine("preference"), -3, 3)).reshape(k, n, 64, 64, 1)
    blended = jnp.sum(weight * made.reshape(k, n, 64, 64, 3), axis=0) / jnp.sum(weight, axis=0)
    return Shown(blended, displacement.reshape(k, n, 64, 64, 2), mask.reshape(k, n, 64, 64, 1))


def init(config: ModelConfig, key: Array) -> Any:
    """New weights, as a plain pytree."""
    picture = jnp.zeros((1, 64, 64, 3))
    return Warp(config).init(key, picture, picture, jnp.zeros((1, 3 * 64 + 1)))["params"]
