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

from facedisent_jax import models
from facedisent_jax.config import CODE_DIMS, IMAGE_SIZE, Config
from facedisent_jax.data.labels import label_vector, read_intensity
from facedisent_jax.errors import UserError
from facedisent_jax.models.codes import Codes
from facedisent_jax.training import checkpoint

Move = Literal["expression", "identity", "both"]
BATCHES = (2, 16, 64)
"""Pictures a call of the compiled network: other numbers are padded to the next, so that it is compiled three times at
most. Pictures are few where somebody looks at them, and many where all of a data set are judged."""


def load(run: str | Path, step: str | int = "best") -> "TrainedModel":
    """The trained network of a run folder, at its best validated step, its last, or a given one."""
    loaded = checkpoint.load(run, step)
    return TrainedModel(loaded.params, loaded.config, loaded.info, loaded.step)


@dataclass(frozen=True)
class TrainedModel:
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
        return Codes._make(_batched(self._encode, [validate_images(images)], [(CODE_DIMS,), (CODE_DIMS,)]))

    def intensity(self, expression: np.ndarray | jax.Array, action: str = "smile") -> np.ndarray:
        """How much of an action expression codes show, [n, 64] -> [n]: 0 at neutral, 1 at the action's label vector."""
        return read_intensity(np.asarray(expression), label_vector(action)[: self.config.objective.label_dims])

    @property
    def uses_source(self) -> bool:
        """Whether the decoder also takes a picture of the person (kind "warp")."""
        return self.config.model.kind == "warp"

    def decode(
        self,
        codes: Codes | Sequence[np.ndarray],
        source: np.ndarray | None = None,
        other: np.ndarray | None = None,
        place: np.ndarray | None = None,
    ) -> np.ndarray:
        """codes: Codes, or (identity, expression), [n, 64] each -> [n, 64, 64, 3] float in [0, 1].

        source: [n, 64, 64, 3], a picture of each person, whom the codes then give their expression and, as far as they
        differ from those of the picture, another place of the head (kind "warp" alone). The identity codes must be of
        the same people.
        other, place: a second picture of each, and where between the two the codes lie: [n], 0 at source, 1 at other;
        that alone then places the head, and the identity code is not read.
        """
        identity, expression = (np.asarray(code, np.float32) for code in codes)
        if identity.ndim != 2 or identity.shape[1] != CODE_DIMS or identity.shape != expression.shape:
            found = f"{list(identity.shape)} and {list(expression.shape)}"
            raise UserError(
                f"Codes of shapes {found} cannot be decoded: identity and expression are [n, {CODE_DIMS}] each."
            )
        inputs = [identity, expression]
        if source is not None:
            if not self.uses_source:
                kind = self.config.model.kind
                raise UserError(f"A decoder of kind {kind} takes no source picture: train.py warp makes one that does.")
            inputs.append(validate_images(source))
            if other is not None:
                inputs += [validate_images(other), np.asarray(place, np.float32)]
        if any(len(part) != len(identity) for part in inputs):
            raise UserError(f"{len(identity)} codes take as many pictures of their people, got {len(inputs[2])}.")
        return _batched(self._decode, inputs, [(IMAGE_SIZE, IMAGE_SIZE, 3)])[0]

    def decode_with_source(
        self,
        codes: Codes | Sequence[np.ndarray],
        source: np.ndarray,
        other: np.ndarray | None = None,
        place: np.ndarray | None = None,
    ) -> np.ndarray:
        """`decode` with the pictures if the decoder takes them, and from the codes alone if not."""
        return self.decode(codes, source, other, place) if self.uses_source else self.decode(codes)

    def swap(self, identity: np.ndarray, expression: np.ndarray) -> np.ndarray:
        """The people of `identity` with the expressions of `expression`, pair by pair.

        identity, expression: [n, 64, 64, 3] pictures each -> [n, 64, 64, 3] float in [0, 1].
        """
        a, b = self.encode(identity), self.encode(expression)
        if len(a.identity) != len(b.identity):
            found = f"{len(a.identity)} and {len(b.identity)}"
            raise UserError(f"{found} pictures cannot be swapped pair by pair: give as many of each, or use swap_grid.")
        return self.decode_with_source(Codes(a.identity, b.expression), identity)

    def swap_grid(self, identity: np.ndarray, expression: np.ndarray) -> np.ndarray:
        """Every person of `identity` with every expression of `expression`: [n, ...], [m, ...] -> [n, m, 64, 64, 3]."""
        a, b = self.encode(identity).identity, self.encode(expression).expression
        pairs = np.repeat(a, len(b), axis=0), np.tile(b, (len(a), 1))
        return self.decode_with_source(pairs, np.repeat(validate_images(identity), len(b), axis=0)).reshape(
            len(a), len(b), IMAGE_SIZE, IMAGE_SIZE, 3
        )

    def interpolate(
        self,
        a: np.ndarray,
        b: np.ndarray | None = None,
        steps: int = 11,
        move: Move = "expression",
        to: float = 1.0,
    ) -> np.ndarray:
        """From face a towards face b, or towards a smile, along a straight line in the code.

        a, b: one picture [64, 64, 3] each. move: which code goes from a's to b's, the other staying a's: the
        "expression", the "identity", or "both" (the poster's Fig. 4). to: where the line ends, b being 1; without b the
        strength of the smile -> [steps, 64, 64, 3] float in [0, 1].
        A decoder that sees pictures begins at a itself. It ends at b itself where both show one person or both codes
        move; another person's picture gives its expression alone.
        """
        share = interpolation_weights(steps, move, to if b is not None else 1.0)
        picture = as_single_image(a)
        if b is None:
            start = self.encode(picture)
            end = Codes._make((start.identity, self.with_smile_intensity(start.expression, to)))
            return self.decode_with_source(lerp(start, end, share), np.repeat(picture, steps, axis=0))
        ends = np.concatenate([_floats(validate_images(end)) for end in (picture, as_single_image(b))])
        if not self.uses_source:
            return _batched(partial(self._decode_between, ends), share, [(IMAGE_SIZE, IMAGE_SIZE, 3)])[0]
        start, end = split_pair(self.encode(ends))
        codes, source = lerp(start, end, share), np.repeat(picture, steps, axis=0)
        if move == "expression" and not same_person(start, end):
            return self.decode_with_source(codes, source)
        return self.decode_with_source(
            codes, source, np.repeat(as_single_image(b), steps, axis=0), np.linspace(0, to, steps)
        )

    def with_smile_intensity(self, expression: np.ndarray | jax.Array, strength: float) -> np.ndarray:
        """Expression codes [n, 64] with a smile of a given strength, 0 neutral and 1 full; its kind stays theirs."""
        out = np.array(expression, np.float32)
        out[:, : self.config.objective.label_dims] = (
            strength * label_vector("smile")[: self.config.objective.label_dims]
        )
        return out

    @cached_property
    def _encode(self) -> Callable:
        return partial(jax.jit(partial(models.encode, self.config.model)), self._weights)

    @cached_property
    def _decode(self) -> Callable:
        def decode(params, identity, expression, *pictures):
            *pictures, place = pictures if len(pictures) == 3 else (*pictures, None)
            sources = [models.encode_source(self.config.model, params, picture) for picture in pictures]
            made = models.decode(self.config.model, params, Codes(identity, expression), *sources, place=place)
            return (jnp.clip(made, 0, 1),)

        return partial(jax.jit(decode), self._weights)

    @cached_property
    def _decode_between(self) -> Callable:
        """Between two pictures in one call, which spares the way of the codes through the computer's memory."""

        def decode(params, ends, *share):
            start, end = split_pair(models.encode(self.config.model, params, ends))
            made = models.decode(self.config.model, params, lerp(start, end, share))
            return (jnp.clip(made, 0, 1),)

        return partial(jax.jit(decode), self._weights)

    @cached_property
    def _weights(self) -> Any:
        """On the device, and matrices as the products take them, or each call would copy and round them again."""
        dtype = self.config.model.dtype
        return jax.tree.map(lambda p: jnp.asarray(p, dtype if p.ndim == 2 else None), self.params)


def same_person(a: Codes, b: Codes) -> bool:
    """Whether two pictures show one person, by the cosine of their identity codes [1, 64].

    Training brings it towards 1 for one person, to 0 or below for two. Of validation people 0.4 to 0.9 was measured
    between neutral and apex of one, at most 0.2 between two.
    """
    a_, b_ = np.asarray(a.identity).ravel(), np.asarray(b.identity).ravel()
    return bool(a_ @ b_ > 0.3 * np.linalg.norm(a_) * np.linalg.norm(b_))


def line(a: Codes, b: Codes, steps: int = 11, move: Move = "expression", to: float = 1.0) -> Codes:
    """`steps` codes in a straight line from a to b (to = 1), or beyond; [1, 64] each. What is not moved stays a's."""
    return lerp(a, b, interpolation_weights(steps, move, to))


def interpolation_weights(steps: int, move: Move, to: float) -> list[np.ndarray]:
    """How far each step of a line has gone from its start, 0, to its end, 1, in the identity and the expression code:
    [steps, 1] each."""
    if move not in ("expression", "identity", "both"):
        raise UserError(f'Cannot move "{move}": say "expression", "identity" or "both".')
    check_steps(steps)
    alpha = np.linspace(0, to, steps, dtype=np.float32)[:, None]
    return [alpha if move in (name, "both") else np.zeros_like(alpha) for name in Codes._fields]


def lerp(a: Codes, b: Codes, share: Sequence) -> Codes:
    """The codes so far from a to b: a, b [1, 64] each and `shares`, [n, 1] each -> [n, 64] each."""
    return Codes._make((1 - s) * start + s * end for s, start, end in zip(share, a, b, strict=True))


def split_pair(both: Codes) -> list[Codes]:
    """The codes of two pictures, [2, 64] each -> those of each, [1, 64]."""
    return [Codes._make(code[k : k + 1] for code in both) for k in range(2)]


def check_steps(steps: int) -> None:
    """Raises StudyError for a number of pictures that makes no path."""
    if not isinstance(steps, int | np.integer) or steps < 2:
        raise UserError(f"A path of {steps} steps has no two ends: ask for a whole number, 2 or more.")


def as_single_image(picture: np.ndarray) -> np.ndarray:
    """One picture, [64, 64, 3] or [1, 64, 64, 3] -> [1, 64, 64, 3]."""
    picture = np.asarray(picture)
    if picture.shape not in ((IMAGE_SIZE, IMAGE_SIZE, 3), (1, IMAGE_SIZE, IMAGE_SIZE, 3)):
        raise UserError(f"Expected one picture of shape [{IMAGE_SIZE}, {IMAGE_SIZE}, 3], got {list(picture.shape)}.")
    return picture.reshape(1, IMAGE_SIZE, IMAGE_SIZE, 3)


def _floats(images: np.ndarray) -> np.ndarray:
    """float32, uint8 divided by 255."""
    return images / np.float32(255) if images.dtype == np.uint8 else images.astype(np.float32)


def validate_images(images: np.ndarray) -> np.ndarray:
    """`images` if they are pictures as `encode` takes them; a sentence if not."""
    images = np.asarray(images)
    if images.ndim != 4 or images.shape[1:] != (IMAGE_SIZE, IMAGE_SIZE, 3):
        hint = " Write images[None] for a single picture." if images.shape == (IMAGE_SIZE, IMAGE_SIZE, 3) else ""
        raise UserError(
            f"Expected pictures of shape [n, {IMAGE_SIZE}, {IMAGE_SIZE}, 3], got {list(images.shape)}.{hint}"
        )
    if images.dtype == np.uint8:
        return images
    if not np.issubdtype(images.dtype, np.floating):
        raise UserError(f"Expected pictures as uint8, or as float in [0, 1]; got {images.dtype}.")
    if len(images) and not (images.min() >= 0 and images.max() <= 1):
        found = "NaN" if np.isnan(images).any() else f"numbers from {images.min():.3g} to {images.max():.3g}"
        raise UserError(f"Expected float pictures in [0, 1], found {found}; pictures of 0..255 are given as uint8.")
    return images


def _batched(run: Callable, inputs: list[np.ndarray], shapes: list[tuple[int, ...]]) -> list[np.ndarray]:
    """run(*inputs), so many rows a call: its outputs as numpy arrays of [n, *shape]; uint8 inputs divided by 255."""
    count = len(inputs[0])
    outputs = [np.empty((count, *shape), np.float32) for shape in shapes]
    for start in range(0, count, BATCHES[-1]):
        rows = min(BATCHES[-1], count - start)
        size = next(size for size in BATCHES if size >= rows)
        batch = []
        for whole in inputs:
            part = _floats(whole[start : start + rows])
            batch.append(np.concatenate([part, np.zeros((size - rows, *part.shape[1:]), np.float32)]))
        for output, value in zip(outputs, run(*batch), strict=True):
            output[start : start + rows] = np.asarray(value)[:rows]
    return outputs
