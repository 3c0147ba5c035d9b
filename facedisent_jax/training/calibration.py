"""The intensity of the code at which a decoded image shows a full expression."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from facedisent_jax import models
from facedisent_jax.config import Config
from facedisent_jax.data.labels import label_vector, move_to_intensity
from facedisent_jax.data.record import APEX_ABOVE, NEUTRAL, NEUTRAL_BELOW
from facedisent_jax.data.triplets import Triplets
from facedisent_jax.models import Codes, Params
from facedisent_jax.training import distributed, edge_reader
from facedisent_jax.training.validation import encode_expression

PEOPLE = 48  # training people whose neutral images are decoded
INTENSITIES = np.array([0, 1, 1.25, 1.5])  # of the codes that are decoded
NEARLY_MOST = 0.95  # of the most that images show: the rest may take long, and what is beyond looks wrong
MIN_SHOWN = 0.2  # of the real rise: a network that shows less is not calibrated


def calibrate(
    config: Config, params: Params, triplets: Triplets, mean_expressions: dict[str, list[float]]
) -> dict[str, float]:
    """By expression: the intensity of the code at which images show 1.

    An image shows 1 where `edge_reader` sees in it what it sees, on average, in real images of the full expression, and
    0 where it sees what it sees in the image decoded at 0: a mean over half of the training people; the reader is
    fitted on the others. Expressions that it cannot tell from neutral, and those that the network hardly shows yet, are
    left out.

    The intensity is never below 1, where the codes of real images of the full expression are: in images of `warp` the
    reader sees more than the face mesh does. Between 0 and 1 the code moves evenly, and so do the displacements of
    `warp`.
    """
    faces, intensities = triplets.faces, {}
    is_neutral = triplets.is_labelled & (triplets.intensity < NEUTRAL_BELOW)
    for name in sorted(set(mean_expressions) - {NEUTRAL}):
        is_full = triplets.is_labelled & (triplets.intensity > APEX_ABOVE) & (faces.expression == name)
        starts = _one_of_each(faces.subject, is_neutral & np.isin(faces.subject, faces.subject[is_full]), config.seed)
        starts = starts[: len(starts) // 2]
        if NEUTRAL not in mean_expressions or not len(starts):
            continue
        # Fitted on other people: it would read the images that it was fitted on better than decoded ones.
        is_measured = np.isin(faces.subject, faces.subject[starts])
        shows_it = triplets.is_labelled & ((faces.expression == name) | is_neutral) & ~is_measured
        read = edge_reader.fit(faces.image, np.where(shows_it, triplets.intensity, np.nan), config.seed)
        images = faces.image[np.resize(starts, PEOPLE)]  # always as many: one compilation
        neutral, full = (np.array(mean_expressions[key], np.float32) for key in (NEUTRAL, name))
        label = label_vector(name)[: config.label_dims]
        device_images = distributed.replicated(images)
        expression = np.asarray(encode_expression(config, params, device_images))
        readings = []
        for intensity in INTENSITIES:
            target = move_to_intensity(expression, float(intensity), label, neutral, full)
            decoded = _decode(config, params, device_images, distributed.replicated(target))
            readings.append(float(read(np.asarray(decoded)).mean()))
        whole_rise = float(read(_some(faces.image, is_full & is_measured)).mean()) - readings[0]
        if whole_rise > 0 and max(readings) - readings[0] > MIN_SHOWN * whole_rise:
            intensities[name] = full_intensity((np.array(readings) - readings[0]) / whole_rise)
    return intensities


def full_intensity(rise: Float[np.ndarray, "k"]) -> float:
    """The lowest intensity of the code, from 1, at which images show 1 or, if that is less, nearly the most they show.

    rise: what they show at INTENSITIES.
    """
    # `np.interp` needs a curve without flat parts.
    most_so_far = np.maximum.accumulate(rise[1:]) + 1e-9 * np.arange(len(rise) - 1)
    return float(np.interp(min(NEARLY_MOST * most_so_far[-1], 1), most_so_far, INTENSITIES[1:]))


def _one_of_each(subject: np.ndarray, usable: np.ndarray, seed: int) -> np.ndarray:
    """A usable row of each subject, at most 2 PEOPLE, drawn by seed."""
    rows = np.random.default_rng(seed).permutation(np.flatnonzero(usable))
    return rows[np.sort(np.unique(subject[rows], return_index=True)[1])][: 2 * PEOPLE]


def _some(images, usable: np.ndarray) -> Float[np.ndarray, "n 64 64 3"]:
    rows = np.flatnonzero(usable)
    return np.asarray(images[rows[:: max(1, len(rows) // 256)]], np.float32) / 255


@partial(jax.jit, static_argnums=0)
def _decode(
    config: Config, params: Params, images: UInt8[Array, "n 64 64 3"], expression: Float[Array, "n dim"]
) -> Float[Array, "n 64 64 3"]:
    """The people of the images with other expression codes."""
    source = models.encode_source(config.model, params, images.astype(jnp.float32) / 255)
    codes = Codes(source.identity, expression)
    if models.KINDS[config.model.kind].uses_source:
        decoded = models.decode_from_sources(config.model, params, codes, source, refined=True).images
    else:
        decoded = models.decode(config.model, params, codes)
    return jax.lax.with_sharding_constraint(jnp.clip(decoded, 0, 1), distributed.replicated_sharding())
