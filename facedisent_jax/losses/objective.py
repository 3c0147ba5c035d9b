"""The loss of a batch of triplets: which images match, which swaps have a target, and every term with its weight."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from facedisent_jax.config import Config, ObjectiveConfig
from facedisent_jax.data.triplets import Batch
from facedisent_jax.losses.functions import (
    cosine_embedding,
    l1,
    label_bce,
    masked_mean,
    mse,
    pixel_weights,
    ranking,
    triplet_margin,
)
from facedisent_jax.losses.related_work import clamping_terms, rotation_terms
from facedisent_jax.losses.warp_terms import warp_terms
from facedisent_jax.models import KINDS, Codes, EncoderOutput, Params, decode, encode_logits

A, B, C = 0, 1, 2
"""Positions of a, b and c on the first axis of a batch."""
ENDPOINT_TOLERANCE = 0.05
"""Intensities this near to 0 and 1 are neutral and apex."""
MIN_DIRECTION = 0.2
"""Intensities this near to 0.5 have no direction: their codes e, as 2e - 1, are near zero."""
OPPOSITE_GAP = 0.5
"""Intensities that differ by more are opposite expressions."""


class CodePair(NamedTuple):
    """decode(identity code of one image, expression code of another or the same) should be the target image."""

    identity: int
    expression: int
    target: int


RECONSTRUCTIONS = (CodePair(A, A, A), CodePair(B, B, B), CodePair(C, C, C))
SWAPS = (CodePair(A, B, B), CodePair(B, A, A), CodePair(A, C, A), CodePair(C, A, C), CodePair(B, C, A))
"""The five swaps whose result is in the triplet: a and b show one subject, a and c one expression."""


def loss_terms(
    config: Config, params: Params, images: Float[Array, "k batch 64 64 3"], batch: Batch
) -> dict[str, Float[Array, ""]]:
    """Every term of the loss, unweighted, by the name of its weight in `LossWeights`.

    images: a, b, c as the network sees them, in [0, 1]; of kind "warp" a fourth, the middle frame.

    | poster | formula | function | weight |
    |---|---|---|---|
    | "minimize mean squared error between input and reconstruction" | (D(i_k, e_k) - x_k)^2, k = a, b, c | `mse` | reconstruction |
    | "swap expression vectors among images and then decode" | (D(i_j, e_k) - x_t)^2 for the five `SWAPS` (j, k, t) | `mse` | swap |
    | "cosine embedding" loss between latent vectors | 1 - cos(i_a, i_b) + max(0, cos(i_a, i_c)) | `cosine_embedding` | identity_cosine |
    | the same, with e' = 2e - 1 | 1 - cos(e'_a, e'_c) + max(0, cos(e'_a, e'_b)) | `cosine_embedding` | expression_cosine |
    | "triplet" loss | max(0, d(i_a, i_b) - d(i_a, i_c) + m) | `triplet_margin` | identity_triplet |
    | the same | max(0, d(e_a, e_c) - d(e_a, e_b) + m abs(y_a - y_b)) | `triplet_margin` | expression_triplet |
    | "L1" loss | abs(i_a - i_b) | `l1` | identity_l1 |
    | the same | abs(e_a - e_c) | `l1` | expression_l1 |
    | "binary cross-entropy loss between the label vector and the expression vector" | BCE(e_k, label_k) | `label_bce` | label |
    | "a ranking based loss" (future work) | softplus(m abs(y_a - y_b) - (r_more - r_less)) | `ranking` | ranking |

    i and e are the identity and the expression code of an image x, D decodes, d is the L2 distance, y the intensity, r the
    intensity read from the code, m a margin. All terms but the first two see the first `label_dims` dimensions of e.
    One encoder call on 3 x batch images, one decoder call on 8 x batch pairs of codes.
    """  # noqa: E501
    encoded = encode_triplet(config, params, images[:3])
    codes = encoded.codes
    decoded = decode_pairs(config, params, codes)
    labelled_dims = codes.expression[..., : config.objective.label_dims]
    return (
        image_terms(config.objective, decoded, images[:3], batch)
        | identity_terms(config.objective, codes.identity, batch)
        | expression_terms(config.objective, labelled_dims, encoded.logits, batch)
        | ranking_terms(config.objective, labelled_dims, batch)
        | optional_terms(config, params, images, batch, codes, decoded)
    )


def weighted_sum(config: Config, terms: dict[str, Float[Array, ""]]) -> Float[Array, ""]:
    """The loss: the terms times their weights."""
    return jnp.sum(jnp.stack([getattr(config.loss, name) * value for name, value in terms.items()]))


def encode_triplet(config: Config, params: Params, images: Float[Array, "3 batch 64 64 3"]) -> EncoderOutput:
    """Identity codes and expression logits of a, b and c, [3, batch, dim] each, in one call of the encoder."""
    k, n = images.shape[:2]
    # One triplet after the other, not all a first: then each device keeps its share of the batch.
    encoded = encode_logits(config.model, params, jnp.swapaxes(images, 0, 1).reshape(n * k, *images.shape[2:]))
    # Workaround for a bug of XLA on CPU (jaxlib 0.10): where the codes are used in two shapes, their gradient
    # overwrites a buffer before it has been read. So they are reshaped once, here. Regression test:
    # test_the_gradient_is_the_same_without_the_compilers_fusion.
    return EncoderOutput(*(jnp.swapaxes(part.reshape(n, k, -1), 0, 1) for part in encoded))


def decode_pairs(config: Config, params: Params, codes: Codes) -> Float[Array, "batch 8 64 64 3"]:
    """The three reconstructions and the five swaps, in one call of the decoder. codes: [3, batch, dim] each."""
    pairs, dim = RECONSTRUCTIONS + SWAPS, codes.identity.shape[-1]
    identity = jnp.stack([codes.identity[pair.identity] for pair in pairs], axis=1)
    expression = jnp.stack([codes.expression[pair.expression] for pair in pairs], axis=1)
    decoded = decode(config.model, params, Codes(identity.reshape(-1, dim), expression.reshape(-1, dim)))
    return decoded.reshape(-1, len(pairs), *decoded.shape[1:])


def image_terms(
    config: ObjectiveConfig,
    decoded: Float[Array, "batch 8 64 64 3"],
    images: Float[Array, "3 batch 64 64 3"],
    batch: Batch,
) -> dict[str, Float[Array, ""]]:
    """reconstruction and swap."""
    pairs, n = RECONSTRUCTIONS + SWAPS, len(RECONSTRUCTIONS)
    weight = None if config.mouth_weight == 1 else jnp.asarray(pixel_weights(config.mouth_weight))
    target = jnp.stack([images[pair.target] for pair in pairs], axis=1)
    error = mse(decoded.reshape(-1, 64, 64, 3), target.reshape(-1, 64, 64, 3), weight).reshape(-1, len(pairs))
    has_image = image_mask(batch)
    mask = jnp.stack(
        [has_image[pair.identity] * has_image[pair.expression] * has_image[pair.target] for pair in pairs], axis=1
    )
    return {
        "reconstruction": masked_mean(error[:, :n].ravel(), mask[:, :n].ravel()),
        "swap": masked_mean(error[:, n:].ravel(), mask[:, n:].ravel()),
    }


def identity_terms(
    config: ObjectiveConfig, identity: Float[Array, "3 batch dim"], batch: Batch
) -> dict[str, Float[Array, ""]]:
    """identity_cosine, identity_triplet and identity_l1: a is like b, and unlike c."""
    return {
        "identity_cosine": masked_mean(cosine_embedding(identity[A], identity[B], same=True), batch.has_b)
        + masked_mean(cosine_embedding(identity[A], identity[C], same=False), batch.has_c),
        "identity_triplet": masked_mean(
            triplet_margin(identity[A], identity[B], identity[C], config.identity_margin),
            full_triplet_mask(batch),
        ),
        "identity_l1": masked_mean(l1(identity[A], identity[B]), batch.has_b),
    }


def expression_terms(
    config: ObjectiveConfig,
    expression: Float[Array, "3 batch label_dims"],
    logits: Float[Array, "3 batch dim"],
    batch: Batch,
) -> dict[str, Float[Array, ""]]:
    """expression_cosine, expression_triplet, expression_l1 and label: a is like c, and unlike b."""
    k = expression.shape[-1]
    signed = to_signed(expression)
    gap = intensity_gap(batch)
    # A code near 0.5 has no direction, so intensities near 0.5 are left out of the cosine terms.
    has_direction = (jnp.abs(batch.intensity - 0.5) > MIN_DIRECTION).astype(jnp.float32) * batch.is_labelled
    are_opposite = jnp.where(gap > OPPOSITE_GAP, has_direction[A] * has_direction[B], 0.0)
    is_constrained = config.label_intermediate or is_endpoint(batch.intensity)
    label_mask = jnp.where(is_constrained, batch.is_labelled, 0.0)
    return {
        "expression_cosine": masked_mean(
            cosine_embedding(signed[A], signed[C], same=True),
            batch.has_c * has_direction[A] * has_direction[C],
        )
        + masked_mean(cosine_embedding(signed[A], signed[B], same=False), batch.has_b * are_opposite),
        "expression_triplet": masked_mean(
            triplet_margin(expression[A], expression[C], expression[B], config.expression_margin * gap),
            full_triplet_mask(batch),
        ),
        "expression_l1": masked_mean(l1(expression[A], expression[C]), batch.has_c),
        "label": masked_mean(
            label_bce(logits[..., :k].reshape(-1, k), batch.label[..., :k].reshape(-1, k)),
            (image_mask(batch) * label_mask).ravel(),
        ),
    }


def ranking_terms(
    config: ObjectiveConfig, expression: Float[Array, "3 batch label_dims"], batch: Batch
) -> dict[str, Float[Array, ""]]:
    """ranking: of two frames of a take, the intensity read from the code is higher for the one that shows more."""
    label = batch.action_label[:, : expression.shape[-1]]
    label_norm = jnp.maximum(jnp.sum(label, axis=-1), 1.0)
    intensity_a, intensity_b = (jnp.sum(expression[k] * label, axis=-1) / label_norm for k in (A, B))
    ordered_rise = batch.order * (intensity_b - intensity_a)
    margin = config.ranking_margin * intensity_gap(batch)
    return {"ranking": masked_mean(ranking(ordered_rise, margin), jnp.abs(batch.order) * batch.has_b)}


def optional_terms(
    config: Config,
    params: Params,
    images: Float[Array, "k batch 64 64 3"],
    batch: Batch,
    codes: Codes,
    decoded: Float[Array, "batch 8 64 64 3"],
) -> dict[str, Float[Array, ""]]:
    """The terms that only some models and methods have. codes: [3, batch, dim] each."""
    terms = {}
    if KINDS[config.model.kind].uses_source:
        terms |= warp_terms(config, params, images, batch, codes, decoded[:, :2])
    if config.method == "rotation":
        terms |= rotation_terms(config, params, images[:3], batch, codes)
    if config.method == "clamping":
        terms |= clamping_terms(config, params, images[:3], batch, codes)
    return terms


def to_signed(expression: Float[Array, "*batch dim"]) -> Float[Array, "*batch dim"]:
    """Expression codes e as a direction for the cosine terms: 2e - 1, so that neutral and full are opposite."""
    return 2.0 * expression - 1.0


def image_mask(batch: Batch) -> Float[Array, "3 batch"]:
    """1 where the image exists: a missing b or c is a copy of a."""
    return jnp.stack([jnp.ones_like(batch.has_b), batch.has_b, batch.has_c])


def full_triplet_mask(batch: Batch) -> Float[Array, "batch"]:
    """1 where b and c exist, and b's intensity is known. Both triplet terms count the same triplets."""
    return batch.has_b * batch.has_c * batch.is_labelled[B]


def intensity_gap(batch: Batch) -> Float[Array, "batch"]:
    """Difference of a's and b's intensity; 0 where either is unknown."""
    return jnp.abs(batch.intensity[A] - batch.intensity[B]) * batch.is_labelled[A] * batch.is_labelled[B]


def is_endpoint(intensity: Float[Array, "*batch"]) -> Bool[Array, "*batch"]:
    """Whether intensities are neutral or apex."""
    return jnp.abs(intensity - jnp.rint(intensity)) < ENDPOINT_TOLERANCE
