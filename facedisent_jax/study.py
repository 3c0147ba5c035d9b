"""Load a trained run and study it: encode, decode, swap, interpolate. What researchers call.

Needs neither the data nor TensorFlow. Imports model, checkpoint, metrics and triplets.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from facedisent_jax import checkpoint, metrics, model
from facedisent_jax.config import CODE, Config
from facedisent_jax.model import SIZE, Codes
from facedisent_jax.triplets import label_vector

Move = Literal["expression", "identity", "both"]
BATCH = 32
"""Pictures a call of the compiled network: shorter batches are padded, so that it is compiled once."""


class StudyError(ValueError):
    """Something asked of a face that it cannot do; the message is a sentence for the person at the keyboard."""


def load(run: str | Path, step: str | int = "best") -> "Face":
    """The trained network of a run folder, at its best validated step, its last, or a given one."""
    loaded = checkpoint.load(run, step)
    return Face(loaded.params, loaded.config, loaded.info, loaded.step)


@dataclass(frozen=True)
class Face:
    """A trained network.

    params: plain pytree of arrays. config: the run's frozen Config. info: what the checkpoint says of its data: "data"
    (folders), "crop" (detector and margin), "train_subjects". step: the checkpoint's.
    """

    params: Any
    config: Config
    info: dict
    step: int

    def encode(self, images: np.ndarray) -> Codes:
        """images: [n, 64, 64, 3] uint8, or float in [0, 1] -> Codes(identity [n, 64], expression [n, 64] in [0, 1])."""
        return Codes._make(_batched(self._encode, [checked(images)], [(CODE,), (CODE,)]))

    def intensity(self, expression: np.ndarray | jax.Array, action: str = "smile") -> np.ndarray:
        """How much of an action expression codes show, [n, 64] -> [n]: 0 at neutral, 1 at the action's label vector."""
        return metrics.projection(np.asarray(expression), label_vector(action)[: self.config.loss.label_numbers])

    def decode(self, codes: Codes | Sequence[np.ndarray]) -> np.ndarray:
        """codes: Codes, or (identity, expression), [n, 64] each -> [n, 64, 64, 3] float in [0, 1]."""
        identity, expression = (np.asarray(code, np.float32) for code in codes)
        if identity.ndim != 2 or identity.shape[1] != CODE or identity.shape != expression.shape:
            found = f"{list(identity.shape)} and {list(expression.shape)}"
            raise StudyError(
                f"Codes of shapes {found} cannot be decoded: identity and expression are [n, {CODE}] each."
            )
        return _batched(self._decode, [identity, expression], [(SIZE, SIZE, 3)])[0]

    def swap(self, identity: np.ndarray, expression: np.ndarray) -> np.ndarray:
        """The people of `identity` with the expressions of `expression`, pair by pair.

        identity, expression: [n, 64, 64, 3] pictures each -> [n, 64, 64, 3] float in [0, 1].
        """
        a, b = self.encode(identity), self.encode(expression)
        if len(a.identity) != len(b.identity):
            found = f"{len(a.identity)} and {len(b.identity)}"
            raise StudyError(
                f"{found} pictures cannot be swapped pair by pair: give as many of each, or use swap_grid."
            )
        return self.decode(Codes(a.identity, b.expression))

    def swap_grid(self, identity: np.ndarray, expression: np.ndarray) -> np.ndarray:
        """Every person of `identity` with every expression of `expression`: [n, ...], [m, ...] -> [n, m, 64, 64, 3]."""
        a, b = self.encode(identity).identity, self.encode(expression).expression
        pairs = np.repeat(a, len(b), axis=0), np.tile(b, (len(a), 1))
        return self.decode(pairs).reshape(len(a), len(b), SIZE, SIZE, 3)

    def interpolate(self, a: np.ndarray, b: np.ndarray, steps: int = 11, move: Move = "expression") -> np.ndarray:
        """From face a towards face b along a straight line in the code.

        a, b: one picture [64, 64, 3] each. move: which code goes from a's to b's, the other staying a's: the
        "expression", the "identity", or "both" (the poster's Fig. 4) -> [steps, 64, 64, 3] float in [0, 1].
        """
        return self.decode(line(self.encode(one(a)), self.encode(one(b)), steps, move))

    @cached_property
    def _encode(self) -> Callable:
        return partial(jax.jit(partial(model.encode, self.config.model)), self.params)

    @cached_property
    def _decode(self) -> Callable:
        def decode(params, identity, expression):
            return (jnp.clip(model.decode(self.config.model, params, Codes(identity, expression)), 0, 1),)

        return partial(jax.jit(decode), self.params)


def line(a: Codes, b: Codes, steps: int = 11, move: Move = "expression") -> Codes:
    """`steps` codes in a straight line from a to b, one code each [1, 64]; what is not moved stays a's."""
    if move not in ("expression", "identity", "both"):
        raise StudyError(f'Cannot move "{move}": say "expression", "identity" or "both".')
    check_steps(steps)
    alpha = np.linspace(0, 1, steps, dtype=np.float32)[:, None]
    return Codes._make(
        (1 - alpha) * start + alpha * end if move in (name, "both") else np.repeat(np.asarray(start), steps, axis=0)
        for name, start, end in zip(Codes._fields, a, b, strict=True)
    )


def check_steps(steps: int) -> None:
    """Raises StudyError for a number of pictures that makes no path."""
    if not isinstance(steps, int | np.integer) or steps < 2:
        raise StudyError(f"A path of {steps} steps has no two ends: ask for a whole number, 2 or more.")


def one(picture: np.ndarray) -> np.ndarray:
    """One picture, [64, 64, 3] or [1, 64, 64, 3] -> [1, 64, 64, 3]."""
    picture = np.asarray(picture)
    if picture.shape not in ((SIZE, SIZE, 3), (1, SIZE, SIZE, 3)):
        raise StudyError(f"Expected one picture of shape [{SIZE}, {SIZE}, 3], got {list(picture.shape)}.")
    return picture.reshape(1, SIZE, SIZE, 3)


def checked(images: np.ndarray) -> np.ndarray:
    """`images` if they are pictures as `encode` takes them; a sentence if not."""
    images = np.asarray(images)
    if images.ndim != 4 or images.shape[1:] != (SIZE, SIZE, 3):
        hint = " Write images[None] for a single picture." if images.shape == (SIZE, SIZE, 3) else ""
        raise StudyError(f"Expected pictures of shape [n, {SIZE}, {SIZE}, 3], got {list(images.shape)}.{hint}")
    if images.dtype == np.uint8:
        return images
    if not np.issubdtype(images.dtype, np.floating):
        raise StudyError(f"Expected pictures as uint8, or as float in [0, 1]; got {images.dtype}.")
    if len(images) and not (images.min() >= 0 and images.max() <= 1):
        found = "NaN" if np.isnan(images).any() else f"numbers from {images.min():.3g} to {images.max():.3g}"
        raise StudyError(f"Expected float pictures in [0, 1], found {found}; pictures of 0..255 are given as uint8.")
    return images


def _batched(run: Callable, inputs: list[np.ndarray], shapes: list[tuple[int, ...]]) -> list[np.ndarray]:
    """run(*inputs), BATCH rows a call: its outputs as numpy arrays of [n, *shape]; uint8 inputs divided by 255."""
    count = len(inputs[0])
    outputs = [np.empty((count, *shape), np.float32) for shape in shapes]
    for start in range(0, count, BATCH):
        rows = min(BATCH, count - start)
        batch = []
        for whole in inputs:
            padded = np.zeros((BATCH, *whole.shape[1:]), np.float32)
            padded[:rows] = whole[start : start + rows]
            batch.append(jnp.asarray(padded / 255 if whole.dtype == np.uint8 else padded))
        for output, value in zip(outputs, run(*batch), strict=True):
            output[start : start + rows] = np.asarray(value)[:rows]
    return outputs
