"""Evaluation on held-out images: every metric of report/metrics.json, but for those of the judges (judged_swaps.py)."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from facedisent_jax.data import reading
from facedisent_jax.data.labels import intensity_step, take_ids
from facedisent_jax.data.record import NEUTRAL, PREP_FILE, SPLITS, Faces, spelling_key
from facedisent_jax.errors import UserError
from facedisent_jax.evaluation import metrics
from facedisent_jax.evaluation.metrics import SEED
from facedisent_jax.models import Codes
from facedisent_jax.models.pca import fit_pca, reconstruct
from facedisent_jax.trained_model import TrainedModel

MAX_IMAGES = 4000  # of a report; of more, whole takes are drawn by seed, evenly over people
CHUNK = 256  # images decoded and compared at a time
PCA_COMPONENTS = (64, 128)  # of the linear baselines
MAX_NEUTRAL_PEOPLE = 60  # compared with each other


class StillsEvaluation(NamedTuple):
    """The held-out images, their codes, the swaps with a truth, the metrics by their keys in metrics.json, and notes:
    a sentence for each metric that the data does not allow."""

    faces: Faces
    codes: Codes
    swaps: metrics.Swaps
    metrics: dict
    notes: list[str]


def evaluate_stills(model: TrainedModel, faces: Faces) -> StillsEvaluation:
    """Every metric of report/metrics.json that needs no judge."""
    codes = model.encode(np.asarray(faces.image))
    take, displayed = take_ids(faces), metrics.displayed_expression(faces.expression, faces.intensity)
    swaps = metrics.swaps(faces.subject, take, faces.expression, faces.intensity)
    labelled = (faces.subject != "") & (displayed != "")
    out = {
        "reconstruction": reconstruction_metrics(model, faces, codes),
        "swap": swap_metrics(model, faces, codes, swaps),
        "intensity": intensity_metrics(model, np.asarray(codes.expression), faces, displayed),
        "probes": probes(codes, faces, take, displayed),
        "leakage": metrics.leakage(np.asarray(codes.identity)[labelled], faces.subject[labelled]),
        "baselines": linear_baselines(model, faces),
        "data": {
            "subjects": len(set(faces.subject.tolist()) - {""}),
            "pictures": len(faces),
            "unlabelled": int((~labelled).sum()),
            "neutral_people_psnr": inter_subject_psnr(faces, displayed),
        },
    }
    return StillsEvaluation(faces, codes, swaps, out, data_notes(out, labelled))


# Image metrics


def reconstruction_metrics(model: TrainedModel, faces: Faces, codes: Codes) -> dict:
    """PSNR and SSIM of each image decoded from its own codes alone."""
    return image_metrics(
        faces, np.arange(len(faces)), lambda rows: model.decode(Codes(codes.identity[rows], codes.expression[rows]))
    )


def swap_metrics(model: TrainedModel, faces: Faces, codes: Codes, swaps: metrics.Swaps) -> dict:
    """PSNR and SSIM of swaps against the real image, with two marks for comparison, over each target once.

    same_subject: the target's own expression code in place of the donor's. unswapped: the source's.
    """

    def decode(source: np.ndarray, expression: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        def decode_at(positions: np.ndarray) -> np.ndarray:
            identity = source[positions]
            pair = Codes(codes.identity[identity], codes.expression[expression[positions]])
            return model.decode_with_source(pair, faces.image[identity])

        return decode_at

    targets, first = np.unique(swaps.target, return_index=True)
    sources = swaps.source[first]
    same_subject = image_metrics(faces, targets, decode(sources, targets))
    unswapped = image_metrics(faces, targets, decode(sources, sources))
    return (
        image_metrics(faces, swaps.target, decode(swaps.source, swaps.donor))
        | {f"same_subject_{name}": same_subject[name] for name in ("psnr", "ssim")}
        | {f"unswapped_{name}": unswapped[name] for name in ("psnr", "ssim")}
        | {"swaps": len(swaps.target), "targets": len(targets)}
    )


def image_metrics(
    faces: Faces, rows: Int[np.ndarray, "n"], decode_at: Callable[[Int[np.ndarray, "k"]], np.ndarray]
) -> dict:
    """PSNR and SSIM against the images at `rows`: mean over images, and PSNR's mean over people with its interval.

    decode_at: positions in `rows` -> the images to be compared with them, [k, 64, 64, 3] float in [0, 1].
    """
    if not len(rows):
        return {"psnr": np.nan, "ssim": np.nan}
    psnr_chunks, ssim_chunks = [], []
    for positions in np.array_split(np.arange(len(rows)), -(-len(rows) // CHUNK)):
        images, truth = decode_at(positions), np.asarray(faces.image[rows[positions]], np.float32) / 255
        psnr_chunks.append(metrics.psnr(images, truth))
        ssim_chunks.append(metrics.ssim(images, truth))
    psnr, ssim = np.concatenate(psnr_chunks), np.concatenate(ssim_chunks)
    mean, low, high = metrics.subject_mean(psnr, faces.subject[rows])
    return {"psnr": psnr.mean(), "ssim": ssim.mean(), "psnr_by_subject": mean, "psnr_ci95": [low, high]}


def inter_subject_psnr(faces: Faces, displayed: np.ndarray) -> float:
    """Mean PSNR between neutral images of different people, one each: how alike people are to begin with."""
    rows = np.flatnonzero((displayed == NEUTRAL) & (faces.subject != ""))
    rows = rows[np.unique(faces.subject[rows], return_index=True)[1]][:MAX_NEUTRAL_PEOPLE]
    pairs = [(a, b) for a in rows for b in rows if a < b]
    if not pairs:
        return np.nan
    a, b = (np.asarray(faces.image[np.array(side)], np.float32) / 255 for side in zip(*pairs, strict=True))
    return float(metrics.psnr(a, b).mean())


# Intensity


def intensity_metrics(model: TrainedModel, expression: np.ndarray, faces: Faces, displayed: np.ndarray) -> dict:
    """The intensity read from expression codes [n, dim] against the true one: mean over actions, and each action.

    Each action that the model was trained on is evaluated together with the neutral images.
    """
    by_action = {}
    for action in (name for name in model.expressions if name in displayed):
        rows = (displayed == action) | (displayed == NEUTRAL)
        prediction, truth = model.intensity(expression[rows], action), faces.intensity[rows]
        by_action[action] = {
            "spearman": metrics.spearman(truth, prediction),
            "spearman_ceiling": metrics.spearman_ceiling(truth),
            "mae": float(abs(prediction - truth).mean()),
            "pictures": int(rows.sum()),
        }
    out: dict = dict.fromkeys(("spearman", "mae"), np.nan)
    if by_action:
        keys = ("spearman", "spearman_ceiling", "mae")
        out |= {key: np.mean([action[key] for action in by_action.values()]) for key in keys}
    return out | ({"actions": by_action} if len(by_action) > 1 else {})


# Probes


class ProbeSplit(NamedTuple):
    """What probes are fitted and tested on: masks [n].

    fit, test: for the person. folds: (fit, test) for the intensity. subject_note, intensity_note: the split in words.
    """

    fit: Bool[np.ndarray, "n"]
    test: Bool[np.ndarray, "n"]
    folds: list[tuple[np.ndarray, np.ndarray]]
    subject_note: str
    intensity_note: str


def probes(codes: Codes, faces: Faces, take: np.ndarray, displayed: np.ndarray) -> dict:
    """Linear probes of person and intensity on both codes, each with chance: what a code should tell and should not."""
    split = probe_split(faces, take, (faces.subject != "") & (displayed != ""))
    out = {}
    for name, code in zip(Codes._fields, map(np.asarray, codes), strict=True):
        accuracy, chance = metrics.subject_probe(code, faces.subject, split.fit, split.test)
        out[f"subject_from_{name}"] = {"accuracy": accuracy, "chance": chance, "how": split.subject_note}
        intensity = metrics.intensity_probe(code, faces.intensity, split.folds)
        out[f"intensity_from_{name}"] = intensity | {"how": split.intensity_note}
    return out


def probe_split(faces: Faces, take: np.ndarray, labelled: Bool[np.ndarray, "n"]) -> ProbeSplit:
    """Even against odd frames where some take has more than three intensities; by expression and people if not."""
    step = intensity_step(faces.intensity)
    if any(len(np.unique(step[labelled & (take == number)])) > 3 for number in np.unique(take[labelled])):
        even = metrics.even_frames(take, faces.frame)
        fit, test = labelled & even, labelled & ~even
        note = "fitted on even frames of each take, tested on odd ones"
        return ProbeSplit(fit, test, [(fit, test)], note, note)
    person = np.unique(faces.subject, return_inverse=True)[1].ravel()
    fold = np.random.default_rng(SEED).permutation(person.max() + 1)[person] % 5
    return ProbeSplit(
        labelled & (step == 0),
        labelled & (step > 0),
        [(labelled & (fold != k), labelled & (fold == k)) for k in range(5)],
        "fitted on neutral pictures, tested on the others",
        "fitted on four fifths of the people, tested on the rest, in turn",
    )


# Baselines


def linear_baselines(model: TrainedModel, faces: Faces) -> dict:
    """Mean face and PCA, fitted on the model's own training images and their mirror images."""
    try:
        train_faces = reading.read_faces(model.info["data"], "train", memory=1.0)
    except UserError as error:
        return {"missing": str(error)}
    pca = fit_pca(train_faces.image, max(PCA_COMPONENTS), SEED)

    def evaluate(components: int) -> dict:
        return image_metrics(
            faces,
            np.arange(len(faces)),
            lambda rows: reconstruct(pca, faces.image[rows] / np.float32(255), components),
        )

    out = {"mean_face": evaluate(0)}
    for k in PCA_COMPONENTS:
        out[f"pca_{k}"] = evaluate(k) | {"components": min(k, len(pca.basis))}
    return out | {"fitted_pictures": pca.n_images}


# Held-out data, its provenance, and what it does not allow


def load_held_out(
    model: TrainedModel, run: Path, folders: Sequence[Path], split: str, max_images: int = MAX_IMAGES
) -> tuple[Faces, int]:
    """The images of a split, and how many were left out to keep to about `max_images`.

    Raises UserError for people that the model was trained on, and where there is no image.
    """
    if split not in SPLITS:
        raise UserError(f'--split must be one of {", ".join(SPLITS)}, got "{split}".')
    parts = []
    for number, folder in enumerate(folders):
        part = reading.read_split(folder, split, in_memory=False)
        check_unseen(model, run, folder, split, sorted(set(part.subject.tolist()) - {""}))
        parts.append(replace(part, folder=np.full(len(part), number)))
    total = sum(map(len, parts))
    if not total:
        names = ", ".join(map(str, folders)) or "no data folder"
        raise UserError(
            f"--data must hold {split} images, got no {split} images in {names}. Prepare more subjects, or choose "
            "another --split."
        )
    parts = [part.take(subsample_takes(part, max_images * len(part) // total)) for part in parts]
    faces = Faces.join([part for part in parts if len(part)])
    return faces, total - len(faces)


def check_unseen(model: TrainedModel, run: Path, folder: Path, split: str, subjects: list[str]) -> None:
    """Raises UserError if the model was trained on any of the subjects, or if this is its own training split."""
    train_people = set(map(spelling_key, model.info["train_subjects"]))
    seen = [name for name in subjects if spelling_key(name) in train_people]
    if not seen and (
        split != "train" or folder.resolve() not in {Path(trained_on).resolve() for trained_on in model.info["data"]}
    ):
        return
    names = f" ({', '.join(seen[:5])}{', ...' if len(seen) > 5 else ''})" if seen else ""
    raise UserError(
        f"--data must hold people that {run} has not seen, got {folder}: it was trained on {len(seen)} of the "
        f"{len(subjects)} subjects{names} in the {split} split. Use other people, such as the test split of the data "
        "folders it was trained with."
    )


def subsample_takes(faces: Faces, max_images: int) -> Int[np.ndarray, "n"]:
    """Rows of about `max_images` images at most: whole takes drawn by seed, one of each person before a second."""
    if len(faces) <= max_images:
        return np.arange(len(faces))
    take = take_ids(faces)
    first = np.unique(take, return_index=True)[1]
    size = np.bincount(take)
    chosen, count = [], 0
    for number in metrics.shuffle_in_turns(faces.subject[first].tolist()):
        if count >= max_images:
            break
        chosen.append(number)
        count += size[number]
    return np.flatnonzero(np.isin(take, chosen))[:max_images]


def data_notes(out: dict, labelled: Bool[np.ndarray, "n"]) -> list[str]:
    """A sentence for each metric in `out` that the data does not allow."""
    notes = []
    if not labelled.all():
        notes.append(
            f"{(~labelled).sum()} pictures have no subject or no intensity: they count in the reconstruction only."
        )
    if not out["swap"]["swaps"]:
        notes.append(
            "No swap has a truth: that takes two people, each with pictures of two intensities in one sequence."
        )
    if np.isnan(out["intensity"]["spearman"]):
        notes.append("Reading the intensity takes pictures of two intensities.")
    if np.isnan(out["leakage"]):
        notes.append("Leakage takes two people and a second picture of one of them.")
    if "missing" in out["baselines"]:
        notes.append(f"No baselines: the run's training pictures are not there any more. {out['baselines']['missing']}")
    return notes


def provenance(model: TrainedModel, folders: Sequence[Path], split: str) -> dict:
    """Data, split, checkpoint, seed and crop: what every metric has to be reported with."""
    infos = [reading.read_info(folder) for folder in folders]
    prepared = [(folder / PREP_FILE).stat().st_mtime for folder in folders]
    return {
        "folders": [str(folder) for folder in folders],
        "sources": [info["source"] for info in infos],
        "prepared": [time.strftime("%Y-%m-%d", time.localtime(date)) for date in prepared],
        "crop": [{"detector": info["detector"], "margin": info["margin"]} for info in infos],
        "split": split,
        "step": model.step,
        "preset": model.config.preset,
        "seed": model.config.seed,
        "trained_on": [str(folder) for folder in model.info["data"]],
        "train_subjects": len(model.info["train_subjects"]),
        "train_crop": model.info["crop"],
        "written": time.strftime("%Y-%m-%d %H:%M"),
    }


def to_json(value: Any) -> Any:
    """numpy's numbers and arrays as Python's; None for NaN and infinity, which JSON lacks."""
    if isinstance(value, dict):
        return {name: to_json(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(inner) for inner in value]
    if isinstance(value, np.ndarray):
        return to_json(value.tolist())
    if isinstance(value, float | np.floating):
        return float(value) if np.isfinite(value) else None
    return int(value) if isinstance(value, np.integer) else value
