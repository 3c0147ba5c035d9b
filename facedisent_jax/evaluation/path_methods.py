"""Methods that interpolate from the neutral frame of a clip to its apex: the model's, and those it has to beat.

A method makes an image for every alpha from the two end frames alone, or from one of them. References are made from
each real frame instead.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Literal, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from facedisent_jax.data.record import Faces
from facedisent_jax.evaluation import baselines
from facedisent_jax.evaluation.clips import Clip
from facedisent_jax.evaluation.judges import FaceMesh, to_uint8
from facedisent_jax.evaluation.metrics import SEED
from facedisent_jax.evaluation.training_statistics import PCA_COMPONENTS, TrainingStatistics
from facedisent_jax.losses.related_work import rotate
from facedisent_jax.models import Codes
from facedisent_jax.models.pca import reconstruct
from facedisent_jax.trained_model import TrainedModel

MIN_INTENSITY_DISTANCE = 0.3  # between a frame and the distant frame that it is decoded from

Method = Callable[[Float[np.ndarray, "k"]], np.ndarray]
"""alpha -> images [k, 64, 64, 3] float in [0, 1]."""

# Every method and reference, in the order of the tables: (title, description).
TITLES = {
    "expression": ("expression code", "the network: expression code moved between the ends, identity of the neutral"),
    "whole": ("whole code", "the network: both codes moved between the ends"),
    "one_picture": ("one picture", "the network: neutral frame alone, asked for the full expression"),
    "own_smile": ("one picture, own smile", "the network: neutral frame alone, moved to the apex's expression code"),
    "own_codes": ("one picture, own codes", "the network: neutral frame alone, moved to both codes of the apex"),
    "rotated": ("rotated code", "the network: the neutral frame's code turned in proportion to the intensity"),
    "codes_alone": ("codes alone", "the network: as own smile, without a source picture"),
    "codes_shuffled": ("codes shuffled", "the network: neutral frame, with codes of random training pictures"),
    "displacement_alone": ("displacement alone", "the network: as own smile, without paint"),
    "paint_alone": ("paint alone", "the network: as own smile, without displacement"),
    "reconstruction": ("reconstruction", "the ceiling: each real frame encoded and decoded"),
    "from_another": (
        "from another frame",
        "the network: a frame at least 0.3 of intensity away, with the real frame's codes",
    ),
    "cross_fade": ("cross-fade", "of the two real end frames"),
    "cross_fade_reconstructions": ("cross-fade, reconstructed", "of the reconstructions of the two end frames"),
    "morph": ("landmark morph", "both end frames warped to the shape in between, and cross-faded"),
    "mean_difference": ("mean difference", "neutral frame + the training set's mean difference of smile and neutral"),
    "unchanged": ("unchanged", "the neutral frame"),
    "pca_128": ("PCA-128", "each real frame rebuilt from 128 principal components of the training pictures"),
    "nearest": ("nearest frame", "the training picture nearest to each real frame"),
    "real": ("real frames", "the clip itself, for the judges' own metrics"),
}
NETWORK_METHODS = ("expression", "whole", "one_picture", "own_smile", "own_codes", "rotated")
ABLATIONS = ("codes_alone", "codes_shuffled", "displacement_alone", "paint_alone")  # of the warp decoder, once trained


class EncodedClip(NamedTuple):
    """A clip as the methods take it.

    onset:              rows, intensities and names of its t frames.
    real:               the frames.
    reconstruction:     each frame decoded from its own codes.
    codes:              of each frame.
    from_distant_frame: each frame decoded from a distant frame and its own codes; None if the decoder uses no source.
    """

    onset: Clip
    real: Float[np.ndarray, "t 64 64 3"]
    reconstruction: Float[np.ndarray, "t 64 64 3"]
    codes: Codes
    from_distant_frame: Float[np.ndarray, "t 64 64 3"] | None = None


def encode_clip(model: TrainedModel, faces: Faces, onset: Clip) -> EncodedClip:
    """Encode and reconstruct the frames of a clip."""
    images = np.asarray(faces.image[onset.rows])
    codes = model.encode(images)
    real = images.astype(np.float32) / 255
    from_distant_frame = model.decode(codes, real[distant_frames(onset.intensity)]) if model.uses_source else None
    return EncodedClip(onset, real, model.decode(codes), codes, from_distant_frame)


def distant_frames(intensity: Float[np.ndarray, "t"]) -> Int[np.ndarray, "t"]:
    """For each frame a frame at least MIN_INTENSITY_DISTANCE away, drawn by seed; the more distant end if none is."""
    rng, rows = np.random.default_rng(SEED), []
    for value in intensity:
        distance = np.abs(intensity - value)
        distant = np.flatnonzero(distance >= MIN_INTENSITY_DISTANCE)
        if len(distant):
            rows.append(rng.choice(distant))
        else:
            rows.append((0, len(intensity) - 1)[int(distance[-1] > distance[0])])
    return np.array(rows)


# The methods: one function each, which returns None where the method cannot be used


class Inputs(NamedTuple):
    """What a method is made from."""

    model: TrainedModel
    clip: EncodedClip
    statistics: TrainingStatistics
    face_mesh: FaceMesh | None

    @property
    def identity(self) -> Float[np.ndarray, "t dim"]:
        return np.asarray(self.clip.codes.identity)

    @property
    def expression(self) -> Float[np.ndarray, "t dim"]:
        return np.asarray(self.clip.codes.expression)


def interpolation_methods(
    model: TrainedModel, clip: EncodedClip, statistics: TrainingStatistics, face_mesh: FaceMesh | None = None
) -> dict[str, Method]:
    """Every method that can be used between the ends of a clip. The landmark morph needs the face mesh."""
    inputs = Inputs(model, clip, statistics, face_mesh)
    methods = {name: make(inputs) for name, make in METHODS.items()}
    return {name: method for name, method in methods.items() if method is not None}


def _move(inputs: Inputs, identity: np.ndarray, expression: np.ndarray, *sources: np.ndarray) -> Method:
    """The codes move in a straight line from those of the neutral frame to `identity` and `expression`, [dim] each.

    sources: the images that a decoder with sources uses, one or both end frames.
    """
    start, end = (inputs.identity[0], inputs.expression[0]), (identity, expression)

    def method(alpha: np.ndarray) -> np.ndarray:
        weight = np.asarray(alpha, np.float32)[:, None]
        codes = [(1 - weight) * a + weight * b for a, b in zip(start, end, strict=True)]
        repeated = [np.repeat(source[None], len(weight), axis=0) for source in sources]
        return inputs.model.decode_with_source(codes, *repeated, alpha=alpha)

    return method


def expression_code(inputs: Inputs) -> Method:
    """The expression code moves between the ends."""
    real = inputs.clip.real
    return _move(inputs, inputs.identity[0], inputs.expression[-1], real[0], real[-1])


def whole_code(inputs: Inputs) -> Method:
    """Both codes move between the ends."""
    real = inputs.clip.real
    return _move(inputs, inputs.identity[-1], inputs.expression[-1], real[0], real[-1])


def one_image(inputs: Inputs) -> Method | None:
    """From the neutral frame alone to the full expression, as `TrainedModel.interpolate` does.

    A method without labels goes to the mean expression code of the training images.
    """
    model, onset = inputs.model, inputs.clip.onset
    if onset.action not in model.expressions:
        return None
    if model.config.method == "triplet":
        full = model.with_intensity(inputs.expression[:1], 1.0, onset.action)[0]
    elif onset.action in model.info["mean_expressions"]:
        mean = np.array(model.info["mean_expressions"][onset.action], np.float32)
        full = np.concatenate([mean, inputs.expression[0][len(mean) :]])
    else:
        return None
    move = _move(inputs, inputs.identity[0], full, inputs.clip.real[0])
    return lambda alpha: move(absolute_alpha(onset, alpha))


def absolute_alpha(onset: Clip, alpha: Float[np.ndarray, "k"]) -> Float[np.ndarray, "k"]:
    """Position between neutral and the training set's full expression, which is intensity 1 and not the clip's apex."""
    absolute = onset.intensity[0] + np.asarray(alpha) * (onset.intensity[-1] - onset.intensity[0])
    return (absolute - onset.intensity[0]) / (1 - onset.intensity[0])


def own_smile(inputs: Inputs) -> Method | None:
    """From the neutral frame alone towards the apex's expression code. Only differs for a decoder with sources."""
    if not inputs.model.uses_source:
        return None
    return _move(inputs, inputs.identity[0], inputs.expression[-1], inputs.clip.real[0])


def own_codes(inputs: Inputs) -> Method | None:
    """From the neutral frame alone towards both codes of the apex."""
    if not inputs.model.uses_source:
        return None
    return _move(inputs, inputs.identity[-1], inputs.expression[-1], inputs.clip.real[0])


def rotated_code(inputs: Inputs) -> Method | None:
    """The neutral frame's expression code rotated in proportion to the intensity (method "rotation")."""
    if inputs.model.config.method != "rotation":
        return None
    onset = inputs.clip.onset

    def method(alpha: np.ndarray) -> np.ndarray:
        identity, expression = (
            np.repeat(code[:1], len(alpha), axis=0) for code in (inputs.identity, inputs.expression)
        )
        change = jnp.asarray(alpha * (onset.intensity[-1] - onset.intensity[0]), jnp.float32)
        return inputs.model.decode((identity, np.asarray(rotate(jnp.asarray(expression), change))))

    return method


def _ablation(
    inputs: Inputs, parts: Literal["flow", "paint", None] = None, use_source: bool = True, shuffle: bool = False
) -> Method | None:
    """`own_smile` without one part of a decoder with sources.

    parts: all that is left of the warp. shuffle: random training codes replace the expression codes.
    """
    if not inputs.model.uses_source:
        return None
    model, random_codes = inputs.model, inputs.statistics.random_codes
    if parts:
        model = replace(model, config=replace(model.config, model=replace(model.config.model, warp_ablation=parts)))

    def method(alpha: np.ndarray) -> np.ndarray:
        weight = np.asarray(alpha, np.float32)[:, None]
        expression = (1 - weight) * inputs.expression[0] + weight * inputs.expression[-1]
        if shuffle and random_codes is not None:
            expression = random_codes[np.random.default_rng(SEED).integers(0, len(random_codes), len(alpha))]
        codes = (np.repeat(inputs.identity[:1], len(alpha), axis=0), expression)
        return model.decode(codes, np.repeat(inputs.clip.real[:1], len(alpha), axis=0) if use_source else None)

    return method


def codes_shuffled(inputs: Inputs) -> Method | None:
    """The neutral frame with random expression codes of the training set."""
    return None if inputs.statistics.random_codes is None else _ablation(inputs, shuffle=True)


def cross_fade(inputs: Inputs) -> Method:
    """Cross-fade of the two end frames."""
    first, last = inputs.clip.real[0], inputs.clip.real[-1]
    return lambda alpha: baselines.cross_fade(first, last, alpha)


def cross_fade_reconstructions(inputs: Inputs) -> Method:
    """Cross-fade of the reconstructions of the two end frames."""
    first, last = inputs.clip.reconstruction[0], inputs.clip.reconstruction[-1]
    return lambda alpha: baselines.cross_fade(first, last, alpha)


def morph(inputs: Inputs) -> Method | None:
    """Landmark morph of the two end frames; None where the face mesh finds no face in one of them."""
    if inputs.face_mesh is None:
        return None
    first, last = inputs.clip.real[0], inputs.clip.real[-1]
    mesh_a, mesh_b = (inputs.face_mesh(image) for image in to_uint8(inputs.clip.real[[0, -1]]))
    if mesh_a is None or mesh_b is None:
        return None
    return lambda alpha: baselines.morph(first, last, mesh_a, mesh_b, alpha)


def add_mean_difference(inputs: Inputs) -> Method | None:
    """The neutral frame + the training set's mean difference of apex and neutral."""
    onset, neutral = inputs.clip.onset, inputs.clip.real[0]
    difference = inputs.statistics.difference.get(onset.action)
    if difference is None:
        return None

    def method(alpha: np.ndarray) -> np.ndarray:
        weight = absolute_alpha(onset, alpha).astype(np.float32)[:, None, None, None]
        return np.clip(neutral + weight * difference, 0, 1)

    return method


def unchanged(inputs: Inputs) -> Method:
    """The neutral frame at every alpha."""
    return lambda alpha: np.repeat(inputs.clip.real[:1], len(alpha), axis=0)


# In the order of TITLES.
METHODS: dict[str, Callable[[Inputs], Method | None]] = {
    "expression": expression_code,
    "whole": whole_code,
    "one_picture": one_image,
    "own_smile": own_smile,
    "own_codes": own_codes,
    "rotated": rotated_code,
    "codes_alone": lambda inputs: _ablation(inputs, use_source=False),
    "codes_shuffled": codes_shuffled,
    "displacement_alone": lambda inputs: _ablation(inputs, "flow"),
    "paint_alone": lambda inputs: _ablation(inputs, "paint"),
    "cross_fade": cross_fade,
    "cross_fade_reconstructions": cross_fade_reconstructions,
    "morph": morph,
    "mean_difference": add_mean_difference,
    "unchanged": unchanged,
}


def per_frame_references(clip: EncodedClip, statistics: TrainingStatistics) -> dict[str, np.ndarray]:
    """The references, each made from every real frame of a clip: images [t, 64, 64, 3] float."""
    out = {"real": clip.real, "reconstruction": clip.reconstruction}
    if clip.from_distant_frame is not None:
        out["from_another"] = clip.from_distant_frame
    if statistics.faces is not None and statistics.pca is not None:
        out["pca_128"] = reconstruct(statistics.pca, clip.real, PCA_COMPONENTS)
        images = statistics.faces.image
        nearest = [np.asarray(images[row : row + 1])[0] for row in baselines.nearest(images, clip.real)]
        out["nearest"] = np.stack(nearest) / np.float32(255)
    return out
