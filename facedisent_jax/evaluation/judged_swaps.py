"""Judged swaps: whether the smile of a swap follows the donor's, and whether its identity stays the source's."""

import numpy as np
from jaxtyping import Float

from facedisent_jax.data.record import Faces
from facedisent_jax.evaluation import metrics
from facedisent_jax.evaluation.judges import Judge
from facedisent_jax.evaluation.metrics import SEED
from facedisent_jax.models import Codes
from facedisent_jax.trained_model import TrainedModel

ROLES = ("source", "donor", "target")  # of real images in a swap
MAX_SWAPS = 100  # drawn by seed
SAME_PERSON_DISTANCE = 0.6  # dlib's threshold: images nearer than this show one person (King 2017)


def judge_swaps(
    model: TrainedModel,
    faces: Faces,
    codes: Codes,
    swaps: metrics.Swaps,
    smile_judge: Judge | None,
    identity_judge: Judge | None,
) -> dict:
    """The metrics of a smile judge and of an identity network."""
    count = len(swaps.target)
    out: dict = {"swaps": min(count, MAX_SWAPS)}
    if not count:
        return out | {"smile": None, "identity": None}
    rows = np.sort(np.random.default_rng(SEED).permutation(count)[:MAX_SWAPS])
    source, donor, target = (column[rows] for column in swaps)
    identity, expression = map(np.asarray, codes)
    swapped = model.decode((identity[source], expression[donor]))
    reconstruction = model.decode((identity[source], expression[source]))
    subject = faces.subject[target]

    unique_rows, inverse = np.unique([source, donor, target], return_inverse=True)  # an image is in many swaps
    real_images = np.asarray(faces.image[unique_rows], np.float32) / 255

    def measure_real(judge: Judge) -> dict[str, np.ndarray]:
        return dict(zip(ROLES, judge.measure(real_images)[inverse.reshape(3, -1)], strict=True))

    smile = identity_ = None
    if smile_judge:
        smile = smile_metrics(smile_judge, swapped, reconstruction, measure_real(smile_judge), subject)
    if identity_judge:
        identity_ = identity_metrics(identity_judge, swapped, measure_real(identity_judge), subject)
    return out | {"smile": smile, "identity": identity_}


def smile_metrics(
    judge: Judge,
    swapped: Float[np.ndarray, "n 64 64 3"],
    reconstruction: Float[np.ndarray, "n 64 64 3"],
    real: dict[str, np.ndarray],
    subject: np.ndarray,
) -> dict:
    """Whether the smile of swaps follows the donor's.

    reconstruction: of the sources.
    real:           the smile that the judge measured on the real images, [n] for each of ROLES.

    followed: the fraction of the difference donor - source that the swap takes over, by least squares through 0.
    real_followed: the same for the person's real image with that expression; below 1 where people smile differently.
    Swaps in which the judge finds no face are counted as no_face and left out.
    """
    smile = real | {"swapped": judge.measure(swapped), "reconstruction": judge.measure(reconstruction)}
    has_face = np.isfinite(np.stack(list(smile.values()))).all(0)
    smile = {name: values[has_face] for name, values in smile.items()}
    requested_rise = smile["donor"] - smile["source"]

    def slope(rise: np.ndarray) -> float:
        square = requested_rise @ requested_rise
        return float(rise @ requested_rise / square) if square > 0 else np.nan

    return {
        "judge": judge.name,
        "note": judge.note,
        "correlation": metrics.spearman(smile["swapped"], smile["donor"]),
        "real_correlation": metrics.spearman(smile["target"], smile["donor"]),
        "followed": slope(smile["swapped"] - smile["reconstruction"]),
        "real_followed": slope(smile["target"] - smile["source"]),
        "no_face": int((~has_face).sum()),
        "subjects": len(np.unique(subject[has_face])),
    }


def identity_metrics(
    judge: Judge, swapped: Float[np.ndarray, "n 64 64 3"], real: dict[str, np.ndarray], subject: np.ndarray
) -> dict:
    """Identity distance of swaps to the source and to the donor: mean over people, with its 95 % interval.

    real: the embeddings of the real images, [n, d] for each of ROLES.

    real_distance: between the person's two real images, for comparison.
    """
    embeddings = judge.measure(swapped)
    to_source, to_donor, to_target = (np.linalg.norm(embeddings - real[name], axis=1) for name in ROLES)

    def mean(values: np.ndarray) -> float:
        return metrics.subject_mean(values, subject)[0]

    distance, low, high = metrics.subject_mean(to_source, subject)
    return {
        "judge": judge.name,
        "distance": distance,
        "distance_ci95": [low, high],
        "donor_distance": mean(to_donor),
        "target_distance": mean(to_target),
        "real_distance": mean(np.linalg.norm(real["source"] - real["target"], axis=1)),
        "nearer_than_donor": mean((to_source < to_donor).astype(float)),
        "same_person": mean((to_source < SAME_PERSON_DISTANCE).astype(float)),
    }
