"""Per-example losses as pure functions: [batch, ...] in, [batch] out. Imports none of ours."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from facedisent_jax.data.record import MOUTH

EPSILON = 1e-6
"""Keeps the gradient of a norm finite where two codes are equal or a code is zero."""


def mouth_weights(mouth: float) -> np.ndarray:
    """[64, 64] of the pixels in the error of a picture: `mouth` in the region of the mouth, 1 elsewhere; mean 1."""
    out = np.ones((64, 64), np.float32)
    out[MOUTH] = mouth
    return out / out.mean()


def mse(
    prediction: Float[Array, "batch h w c"],
    target: Float[Array, "batch h w c"],
    weight: Float[Array, "h w"] | None = None,
) -> Float[Array, "batch"]:
    """Mean squared error over all pixels and channels of each picture, [batch, height, width, channels] each.

    weight: [height, width] of the pixels; none: 1.
    """
    squared = (prediction - target) ** 2
    return jnp.mean(squared if weight is None else squared * weight[None, :, :, None], axis=(1, 2, 3))


def structural(
    prediction: Float[Array, "batch h w c"], target: Float[Array, "batch h w c"], weight: Float[Array, "h w"]
) -> Float[Array, "batch"]:
    """Charbonnier error of pictures and of their gradients (rows, columns), added over four scales, each half the last.

    weight: [height, width] of the pixels. At coarse scales a lip that is in the wrong place is seen from afar; on
    gradients two half lips are no whole one, which the mean of two pictures would be.
    """
    difference, weight, total = prediction - target, weight[None, :, :, None], jnp.zeros(len(target))
    for scale in range(4):
        if scale:
            difference, weight = halved(difference), halved(weight)
        rows, columns = difference[:, 1:] - difference[:, :-1], difference[:, :, 1:] - difference[:, :, :-1]
        for error, part in ((difference, weight), (rows, weight[:, 1:]), (columns, weight[:, :, 1:])):
            total += jnp.mean(charbonnier(error) * part, axis=(1, 2, 3))
    return total


def charbonnier(difference: Float[Array, "*shape"], corner: float = 0.01) -> Float[Array, "*shape"]:
    """|d| with a round corner: d^2 / (2 corner) near 0 (Charbonnier et al. 1994)."""
    return jnp.sqrt(difference**2 + corner**2) - corner


def halved(x: Float[Array, "batch h w c"]) -> Float[Array, "batch h2 w2 c"]:
    """Means of 2x2 pixels."""
    return (x[:, ::2, ::2] + x[:, 1::2, ::2] + x[:, ::2, 1::2] + x[:, 1::2, 1::2]) / 4


def total_variation(field: Float[Array, "batch h w c"]) -> Float[Array, "batch"]:
    """Mean absolute difference of neighbours along rows and along columns, added."""
    return sum(jnp.mean(jnp.abs(jnp.diff(field, axis=axis)), axis=(1, 2, 3)) for axis in (1, 2))  # type: ignore[return-value]


def l1(a: Float[Array, "batch dim"], b: Float[Array, "batch dim"]) -> Float[Array, "batch"]:
    """Mean absolute difference of two codes, [batch, dim] each."""
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

    a, b: [batch, dim]. Agrees with torch.nn.CosineEmbeddingLoss(margin, reduction="none") with target 1 or -1.
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

    anchor, positive, negative: [batch, dim]; margin: one for all, or [batch].
    Schroff et al. 2015, eq. 1; agrees with torch.nn.TripletMarginLoss(p=2, eps=0, reduction="none").
    """
    return jnp.maximum(0.0, distance(anchor, positive) - distance(anchor, negative) + margin)


def label_bce(logits: Float[Array, "batch dim"], label: Float[Array, "batch dim"]) -> Float[Array, "batch"]:
    """Binary cross-entropy of sigmoid(logits) with a label vector in [0, 1], averaged over the code's numbers.

    logits, label: [batch, dim]. For a label between 0 and 1 the least value is the label's entropy, not 0.
    """
    return jnp.mean(jnp.maximum(logits, 0) - logits * label + jax.nn.softplus(-jnp.abs(logits)), axis=-1)


def ranking(
    rise: Float[Array, "batch"], margin: float | Float[Array, "batch"] = 0.0, temperature: float = 0.1
) -> Float[Array, "batch"]:
    """temperature * softplus((margin - rise) / temperature): a smooth max(0, margin - rise), at most 0.07 above it.

    rise: [batch], by how much the picture that should rank higher does; margin: by how much it should.
    With margin 0 and temperature 1 the logistic loss of RankNet (Burges et al. 2005, eq. 3).
    """
    return temperature * jax.nn.softplus((margin - rise) / temperature)


def masked_mean(values: Float[Array, "batch"], mask: Float[Array, "batch"]) -> Float[Array, ""]:
    """Mean over the examples where mask is 1; 0 where there are none."""
    return jnp.sum(values * mask) / jnp.maximum(jnp.sum(mask), 1.0)
