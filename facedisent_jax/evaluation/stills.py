"""The report of a run on subjects it never saw: metrics.json, figures, page. Imports study and what lies below it.

Definitions are in metrics.py; which pictures are shown, in gallery.py; the HTML, in page.py.
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from facedisent_jax import trained_model
from facedisent_jax.data import reading
from facedisent_jax.data.labels import intensity_step
from facedisent_jax.data.reading import read_faces
from facedisent_jax.data.record import NEUTRAL, PREP_FILE, SPLITS, Faces
from facedisent_jax.errors import UserError
from facedisent_jax.evaluation import judges, metrics
from facedisent_jax.evaluation.judges import Judge, Missing
from facedisent_jax.models.codes import Codes
from facedisent_jax.models.pca import fit_pca, reconstruct

MOST_PICTURES = 4000
"""Most held-out pictures judged; of more, whole takes are drawn by seed, alike for every person."""
COMPONENTS = (64, 128)
CHUNK = 256
SEED = 0
"""Draws of swaps, folds and shown people: the same for every run, so that runs are compared on the same pictures."""


class StillsEvaluation(NamedTuple):
    """What a report is made of: the held-out pictures, their codes, the swaps with a truth, the figures of merit."""

    faces: Faces
    codes: Codes
    swaps: metrics.Swaps
    figures: dict
    notes: list[str]


def load_held_out(
    face: trained_model.TrainedModel, run: Path, folders: Sequence[Path], split: str, most: int = MOST_PICTURES
) -> tuple[Faces, int]:
    """The pictures of a split, and how many were left out to keep to `most`; refused if trained on."""
    if split not in SPLITS:
        raise UserError(f'There is no split "{split}": the splits are {", ".join(SPLITS)}.')
    trained = set(face.info["train_subjects"])
    own = {Path(folder).resolve() for folder in face.info["data"]}
    parts = []
    for folder in folders:
        part = reading.read_split(folder, split, in_memory=False)
        names = sorted(set(part.subject.tolist()) - {""})
        seen = [name for name in names if name in trained]
        if seen or (split == "train" and folder.resolve() in own):
            some = f" ({', '.join(seen[:5])}{', ...' if len(seen) > 5 else ''})" if seen else ""
            raise UserError(
                f"{run} was trained on {len(seen)} of the {len(names)} subjects{some} in {folder}, {split} split: "
                "figures on them would say nothing of unseen people. Report on subjects it was not trained on, such as "
                "the test split of the data folders it was trained with."
            )
        parts.append(part)
    total = sum(map(len, parts))
    if not total:
        where = ", ".join(map(str, folders)) or "no data folder"
        raise UserError(f"There are no {split} pictures in {where}: make more subjects, or choose another --split.")
    chosen = [part.take(subsample_takes(part, most * len(part) // total)) for part in parts]
    faces = Faces.join([part for part in chosen if len(part)])
    return faces, total - len(faces)


def subsample_takes(faces: Faces, most: int) -> np.ndarray:
    """Indices of at most about `most` pictures: takes drawn by seed, one of each person before a second of any."""
    if len(faces) <= most:
        return np.arange(len(faces))
    take = takes(faces)
    order = np.random.default_rng(SEED).permutation(take.max() + 1)
    owner = dict(zip(take.tolist(), faces.subject.tolist(), strict=True))
    turn: dict[str, int] = {}
    ranked = []
    for number in order.tolist():
        turn[owner[number]] = turn.get(owner[number], -1) + 1
        ranked.append((turn[owner[number]], number))
    size = np.bincount(take)
    kept, count = [], 0
    for _, number in sorted(ranked, key=lambda pair: pair[0]):
        if count < most:
            kept.append(number)
            count += size[number]
    return np.flatnonzero(np.isin(take, kept))[:most]


def takes(faces: Faces) -> np.ndarray:
    """[n] a number for each take: pictures of one person in one sequence and condition."""
    key = np.char.add(np.char.add(faces.sequence.astype(str), "\t"), faces.condition.astype(str))
    return np.unique(np.char.add(np.char.add(faces.subject.astype(str), "\n"), key), return_inverse=True)[1].ravel()


def evaluate_stills(face: trained_model.TrainedModel, faces: Faces) -> StillsEvaluation:
    """Every figure of merit of DESIGN.md's metrics.json, with a note for each that the data does not allow."""
    codes = face.encode(np.asarray(faces.image))
    take, shown = takes(faces), metrics.displayed_expression(faces.expression, faces.intensity)
    swaps = metrics.swaps(faces.subject, take, faces.expression, faces.intensity, seed=SEED)
    # one row for each target that has a swap, whoever gives the expression
    targets, first = np.unique(swaps.target, return_index=True)
    sources = swaps.source[first]

    def decoded(i: np.ndarray, e: np.ndarray, seeing: bool = True) -> Callable[[np.ndarray], np.ndarray]:
        def make(rows: np.ndarray) -> np.ndarray:
            asked = Codes(codes.identity[i[rows]], codes.expression[e[rows]])
            return face.decode_with_source(asked, faces.image[i[rows]]) if seeing else face.decode(asked)

        return make

    every = np.arange(len(faces))
    swap = image_metrics(faces, swaps.target, decoded(swaps.source, swaps.donor))
    own, unchanged = (image_metrics(faces, targets, decoded(sources, e)) for e in (targets, sources))
    known = (faces.subject != "") & (shown != "")
    out = {
        "reconstruction": image_metrics(faces, every, decoded(every, every, seeing=False)),
        "swap": swap
        | {f"same_subject_{name}": own[name] for name in ("psnr", "ssim")}
        | {f"unswapped_{name}": unchanged[name] for name in ("psnr", "ssim")}
        | {"swaps": len(swaps.target), "targets": len(targets)},
        "intensity": intensity(face, np.asarray(codes.expression), faces, shown),
        "probes": probes(codes, faces, take, shown),
        "leakage": metrics.leakage(np.asarray(codes.identity)[known], faces.subject[known]),
        "baselines": linear_baselines(face, faces),
        "data": {
            "subjects": len(set(faces.subject.tolist()) - {""}),
            "pictures": len(faces),
            "unlabelled": int((~known).sum()),
            "neutral_people_psnr": inter_subject_psnr(faces, shown),
        },
    }
    return StillsEvaluation(faces, codes, swaps, out, notes(out, faces, known))


def image_metrics(faces: Faces, rows: np.ndarray, make: Callable[[np.ndarray], np.ndarray]) -> dict:
    """PSNR and SSIM of make(positions) against the pictures at `rows`: over pictures, and over people with interval."""
    if not len(rows):
        return {"psnr": np.nan, "ssim": np.nan}
    signal, likeness = [], []
    for positions in np.array_split(np.arange(len(rows)), -(-len(rows) // CHUNK)):
        made, truth = make(positions), np.asarray(faces.image[rows[positions]], np.float32) / 255
        signal.append(metrics.psnr(made, truth))
        likeness.append(metrics.ssim(made, truth))
    psnr, ssim = np.concatenate(signal), np.concatenate(likeness)
    mean, low, high = metrics.by_subject(psnr, faces.subject[rows], SEED)
    return {"psnr": psnr.mean(), "ssim": ssim.mean(), "psnr_by_subject": mean, "psnr_ci95": [low, high]}


def intensity(face: trained_model.TrainedModel, code: np.ndarray, faces: Faces, shown: np.ndarray) -> dict:
    """Intensity read from the expression code, each action with the neutral pictures; the mean over actions."""
    actions = [name for name in np.unique(shown) if name not in ("", NEUTRAL)]
    each = {}
    for name in actions:
        rows = (shown == name) | (shown == NEUTRAL)
        read, truth = face.intensity(code[rows], str(name)), faces.intensity[rows]
        each[str(name)] = {
            "spearman": metrics.spearman(truth, read),
            "spearman_ceiling": metrics.spearman_ceiling(truth),
            "mae": float(abs(read - truth).mean()),
            "pictures": int(rows.sum()),
        }
    mean = {
        key: np.mean([one[key] for one in each.values()]) for key in ("spearman", "spearman_ceiling", "mae") if each
    }
    return dict.fromkeys(("spearman", "mae"), np.nan) | mean | ({"actions": each} if len(each) > 1 else {})


def probes(codes: Codes, faces: Faces, take: np.ndarray, shown: np.ndarray) -> dict:
    """Linear probes of what a code should not tell, chance beside each, and of what it should, for comparison."""
    known = (faces.subject != "") & (shown != "")
    steps = intensity_step(faces.intensity)
    moving = any(len(np.unique(steps[known & (take == t)])) > 3 for t in np.unique(take[known]))
    if moving:
        even = metrics.even_frames(take, faces.frame)
        fit, test, how = known & even, known & ~even, "fitted on even frames of each take, tested on odd ones"
        folds, how_far = [(fit, test)], how
    else:
        fit, test, how = known & (steps == 0), known & (steps > 0), "fitted on neutral pictures, tested on the others"
        number = np.unique(faces.subject, return_inverse=True)[1].ravel()
        fold = np.random.default_rng(SEED).permutation(number.max() + 1)[number] % 5
        folds = [(known & (fold != k), known & (fold == k)) for k in range(5)]
        how_far = "fitted on four fifths of the people, tested on the rest, in turn"
    out = {}
    for name, code in zip(Codes._fields, map(np.asarray, codes), strict=True):
        accuracy, chance = metrics.subject_probe(code, faces.subject, fit, test)
        out[f"subject_from_{name}"] = {"accuracy": accuracy, "chance": chance, "how": how}
        out[f"intensity_from_{name}"] = metrics.intensity_probe(code, faces.intensity, folds) | {"how": how_far}
    return out


def linear_baselines(face: trained_model.TrainedModel, faces: Faces) -> dict:
    """Mean face and PCA fitted on the training pictures of the run's own data folders and their flips."""
    try:
        trained = read_faces(face.info["data"], "train", memory=1.0)
    except UserError as error:
        return {"missing": str(error)}
    pca = fit_pca(trained.image, max(COMPONENTS), SEED)
    every = np.arange(len(faces))
    rebuilt = lambda k: lambda rows: reconstruct(pca, faces.image[rows] / np.float32(255), k)  # noqa: E731
    out = {"mean_face": image_metrics(faces, every, rebuilt(0))}
    for k in COMPONENTS:
        out[f"pca_{k}"] = image_metrics(faces, every, rebuilt(k)) | {"components": min(k, len(pca.basis))}
    return out | {"fitted_pictures": pca.n_images}


def inter_subject_psnr(faces: Faces, shown: np.ndarray, most: int = 60) -> float:
    """Mean PSNR between neutral pictures of different people, one each: how alike the people are to begin with."""
    rows = np.flatnonzero((shown == NEUTRAL) & (faces.subject != ""))
    rows = rows[np.unique(faces.subject[rows], return_index=True)[1]][:most]
    pairs = [(a, b) for a in rows for b in rows if a < b]
    if not pairs:
        return np.nan
    a, b = (np.asarray(faces.image[np.array(side)], np.float32) / 255 for side in zip(*pairs, strict=True))
    return float(metrics.psnr(a, b).mean())


def notes(out: dict, faces: Faces, known: np.ndarray) -> list[str]:
    """A sentence for each figure that the data does not allow."""
    found = []
    if not known.all():
        found.append(
            f"{(~known).sum()} pictures have no subject or no intensity: they count in the reconstruction only."
        )
    if not out["swap"]["swaps"]:
        found.append(
            "No swap has a truth: that takes two people, each with pictures of two intensities in one sequence."
        )
    if np.isnan(out["intensity"]["spearman"]):
        found.append("Reading the intensity takes pictures of two intensities.")
    if np.isnan(out["leakage"]):
        found.append("Leakage takes two people and a second picture of one of them.")
    if "missing" in out["baselines"]:
        found.append(f"No baselines: the run's training pictures are not there any more. {out['baselines']['missing']}")
    return found


def provenance(face: trained_model.TrainedModel, folders: Sequence[Path], split: str) -> dict:
    """What every figure has to name: data, split, checkpoint, seed, crop."""
    made = [reading.read_info(folder) | {"date": (folder / PREP_FILE).stat().st_mtime} for folder in folders]
    return {
        "folders": [str(folder) for folder in folders],
        "sources": [info["source"] for info in made],
        "prepared": [time.strftime("%Y-%m-%d", time.localtime(info["date"])) for info in made],
        "crop": [{"detector": info["detector"], "margin": info["margin"]} for info in made],
        "split": split,
        "step": face.step,
        "preset": face.config.preset,
        "seed": face.config.seed,
        "trained_on": [str(folder) for folder in face.info["data"]],
        "train_subjects": len(face.info["train_subjects"]),
        "train_crop": face.info["crop"],
        "written": time.strftime("%Y-%m-%d %H:%M"),
    }


def to_json(value: Any) -> Any:
    """Numbers of numpy as Python's, what is not a finite number as None: JSON knows no NaN."""
    if isinstance(value, dict):
        return {name: to_json(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(inner) for inner in value]
    if isinstance(value, np.ndarray):
        return to_json(value.tolist())
    if isinstance(value, float | np.floating):
        return float(value) if np.isfinite(value) else None
    return int(value) if isinstance(value, np.integer) else value


SEED = 0
REAL: tuple[str, ...] = ("source", "donor", "target")
MAX_SWAPS = 100
"""Most swaps judged, drawn by seed."""
SAME_PERSON = 0.6
"""dlib's threshold: pictures nearer than this are of one person (King 2017)."""


def judge_swaps(
    face: trained_model.TrainedModel,
    faces: Faces,
    codes: Codes,
    swaps: metrics.Swaps,
    margin: float,
    points: "judges.Points | None",
) -> dict:
    """Figures of `metrics.swaps` that a smile judge and an identity network give, and sentences of what is missing.

    margin: of the crop of the pictures. points: the face mesh; without it the weaker reader of the mouth region stands
    in, fitted on the run's own training people.
    """
    count = len(swaps.target)
    drawn = np.sort(np.random.default_rng(SEED).permutation(count)[:MAX_SWAPS])
    out: dict = {"swaps": len(drawn), "missing": []}
    if not count:
        return out | {"smile": None, "identity": None}
    source, donor, target = (rows[drawn] for rows in swaps)
    made = face.decode((np.asarray(codes.identity)[source], np.asarray(codes.expression)[donor]))
    rebuilt = face.decode((np.asarray(codes.identity)[source], np.asarray(codes.expression)[source]))
    pictures, place = np.unique([source, donor, target], return_inverse=True)  # a picture has a part in many swaps
    photographs = np.asarray(faces.image[pictures], np.float32) / 255
    of_real = lambda judge: dict(zip(REAL, judge.measure(photographs)[place.reshape(3, -1)], strict=True))  # noqa: E731
    subject = faces.subject[target]
    smile = judges.mesh_smile(points, from_landmarks=False) if points else judges.fit_reader(face.info["data"])
    if smile is None:
        out |= {"smile": None}
        out["missing"].append("No smile judge: the run's training pictures are gone, and there is no face mesh.")
    else:
        out |= {"smile": smiles(smile, made, rebuilt, of_real(smile), subject)}
    known = judges.identity(margin)
    if isinstance(known, Missing):
        out |= {"identity": None}
        out["missing"].append(known.why)
    else:
        out |= {"identity": identities(known, made, of_real(known), subject)}
    return out


def smiles(judge: Judge, made: np.ndarray, rebuilt: np.ndarray, real: dict[str, np.ndarray], subject) -> dict:
    """Whether the measured smile follows the donor's.

    made: the swaps; rebuilt: the reconstructions of their sources, [n, 64, 64, 3] each. real: what the judge measured
    of the real source, donor and target, [n] each.

    followed: of the difference between the donor's smile and the source's, how much the swap took over (least squares
    through 0; 1 is all of it). real_followed: the same of the real picture of the person with that expression, as a
    mark: people smile differently. Swaps in which the judge finds no face are counted, and left out.
    """
    measured = real | {"made": judge.measure(made), "rebuilt": judge.measure(rebuilt)}
    found = np.isfinite(np.stack(list(measured.values()))).all(0)
    s = {name: values[found] for name, values in measured.items()}
    asked = s["donor"] - s["source"]

    def share(rise: np.ndarray) -> float:
        return float(rise @ asked / (asked @ asked)) if asked @ asked > 0 else np.nan

    return {
        "judge": judge.name,
        "note": judge.note,
        "correlation": metrics.spearman(s["made"], s["donor"]),
        "real_correlation": metrics.spearman(s["target"], s["donor"]),
        "followed": share(s["made"] - s["rebuilt"]),
        "real_followed": share(s["target"] - s["source"]),
        "no_face": int((~found).sum()),
        "subjects": len(np.unique(subject[found])),
    }


def identities(judge: Judge, made: np.ndarray, real: dict[str, np.ndarray], subject: np.ndarray) -> dict:
    """How far the swap is from the person and from the donor; mean over people with 95 % interval.

    made: the swaps, [n, 64, 64, 3]. real: what the judge measured of the real source, donor and target, [n, d] each.
    real_distance: between the person's two real pictures, as a mark.
    """
    of_made = judge.measure(made)
    to_source, to_donor, to_target = (np.linalg.norm(of_made - real[name], axis=1) for name in REAL)
    mean, low, high = metrics.by_subject(to_source, subject, SEED)
    return {
        "judge": judge.name,
        "distance": mean,
        "distance_ci95": [low, high],
        "donor_distance": metrics.by_subject(to_donor, subject, SEED)[0],
        "target_distance": metrics.by_subject(to_target, subject, SEED)[0],
        "real_distance": metrics.by_subject(np.linalg.norm(real["source"] - real["target"], axis=1), subject, SEED)[0],
        "nearer_than_donor": metrics.by_subject((to_source < to_donor).astype(float), subject, SEED)[0],
        "same_person": metrics.by_subject((to_source < SAME_PERSON).astype(float), subject, SEED)[0],
    }
