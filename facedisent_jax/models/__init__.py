"""The networks as pure functions of (config, params, inputs). All kinds of network are listed here, in KINDS.

The batch size may be symbolic, as for ONNX: it is read as `x.shape[0]`, not as `len(x)`.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from facedisent_jax.config import IMAGE_SIZE, ModelConfig
from facedisent_jax.models import warp_decoder
from facedisent_jax.models.codes import Codes, EncoderOutput, Params
from facedisent_jax.models.hybrid import HybridDecoder, HybridEncoder
from facedisent_jax.models.plain import PlainDecoder, PlainEncoder
from facedisent_jax.models.warp_decoder import Source, WarpOutput

__all__ = [
    "Codes",
    "EncoderOutput",
    "KINDS",
    "Params",
    "Source",
    "WarpOutput",
    "decode",
    "decode_from_sources",
    "encode",
    "encode_logits",
    "encode_source",
    "init",
]


class Kind(NamedTuple):
    """What a value of `ModelConfig.kind` stands for.

    linear_path: whether it has a linear path, which starts at principal components (`pca_init`).
    uses_source: whether it also has a warp decoder, for `decode_from_sources`.
    """

    encoder: type[nn.Module]
    decoder: type[nn.Module]
    linear_path: bool
    uses_source: bool


KINDS = {
    "hybrid": Kind(HybridEncoder, HybridDecoder, linear_path=True, uses_source=False),
    "plain": Kind(PlainEncoder, PlainDecoder, linear_path=False, uses_source=False),
    "warp": Kind(HybridEncoder, HybridDecoder, linear_path=True, uses_source=True),
}


def init(config: ModelConfig, key: Array) -> Params:
    """New weights from a random key."""
    kind = KINDS[config.kind]
    code = jnp.zeros((1, config.code_dims))
    encoder_key, decoder_key = jax.random.split(key)
    params = {
        "encoder": _encoder(config).init(encoder_key, jnp.zeros((1, IMAGE_SIZE, IMAGE_SIZE, 3)))["params"],
        "decoder": _decoder(config).init(decoder_key, code, code)["params"],
    }
    if kind.uses_source:
        params["warp"] = warp_decoder.init(config, jax.random.fold_in(key, 2))
    return params


def encode(config: ModelConfig, params: Params, images: Float[Array, "batch 64 64 3"]) -> Codes:
    """Identity and expression codes of images in [0, 1]."""
    return encode_logits(config, params, images).codes


def encode_logits(config: ModelConfig, params: Params, images: Float[Array, "batch 64 64 3"]) -> EncoderOutput:
    """`encode` before the sigmoid of the expression code, as the losses need it."""
    return _encoder(config).apply({"params": params["encoder"]}, images)  # type: ignore[return-value]


def decode(config: ModelConfig, params: Params, codes: Codes) -> Float[Array, "batch 64 64 3"]:
    """Images from the codes alone; meant for [0, 1], and not clipped to it."""
    return _decoder(config).apply({"params": params["decoder"]}, *codes)  # type: ignore[return-value]


def encode_source(config: ModelConfig, params: Params, images: Float[Array, "batch 64 64 3"]) -> Source:
    """A source for `decode_from_sources` from images in [0, 1]."""
    codes = encode(config, params, images)
    return Source(images, *codes, decode(config, params, codes))


def decode_from_sources(
    config: ModelConfig,
    params: Params,
    codes: Codes,
    source: Source,
    source_b: Source | None = None,
    alpha: Float[Array, "batch"] | None = None,
    refined: bool = False,
) -> WarpOutput:
    """Give the source images the expression of the codes (kind "warp").

    The sources define the person, the codes the change.
    One source: both codes also set the head pose, and the identity code must belong to this person.
    Two sources: `alpha` sets the pose, 0 that of `source` and 1 that of `source_b`. The identity code is ignored.
    refined: for images to look at: less blur, points that move evenly, and a tenth farther. Costs more.
    """
    if (source_b is None) != (alpha is None):
        raise ValueError("alpha must be given with two sources, and only then.")
    sources = (source,)
    if source_b is not None and alpha is not None:
        sources = (source, source_b)
        weight = jnp.clip(alpha, 0, 1)[:, None]
        codes = codes._replace(identity=(1 - weight) * source.identity + weight * source_b.identity)
    # What the codes alone decode to is learnt from other terms of the loss.
    target_decoded = jax.lax.stop_gradient(decode(config, params, codes))
    sources = tuple(s._replace(decoded=jax.lax.stop_gradient(s.decoded)) for s in sources)
    return warp_decoder.warp_sources(config, params["warp"], codes.expression, target_decoded, sources, alpha, refined)


def _encoder(config: ModelConfig) -> nn.Module:
    return KINDS[config.kind].encoder(config)


def _decoder(config: ModelConfig) -> nn.Module:
    return KINDS[config.kind].decoder(config)
