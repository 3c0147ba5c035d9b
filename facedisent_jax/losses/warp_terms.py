"""Terms of the loss for a decoder that sees pictures of the person (kind "warp"): what is decoded from which source."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from facedisent_jax.config import Config
from facedisent_jax.data.triplets import Batch
from facedisent_jax.losses import functions
from facedisent_jax.models import Source, decode_from_sources, encode
from facedisent_jax.models.codes import Codes, Params


def warp_terms(
    config: Config,
    params: Params,
    images: Float[Array, "batch 4 64 64 3"],
    batch: Batch,
    codes: Codes,
    decoded: Float[Array, "2 batch 64 64 3"],
) -> dict[str, Array]:
    """source, between, smooth, paint and cycle, unweighted.

    images: [batch, 4, 64, 64, 3], a, b, c and the frame between a and b. codes: of a, b, c, [3, batch, 64] each.
    decoded: what those of a and b alone show.
    From one picture: b of a (a of b comes with another batch, as which is which is drawn); a of b with the strength of
    c, in b's own kind or in c's; the frame between of a, with both codes on the straight line, or with the expression
    code there and the identity code of a. From the two pictures a and b: the frame between. The identity code is
    otherwise that of what is to be shown, as it says where the head is.
    """
    a, b, _, between = images.swapaxes(0, 1)
    (who_a, who_b, _), (of_a, of_b, of_c) = codes
    n, numbers = len(a), config.objective.label_dims
    even = (jnp.arange(n) % 2 == 0)[:, None]
    strength = jnp.concatenate([of_c[:, :numbers], jnp.where(even, of_b[:, numbers:], of_c[:, numbers:])], axis=1)
    share = batch.alpha[:, None]
    line = Codes((1 - share) * who_a + share * who_b, (1 - share) * of_a + share * of_b)
    gap = batch.has_middle * jnp.abs(batch.intensity[:, 0] - batch.intensity[:, 1])

    first, second = Source(a, who_a, of_a, decoded[0]), Source(b, who_b, of_b, decoded[1])
    one = jax.tree.map(lambda *parts: jnp.concatenate(parts), first, second, first)
    who = jnp.concatenate([who_b, who_a, jnp.where(even, line.identity, who_a)])
    asked = Codes(who, jnp.concatenate([of_b, strength, line.expression]))
    alone = decode_from_sources(config.model, params, asked, one)
    pair = decode_from_sources(config.model, params, line, first, second, place=batch.alpha)

    mouth = jnp.asarray(functions.mouth_weights(config.objective.mouth_weight))
    error = functions.structural(alone.pictures, jnp.concatenate([b, a, between]), mouth)
    known = jnp.concatenate([batch.has_pair, batch.has_pair * batch.has_peer, gap])
    bend = jnp.concatenate([alone.displacement, *pair.displacement[:, None]], axis=1)[0]
    # The encoder is not to make the cycle easy: what it says of the result is learnt by the decoder alone.
    again = encode(config.model, jax.lax.stop_gradient(params), alone.pictures[n : 2 * n])
    wanted = jax.lax.stop_gradient(Codes(who_a, strength))
    cycle = functions.l1(again.identity, wanted.identity) + functions.l1(again.expression, wanted.expression)
    return {
        "one_source": _mean(error, known),
        "two_sources": _mean(functions.structural(pair.pictures, between, mouth), gap),
        "flow_tv": jnp.mean(functions.total_variation(bend)),
        "mask_area": (jnp.mean(alone.mask) + jnp.mean(pair.mask)) / 2,
        "cycle": _mean(cycle, batch.has_pair * batch.has_peer),
    }


def _mean(values: Float[Array, "batch"], weight: Float[Array, "batch"]) -> Float[Array, ""]:
    return jnp.sum(values * weight) / jnp.maximum(jnp.sum(weight), 1.0)
