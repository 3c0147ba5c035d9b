"""Terms of the loss of the poster's two references: rotated codes (Worrall et al. 2017) and clamped codes (Kulkarni et
al. 2015, DC-IGN). Imports config, losses, model and triplets."""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from facedisent_jax.config import CODE_DIMS, Config
from facedisent_jax.data.triplets import Batch
from facedisent_jax.losses import functions
from facedisent_jax.models import decode
from facedisent_jax.models.codes import Codes, Params

ROTATION_PER_INTENSITY = jnp.pi / 2
"""Angle between the codes of neutral and of full expression: no two intensities share a code."""
CLAMP_GRADIENT_SCALE = 0.01
"""Of a clamped code towards its batch mean, beside the gradient of a picture's summed squared error (the paper's
1 / 100). Beside a mean over pixels and pictures it is far too strong: after 100 steps all are one face (18.7 dB)."""


def rotate(expression: Float[Array, "batch 64"], change: Float[Array, "batch"]) -> Float[Array, "batch 64"]:
    """Codes at an intensity that is `change` higher: numbers k, k + 32, as directions 2p - 1, turned by TURN x change.

    expression: [batch, 64]; change: [batch], 1 from neutral to full. Worrall et al. 2017, eq. 5 (2x2 blocks).
    """
    x, y = jnp.split(2 * expression - 1, 2, axis=-1)
    cosine, sine = jnp.cos(ROTATION_PER_INTENSITY * change)[:, None], jnp.sin(ROTATION_PER_INTENSITY * change)[:, None]
    return (1 + jnp.concatenate([cosine * x - sine * y, sine * x + cosine * y], axis=-1)) / 2


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def clamp(code: Float[Array, "batch dim"], scale: float) -> Float[Array, "batch dim"]:
    """The batch mean in place of each code; backwards PULL x scale x (code - mean) in place of any gradient.

    scale: of the pictures' error, the weight in the loss of one picture's summed squared error.

    Kulkarni et al. 2015, section 3.1: what does not vary in a batch is to be one code, and learns to be.
    """
    return jnp.broadcast_to(jnp.mean(code, axis=0, keepdims=True), code.shape)


def _clamp_forward(code, scale):
    return clamp(code, scale), code


def _clamp_backward(scale, code, _):
    return (CLAMP_GRADIENT_SCALE * scale * (code - jnp.mean(code, axis=0, keepdims=True)),)


clamp.defvjp(_clamp_forward, _clamp_backward)


def related_work_terms(
    config: Config, params: Params, images: Float[Array, "3 batch 64 64 3"], batch: Batch, codes: Codes
) -> dict[str, Array]:
    """rotation and clamping, unweighted; each only where it has a weight, as each decodes pictures of its own.

    images: [3, batch, 64, 64, 3], a, b, c; codes: theirs, [3, batch, 64] each. rotation: b from a's codes, the
    expression turned by the change of intensity, and a from b's. clamping: a from its own codes, that which does not
    vary in the batch (see `triplets.OneFactor`) clamped.
    """
    out = {}
    if config.method == "rotation":
        change = batch.intensity[:, 1] - batch.intensity[:, 0]
        turned = rotate(codes.expression[:2].reshape(-1, CODE_DIMS), jnp.concatenate([change, -change]))
        made = decode(config.model, params, Codes(codes.identity[:2].reshape(-1, CODE_DIMS), turned))
        known = jnp.tile(batch.has_pair * batch.labelled[:, 0] * batch.labelled[:, 1], 2)
        error = functions.mse(made, jnp.concatenate([images[1], images[0]]))
        out["rotation"] = jnp.sum(error * known) / jnp.maximum(jnp.sum(known), 1.0)
    if config.method == "clamping":
        one_expression = jnp.all(batch.label[:, 0] == batch.label[:1, 0])
        identity, expression = codes.identity[0], codes.expression[0]
        scale = config.loss.clamping / images[0].size  # the error below is a mean
        kept = Codes(
            jnp.where(one_expression, identity, clamp(identity, scale)),
            jnp.where(one_expression, clamp(expression, scale), expression),
        )
        out["clamping"] = jnp.mean(functions.mse(decode(config.model, params, kept), images[0]))
    return out
