"""What matches what in a triplet, which swaps have a target, and the terms of the loss as one weighted sum."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from facedisent_jax import losses, reference_terms, source_terms
from facedisent_jax.config import Config
from facedisent_jax.model import Codes, Encoded, Params, decode, encode_logits
from facedisent_jax.triplets import Batch

A, B, C = 0, 1, 2
END = 0.05
"""Intensities this near to 0 and 1 are neutral and apex."""


class Swap(NamedTuple):
    """decode(identity code of one picture, expression code of another) should be the target picture."""

    identity: int
    expression: int
    target: int


SWAPS = (Swap(A, B, B), Swap(B, A, A), Swap(A, C, A), Swap(C, A, C), Swap(B, C, A))
"""The five swaps of a triplet whose result is in the triplet: a, b are one subject, a, c show one expression."""


def mean(values: Float[Array, "batch"], mask: Float[Array, "batch"]) -> Float[Array, ""]:
    """Mean over the examples where mask is 1; 0 where there are none."""
    return jnp.sum(values * mask) / jnp.maximum(jnp.sum(mask), 1.0)


def direction(expression: Float[Array, "*batch dim"]) -> Float[Array, "*batch dim"]:
    """Expression codes as a direction for cosine terms: 2p - 1, so that neutral and full are opposite."""
    return 2.0 * expression - 1.0


def terms(config: Config, params: Params, images: Float[Array, "batch k 64 64 3"], batch: Batch) -> dict[str, Array]:
    """Every term of the loss, unweighted, by the name of its weight in `LossConfig`.

    images: [batch, 3, 64, 64, 3] float in [0, 1], what the network sees of batch.images; with kind "warp" a fourth,
    what it sees of batch.between.
    One encoder call on the 3 x batch pictures, one decoder call on the 8 x batch codes.
    """
    n = len(images)
    picture = images[:, :3].swapaxes(0, 1)  # [3, batch, ...]: a, b, c
    encoded = encode_logits(config.model, params, picture.reshape(3 * n, *picture.shape[2:]))
    # The codes are made in the shape in which they are read: XLA (jaxlib 0.10, on CPU) writes the gradient of codes
    # that are read in two shapes over them, rows of which it has yet to read (test_training compares without fusion).
    encoded = Encoded(*(part.reshape(3, n, -1) for part in encoded))
    (identity, logits), expression = encoded, encoded.codes.expression

    parts = [Swap(k, k, k) for k in (A, B, C)] + list(SWAPS)
    codes = Codes(
        jnp.concatenate([identity[p.identity] for p in parts]),
        jnp.concatenate([expression[p.expression] for p in parts]),
    )
    decoded = decode(config.model, params, codes).reshape(len(parts), n, *picture.shape[2:])
    known = jnp.stack([jnp.ones_like(batch.has_pair), batch.has_pair, batch.has_peer])  # of a, b, c: [3, batch]
    mouth = None if config.loss.mouth == 1 else jnp.asarray(losses.mouth_weights(config.loss.mouth))
    target = jnp.concatenate([picture[p.target] for p in parts])
    error = losses.mse(decoded.reshape(target.shape), target, mouth).reshape(len(parts), n)
    weight = jnp.stack([known[p.identity] * known[p.expression] * known[p.target] for p in parts])

    labelled = batch.labelled.swapaxes(0, 1)
    both = batch.has_pair * batch.has_peer * labelled[B]
    gap = jnp.abs(batch.intensity[:, A] - batch.intensity[:, B]) * labelled[A] * labelled[B]
    # Codes near the middle of [0, 1] have no direction (DESIGN): cosine terms leave intensities within 0.2 of 0.5 out.
    clear = jnp.abs(batch.intensity - 0.5) > 0.2
    clear = clear.astype(jnp.float32).swapaxes(0, 1) * labelled
    opposite = clear[A] * clear[B] * (gap > 0.5)
    c = config.loss
    degree = expression[..., : c.label_numbers]  # what says how much is shown
    face = direction(degree)
    # How much of the action a and b show: 0 at neutral, 1 at its label vector.
    action = batch.action[:, : c.label_numbers]
    extent = jnp.maximum(jnp.sum(action, axis=-1), 1.0)
    shown = [jnp.sum(degree[k] * action, axis=-1) / extent for k in (A, B)]
    rise = batch.order * (shown[B] - shown[A])
    end = jnp.abs(batch.intensity - jnp.rint(batch.intensity)).swapaxes(0, 1) < END
    held = labelled * (1.0 if c.label_between else end)
    values = {
        "reconstruction": mean(error[:3].ravel(), weight[:3].ravel()),
        "swap": mean(error[3:].ravel(), weight[3:].ravel()),
        "identity_cosine": mean(losses.cosine_embedding(identity[A], identity[B], same=True), batch.has_pair)
        + mean(losses.cosine_embedding(identity[A], identity[C], same=False), batch.has_peer),
        "identity_triplet": mean(losses.triplet_margin(identity[A], identity[B], identity[C], c.identity_margin), both),
        "identity_l1": mean(losses.l1(identity[A], identity[B]), batch.has_pair),
        "expression_cosine": mean(
            losses.cosine_embedding(face[A], face[C], same=True), batch.has_peer * clear[A] * clear[C]
        )
        + mean(losses.cosine_embedding(face[A], face[B], same=False), batch.has_pair * opposite),
        "expression_triplet": mean(
            losses.triplet_margin(degree[A], degree[C], degree[B], c.expression_margin * gap), both
        ),
        "expression_l1": mean(losses.l1(degree[A], degree[C]), batch.has_peer),
        "label": mean(
            losses.label_bce(
                logits[..., : c.label_numbers].reshape(3 * n, -1),
                batch.label[..., : c.label_numbers].swapaxes(0, 1).reshape(3 * n, -1),
            ),
            (known * held).ravel(),
        ),
        "ranking": mean(losses.ranking(rise, c.ranking_margin * gap), jnp.abs(batch.order) * batch.has_pair),
    }
    if config.model.kind == "warp":
        values |= source_terms.terms(config, params, images, batch, Codes(identity, expression), decoded[:2])
    return values | reference_terms.terms(config, params, picture, batch, Codes(identity, expression))


def total(config: Config, values: dict[str, Array]) -> Float[Array, ""]:
    """The weighted sum of the terms."""
    return jnp.sum(jnp.stack([getattr(config.loss, name) * value for name, value in values.items()]))
