"""The page of `eval.py explore` and of a report: one file with all its images. It opens from disk, without network."""

import base64
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from facedisent_jax.data import reading
from facedisent_jax.data.record import APEX_ABOVE, Faces
from facedisent_jax.errors import UserError
from facedisent_jax.evaluation.judges import Judge, StillJudges, to_uint8
from facedisent_jax.evaluation.metrics import SEED
from facedisent_jax.evaluation.one_picture import end_pairs
from facedisent_jax.models import Codes
from facedisent_jax.models.codes import lerp
from facedisent_jax.models.pca import principal_components
from facedisent_jax.trained_model import TrainedModel

MAX_PEOPLE = 8
STRENGTHS = np.linspace(0, 1.3, 14)
KIND_DEVIATIONS = 1.5  # of the training people, along a principal direction
MAX_APEXES = 500  # training images that the principal directions are taken from, drawn by seed
TEMPLATE = Path(__file__).with_name("explorer.html")


class Choice(NamedTuple):
    """What a person can be moved to: the expression code at the end of a line, and positions on it for STRENGTHS."""

    title: str
    end: Float[np.ndarray, "dim"]
    weights: Float[np.ndarray, "strengths"]


def held_out_people(
    model: TrainedModel, faces: Faces, count: int = MAX_PEOPLE
) -> tuple[list[str], UInt8[np.ndarray, "n 64 64 3"]]:
    """Names and neutral images of people who also have a full expression, at most `count`. Raises UserError."""
    neutral, _ = end_pairs(faces, model.expressions)
    if not len(neutral):
        raise UserError("--data must hold a neutral image and a full expression of somebody; or give photographs.")
    rows = neutral[:count]
    return [str(faces.subject[row]) for row in rows], np.asarray(faces.image[rows])


def render(
    model: TrainedModel,
    names: Sequence[str],
    faces: UInt8[np.ndarray, "n 64 64 3"],
    judges: StillJudges,
    action: str | None,
) -> str:
    """Decode all images, measure them, and return the page. Raises UserError."""
    if len(names) > MAX_PEOPLE:
        raise UserError(f"The page must show at most {MAX_PEOPLE} people, got {len(names)}.")
    codes = Codes._make(map(np.asarray, model.encode(faces)))
    model.intensity(codes.expression, action)  # raises UserError unless it is clear which action is meant
    action = action or model.expressions[0]
    expressions = [np.asarray(code) for code in codes.expression]
    kinds = style_kinds(model, action)
    smile = judges.smile or Judge("the network's own reading", lambda x: model.intensity(model.encode(x)[1], action))
    people = []
    for k, name in enumerate(names):
        other_people = [(names[j], expressions[j]) for j in range(len(names)) if j != k]
        choices = [
            _describe(model, faces[k], Codes._make(code[k : k + 1] for code in codes), choice, smile, judges.identity)
            for choice in choices_of(model, expressions[k], action, kinds, other_people)
        ]
        start = {key: np.asarray(code[k]).tolist() for key, code in codes._asdict().items()}
        people.append({"name": name, "choices": choices} | start)
    identity = f" Identity: {judges.identity.name}, distance to strength 0." if judges.identity else ""
    content = {
        "title": f"{Path(model.config.run).name}, step {model.step}",
        "about": f"Each person moves from their own expression (strength 0) to a full {action} (1) and beyond, or "
        "to the expression of another person. The model decoded every image; the page only shows it.",
        "judges": f"Measured by: {smile.name}.{identity}",
        "smile_label": "measured smile" if action == "smile" else f"measured {action}",
        "strengths": STRENGTHS.round(4).tolist(),
        "people": people,
    }
    text = json.dumps(content, allow_nan=False).replace("<", "\\u003c")  # no name ends the script
    return TEMPLATE.read_text(encoding="utf-8").replace("@DATA@", text)


def choices_of(
    model: TrainedModel,
    expression: Float[np.ndarray, "dim"],
    action: str,
    kinds: dict[str, Float[np.ndarray, "dim"]],
    other_people: Sequence[tuple[str, Float[np.ndarray, "dim"]]],
) -> list[Choice]:
    """The action in the mean style, in other styles, and the expressions of other people."""
    last = float(STRENGTHS[-1])
    styles = {"as people do on average": None} | kinds
    choices = [
        Choice(f"{action}, {title}", model.with_intensity(expression[None], last, action, style)[0], STRENGTHS / last)
        for title, style in styles.items()
    ]
    return choices + [Choice(f"expression of {name}", code, STRENGTHS) for name, code in other_people]


def style_kinds(model: TrainedModel, action: str) -> dict[str, Float[np.ndarray, "dim"]]:
    """Expression codes along the two directions in which the full expressions of the training people differ most.

    Empty where the code has no dimensions for the style, or where the training images are gone.
    """
    objective = model.config.objective
    style = slice(objective.label_dims, objective.label_dims + objective.style_dims)
    if objective.label_dims == model.config.model.code_dims or action not in model.info.get("mean_expressions", {}):
        return {}
    try:
        faces = reading.read_faces(model.info["data"], "train", memory=1.0)
    except UserError:
        return {}
    apex = np.flatnonzero((faces.expression == action) & (faces.intensity > APEX_ABOVE))
    if len(apex) < 3:
        return {}
    rows = np.sort(np.random.default_rng(SEED).permutation(apex)[:MAX_APEXES])
    codes = np.asarray(model.encode(faces.image[rows]).expression)
    mean = codes.mean(0)
    directions, norms = principal_components(codes[:, style] - mean[style], 2, 1e-6)
    kinds = {}
    for k, (direction, norm) in enumerate(zip(directions, norms, strict=True)):
        for sign, word in ((1, "+"), (-1, "-")):
            code = mean.copy()
            code[style] = np.clip(code[style] + sign * KIND_DEVIATIONS * norm / np.sqrt(len(codes)) * direction, 0, 1)
            kinds[f"kind {k + 1}{word}"] = code
    return kinds


def _describe(
    model: TrainedModel,
    face: UInt8[np.ndarray, "64 64 3"],
    start: Codes,
    choice: Choice,
    smile: Judge,
    identity: Judge | None,
) -> dict:
    """A choice as the page has it: the images in one row, and what is measured on each."""
    weights = choice.weights.astype(np.float32)[:, None]
    end = Codes._make((start.identity, choice.end[None]))
    source = np.repeat(face[None], len(weights), axis=0)
    images = model.decode_with_source(lerp(start, end, (np.zeros_like(weights), weights)), source)
    distance = None
    if identity:
        embeddings = identity.measure(images)
        distance = np.linalg.norm(embeddings - embeddings[0], axis=1)
    return {
        "title": choice.title,
        "sprite": sprite(images),
        "smile": _numbers(smile.measure(images)),
        "identity": None if distance is None else _numbers(distance),
        "end": choice.end.tolist(),
        "weights": choice.weights.tolist(),
    }


def sprite(images: Float[np.ndarray, "n 64 64 3"]) -> str:
    """Images side by side as a data URL, without loss."""
    row = np.concatenate(list(to_uint8(images)), axis=1)
    file = io.BytesIO()
    Image.fromarray(row).save(file, "WEBP", lossless=True, quality=100, exact=True)
    return "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode()


def _numbers(values: np.ndarray) -> list[float | None]:
    return [float(value) if np.isfinite(value) else None for value in values]
