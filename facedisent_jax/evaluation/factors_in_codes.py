"""`eval.py disentangle`: how the codes of held-out images hold the factors of the images, by dimension and by code."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from facedisent_jax.data.factors import read_factors, values_of
from facedisent_jax.data.labels import take_ids
from facedisent_jax.data.record import Faces
from facedisent_jax.errors import UserError
from facedisent_jax.evaluation import disentanglement, metrics
from facedisent_jax.evaluation.factor_probes import (
    FOLDS,
    RANDOM_FEATURES,
    SMILE_FROM,
    Factor,
    Probe,
    above_chance,
    drawn_factors,
    fold_of_people,
    importance_of,
    label_factors,
    probe,
)
from facedisent_jax.evaluation.metrics import SEED, Ridge
from facedisent_jax.evaluation.stills import ProbeSplit, load_held_out, probe_split, provenance
from facedisent_jax.models import Codes
from facedisent_jax.trained_model import TrainedModel

Code = Float[np.ndarray, "n d"]


def evaluate(model: TrainedModel, run: Path, folders: Sequence[Path], split: str) -> dict:
    """The content of disentangle/metrics.json (docs/disentanglement.md).

    Raises UserError for people that the model was trained on, and for data with fewer than two factors that vary.
    """
    faces, left_out = load_held_out(model, run, folders, split)
    labelled = (faces.subject != "") & (metrics.displayed_expression(faces.expression, faces.intensity) != "")
    faces = faces.take(labelled)
    fold = fold_of_people(faces.subject)
    factors = factors_of(folders, faces)
    if len(factors) < 2:
        names = ", ".join(factor.name for factor in factors) or "none"
        raise UserError(f"--data must hold images that differ in two factors at least, got {names}.")
    codes = Codes._make(np.asarray(code, np.float64) for code in model.encode(np.asarray(faces.image)))
    subject_split = probe_split(faces, take_ids(faces), np.ones(len(faces), bool))
    all_dims, blocks = np.concatenate(codes, axis=1), blocks_of(codes, model.config.label_dims)
    out = dimension_scores(all_dims, factors, fold, subject_split)
    out["chance"] = dimension_scores(all_dims, exchange_factors(factors, faces.subject), fold, subject_split)
    out |= block_scores(blocks, factors, fold)
    out["subject"] = {name: subject_score(code, faces.subject, subject_split) for name, code in blocks.items()}
    out["factors"] = [{"name": f.name, "group": f.group, "expected_in": f.expected_in} for f in factors]
    out["settings"] = {
        "bins": disentanglement.BINS,
        "irs_quantile": disentanglement.IRS_QUANTILE,
        "folds": FOLDS,
        "random_features": RANDOM_FEATURES,
        "smile_from": SMILE_FROM,
        "seed": SEED,
        "subject_probe": subject_split.subject_note,
    }
    out["data"] = {
        "subjects": len(np.unique(faces.subject)),
        "pictures": len(faces),
        "left_out": left_out + int((~labelled).sum()),
        "dimensions": {name: code.shape[1] for name, code in blocks.items()},
    } | provenance(model, folders, split)
    return out


def factors_of(folders: Sequence[Path], faces: Faces) -> list[Factor]:
    """The exact factors, where all folders are of drawn faces; what the labels say, where not."""
    tables = [read_factors(folder) for folder in folders]
    first = tables[0]
    if first is None or any(table is None or table.name.tolist() != first.name.tolist() for table in tables):
        return label_factors(faces)
    values = np.empty((len(faces), len(first.name)))
    for number, table in enumerate(tables):
        rows = faces.folder == number
        values[rows] = values_of(table, faces.take(rows)) if table is not None else np.nan
    return drawn_factors(first, values)


def blocks_of(codes: Codes, label_dims: int) -> dict[str, Code]:
    """Both codes, and the parts of the expression code that the labels constrain and leave free."""
    blocks = codes._asdict()
    if label_dims < codes.expression.shape[1]:
        blocks["expression_label"] = codes.expression[:, :label_dims]
        blocks["expression_free"] = codes.expression[:, label_dims:]
    return blocks


def dimension_scores(code: Code, factors: list[Factor], fold: Int[np.ndarray, "n"], subject_split: ProbeSplit) -> dict:
    """MIG, SAP, DCI, IRS and modularity of all dimensions of both codes."""
    discrete = np.stack([factor.discrete() for factor in factors], axis=1)
    information = disentanglement.mutual_information(disentanglement.discretize(code), discrete)
    single = np.stack([disentanglement.squared_correlation(code, factor.columns()) for factor in factors], axis=1)
    linear = linear_probe(code, factors, fold, subject_split)
    dci = disentanglement.dci(linear.importance)
    return {
        "mig": disentanglement.mig(information, disentanglement.entropy(discrete)),
        "sap": disentanglement.sap(single),
        "dci": dci._asdict() | {"informativeness": float(linear.score.mean())},
        "irs": disentanglement.irs(code, discrete),
        "modularity": disentanglement.modularity(information),
    }


def linear_probe(code: Code, factors: list[Factor], fold: Int[np.ndarray, "n"], subject_split: ProbeSplit) -> Probe:
    """The linear probe of each factor; of the person, who cannot be guessed from others, one fitted on everybody."""
    score, importance = np.zeros(len(factors)), np.zeros((code.shape[1], len(factors)))
    guessable = [k for k, factor in enumerate(factors) if not factor.is_person]
    score[guessable], importance[:, guessable] = probe(code, [factors[k] for k in guessable], fold)
    for k in set(range(len(factors))) - set(guessable):
        score[k] = above_chance(*metrics.subject_probe(code, factors[k].values, subject_split.fit, subject_split.test))
        columns = factors[k].columns()
        regression = Ridge.of(code, columns)
        importance[:, k] = importance_of(regression.weight(regression.best_strength(columns)))
    return Probe(score, importance)


def block_scores(blocks: dict[str, Code], factors: list[Factor], fold: Int[np.ndarray, "n"]) -> dict:
    """How much of each factor is in each block, and the means over the cells where it should be and where it should
    not. The parts of the expression code have the linear probe alone."""
    factors = [factor for factor in factors if not factor.is_person]
    names = [factor.name for factor in factors]
    tables: dict[str, dict[str, dict[str, float]]] = {}
    cells: dict[str, dict[str, list[float]]] = {
        key: {"linear": [], "nonlinear": []} for key in ("expected", "unexpected")
    }
    for block, code in blocks.items():
        tables[block] = {}
        for kind in ("linear", "nonlinear") if block in Codes._fields else ("linear",):
            score = probe(code, factors, fold, is_linear=kind == "linear").score.tolist()
            tables[block][kind] = dict(zip(names, score, strict=True))
            for factor, value in zip(factors, score, strict=True):
                if block in Codes._fields and factor.expected_in:
                    cells["expected" if factor.expected_in == block else "unexpected"][kind].append(value)
    means: dict[str, Any] = {
        key: {kind: float(np.mean(values)) if values else np.nan for kind, values in kinds.items()}
        for key, kinds in cells.items()
    }
    return {"blocks": tables} | means


def subject_score(code: Code, subject: np.ndarray, subject_split: ProbeSplit) -> dict[str, float]:
    """Accuracy of a linear probe that names the person, and chance."""
    accuracy, chance = metrics.subject_probe(code, subject, subject_split.fit, subject_split.test)
    return {"accuracy": accuracy, "chance": chance}


def exchange_factors(factors: list[Factor], subject: np.ndarray) -> list[Factor]:
    """The same factors, each image's from an image of another person, so that codes say nothing about them."""
    rng = np.random.default_rng(SEED)
    rows = [np.flatnonzero(subject == name) for name in np.unique(subject)]
    exchanged = np.empty(len(subject), np.int64)
    for target, person in zip(rows, rng.permutation(len(rows)), strict=True):
        exchanged[target] = np.resize(rng.permutation(rows[person]), len(target))
    shuffled = rng.permutation(len(subject))  # to a probe of the person, another name for all images is the same
    out = []
    for factor in factors:
        source = shuffled if factor.is_person else exchanged
        out.append(factor._replace(values=factor.values[source], rows=factor.rows[source]))
    return out
