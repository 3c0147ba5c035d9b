"""What interpolation methods take from the training images of a model: components, mean differences, random codes."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from facedisent_jax.config import IMAGE_SIZE
from facedisent_jax.data.reading import read_faces
from facedisent_jax.data.record import APEX_ABOVE, NEUTRAL_BELOW, Faces
from facedisent_jax.errors import UserError
from facedisent_jax.evaluation import metrics
from facedisent_jax.evaluation.metrics import SEED
from facedisent_jax.models.pca import PCA, fit_pca
from facedisent_jax.trained_model import TrainedModel

PCA_COMPONENTS = 128
RANDOM_CODES = 64  # training images whose codes replace the right ones in the method "codes_shuffled"


class TrainingStatistics(NamedTuple):
    """What methods take from the model's training images; None and empty where these are gone.

    difference:   mean image of the full expression - mean neutral image, over people, by action.
    missing:      a sentence for each statistic that the training images do not allow.
    random_codes: expression codes of training images rows by seed.
    """

    faces: Faces | None
    pca: PCA | None
    difference: dict[str, Float[np.ndarray, "64 64 3"]]
    missing: list[str]
    random_codes: Float[np.ndarray, "n dim"] | None = None


def fit_training_statistics(model: TrainedModel, actions: set[str]) -> TrainingStatistics:
    """The statistics of the model's own training split, for the actions of some clips."""
    try:
        faces = read_faces(model.info["data"], "train", memory=1.0)
    except UserError as error:
        return TrainingStatistics(
            None,
            None,
            {},
            [f"Missing: PCA, nearest frame and mean difference: the run's training pictures are gone. {error}"],
        )
    differences, missing = {}, []
    for action in sorted(actions):
        if action not in model.expressions:
            missing.append(f"Missing: the path from one picture, as no training picture shows {action}.")
        if (difference := mean_difference(faces, action)) is not None:
            differences[action] = difference
        else:
            missing.append(f"Missing: mean difference, as no training person shows both neutral and full {action}.")
    rows = np.sort(np.random.default_rng(SEED).permutation(len(faces))[:RANDOM_CODES])
    random_codes = np.asarray(model.encode(faces.image[rows]).expression)
    pca = fit_pca(faces.image, PCA_COMPONENTS, SEED)
    return TrainingStatistics(faces, pca, differences, missing, random_codes)


def mean_difference(faces: Faces, action: str) -> Float[np.ndarray, "64 64 3"] | None:
    """Mean over people of (mean image of the full expression - mean neutral image); None if nobody has both."""
    displayed = metrics.displayed_expression(faces.expression, faces.intensity)
    is_apex = (displayed == action) & (faces.intensity >= APEX_ABOVE)
    is_neutral = (faces.intensity <= NEUTRAL_BELOW) & (displayed != "")
    total, people = np.zeros((IMAGE_SIZE, IMAGE_SIZE, 3), np.float32), 0
    for subject in np.unique(faces.subject[is_apex]):
        apex_rows, neutral_rows = (np.flatnonzero((faces.subject == subject) & mask) for mask in (is_apex, is_neutral))
        if subject and len(apex_rows) and len(neutral_rows):
            apex, neutral = (
                np.asarray(faces.image[rows], np.float32).mean(0) / 255 for rows in (apex_rows, neutral_rows)
            )
            total += apex - neutral
            people += 1
    return total / people if people else None
