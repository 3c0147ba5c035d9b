"""TODO."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from facedisent_jax import models
from facedisent_jax.config import Config
from facedisent_jax.data.triplets import Batch, Triplets
from facedisent_jax.models.codes import Codes
from facedisent_jax.training import distributed


@partial(jax.jit, static_argnums=0)
def _validation_mse(config: Config, params, batch: Batch) -> dict[str, Array]:
    """Per-picture errors of a batch of triplets: reconstruction of a; swaps that should show a; their masks."""
    images = jnp.asarray(batch.images, jnp.float32) / 255
    a, b, c = (models.encode(config.model, params, images[:, k]) for k in range(3))

    def error(identity, expression, *sources):
        picture = jnp.clip(models.decode(config.model, params, Codes(identity, expression), *sources), 0, 1)
        return jnp.mean((picture - images[:, 0]) ** 2, axis=(1, 2, 3))

    out = {"reconstruction": error(a.identity, a.expression), "swap": error(b.identity, c.expression)}
    if config.model.kind == "warp":
        out["source"] = error(*a, models.encode_source(config.model, params, images[:, 1]))
    return jax.lax.with_sharding_constraint(out, distributed.replicated_sharding())


def validate(config: Config, params, triplets: Triplets) -> dict[str, float]:
    """Figures on held-out pictures, each the anchor once (at most 1,024 of them): PSNR in dB of the reconstructions and
    of the swaps (identity code from the subject's other picture, expression code from another subject); of kind "warp"
    also of the pictures decoded from the subject's other picture ("source")."""
    size = 64 + -64 % jax.device_count()
    n = min(len(triplets), 1024)
    errors: dict[str, list] = {"reconstruction": [], "swap": []} | (
        {"source": []} if config.model.kind == "warp" else {}
    )
    for k in range(-(-n // size)):
        batch = triplets.batch(0, k, size)
        fresh = np.arange(size) + k * size < n  # the last batch is filled up with pictures that do not count
        here = distributed.shard_batch(jax.tree.map(lambda values: values[distributed.local_rows(size)], batch))
        found = _validation_mse(config, params, here)
        errors["reconstruction"] += list(np.asarray(found["reconstruction"])[fresh])
        errors["swap"] += list(np.asarray(found["swap"])[fresh & (batch.has_pair * batch.has_peer > 0)])
        if "source" in found:
            errors["source"] += list(np.asarray(found["source"])[fresh & (batch.has_pair > 0)])
    figures = {f"validation/{k}_psnr": float(np.mean(-10 * np.log10(v))) for k, v in errors.items() if v}
    figures["validation/error"] = float(np.mean([np.mean(v) for v in errors.values() if v]))
    return figures
