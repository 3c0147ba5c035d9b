"""The folder of `eval.py stimuli`: images at equal steps of the measured smile, stimuli.csv and recipe.json."""

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8

from facedisent_jax.errors import UserError
from facedisent_jax.evaluation import stimuli
from facedisent_jax.evaluation.judges import Judge
from facedisent_jax.files import write_atomically
from facedisent_jax.reporting import figures
from facedisent_jax.trained_model import TrainedModel

TABLE, RECIPE = "stimuli.csv", "recipe.json"
COLUMNS = ("file", "person", "level", "measured", "identity_distance", "alpha", "checkpoint")


@dataclass(frozen=True)
class Recipe:
    """All that makes the images again, and what was measured on them.

    digest:            of the weights and the cropped photographs (`stimuli.digest`).
    expression:        None: the only one of the model.
    levels:            asked for, one an image of a person.
    alphas, measured:  [people][levels]: position on the path; what the judge measures on the image as it is written.
    identity_distance: [people][levels] to the photograph; None where no judge is installed.
    smile_judge:       by which the levels are measured.
    """

    digest: str
    expression: str | None
    levels: list[float]
    alphas: list[list[float]]
    measured: list[list[float]]
    identity_distance: list[list[float]] | None
    smile_judge: str
    match_luminance: bool
    scale: int

    def largest_residual(self) -> float:
        """The largest difference between a level and what is measured on its image."""
        return float(np.abs(np.array(self.measured) - np.array(self.levels)).max())


def measure(
    model: TrainedModel,
    names: Sequence[str],
    faces: UInt8[np.ndarray, "n 64 64 3"],
    levels: Sequence[float],
    smile_judge: Judge,
    identity_judge: Judge | None,
    expression: str | None,
    match_luminance: bool,
    scale: int,
) -> Recipe:
    """Find where on each person's path the smile is at each level. Raises UserError for levels out of reach."""
    alphas, measured, distances = [], [], []
    for name, face in zip(names, faces, strict=True):
        path = stimuli.measure_path(model, face, smile_judge, expression, name)
        alpha = stimuli.alphas_at(path, levels, name)
        images = decode(model, face, alpha, expression, match_luminance)
        alphas.append(alpha.tolist())
        measured.append(((smile_judge.measure(images) - path.zero) / path.unit).tolist())
        if identity_judge:
            photo, *embeddings = identity_judge.measure(np.concatenate([face[None] / np.float32(255), images]))
            distances.append([float(np.linalg.norm(embedding - photo)) for embedding in embeddings])
    return Recipe(
        digest=stimuli.digest(model, faces),
        expression=expression,
        levels=list(levels),
        alphas=alphas,
        measured=measured,
        identity_distance=distances or None,
        smile_judge=smile_judge.name,
        match_luminance=match_luminance,
        scale=scale,
    )


def decode(
    model: TrainedModel,
    face: UInt8[np.ndarray, "64 64 3"],
    alpha: Float[np.ndarray, "n"],
    expression: str | None,
    match_luminance: bool,
) -> Float[np.ndarray, "n 64 64 3"]:
    """The images of one person at positions on the path."""
    images = model.towards(face, alpha, stimuli.MAX_STRENGTH, expression)
    return stimuli.match_luminance(images) if match_luminance else images


def read_recipe(path: Path, model: TrainedModel, faces: UInt8[np.ndarray, "n 64 64 3"]) -> Recipe:
    """Raises UserError if the file is no recipe, or the recipe of another checkpoint or of other photographs."""
    try:
        recipe = Recipe(**json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise UserError(f"{path} must be a {RECIPE} of `stimuli` ({error}).") from error
    if recipe.digest != stimuli.digest(model, faces):
        raise UserError(
            f"The checkpoint and the photographs must be those of {path}, in its order; one of them is not."
        )
    return recipe


def write(
    folder: Path, model: TrainedModel, names: Sequence[str], faces: UInt8[np.ndarray, "n 64 64 3"], recipe: Recipe
) -> None:
    """Write images, table and recipe into a new folder. The recipe comes last."""
    folder.mkdir()
    checkpoint = f"{Path(model.config.run).name} {model.step}"
    rows: list[tuple[str, ...]] = [COLUMNS]
    for k, (name, face) in enumerate(zip(names, faces, strict=True)):
        images = decode(model, face, np.array(recipe.alphas[k]), recipe.expression, recipe.match_luminance)
        for j, image in enumerate(images):
            file = f"{k:03}_{name}_{recipe.levels[j]:.2f}.png"
            figures.save(figures.enlarge(image, recipe.scale), folder / file)
            distance = f"{recipe.identity_distance[k][j]:.4f}" if recipe.identity_distance else ""
            measured, alpha = f"{recipe.measured[k][j]:.4f}", f"{recipe.alphas[k][j]:.6f}"
            rows.append((file, name, str(recipe.levels[j]), measured, distance, alpha, checkpoint))
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    write_atomically(folder / TABLE, text.getvalue())
    write_atomically(folder / RECIPE, json.dumps(asdict(recipe), indent=1))
