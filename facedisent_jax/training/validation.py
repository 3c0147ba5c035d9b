"""What a checkpoint is judged by, PSNR on held-out triplets, and the mean expression codes that it carries."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from facedisent_jax import models
from facedisent_jax.config import Config
from facedisent_jax.data.record import APEX_ABOVE, NEUTRAL, NEUTRAL_BELOW
from facedisent_jax.data.triplets import Batch, Triplets
from facedisent_jax.models import Codes, Params
from facedisent_jax.training import distributed

BATCH = 64  # anchors per call
MAX_ANCHORS = 1024
MAX_MEAN = 256  # training images in the mean code of an expression


def validate(config: Config, params: Params, triplets: Triplets) -> dict[str, float]:
    """PSNR in dB on held-out images, each the anchor a once (at most MAX_ANCHORS of them), and "validation/error", the
    mean squared error that the best checkpoint has the least of.

    reconstruction: a from its own codes. swap: a from b's identity code and c's expression code. source (kind "warp"):
    a's codes with b as the source image.
    """
    size = BATCH + -BATCH % jax.device_count()
    n = min(len(triplets), MAX_ANCHORS)
    errors: dict[str, list] = {"reconstruction": [], "swap": []}
    if models.KINDS[config.model.kind].uses_source:
        errors["source"] = []
    for k in range(-(-n // size)):
        index = triplets.index(0, k, size)
        local = triplets.batch(0, k, size, distributed.local_rows(size))
        mse = _validation_mse(config, params, distributed.shard_batch(local))
        is_counted = np.arange(size) + k * size < n  # the last batch is filled up with anchors that do not count
        errors["reconstruction"] += list(np.asarray(mse["reconstruction"])[is_counted])
        errors["swap"] += list(np.asarray(mse["swap"])[is_counted & index.has_b & index.has_c])
        if "source" in mse:
            errors["source"] += list(np.asarray(mse["source"])[is_counted & index.has_b])
    metrics = {f"validation/{name}_psnr": float(np.mean(-10 * np.log10(v))) for name, v in errors.items() if v}
    metrics["validation/error"] = float(np.mean([np.mean(v) for v in errors.values() if v]))
    return metrics


def expression_statistics(
    config: Config, params: Params, triplets: Triplets
) -> tuple[dict[str, list[float]], dict[str, float]]:
    """The mean expression code of the neutral training images, as "neutral", and of each expression in full; and how
    much the style of the full expressions differs over images.

    Only expressions with such images are in it, and of the codes only label and style. "validation/style_deviation" is
    the standard deviation of the dimensions of the style, averaged over them: near 0, everybody smiles alike.
    """
    label_dims = config.objective.label_dims
    is_neutral = triplets.is_labelled & (triplets.intensity < NEUTRAL_BELOW)
    is_apex = triplets.is_labelled & (triplets.intensity > APEX_ABOVE)
    expression = np.where(is_neutral, NEUTRAL, np.where(is_apex, triplets.faces.expression, ""))
    means, deviations = {}, []
    for name in sorted(set(expression.tolist()) - {""}):
        rows = np.random.default_rng(config.seed).permutation(np.flatnonzero(expression == name))[:MAX_MEAN]
        images = triplets.faces.image[np.resize(np.sort(rows), MAX_MEAN)]  # always as many: one compilation
        codes = np.asarray(encode_expression(config, params, distributed.replicated(images)))
        codes = codes[: len(rows), : label_dims + config.objective.style_dims]
        means[name] = codes.mean(axis=0).tolist()
        style = codes[:, label_dims:]
        if name != NEUTRAL and style.size:
            deviations.append(float(style.std(axis=0).mean()))
    return means, {"validation/style_deviation": float(np.mean(deviations))} if deviations else {}


@partial(jax.jit, static_argnums=0)
def encode_expression(config: Config, params: Params, images: UInt8[Array, "n 64 64 3"]) -> Float[Array, "n dim"]:
    codes = models.encode(config.model, params, images.astype(jnp.float32) / 255)
    return jax.lax.with_sharding_constraint(codes.expression, distributed.replicated_sharding())


@partial(jax.jit, static_argnums=0)
def _validation_mse(config: Config, params: Params, batch: Batch) -> dict[str, Float[Array, "batch"]]:
    """Squared error of each decoded image against a: reconstruction, swap, and of kind "warp" source."""
    images = jnp.asarray(batch.images, jnp.float32) / 255
    a, b, c = (models.encode(config.model, params, images[k]) for k in range(3))

    def mse(decoded):
        return jnp.mean((jnp.clip(decoded, 0, 1) - images[0]) ** 2, axis=(1, 2, 3))

    errors = {
        "reconstruction": mse(models.decode(config.model, params, a)),
        "swap": mse(models.decode(config.model, params, Codes(b.identity, c.expression))),
    }
    if models.KINDS[config.model.kind].uses_source:
        source = models.encode_source(config.model, params, images[1])
        errors["source"] = mse(models.decode_from_sources(config.model, params, a, source, refined=True).images)
    return jax.lax.with_sharding_constraint(errors, distributed.replicated_sharding())
