"""Which code holds which factor: probes of whole codes, fitted on some people and tested on the others."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from facedisent_jax.data.factors import Factors
from facedisent_jax.data.record import Faces
from facedisent_jax.errors import UserError
from facedisent_jax.evaluation.disentanglement import discretize
from facedisent_jax.evaluation.metrics import SEED, Ridge

FOLDS = 5  # of people
RANDOM_FEATURES = 256  # of the non-linear probe
SMILE_FROM = 0.5  # the way of smiling is probed on images of at least this intensity: on a neutral face it is not seen
EXPECTED_IN = {"identity": "identity", "photograph": "identity", "smile": "expression", "intensity": "expression"}
"""Group of factors -> the code that should hold them. A drawn person has one photograph, so it belongs to who it is."""


class Factor(NamedTuple):
    """A factor of n images. values: numbers, or, of a category, its index. rows: the images it is probed on."""

    name: str
    group: str
    values: Float[np.ndarray, "n"] | Int[np.ndarray, "n"]
    is_category: bool
    rows: Bool[np.ndarray, "n"]

    @property
    def expected_in(self) -> str:
        """The code that should hold it; "" where neither is meant to."""
        return EXPECTED_IN.get(self.group, "")

    @property
    def is_person(self) -> bool:
        """Whether it is the person, whom a probe can only name among those it was fitted on."""
        return self.name == "subject"

    def columns(self) -> Float[np.ndarray, "n c"]:
        """What a regression predicts: the standardized numbers, or a column of zeros and ones for each category."""
        if self.is_category:
            return np.eye(int(self.values.max()) + 1)[self.values]
        return ((self.values - self.values.mean()) / self.values.std())[:, None]

    def discrete(self) -> Int[np.ndarray, "n"]:
        return np.asarray(self.values) if self.is_category else discretize(self.values[:, None])[:, 0]


def drawn_factors(table: Factors, values: Float[np.ndarray, "n k"]) -> list[Factor]:
    """The factors of drawn images that vary. values: their rows of the table."""
    intensity = values[:, table.name.tolist().index("intensity")]
    is_shown, everywhere = intensity >= SMILE_FROM, np.ones(len(values), bool)
    factors = []
    for name, group, column in zip(table.name.tolist(), table.group.tolist(), values.T, strict=True):
        rows = is_shown if group == "smile" else everywhere
        if np.ptp(column) > 0 and np.ptp(column[rows]) > 0:
            factors.append(Factor(name, group, column, False, rows))
    return factors


def label_factors(faces: Faces) -> list[Factor]:
    """The factors of photographs that vary: person, intensity, and camera and light. All images are labelled."""
    everywhere, factors = np.ones(len(faces), bool), []
    for name, column in (("subject", faces.subject), ("condition", faces.condition)):
        names, index = np.unique(column, return_inverse=True)
        if len(names) > 1:
            factors.append(Factor(name, "identity" if name == "subject" else "condition", index, True, everywhere))
    if np.ptp(faces.intensity) > 0:
        factors.append(Factor("intensity", "intensity", faces.intensity.astype(np.float64), False, everywhere))
    return factors


def fold_of_people(subject: np.ndarray) -> Int[np.ndarray, "n"]:
    """The fold of each image, 0 to FOLDS - 1; all images of a person are in one. Raises UserError: too few people."""
    names, index = np.unique(subject, return_inverse=True)
    if len(names) < FOLDS:
        raise UserError(f"--data must hold labelled images of at least {FOLDS} people, got {len(names)}.")
    return np.random.default_rng(SEED).permutation(len(names))[index] % FOLDS


class Probe(NamedTuple):
    """score: of each factor (`score_of`). importance: of each dimension for it (`importance_of`)."""

    score: Float[np.ndarray, "k"]
    importance: Float[np.ndarray, "d k"]


def probe(
    code: Float[np.ndarray, "n d"], factors: list[Factor], fold: Int[np.ndarray, "n"], is_linear: bool = True
) -> Probe:
    """How well a regression on some people reads each factor of the others.

    Ridge regression, on the code (linear), or also on random Fourier features of it (Rahimi and Recht 2007). Its
    strength, one for each factor, is chosen on a further fold of people.
    """
    score, importance = np.zeros(len(factors)), np.zeros((code.shape[1], len(factors)))
    for rows in {factor.rows.tobytes(): factor.rows for factor in factors}.values():
        chosen = [k for k, factor in enumerate(factors) if np.array_equal(factor.rows, rows)]
        targets = [factors[k].columns()[rows] for k in chosen]
        starts = np.cumsum([0, *(target.shape[1] for target in targets)])
        guess, sizes = _held_out_guesses(code[rows], np.concatenate(targets, axis=1), fold[rows], is_linear)
        for k, target, first, last in zip(chosen, targets, starts[:-1], starts[1:], strict=True):
            score[k] = score_of(guess[:, first:last], target, factors[k].is_category)
            importance[:, k] = importance_of(sizes[: code.shape[1], first:last])
    return Probe(score, importance)


def _held_out_guesses(
    code: Float[np.ndarray, "n d"], target: Float[np.ndarray, "n c"], fold: Int[np.ndarray, "n"], is_linear: bool
) -> tuple[Float[np.ndarray, "n c"], Float[np.ndarray, "inputs c"]]:
    """The target of each image, guessed by a regression on the other folds, and the mean size of its weights."""
    guess, sizes = np.zeros_like(target), []
    for test in range(FOLDS):
        validation = (test + 1) % FOLDS
        x = code if is_linear else _with_random_features(code, fold != test)
        inner = Ridge.of(x[(fold != test) & (fold != validation)], target[(fold != test) & (fold != validation)])
        errors = [
            np.square(inner.predict(x[fold == validation], strength) - target[fold == validation]).mean(0)
            for strength in inner.strengths
        ]
        outer = Ridge.of(x[fold != test], target[fold != test])
        strength = outer.strengths[np.argmin(errors, axis=0)]
        guess[fold == test] = outer.predict(x[fold == test], strength)
        sizes.append(np.abs(outer.weight(strength)))
    return guess, np.mean(sizes, axis=0)


def _with_random_features(code: Float[np.ndarray, "n d"], fit: Bool[np.ndarray, "n"]) -> Float[np.ndarray, "n d+m"]:
    """The standardized code, and cosines of random projections of it: together they span smooth functions of it."""
    rng = np.random.default_rng(SEED)
    spread = code[fit].std(0)
    x = (code - code[fit].mean(0)) / np.where(spread > 1e-6, spread, np.inf)
    # The kernel is as wide as the root mean square distance between two codes.
    projection = rng.standard_normal((x.shape[1], RANDOM_FEATURES)) / np.sqrt(2 * max(1, int((spread > 1e-6).sum())))
    return np.concatenate([x, np.cos(x @ projection + rng.uniform(0, 2 * np.pi, RANDOM_FEATURES))], axis=1)


def score_of(guess: Float[np.ndarray, "n c"], target: Float[np.ndarray, "n c"], is_category: bool) -> float:
    """R2 of a number; of a category, its accuracy above that of the most frequent one, as a share of what is possible.

    0 where the guess is worse than the mean, or the most frequent category.
    """
    if is_category:
        accuracy, chance = np.mean(guess.argmax(1) == target.argmax(1)), target.mean(0).max()
        return above_chance(float(accuracy), float(chance))
    return float(max(0.0, 1 - np.square(guess - target).sum() / np.square(target - target.mean(0)).sum()))


def importance_of(weight: Float[np.ndarray, "d c"]) -> Float[np.ndarray, "d"]:
    """Each dimension's share of the sizes of the weights. Of a factor that is not read, all have a share.

    weight: of the standardized dimensions in the regression of a number, or of the columns of a category.
    """
    size = np.sqrt(np.square(weight).sum(1))
    return size / max(size.sum(), 1e-12)


def above_chance(accuracy: float, chance: float) -> float:
    return max(0.0, (accuracy - chance) / (1 - chance))
