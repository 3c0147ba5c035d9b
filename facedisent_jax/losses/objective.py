"""What matches what in a triplet, which swaps have a target, and the terms of the loss as one weighted sum."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from facedisent_jax.config import Config
from facedisent_jax.data.triplets import Batch
from facedisent_jax.losses import functions, related_work, warp_terms
from facedisent_jax.losses.functions import masked_mean
from facedisent_jax.models import decode, encode_logits
from facedisent_jax.models.codes import Codes, EncoderOutput, Params

ANCHOR, SAME_SUBJECT, SAME_EXPRESSION = 0, 1, 2
ENDPOINT_TOLERANCE = 0.05
"""Intensities this near to 0 and 1 are neutral and apex."""


class Swap(NamedTuple):
    """decode(identity code of one picture, expression code of another) should be the target picture."""

    identity: int
    expression: int
    target: int


SWAPS = (
    Swap(ANCHOR, SAME_SUBJECT, SAME_SUBJECT),
    Swap(SAME_SUBJECT, ANCHOR, ANCHOR),
    Swap(ANCHOR, SAME_EXPRESSION, ANCHOR),
    Swap(SAME_EXPRESSION, ANCHOR, SAME_EXPRESSION),
    Swap(SAME_SUBJECT, SAME_EXPRESSION, ANCHOR),
)
"""The five swaps of a triplet whose result is in the triplet: a, b are one subject, a, c show one expression."""


def to_signed(expression: Float[Array, "*batch dim"]) -> Float[Array, "*batch dim"]:
    """Expression codes as a direction for cosine terms: 2p - 1, so that neutral and full are opposite."""
    return 2.0 * expression - 1.0


def loss_terms(
    config: Config, params: Params, images: Float[Array, "batch k 64 64 3"], batch: Batch
) -> dict[str, Array]:
    """Every term of the loss, unweighted, by the name of its weight in `LossWeights`.

    images: [batch, 3, 64, 64, 3] float in [0, 1], what the network sees of batch.images; with kind "warp" a fourth,
    what it sees of batch.middle.
    One encoder call on the 3 x batch pictures, one decoder call on the 8 x batch codes.
    """
    n = len(images)
    picture = images[:, :3].swapaxes(0, 1)  # [3, batch, ...]: a, b, c
    encoded = encode_logits(config.model, params, picture.reshape(3 * n, *picture.shape[2:]))
    # The codes are made in the shape in which they are read: XLA (jaxlib 0.10, on CPU) writes the gradient of codes
    # that are read in two shapes over them, rows of which it has yet to read (test_training compares without fusion).
    encoded = EncoderOutput(*(part.reshape(3, n, -1) for part in encoded))
    (identity, logits), expression = encoded, encoded.codes.expression

    parts = [Swap(k, k, k) for k in (ANCHOR, SAME_SUBJECT, SAME_EXPRESSION)] + list(SWAPS)
    codes = Codes(
        jnp.concatenate([identity[p.identity] for p in parts]),
        jnp.concatenate([expression[p.expression] for p in parts]),
    )
    decoded = decode(config.model, params, codes).reshape(len(parts), n, *picture.shape[2:])
    known = jnp.stack([jnp.ones_like(batch.has_pair), batch.has_pair, batch.has_peer])  # of a, b, c: [3, batch]
    mouth = (
        None
        if config.objective.mouth_weight == 1
        else jnp.asarray(functions.mouth_weights(config.objective.mouth_weight))
    )
    target = jnp.concatenate([picture[p.target] for p in parts])
    error = functions.mse(decoded.reshape(target.shape), target, mouth).reshape(len(parts), n)
    weight = jnp.stack([known[p.identity] * known[p.expression] * known[p.target] for p in parts])

    labelled = batch.labelled.swapaxes(0, 1)
    both = batch.has_pair * batch.has_peer * labelled[SAME_SUBJECT]
    gap = (
        jnp.abs(batch.intensity[:, ANCHOR] - batch.intensity[:, SAME_SUBJECT])
        * labelled[ANCHOR]
        * labelled[SAME_SUBJECT]
    )
    # Codes near the middle of [0, 1] have no direction (DESIGN): cosine terms leave intensities within 0.2 of 0.5 out.
    clear = jnp.abs(batch.intensity - 0.5) > 0.2
    clear = clear.astype(jnp.float32).swapaxes(0, 1) * labelled
    opposite = clear[ANCHOR] * clear[SAME_SUBJECT] * (gap > 0.5)
    c = config.objective
    degree = expression[..., : c.label_dims]  # what says how much is shown
    face = to_signed(degree)
    # How much of the action a and b show: 0 at neutral, 1 at its label vector.
    action = batch.action_label[:, : c.label_dims]
    extent = jnp.maximum(jnp.sum(action, axis=-1), 1.0)
    shown = [jnp.sum(degree[k] * action, axis=-1) / extent for k in (ANCHOR, SAME_SUBJECT)]
    rise = batch.order * (shown[SAME_SUBJECT] - shown[ANCHOR])
    end = jnp.abs(batch.intensity - jnp.rint(batch.intensity)).swapaxes(0, 1) < ENDPOINT_TOLERANCE
    held = labelled * (1.0 if c.label_intermediate else end)
    values = {
        "reconstruction": masked_mean(error[:3].ravel(), weight[:3].ravel()),
        "swap": masked_mean(error[3:].ravel(), weight[3:].ravel()),
        "identity_cosine": masked_mean(
            functions.cosine_embedding(identity[ANCHOR], identity[SAME_SUBJECT], same=True), batch.has_pair
        )
        + masked_mean(
            functions.cosine_embedding(identity[ANCHOR], identity[SAME_EXPRESSION], same=False), batch.has_peer
        ),
        "identity_triplet": masked_mean(
            functions.triplet_margin(
                identity[ANCHOR], identity[SAME_SUBJECT], identity[SAME_EXPRESSION], c.identity_margin
            ),
            both,
        ),
        "identity_l1": masked_mean(functions.l1(identity[ANCHOR], identity[SAME_SUBJECT]), batch.has_pair),
        "expression_cosine": masked_mean(
            functions.cosine_embedding(face[ANCHOR], face[SAME_EXPRESSION], same=True),
            batch.has_peer * clear[ANCHOR] * clear[SAME_EXPRESSION],
        )
        + masked_mean(
            functions.cosine_embedding(face[ANCHOR], face[SAME_SUBJECT], same=False), batch.has_pair * opposite
        ),
        "expression_triplet": masked_mean(
            functions.triplet_margin(
                degree[ANCHOR], degree[SAME_EXPRESSION], degree[SAME_SUBJECT], c.expression_margin * gap
            ),
            both,
        ),
        "expression_l1": masked_mean(functions.l1(degree[ANCHOR], degree[SAME_EXPRESSION]), batch.has_peer),
        "label": masked_mean(
            functions.label_bce(
                logits[..., : c.label_dims].reshape(3 * n, -1),
                batch.label[..., : c.label_dims].swapaxes(0, 1).reshape(3 * n, -1),
            ),
            (known * held).ravel(),
        ),
        "ranking": masked_mean(functions.ranking(rise, c.ranking_margin * gap), jnp.abs(batch.order) * batch.has_pair),
    }
    if config.model.kind == "warp":
        values |= warp_terms.warp_terms(config, params, images, batch, Codes(identity, expression), decoded[:2])
    return values | related_work.related_work_terms(config, params, picture, batch, Codes(identity, expression))


def weighted_sum(config: Config, values: dict[str, Array]) -> Float[Array, ""]:
    """The weighted sum of the terms."""
    return jnp.sum(jnp.stack([getattr(config.loss, name) * value for name, value in values.items()]))
