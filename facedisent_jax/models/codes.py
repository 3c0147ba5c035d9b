"""The two codes of a face, and the types that every network shares."""

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import numpy as np
from jaxtyping import Array, Float

from facedisent_jax.config import IMAGE_SIZE

PIXELS = IMAGE_SIZE * IMAGE_SIZE * 3  # values of an image, all channels
SAME_SUBJECT_COSINE = 0.3  # validation people: 0.4 to 0.9 between neutral and apex of one, at most 0.2 between two

Params = Any  # a plain pytree of float32 arrays: {"encoder": ..., "decoder": ...}, for kind "warp" also {"warp": ...}


class Codes(NamedTuple):
    """Latent codes of a batch of faces.

    identity:   unbounded.
    expression: in [0, 1]; moves along a line from neutral (label vector 0) to the full expression (1).
    """

    identity: Float[Array, "batch dim"]
    expression: Float[Array, "batch dim"]

    @classmethod
    def from_json(cls, text: str) -> "Codes":
        """The codes of one face, [1, dim] each, as the page of `eval.py explore` copies them. Raises ValueError."""
        codes = json.loads(text)
        return cls(*(np.array([codes[name]], np.float32) for name in cls._fields))  # type: ignore[arg-type]


class EncoderOutput(NamedTuple):
    """What the encoder returns and training uses: the identity code and the logits of the expression code."""

    identity: Float[Array, "batch dim"]
    logits: Float[Array, "batch dim"]

    @property
    def codes(self) -> Codes:
        return Codes(self.identity, nn.sigmoid(self.logits))


def lerp(a: Codes, b: Codes, weights: Sequence) -> Codes:
    """Codes on the line from a to b, [1, dim] each. weights: [n, 1] for the identity and for the expression code."""
    return Codes._make((1 - w) * start + w * end for w, start, end in zip(weights, a, b, strict=True))


def split_pair(pair: Codes) -> list[Codes]:
    """Codes of two images, [2, dim], as two Codes of [1, dim]."""
    return [Codes._make(code[k : k + 1] for code in pair) for k in range(2)]


def is_same_subject(a: Codes, b: Codes) -> bool:
    """Whether two images, each with codes [1, dim], show one person: by the cosine of their identity codes."""
    a_, b_ = np.asarray(a.identity).ravel(), np.asarray(b.identity).ravel()
    return bool(a_ @ b_ > SAME_SUBJECT_COSINE * np.linalg.norm(a_) * np.linalg.norm(b_))
