"""The encoder and the decoder. The rest of the library sees `init`, `encode`, `decode` and `Codes`; Flax stays here."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from facedisent_jax.config import CODE_DIMS, IMAGE_SIZE, ModelConfig
from facedisent_jax.models import warp_decoder
from facedisent_jax.models.alignment import head_motion
from facedisent_jax.models.codes import Codes, EncoderOutput, Params
from facedisent_jax.models.hybrid import HybridDecoder, HybridEncoder
from facedisent_jax.models.plain import PlainDecoder, PlainEncoder
from facedisent_jax.models.warp_decoder import Source, WarpOutput


def _networks(config: ModelConfig) -> tuple[nn.Module, nn.Module]:
    encoder, decoder = (PlainEncoder, PlainDecoder) if config.kind == "plain" else (HybridEncoder, HybridDecoder)
    return encoder(config), decoder(config)


def init(config: ModelConfig, key: Array) -> Params:
    """New weights as a plain pytree {"encoder": ..., "decoder": ...}, float32, from a random key; "warp" besides."""
    encoder, decoder = _networks(config)
    code = jnp.zeros((1, CODE_DIMS))
    first, second = jax.random.split(key)
    params = {
        "encoder": encoder.init(first, jnp.zeros((1, IMAGE_SIZE, IMAGE_SIZE, 3)))["params"],
        "decoder": decoder.init(second, code, code)["params"],
    }
    return params | {"warp": warp_decoder.init(config, jax.random.fold_in(key, 2))} if config.kind == "warp" else params


def encode_logits(config: ModelConfig, params: Params, images: Float[Array, "batch 64 64 3"]) -> EncoderOutput:
    """images: [batch, 64, 64, 3] float in [0, 1] -> identity code and expression logits, [batch, 64] float32 each."""
    return _networks(config)[0].apply({"params": params["encoder"]}, images)  # type: ignore[return-value]


def encode(config: ModelConfig, params: Params, images: Float[Array, "batch 64 64 3"]) -> Codes:
    """images: [batch, 64, 64, 3] float in [0, 1] -> Codes."""
    return encode_logits(config, params, images).codes


def encode_source(config: ModelConfig, params: Params, pictures: Float[Array, "batch 64 64 3"]) -> Source:
    """Pictures as `decode` takes them: [batch, 64, 64, 3] float in [0, 1] with their codes and what these show."""
    codes = encode(config, params, pictures)
    return Source(pictures, *codes, decode(config, params, codes))


def decode_from_sources(
    config: ModelConfig, params: Params, codes: Codes, *sources: Source, place: Any = None, sharp: bool = False
) -> WarpOutput:
    """`decode` with one or two sources (kind "warp"), and what was done to them. sharp: as decode, at a higher cost."""
    if len(sources) == 2:  # the identity code says where the head is, and of two pictures `place` does
        share = jnp.clip(place, 0, 1)[:, None]
        codes = codes._replace(identity=(1 - share) * sources[0].identity + share * sources[1].identity)
    # What the codes alone show is learnt from its own terms of the loss.
    decoded = jax.lax.stop_gradient(decode(config, params, codes))
    sources = tuple(source._replace(decoded=jax.lax.stop_gradient(source.decoded)) for source in sources)
    head = _pose_flow(decoded, sources, place)
    return warp_decoder.warp_sources(config, params["warp"], codes.expression, decoded, sources, head, place, sharp)


def _pose_flow(decoded: Float[Array, "batch 64 64 3"], sources: tuple[Source, ...], place: Any) -> Array:
    """What moves the head of each source to where the codes have it, [sources, batch, 64, 64, 2]: no expression, and
    found without learning. Between two pictures it goes evenly; of one, the pictures decoded from its own codes and
    from those asked for tell it, as both are blurred alike."""
    if len(sources) == 2:
        first, second = sources
        share = jnp.clip(place, 0, 1)[:, None, None, None]
        found = head_motion(first.pictures, second.pictures)
        return jnp.stack([share * found, (share - 1) * found])
    (only,) = sources
    return head_motion(only.decoded, decoded)[None]


def decode(
    config: ModelConfig, params: Params, codes: Codes, *sources: Source, place: Any = None
) -> Float[Array, "batch 64 64 3"]:
    """Codes -> pictures [batch, 64, 64, 3] float32; meant for [0, 1], and not clipped to it.

    sources: none, or (kind "warp") a picture of each person, or two between which the codes lie: they tell who is
    shown, and the codes what moves. Of one picture both codes say where the head is, and the identity code must be
    that of a picture of this person: another's is painted over it. Of two `place` says it, and the identity code is not
    read. place: [batch] where between two, 0 at the first, 1 at the second.
    """
    if sources:
        return decode_from_sources(config, params, codes, *sources, place=place, sharp=True).pictures
    return _networks(config)[1].apply({"params": params["decoder"]}, *codes)  # type: ignore[return-value]
