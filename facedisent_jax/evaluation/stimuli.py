"""Stimuli: images of a person at equal steps of the measured smile, for experiments on perception."""

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float, UInt8

from facedisent_jax.errors import UserError
from facedisent_jax.evaluation.judges import Judge
from facedisent_jax.trained_model import Image, TrainedModel

MAX_STRENGTH = 1.3  # asked of the model: the end of the path
ALPHAS = np.linspace(0, 1, 27)  # positions at which it is measured
GREY = np.array([0.299, 0.587, 0.114], np.float32)  # luminance of R, G, B (ITU-R BT.601)
MIN_RISE = 1e-3  # of the judge: less is no smile


class Path(NamedTuple):
    """The path of a person from the photograph (level 0) to the full expression (level 1), as a judge measures it.

    level:      what the images at ALPHAS show, made to rise.
    zero, unit: the judge's measure at level 0, and its rise from there to level 1, which is strength 1.
    """

    level: Float[np.ndarray, "k"]
    zero: float
    unit: float


def measure_path(model: TrainedModel, photo: Image, judge: Judge, action: str | None, name: str) -> Path:
    """Measure the path of the person on `photo`. name: of the photograph, for the message of a UserError."""
    measured = judge.measure(model.towards(photo, ALPHAS, MAX_STRENGTH, action))
    if not np.isfinite(measured).all():
        raise UserError(
            f"The judge of the smile must find a face in all images made from {name}, and found none in one."
        )
    zero, unit = float(measured[0]), float(np.interp(1 / MAX_STRENGTH, ALPHAS, measured) - measured[0])
    if unit < MIN_RISE:
        raise UserError(f"The judge of the smile must see one at full strength, and sees none made from {name}.")
    return Path(np.maximum.accumulate((measured - zero) / unit), zero, unit)


def alphas_at(path: Path, levels: Sequence[float], name: str) -> Float[np.ndarray, "n"]:
    """The position of each level on the path. Raises UserError for levels that the path does not reach."""
    last = float(path.level[-1])
    for level in levels:
        if not 0 <= level <= last:
            raise UserError(
                f"--levels must be from 0 to {last:.2f}, as far as the smile made from {name} goes, got {level}."
            )
    first_there = np.unique(path.level, return_index=True)[1]  # where it is flat, the smaller alpha
    return np.interp(levels, path.level[first_there], ALPHAS[first_there])


def match_luminance(images: Float[np.ndarray, "n 64 64 3"]) -> Float[np.ndarray, "n 64 64 3"]:
    """All images with the mean and the standard deviation of the first one's luminance, clipped to [0, 1]."""
    grey = images @ GREY
    mean, deviation = (f(grey, axis=(1, 2))[:, None, None, None] for f in (np.mean, np.std))
    return np.clip((images - mean) * (deviation[0] / deviation) + mean[0], 0, 1)


def digest(model: TrainedModel, photos: UInt8[np.ndarray, "n 64 64 3"]) -> str:
    """SHA-256 of the weights and the cropped photographs: stimuli are made again only from the same."""
    sha = hashlib.sha256(np.asarray(photos).tobytes())
    for leaf in jax.tree.leaves(model.params):
        sha.update(np.asarray(leaf).tobytes())
    return sha.hexdigest()
