"""Terms of the loss for the warp decoder, which sees an image of the person."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from facedisent_jax.config import Config
from facedisent_jax.data.triplets import Batch
from facedisent_jax.losses.functions import (
    l1,
    masked_mean,
    multiscale_charbonnier,
    pixel_weights,
    texture_error,
    total_variation,
)
from facedisent_jax.models import Codes, Params, Source, decode_from_sources, encode


def warp_terms(
    config: Config,
    params: Params,
    images: Float[Array, "4 batch 64 64 3"],
    batch: Batch,
    codes: Codes,
    decoded: Float[Array, "batch 2 64 64 3"],
) -> dict[str, Float[Array, ""]]:
    """one_source, texture, two_sources, flow_tv, mask_area and cycle, unweighted.

    images: a, b, c and the middle frame m. codes: of a, b, c, [3, batch, dim] each. decoded: a and b from these codes.

    | source | target expression | target identity | target image | weight |
    |---|---|---|---|---|
    | a, without m | b's | a's | b | has_b |
    | a, with m | between a and b, as m | between a and b | m | has_b |
    | b | c's intensity, in a's style, with b's details | b's, or a's with m | a | has_b * has_c |
    | a and b | between a and b, as m | between a and b | m | difference of intensities |

    The last row has half of the triplets, those with a middle frame first.

    An expression code is the label, the style of the smile (`style_dims`) and details of one image. The third row
    learns from label and style alone, as nobody can know the details of a smile that was never photographed.

    The target identity is the source's, as when a user asks for a smile: the target's own would tell the decoder what
    the smile looks like. With a middle frame the head moves. The identity code sets its pose, so there it is that of
    the target. a and b are drawn in either order.
    """
    a, b, _, middle = images
    (identity_a, identity_b, _), (expression_a, expression_b, expression_c) = codes
    n, label_dims = len(a), config.objective.label_dims
    details = label_dims + config.objective.style_dims  # where they begin
    retargeted = jnp.concatenate(
        [expression_c[:, :label_dims], expression_a[:, label_dims:details], expression_b[:, details:]], axis=1
    )
    alpha = batch.alpha[:, None]
    interpolated = Codes(
        (1 - alpha) * identity_a + alpha * identity_b, (1 - alpha) * expression_a + alpha * expression_b
    )
    middle_weight = batch.has_middle * jnp.abs(batch.intensity[0] - batch.intensity[1])

    source_a = Source(a, identity_a, expression_a, decoded[:, 0])
    source_b = Source(b, identity_b, expression_b, decoded[:, 1])
    sources = jax.tree.map(lambda *parts: jnp.concatenate(parts), source_a, source_b)
    has_middle = batch.has_middle[:, None] > 0
    codes_from_a = Codes(
        jnp.where(has_middle, interpolated.identity, identity_a),
        jnp.where(has_middle, interpolated.expression, expression_b),
    )
    codes_from_b = Codes(jnp.where(has_middle, identity_a, identity_b), retargeted)
    target_codes = jax.tree.map(lambda *parts: jnp.concatenate(parts), codes_from_a, codes_from_b)
    target_from_a = jnp.where(has_middle[..., None, None], middle, b)
    from_one = decode_from_sources(config.model, params, target_codes, sources)
    # Half a batch from two sources: most triplets of stills have no middle frame, and this call costs the most.
    half = jnp.argsort(-batch.has_middle, stable=True)[: (n + 1) // 2]
    from_two = decode_from_sources(
        config.model, params, *_rows((interpolated, source_a, source_b), half), alpha=batch.alpha[half]
    )

    pixel_weight = jnp.asarray(pixel_weights(config.objective.mouth_weight))
    target = jnp.concatenate([target_from_a, a])
    error = multiscale_charbonnier(from_one.images, target, pixel_weight)
    weight = jnp.concatenate([batch.has_b, batch.has_b * batch.has_c])
    flow = jnp.concatenate([from_one.flow, *from_two.flow[:, None]], axis=1)[0]
    # The encoder must not make the cycle easy, so only the decoder learns from it.
    re_encoded = encode(config.model, jax.lax.stop_gradient(params), from_one.images[n:])
    cycle_target = jax.lax.stop_gradient(Codes(codes_from_b.identity, retargeted[:, :details]))
    cycle = l1(re_encoded.identity, cycle_target.identity)
    cycle += l1(re_encoded.expression[:, :details], cycle_target.expression)
    return {
        "one_source": masked_mean(error, weight),
        "texture": masked_mean(texture_error(from_one.images, target, pixel_weight), weight),
        "two_sources": masked_mean(
            multiscale_charbonnier(from_two.images, middle[half], pixel_weight), middle_weight[half]
        ),
        "flow_tv": jnp.mean(total_variation(flow)),
        "mask_area": (jnp.mean(from_one.mask) + jnp.mean(from_two.mask)) / 2,
        "cycle": masked_mean(cycle, batch.has_b * batch.has_c),
    }


def _rows(values: Any, rows: Int[Array, "k"]) -> Any:
    """The same rows of each array of a pytree."""
    return jax.tree.map(lambda x: x[rows], values)
