"""The poster's two references as losses: rotated codes (Worrall et al. 2017) and clamped codes (Kulkarni et al. 2015,
DC-IGN)."""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from facedisent_jax.config import Config
from facedisent_jax.data.triplets import Batch
from facedisent_jax.losses.functions import masked_mean, mse
from facedisent_jax.models import Codes, Params, decode

ROTATION_PER_INTENSITY = jnp.pi / 2
"""Angle between the codes of neutral and of full expression, so that no two intensities share a code."""
CLAMP_GRADIENT_SCALE = 0.01
"""Scale of the gradient that pulls a clamped code to the batch mean (the paper's 1/100), relative to an error *summed*
over pixels. With a mean error it would be far too strong: after 100 steps all outputs are one face (18.7 dB)."""


def rotation_terms(
    config: Config, params: Params, images: Float[Array, "3 batch 64 64 3"], batch: Batch, codes: Codes
) -> dict[str, Float[Array, ""]]:
    """rotation: decode b from a's codes, the expression rotated by the change of intensity, and a from b's.

    codes: [3, batch, dim] each. Source: Worrall et al. 2017.
    """
    change = batch.intensity[1] - batch.intensity[0]
    rotated = rotate(codes.expression[:2].reshape(-1, config.model.code_dims), jnp.concatenate([change, -change]))
    decoded = decode(config.model, params, Codes(codes.identity[:2].reshape(-1, config.model.code_dims), rotated))
    error = mse(decoded, jnp.concatenate([images[1], images[0]]))
    mask = jnp.tile(batch.has_b * batch.is_labelled[0] * batch.is_labelled[1], 2)
    return {"rotation": masked_mean(error, mask)}


def clamping_terms(
    config: Config, params: Params, images: Float[Array, "3 batch 64 64 3"], batch: Batch, codes: Codes
) -> dict[str, Float[Array, ""]]:
    """clamping: reconstruct a with the code clamped that does not vary in the batch (see `OneFactor`).

    codes: [3, batch, dim] each. Source: Kulkarni et al. 2015.
    """
    is_one_expression = jnp.all(batch.label[0] == batch.label[0, :1])
    identity, expression = codes.identity[0], codes.expression[0]
    scale = config.loss.clamping / images[0].size  # the error below is a mean
    clamped = Codes(
        jnp.where(is_one_expression, identity, clamp(identity, scale)),
        jnp.where(is_one_expression, clamp(expression, scale), expression),
    )
    return {"clamping": jnp.mean(mse(decode(config.model, params, clamped), images[0]))}


def rotate(expression: Float[Array, "batch dim"], change: Float[Array, "batch"]) -> Float[Array, "batch dim"]:
    """Codes at an intensity that is higher by `change`, 1 from neutral to full.

    Dimensions k and k + 32, as a direction 2e - 1, are rotated by ROTATION_PER_INTENSITY * change.
    Source: Worrall et al. 2017, eq. 5 (2x2 blocks).
    """
    x, y = jnp.split(2 * expression - 1, 2, axis=-1)
    cosine, sine = jnp.cos(ROTATION_PER_INTENSITY * change)[:, None], jnp.sin(ROTATION_PER_INTENSITY * change)[:, None]
    return (1 + jnp.concatenate([cosine * x - sine * y, sine * x + cosine * y], axis=-1)) / 2


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def clamp(code: Float[Array, "batch dim"], scale: float) -> Float[Array, "batch dim"]:
    """The batch mean in place of each code. Its gradient is CLAMP_GRADIENT_SCALE * scale * (code - mean).

    scale: weight in the loss of the squared error summed over one image.
    Source: Kulkarni et al. 2015, section 3.1. What does not vary in a batch learns to have one code.
    """
    return jnp.broadcast_to(jnp.mean(code, axis=0, keepdims=True), code.shape)


def _clamp_forward(code, scale):
    return clamp(code, scale), code


def _clamp_backward(scale, code, _):
    return (CLAMP_GRADIENT_SCALE * scale * (code - jnp.mean(code, axis=0, keepdims=True)),)


clamp.defvjp(_clamp_forward, _clamp_backward)
