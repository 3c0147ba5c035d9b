"""Losses per example, as pure functions: [batch, ...] in, [batch] out."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from facedisent_jax.config import IMAGE_SIZE
from facedisent_jax.data.record import MOUTH

EPSILON = 1e-6  # keeps the gradient of a norm finite where two codes are equal or a code is zero


def masked_mean(values: Float[Array, "batch"], mask: Float[Array, "batch"]) -> Float[Array, ""]:
    """Mean over the examples, weighted by `mask`; 0 if the mask is 0 everywhere.

    mask: 1 for examples that count and 0 for others, or weights in [0, 1].
    """
    return jnp.sum(values * mask) / jnp.maximum(jnp.sum(mask), 1.0)


def pixel_weights(mouth_weight: float) -> Float[np.ndarray, "64 64"]:
    """Weights of the pixels in an image error: `mouth_weight` in the mouth region to 1 elsewhere, of mean 1."""
    weights = np.ones((IMAGE_SIZE, IMAGE_SIZE), np.float32)
    weights[MOUTH] = mouth_weight
    return weights / weights.mean()


def mse(
    prediction: Float[Array, "batch h w c"],
    target: Float[Array, "batch h w c"],
    weight: Float[Array, "h w"] | None = None,
) -> Float[Array, "batch"]:
    """Mean squared error over all pixels and channels of each image.

    weight: of the pixels; none: all 1.
    """
    squared = (prediction - target) ** 2
    return jnp.mean(squared if weight is None else squared * weight[None, :, :, None], axis=(1, 2, 3))


def multiscale_charbonnier(
    prediction: Float[Array, "batch h w c"], target: Float[Array, "batch h w c"], weight: Float[Array, "h w"]
) -> Float[Array, "batch"]:
    """Charbonnier error of images and of their gradients (rows, columns), summed over four scales.

    weight: of the pixels. Each scale is half as large as the one before, and counts half. Coarse scales give a gradient
    to a lip that is in the wrong place. Image gradients tell a lip from the mean of two images, which shows two half
    lips.
    """
    difference, weight, total = prediction - target, weight[None, :, :, None], jnp.zeros(len(target))
    for scale in range(4):
        if scale:
            difference, weight = downsample(difference), downsample(weight)
        rows, columns = difference[:, 1:] - difference[:, :-1], difference[:, :, 1:] - difference[:, :, :-1]
        for error, part in ((difference, weight), (rows, weight[:, 1:]), (columns, weight[:, :, 1:])):
            total += jnp.mean(charbonnier(error) * part, axis=(1, 2, 3)) / 2**scale
    return total


def texture_error(
    prediction: Float[Array, "batch h w c"], target: Float[Array, "batch h w c"], weight: Float[Array, "h w"]
) -> Float[Array, "batch"]:
    """Charbonnier error of the mean strength of edges (rows, columns) in blocks of 4x4 pixels.

    weight: [h, w], of the pixels. The first row and column are compared with the last.

    Where a tooth ends cannot be known. An image error is least at the mean of all possible answers, which has no edges.
    This error wants as much edge as the target has, anywhere in the block.
    """
    block_weight, total = _block_mean(weight[None, :, :, None]), jnp.zeros(len(target))
    for axis in (1, 2):
        strength, target_strength = (_block_mean(jnp.abs(x - jnp.roll(x, 1, axis))) for x in (prediction, target))
        total += jnp.mean(charbonnier(strength - target_strength) * block_weight, axis=(1, 2, 3))
    return total


def _block_mean(x: Float[Array, "batch h w c"]) -> Float[Array, "batch h4 w4 c"]:
    return downsample(downsample(x))


def charbonnier(difference: Float[Array, "*shape"], corner: float = 0.01) -> Float[Array, "*shape"]:
    """abs(d), rounded to d^2 / (2 corner) near 0 (Charbonnier et al. 1994)."""
    return jnp.sqrt(difference**2 + corner**2) - corner


def downsample(x: Float[Array, "batch h w c"]) -> Float[Array, "batch h2 w2 c"]:
    """Mean of each 2x2 pixels."""
    return (x[:, ::2, ::2] + x[:, 1::2, ::2] + x[:, ::2, 1::2] + x[:, 1::2, 1::2]) / 4


def total_variation(field: Float[Array, "batch h w c"]) -> Float[Array, "batch"]:
    """Mean absolute difference of neighbours along rows plus that along columns."""
    return sum(jnp.mean(jnp.abs(jnp.diff(field, axis=axis)), axis=(1, 2, 3)) for axis in (1, 2))  # type: ignore[return-value]


def l1(a: Float[Array, "batch dim"], b: Float[Array, "batch dim"]) -> Float[Array, "batch"]:
    """Mean absolute difference of two codes."""
    return jnp.mean(jnp.abs(a - b), axis=-1)


def distance(a: Float[Array, "batch dim"], b: Float[Array, "batch dim"]) -> Float[Array, "batch"]:
    """Euclidean distance |a - b|, with a finite (zero) gradient where a = b."""
    return jnp.sqrt(jnp.sum((a - b) ** 2, axis=-1) + EPSILON**2) - EPSILON


def cosine(a: Float[Array, "batch dim"], b: Float[Array, "batch dim"]) -> Float[Array, "batch"]:
    """Cosine similarity in [-1, 1], 0 where a code is zero."""
    norm = jnp.sqrt(jnp.sum(a**2, axis=-1) + EPSILON) * jnp.sqrt(jnp.sum(b**2, axis=-1) + EPSILON)
    return jnp.sum(a * b, axis=-1) / norm


def cosine_embedding(
    a: Float[Array, "batch dim"], b: Float[Array, "batch dim"], same: bool, margin: float = 0.0
) -> Float[Array, "batch"]:
    """1 - cos(a, b) for codes that should match, max(0, cos(a, b) - margin) for codes that should not.

    Agrees with torch.nn.CosineEmbeddingLoss(margin, reduction="none") with target 1 or -1.
    """
    similarity = cosine(a, b)
    return 1.0 - similarity if same else jnp.maximum(0.0, similarity - margin)


def triplet_margin(
    anchor: Float[Array, "batch dim"],
    positive: Float[Array, "batch dim"],
    negative: Float[Array, "batch dim"],
    margin: float | Float[Array, "batch"] = 1.0,
) -> Float[Array, "batch"]:
    """max(0, |a - p| - |a - n| + margin) per example, |.| the L2 norm.

    Schroff et al. 2015, eq. 1; agrees with torch.nn.TripletMarginLoss(p=2, eps=0, reduction="none").
    """
    return jnp.maximum(0.0, distance(anchor, positive) - distance(anchor, negative) + margin)


def label_bce(logits: Float[Array, "batch dim"], label: Float[Array, "batch dim"]) -> Float[Array, "batch"]:
    """Binary cross-entropy of sigmoid(logits) with a label vector in [0, 1], averaged over the dimensions.

    For a label between 0 and 1 the smallest value is the label's entropy, not 0.
    """
    return jnp.mean(jnp.maximum(logits, 0) - logits * label + jax.nn.softplus(-jnp.abs(logits)), axis=-1)


def ranking(
    rise: Float[Array, "batch"], margin: float | Float[Array, "batch"] = 0.0, temperature: float = 0.1
) -> Float[Array, "batch"]:
    """temperature * softplus((margin - rise) / temperature): a smooth max(0, margin - rise).

    rise: score of the image that should rank higher, minus the score of the other. margin: the smallest rise wanted.
    With margin 0 and temperature 1 this is the logistic loss of RankNet (Burges et al. 2005, eq. 3).
    """
    return temperature * jax.nn.softplus((margin - rise) / temperature)
