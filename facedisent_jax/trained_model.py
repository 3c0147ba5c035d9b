"""A trained run as an object: encode, decode, swap and interpolate. Needs neither the training data nor TensorFlow."""

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from facedisent_jax import models
from facedisent_jax.config import IMAGE_SIZE, Config
from facedisent_jax.data.labels import label_vector, move_to_intensity, read_intensity
from facedisent_jax.data.record import NEUTRAL
from facedisent_jax.errors import UserError, did_you_mean
from facedisent_jax.models import Codes, Params
from facedisent_jax.models.codes import is_same_subject, lerp, split_pair
from facedisent_jax.training import checkpoint

Move = Literal["expression", "identity", "both"]
Image = UInt8[np.ndarray, "64 64 3"] | Float[np.ndarray, "64 64 3"]  # floats in [0, 1]
Images = UInt8[np.ndarray, "n 64 64 3"] | Float[np.ndarray, "n 64 64 3"]  # floats in [0, 1]
Decoded = Float[np.ndarray, "n 64 64 3"]  # in [0, 1]
CodePair = Codes | Sequence[Float[np.ndarray, "n dim"]]  # identity and expression

BATCH_SIZES = (2, 16, 64)  # a batch is padded to the next of these, so that a function is compiled at most three times


def load(run: str | Path, step: str | int = "best") -> "TrainedModel":
    """The trained model of a run folder.

    step: "best" (by validation), "last", or the number of a step that has a checkpoint.
    """
    loaded = checkpoint.load(run, step)
    config = replace(loaded.config, run=str(run))  # it may lie elsewhere than where it was trained
    return TrainedModel(loaded.params, config, loaded.info, loaded.step)


@dataclass(frozen=True, eq=False, repr=False)
class TrainedModel:
    """A trained encoder and decoder. It can be pickled, also after use, and is equal to itself alone.

    params: plain pytree of arrays.
    config: the settings of the run.
    info: the training data: "data" (folders), "crop" (detector and margin), "train_subjects", "expressions",
        "mean_expressions" (mean codes of the training images), "full_intensity" (of codes, for a full expression).
    step: the training step of the checkpoint.
    """

    params: Params
    config: Config
    info: dict
    step: int

    def __repr__(self) -> str:
        return f"TrainedModel({self.config.run!r}, step {self.step}, preset {self.config.preset!r})"

    def __getstate__(self) -> dict:
        """The fields alone: compiled functions and arrays on the device are made anew where it is loaded."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @cached_property
    def checksum(self) -> str:
        """A checksum of the weights: a run that is trained anew under the same name has another."""
        checksum = 0
        for leaf in jax.tree.leaves(self.params):
            checksum = zlib.crc32(np.asarray(leaf).tobytes(), checksum)
        return f"crc32:{checksum:08x}"

    def encode(self, images: Images) -> Codes:
        """Identity and expression codes of images."""
        shapes = [(self.config.model.code_dims,)] * 2
        return Codes._make(_batched(self._encode, [validate_images(images)], shapes))

    @property
    def expressions(self) -> list[str]:
        """The expressions that the model was trained on, without neutral, sorted."""
        return self.info["expressions"]

    def intensity(
        self, expression: Float[np.ndarray | Array, "n dim"], action: str | None = None
    ) -> Float[np.ndarray, "n"]:
        """Intensity of an action, read from expression codes: 0 at neutral, 1 at the action's label vector.

        action: one of `expressions`. None: the only one. Raises UserError.
        """
        expression, dim = np.asarray(expression), self.config.model.code_dims
        if expression.ndim != 2 or expression.shape[1] != dim:
            raise UserError(f"Expression codes must be of shape [n, {dim}], got {list(expression.shape)}.")
        return read_intensity(expression, self._label(action))

    @property
    def uses_source(self) -> bool:
        """Whether the decoder can use an image of the person (kind "warp")."""
        return models.KINDS[self.config.model.kind].uses_source

    def decode(
        self,
        codes: CodePair,
        source: Images | None = None,
        source_b: Images | None = None,
        alpha: Float[np.ndarray, "n"] | None = None,
    ) -> Decoded:
        """Images from codes, and for kind "warp" from images of the same people.

        source: one image per code, of the person with this identity code. The codes set the expression and, as far as
        they differ from the source's own, the head pose.
        source_b: a second image of each person.
        alpha: where the codes lie between the two sources: 0 at `source`, 1 at `source_b`. It sets the head pose, and
        the identity code is ignored.
        """
        identity, expression = (np.asarray(code, np.float32) for code in codes)
        if identity.ndim != 2 or identity.shape[1] != self.config.model.code_dims or identity.shape != expression.shape:
            raise UserError(
                f"Identity and expression codes must be of shape [n, {self.config.model.code_dims}] each, "
                f"got {list(identity.shape)} and {list(expression.shape)}."
            )
        inputs = [identity, expression]
        if source is not None:
            if not self.uses_source:
                raise UserError(
                    'Source images must go to a model of kind "warp" (train.py warp), '
                    f'got a model of kind "{self.config.model.kind}". Decode without a source.'
                )
            inputs.append(validate_images(source))
            if source_b is not None:
                inputs += [validate_images(source_b), np.asarray(alpha, np.float32)]
        for name, values in zip(("source images", "second source images", "alphas"), inputs[2:], strict=False):
            if len(values) != len(identity):
                raise UserError(f"Got {len(identity)} codes but {len(values)} {name}; give one per code.")
        return _batched(self._decode, inputs, [(IMAGE_SIZE, IMAGE_SIZE, 3)])[0]

    def decode_with_source(
        self,
        codes: CodePair,
        source: Images,
        source_b: Images | None = None,
        alpha: Float[np.ndarray, "n"] | None = None,
    ) -> Decoded:
        """`decode` with the source images if the model uses them, from the codes alone if not."""
        return self.decode(codes, source, source_b, alpha) if self.uses_source else self.decode(codes)

    def swap(self, identity: Images, expression: Images) -> Decoded:
        """The people of `identity` with the expressions of `expression`, image by image."""
        a, b = self.encode(identity), self.encode(expression)
        if len(a.identity) != len(b.identity):
            raise UserError(
                "identity and expression must be equally many images, "
                f"got {len(a.identity)} and {len(b.identity)}. For all combinations use swap_grid."
            )
        return self.decode_with_source(Codes(a.identity, b.expression), identity)

    def swap_grid(self, identity: Images, expression: Images) -> Float[np.ndarray, "n m 64 64 3"]:
        """Every person of `identity`, down, with every expression of `expression`, across."""
        people, expressions = self.encode(identity).identity, self.encode(expression).expression
        n, m = len(people), len(expressions)
        codes = np.repeat(people, m, axis=0), np.tile(expressions, (n, 1))
        decoded = self.decode_with_source(codes, np.repeat(validate_images(identity), m, axis=0))
        return decoded.reshape(n, m, IMAGE_SIZE, IMAGE_SIZE, 3)

    def interpolate(
        self,
        a: Image,
        b: Image | None = None,
        steps: int = 11,
        move: Move = "expression",
        to: float = 1.0,
        action: str | None = None,
        like: Image | None = None,
    ) -> Float[np.ndarray, "steps 64 64 3"]:
        """From face a towards face b, or towards a smile, along a straight line in the code.

        b: without it, a begins to smile, or to show the action.
        move: which code moves from a's to b's; the other stays a's. "both" is the poster's Fig. 4.
        to: where the line ends, 1 being b. Without b, the intensity of the action.
        action: one of `expressions`, where b is not given. None: the only one.
        like: an image of somebody who shows the action in full, to take its style from. None: the mean of the training
            images.

        A model that uses source images starts at a itself. It ends at b itself if both codes move or both images show
        one person. The image of another person only gives its expression.
        """
        weights = interpolation_weights(steps, move, to)
        if b is None:
            alpha = np.linspace(0, 1, steps) if move != "identity" else np.zeros(steps)
            return self.towards(a, alpha, to, action, like)
        first = as_single_image(a)
        source = np.repeat(first, steps, axis=0)
        ends = np.concatenate([_to_float(validate_images(image)) for image in (first, as_single_image(b))])
        if not self.uses_source:
            return _batched(partial(self._interpolate, ends), weights, [(IMAGE_SIZE, IMAGE_SIZE, 3)])[0]
        start, end = split_pair(self.encode(ends))
        codes = lerp(start, end, weights)
        if move == "expression" and not is_same_subject(start, end):
            return self.decode_with_source(codes, source)
        source_b = np.repeat(as_single_image(b), steps, axis=0)
        return self.decode_with_source(codes, source, source_b, np.linspace(0, to, steps))

    def towards(
        self,
        a: Image,
        alpha: Float[np.ndarray, "n"],
        to: float = 1.0,
        action: str | None = None,
        like: Image | None = None,
    ) -> Decoded:
        """Face a at positions on the way from its own expression (0) to the intensity `to` of an action (1).

        action, like: as in `interpolate`, which has them evenly spaced.
        """
        first = as_single_image(a)
        start = self.encode(first)
        style = None if like is None else self.encode(as_single_image(like)).expression[0]
        end = Codes._make((start.identity, self.with_intensity(start.expression, to, action, style)))
        weight = np.asarray(alpha, np.float32)[:, None]
        source = np.repeat(first, len(weight), axis=0)
        return self.decode_with_source(lerp(start, end, (np.zeros_like(weight), weight)), source)

    def with_intensity(
        self,
        expression: Float[np.ndarray | Array, "n dim"],
        intensity: float,
        action: str | None = None,
        like: Float[np.ndarray | Array, "dim"] | None = None,
    ) -> Float[np.ndarray, "n dim"]:
        """Expression codes with an action of the given intensity, in the mean style of the people trained on.

        action: one of `expressions`. None: the only one. Raises UserError.
        like: the expression code, [dim], of an image that shows it in full, whose style is taken in place of the mean.

        A code keeps its own style (what is beyond the label: how this person smiles) in as far as its intensity stays:
        from neutral to the full expression, or back, the style becomes the mean of the training images at that end.
        """
        label, means = self._label(action), self.info.get("mean_expressions", {})
        neutral, full = (means.get(name) for name in (NEUTRAL, action or self.expressions[0]))
        if like is not None:
            if neutral is None or len(label) == self.config.model.code_dims:
                raise UserError(
                    "--like must go to a model whose expression code has dimensions for the style and that saw neutral "
                    "faces (presets intensity, ranking and warp), got one without."
                )
            full = like[: len(neutral)]
        neutral, full = (None if code is None else np.asarray(code, np.float32) for code in (neutral, full))
        return move_to_intensity(np.asarray(expression), self._code_intensity(intensity, action), label, neutral, full)

    def _code_intensity(self, intensity: float, action: str | None) -> float:
        """The intensity of the code for images that show `intensity`, where 1 is the mean full expression.

        Proportional: training measured which code shows 1, on its own people, by the edges of the lower face.
        """
        return intensity * self.info.get("full_intensity", {}).get(action or self.expressions[0], 1.0)

    def _label(self, action: str | None) -> Float[np.ndarray, "k"]:
        """The labelled dimensions of an action's label vector."""
        names = ", ".join(self.expressions)
        if not names:
            raise UserError("The model must be trained on a labelled expression: it knows only what two images show.")
        if action is None and len(self.expressions) > 1:
            raise UserError(f"The model was trained on {names}: say which with --expression (action=... in Python).")
        if action not in (None, *self.expressions):
            hint = did_you_mean(str(action), self.expressions)
            raise UserError(f"The expression must be one that the model was trained on ({names}), got {action}.{hint}")
        return label_vector(action or self.expressions[0])[: self.config.label_dims]

    @cached_property
    def _encode(self) -> Callable:
        return partial(jax.jit(partial(models.encode, self.config.model)), self._device_params)

    @cached_property
    def _decode(self) -> Callable:
        def decode(params, identity, expression, source=None, source_b=None, alpha=None):
            config, codes = self.config.model, Codes(identity, expression)
            if source is None:
                decoded = models.decode(config, params, codes)
            else:
                sources = [models.encode_source(config, params, x) for x in (source, source_b) if x is not None]
                decoded = models.decode_from_sources(config, params, codes, *sources, alpha=alpha, refined=True).images
            return (jnp.clip(decoded, 0, 1),)

        return partial(jax.jit(decode), self._device_params)

    @cached_property
    def _interpolate(self) -> Callable:
        """Encode two images, interpolate and decode in one compiled call; the codes never leave the device."""

        def interpolate(params, ends, *weights):
            start, end = split_pair(models.encode(self.config.model, params, ends))
            decoded = models.decode(self.config.model, params, lerp(start, end, weights))
            return (jnp.clip(decoded, 0, 1),)

        return partial(jax.jit(interpolate), self._device_params)

    @cached_property
    def _device_params(self) -> Any:
        """Parameters on the device, matrices in the dtype of the products; else every call would convert them."""
        dtype = self.config.model.dtype
        return jax.tree.map(lambda p: jnp.asarray(p, dtype if p.ndim == 2 else None), self.params)


def interpolation_weights(steps: int, move: Move, to: float) -> list[Float[np.ndarray, "steps 1"]]:
    """Weights of the end, for the identity and for the expression code: 0 to `to` if the code moves, else 0."""
    if move not in ("expression", "identity", "both"):
        raise UserError(f'--move must be "expression", "identity" or "both", got "{move}".')
    check_steps(steps)
    alpha = np.linspace(0, to, steps, dtype=np.float32)[:, None]
    return [alpha if move in (name, "both") else np.zeros_like(alpha) for name in Codes._fields]


def check_steps(steps: int) -> None:
    """Raises UserError unless `steps` images can have two ends."""
    if not isinstance(steps, int | np.integer) or steps < 2:
        raise UserError(f"--steps must be a whole number of at least 2, got {steps}.")


def as_single_image(image: np.ndarray) -> Images:
    """One image, [64, 64, 3] or [1, 64, 64, 3], as [1, 64, 64, 3]."""
    image = np.asarray(image)
    if image.shape not in ((IMAGE_SIZE, IMAGE_SIZE, 3), (1, IMAGE_SIZE, IMAGE_SIZE, 3)):
        raise UserError(f"A single image must be of shape [{IMAGE_SIZE}, {IMAGE_SIZE}, 3], got {list(image.shape)}.")
    return image.reshape(1, IMAGE_SIZE, IMAGE_SIZE, 3)


def _to_float(images: np.ndarray) -> np.ndarray:
    return images / np.float32(255) if images.dtype == np.uint8 else images.astype(np.float32)


def validate_images(images: np.ndarray) -> Images:
    """`images` unchanged. Raises UserError unless they are [n, 64, 64, 3], uint8 or float in [0, 1]."""
    images = np.asarray(images)
    if images.ndim != 4 or images.shape[1:] != (IMAGE_SIZE, IMAGE_SIZE, 3):
        hint = " Write images[None] for a single image." if images.shape == (IMAGE_SIZE, IMAGE_SIZE, 3) else ""
        raise UserError(f"Images must be of shape [n, {IMAGE_SIZE}, {IMAGE_SIZE}, 3], got {list(images.shape)}.{hint}")
    if images.dtype == np.uint8:
        return images
    if not np.issubdtype(images.dtype, np.floating):
        raise UserError(f"Images must be uint8, or float in [0, 1], got {images.dtype}.")
    if len(images) and not (images.min() >= 0 and images.max() <= 1):
        values = "NaN" if np.isnan(images).any() else f"{images.min():.3g} to {images.max():.3g}"
        raise UserError(f"Float images must be in [0, 1], got {values}. Give images of 0..255 as uint8.")
    return images


def _batched(run: Callable, inputs: list[np.ndarray], shapes: list[tuple[int, ...]]) -> list[np.ndarray]:
    """run(*inputs) in batches. Inputs become float32, uint8 divided by 255. Returns outputs of [n, *shape]."""
    n = len(inputs[0])
    outputs = [np.empty((n, *shape), np.float32) for shape in shapes]
    for start in range(0, n, BATCH_SIZES[-1]):
        rows = min(BATCH_SIZES[-1], n - start)
        size = next(size for size in BATCH_SIZES if size >= rows)
        batch = []
        for values in inputs:
            part = _to_float(values[start : start + rows])
            batch.append(np.concatenate([part, np.zeros((size - rows, *part.shape[1:]), np.float32)]))
        for output, value in zip(outputs, run(*batch), strict=True):
            output[start : start + rows] = np.asarray(value)[:rows]
    return outputs
