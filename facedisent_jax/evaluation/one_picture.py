"""One picture in: from the neutral image of a held-out person to the full expression, beside the real one."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from facedisent_jax.data.labels import take_ids
from facedisent_jax.data.record import APEX_ABOVE, NEUTRAL, NEUTRAL_BELOW, Faces
from facedisent_jax.evaluation import metrics
from facedisent_jax.evaluation.judges import Judge
from facedisent_jax.evaluation.metrics import SEED
from facedisent_jax.evaluation.mouth_reader import mouth_region
from facedisent_jax.models import Codes
from facedisent_jax.trained_model import TrainedModel

STRENGTHS = (0.25, 0.5, 0.75, 1.0)
MAX_PEOPLE = 100  # drawn by seed


class OnePicture(NamedTuple):
    """What a model makes of one neutral image of each person.

    neutral, full: rows of the person's real images.
    decoded:       from the neutral image, to each of STRENGTHS, in the mean style of the training people.
    own_code:      from the neutral image, with the expression code of the person's real full expression.
    """

    neutral: Int[np.ndarray, "n"]
    full: Int[np.ndarray, "n"]
    decoded: Float[np.ndarray, "n strengths 64 64 3"]
    own_code: Float[np.ndarray, "n 64 64 3"]


def decode_one_picture(model: TrainedModel, faces: Faces, codes: Codes) -> OnePicture | None:
    """From one neutral image of each person, in an order drawn by seed. None: nobody has a neutral and a full one."""
    neutral, full = end_pairs(faces, model.expressions)
    if not len(neutral):
        return None
    identity, expression = np.asarray(codes.identity), np.asarray(codes.expression)
    action = faces.expression[full]
    decoded = np.empty((len(neutral), len(STRENGTHS), *faces.image.shape[1:]), np.float32)
    for name in np.unique(action):
        rows = np.flatnonzero(action == name)
        source = neutral[rows]
        for k, strength in enumerate(STRENGTHS):
            target = model.with_intensity(expression[source], strength, str(name))
            decoded[rows, k] = model.decode_with_source((identity[source], target), faces.image[source])
    own_code = model.decode_with_source((identity[neutral], expression[full]), faces.image[neutral])
    return OnePicture(neutral, full, decoded, own_code)


def end_pairs(faces: Faces, expressions: list[str]) -> tuple[Int[np.ndarray, "n"], Int[np.ndarray, "n"]]:
    """Rows of a neutral image and of a full expression of one take, one pair a person, in an order drawn by seed."""
    is_known = np.isin(faces.expression, [NEUTRAL, *expressions]) & (faces.subject != "")
    is_neutral = is_known & (faces.intensity < NEUTRAL_BELOW)
    is_full = is_known & (faces.intensity > APEX_ABOVE)
    take = take_ids(faces)
    pairs: dict[str, tuple[int, int]] = {}
    for row in np.flatnonzero(is_full).tolist():
        name = str(faces.subject[row])
        if name not in pairs and len(candidates := np.flatnonzero(is_neutral & (take == take[row]))):
            pairs[name] = (int(candidates[0]), row)
    names = sorted(pairs)
    order = np.random.default_rng(SEED).permutation(len(names))[:MAX_PEOPLE]
    rows = np.array([pairs[names[k]] for k in order], np.int64).reshape(-1, 2)
    return rows[:, 0], rows[:, 1]


def one_picture_metrics(
    faces: Faces, out: OnePicture, smile_judge: Judge | None, identity_judge: Judge | None
) -> dict[str, float | int | list[float] | str]:
    """How far the expression goes, whose face it is, and how near it is to the real one.

    rise, own_code_rise:         of the judged smile, as a share of the mean real rise.
    rise_at:                     the same at each of STRENGTHS.
    no_face:                     people left out of these, as the judge finds no face in one of their images.
    identity, real_identity:     distance to the neutral image: of the decoded one, and of the person's real one.
    sharpness:                   of the mouth, over that of the real full expressions.
    psnr, psnr_mouth:            to the person's real full expression; unchanged_psnr*: of the neutral image.
    gain, gain_mouth:            psnr and psnr_mouth minus those of the neutral image, paired by person.
    own_code_*:                  of the image with the expression code of the person's real full expression.
    """
    neutral, full = (np.asarray(faces.image[rows], np.float32) / 255 for rows in (out.neutral, out.full))
    subject = faces.subject[out.neutral]
    end = out.decoded[:, -1]
    values: dict = {"people": len(neutral), "sharpness": mouth_sharpness(end) / mouth_sharpness(full)}
    regions = {"": full, "_mouth": mouth_region(full)}
    unchanged = {"": metrics.psnr(neutral, full), "_mouth": metrics.psnr(mouth_region(neutral), regions["_mouth"])}
    for name, images in {"": end, "own_code_": out.own_code, "unchanged_": neutral}.items():
        for region, real in regions.items():
            psnr = metrics.psnr(mouth_region(images) if region else images, real)
            figures = {"psnr": psnr} | ({} if name == "unchanged_" else {"gain": psnr - unchanged[region]})
            for figure, numbers in figures.items():
                values[f"{name}{figure}{region}"], *interval = metrics.subject_mean(numbers, subject)
                values[f"{name}{figure}{region}_ci95"] = interval
    if smile_judge:
        images = [neutral, *out.decoded.swapaxes(0, 1), out.own_code, full]
        smile = np.stack([smile_judge.measure(part) for part in images])
        has_face = np.isfinite(smile).all(0)
        before, *reached, own_code, real = (
            smile[:, has_face].mean(1).tolist() if has_face.any() else [np.nan] * len(smile)
        )
        *values["rise_at"], values["own_code_rise"] = (
            (after - before) / (real - before) if real != before else np.nan for after in (*reached, own_code)
        )
        values |= {"rise": values["rise_at"][-1], "no_face": int((~has_face).sum()), "smile_judge": smile_judge.name}
    if identity_judge:
        embeddings = [identity_judge.measure(images) for images in (neutral, end, full)]
        for name, embedding in zip(("identity", "real_identity"), embeddings[1:], strict=True):
            values[name] = float(np.linalg.norm(embedding - embeddings[0], axis=1).mean())
    return values


def mouth_sharpness(images: Float[np.ndarray, "n 64 64 3"]) -> float:
    """Mean absolute Laplacian of the grey mouth region."""
    grey = mouth_region(images).mean(-1)
    centre = grey[:, 1:-1, 1:-1]
    neighbours = grey[:, :-2, 1:-1] + grey[:, 2:, 1:-1] + grey[:, 1:-1, :-2] + grey[:, 1:-1, 2:]
    return float(np.abs(4 * centre - neighbours).mean())
