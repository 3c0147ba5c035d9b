"""Stimuli are at equal steps of what the judge measures, and a recipe makes the same files again."""

import csv
from dataclasses import replace

import numpy as np
import pytest

from facedisent_jax.config import Config
from facedisent_jax.errors import UserError
from facedisent_jax.evaluation import stimuli
from facedisent_jax.evaluation.judges import Judge
from facedisent_jax.reporting import stimuli_folder
from facedisent_jax.trained_model import TrainedModel

LEVELS = (0.0, 0.25, 0.5, 0.75, 1.0)
FACES = np.random.default_rng(0).integers(60, 90, (2, 64, 64, 3), np.uint8)
NAMES = ["Ann", "Ben"]


class BentModel(TrainedModel):
    """The mouth gets lighter with the square of alpha, up to 100 grey levels at full strength."""

    def __init__(self, params=None):
        super().__init__(params or {"w": np.ones(3)}, Config(), {"expressions": ["smile"]}, 7)

    def towards(self, a, alpha, to=1.0, action=None, like=None):
        images = np.repeat(np.asarray(a)[None] / np.float32(255), len(alpha), axis=0)
        images[:, 40:60, 15:50] += (100 / 255 * (to * alpha) ** 2)[:, None, None, None].astype(np.float32)
        return images


LIGHTNESS = Judge("lightness of the mouth", lambda images: images[:, 40:60, 15:50].mean((1, 2, 3)))


def recipe_of(levels=LEVELS, match_luminance=False) -> stimuli_folder.Recipe:
    return stimuli_folder.measure(BentModel(), NAMES, FACES, levels, LIGHTNESS, None, None, match_luminance, 1)


def test_levels_are_those_that_the_judge_measures_and_not_those_of_the_code():
    recipe = recipe_of()
    assert recipe.measured == pytest.approx(np.tile(LEVELS, (2, 1)), abs=0.01)
    assert recipe.alphas[0][2] * stimuli.MAX_STRENGTH == pytest.approx(0.5**0.5, abs=0.01)
    assert recipe.largest_residual() < 0.01
    assert replace(recipe, measured=[list(LEVELS), [0.0, 0.25, 0.4, 0.75, 1.0]]).largest_residual() == pytest.approx(
        0.1
    )


def test_a_level_that_is_out_of_reach_is_refused_with_what_is_in_reach():
    with pytest.raises(UserError, match=r"--levels must be from 0 to 1.69, .* from Ann goes, got 1.8"):
        recipe_of((0.5, 1.8))
    blind = Judge("blind", lambda images: np.zeros(len(images)))
    with pytest.raises(UserError, match="sees none made from Ann"):
        stimuli_folder.measure(BentModel(), NAMES, FACES, LEVELS, blind, None, None, False, 1)
    lost = Judge("lost", lambda images: np.full(len(images), np.nan))
    with pytest.raises(UserError, match="must find a face in all images made from Ann"):
        stimuli_folder.measure(BentModel(), NAMES, FACES, LEVELS, lost, None, None, False, 1)


def test_a_recipe_makes_the_same_files_again_from_the_same_photographs_alone(tmp_path):
    recipe = recipe_of()
    stimuli_folder.write(tmp_path / "a", BentModel(), NAMES, FACES, recipe)
    read = stimuli_folder.read_recipe(tmp_path / "a" / "recipe.json", BentModel(), FACES)
    stimuli_folder.write(tmp_path / "b", BentModel(), NAMES, FACES, read)
    files = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert len(files) == 2 * len(LEVELS) + 2
    for name in files:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name
    with (tmp_path / "a" / "stimuli.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["person"] for row in rows] == ["Ann"] * 5 + ["Ben"] * 5 and rows[2]["file"] in files
    assert float(rows[2]["level"]) == 0.5 and float(rows[2]["measured"]) == pytest.approx(0.5, abs=0.01)
    for model, faces in ((BentModel(), FACES[::-1]), (BentModel({"w": np.zeros(3)}), FACES)):
        with pytest.raises(UserError, match="must be those of"):
            stimuli_folder.read_recipe(tmp_path / "a" / "recipe.json", model, faces)
    (tmp_path / "other.json").write_text('{"a": 1}')
    with pytest.raises(UserError, match=r"must be a recipe.json of `stimuli`"):
        stimuli_folder.read_recipe(tmp_path / "other.json", BentModel(), FACES)


def test_matched_images_have_one_luminance_and_contrast():
    images = BentModel().towards(FACES[0], np.linspace(0, 0.5, 4))
    grey = stimuli.match_luminance(images) @ stimuli.GREY
    assert grey.mean((1, 2)) == pytest.approx(grey[0].mean(), abs=1e-4)
    assert grey.std((1, 2)) == pytest.approx(grey[0].std(), abs=1e-3)
    assert np.ptp((images @ stimuli.GREY).mean((1, 2))) > 0.01
