"""The two codes of a face, and the types that every network shares."""

from typing import Any, NamedTuple

import flax.linen as nn
from jaxtyping import Array, Float

from facedisent_jax.config import IMAGE_SIZE

PIXELS = IMAGE_SIZE * IMAGE_SIZE * 3  # values of an image, all channels

Params = Any  # a plain pytree of float32 arrays: {"encoder": ..., "decoder": ...}, for kind "warp" also {"warp": ...}


class Codes(NamedTuple):
    """Latent codes of a batch of faces.

    identity:   unbounded.
    expression: in [0, 1]; moves along a line from neutral (label vector 0) to the full expression (1).
    """

    identity: Float[Array, "batch dim"]
    expression: Float[Array, "batch dim"]


class EncoderOutput(NamedTuple):
    """What the encoder returns and training uses: the identity code and the logits of the expression code."""

    identity: Float[Array, "batch dim"]
    logits: Float[Array, "batch dim"]

    @property
    def codes(self) -> Codes:
        return Codes(self.identity, nn.sigmoid(self.logits))
