"""The report of a run on subjects it never saw: metrics.json, figures, page. Imports study and what lies below it.

Definitions are in metrics.py; which pictures are shown, in gallery.py; the HTML, in page.py.
"""

import json
import os
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from facedisent_jax import baselines, figures, gallery, judges, metrics, page, records, study, swap_judges
from facedisent_jax.data import crop_of, read_faces
from facedisent_jax.model import Codes
from facedisent_jax.records import Faces

MOST_PICTURES = 4000
"""Most held-out pictures judged; of more, whole takes are drawn by seed, alike for every person."""
COMPONENTS = (64, 128)
CHUNK = 256
SEED = 0
"""Draws of swaps, folds and shown people: the same for every run, so that runs are compared on the same pictures."""


class ReportError(ValueError):
    """A report that cannot be made; the message is a sentence for the person at the keyboard."""


class Judged(NamedTuple):
    """What a report is made of: the held-out pictures, their codes, the swaps with a truth, the figures of merit."""

    faces: Faces
    codes: Codes
    swaps: metrics.Swaps
    figures: dict
    notes: list[str]


def write(
    run: Path | str,
    data: Sequence[Path | str] = (),
    split: str = "test",
    step: str | int = "best",
    points: "judges.Points | None" = None,
) -> dict:
    """Judge a run on the `split` of the data folders (none: those it was trained on) and write RUN/report.

    points: the face mesh, which then judges the smile of the swaps. Returns what metrics.json holds. The page is moved
    into place last: a report cut short leaves none.
    """
    run = Path(run)
    face = study.load(run, step)
    folders = [Path(folder) for folder in data or face.info["data"]]
    faces, left_out = held_out(face, run, folders, split)
    judged = judge(face, faces)
    margin = float(crop_of(folders)["margin"] or 0)
    under = swap_judges.judge(face, faces, judged.codes, judged.swaps, margin, points)
    judged.figures["judged_swaps"] = under
    judged.notes.extend(under["missing"])
    judged.figures["data"] |= facts(face, folders, split)
    if left_out:
        judged.notes.append(
            f"{left_out} of {left_out + len(faces)} pictures were not judged, to keep the report quick."
        )

    unfinished = run / "report.unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    (unfinished / "figures").mkdir(parents=True)
    shown = gallery.draw(face, faces, judged.codes, judged.swaps, history(run))
    for drawn in shown:
        if drawn.image is not None:
            figures.save(drawn.image, unfinished / "figures" / f"{drawn.name}.png")
    text = json.dumps(plain(judged.figures), indent=2, allow_nan=False)
    (unfinished / "metrics.json").write_text(text + "\n")
    (unfinished / "index.html").write_text(page.render(run.name, plain(judged.figures), shown, judged.notes))
    publish(unfinished, run / "report", [f"figures/{drawn.name}.png" for drawn in shown])
    return json.loads(text)


def held_out(
    face: study.Face, run: Path, folders: Sequence[Path], split: str, most: int = MOST_PICTURES
) -> tuple[Faces, int]:
    """The pictures of a split, and how many were left out to keep to `most`; refused if trained on."""
    if split not in records.SPLITS:
        raise ReportError(f'There is no split "{split}": the splits are {", ".join(records.SPLITS)}.')
    trained = set(face.info["train_subjects"])
    own = {Path(folder).resolve() for folder in face.info["data"]}
    parts = []
    for folder in folders:
        part = records.read_split(folder, split, in_memory=False)
        names = sorted(set(part.subject.tolist()) - {""})
        seen = [name for name in names if name in trained]
        if seen or (split == "train" and folder.resolve() in own):
            some = f" ({', '.join(seen[:5])}{', ...' if len(seen) > 5 else ''})" if seen else ""
            raise ReportError(
                f"{run} was trained on {len(seen)} of the {len(names)} subjects{some} in {folder}, {split} split: "
                "figures on them would say nothing of unseen people. Report on subjects it was not trained on, such as "
                "the test split of the data folders it was trained with."
            )
        parts.append(part)
    total = sum(map(len, parts))
    if not total:
        where = ", ".join(map(str, folders)) or "no data folder"
        raise ReportError(f"There are no {split} pictures in {where}: make more subjects, or choose another --split.")
    chosen = [part.take(whole_takes(part, most * len(part) // total)) for part in parts]
    faces = Faces.join([part for part in chosen if len(part)])
    return faces, total - len(faces)


def whole_takes(faces: Faces, most: int) -> np.ndarray:
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


def judge(face: study.Face, faces: Faces) -> Judged:
    """Every figure of merit of DESIGN.md's metrics.json, with a note for each that the data does not allow."""
    codes = face.encode(np.asarray(faces.image))
    take, shown = takes(faces), metrics.action(faces.expression, faces.intensity)
    swaps = metrics.swaps(faces.subject, take, faces.expression, faces.intensity, seed=SEED)
    # one row for each target that has a swap, whoever gives the expression
    targets, first = np.unique(swaps.target, return_index=True)
    sources = swaps.source[first]

    def decoded(i: np.ndarray, e: np.ndarray, seeing: bool = True) -> Callable[[np.ndarray], np.ndarray]:
        def make(rows: np.ndarray) -> np.ndarray:
            asked = Codes(codes.identity[i[rows]], codes.expression[e[rows]])
            return face.decode_seeing(asked, faces.image[i[rows]]) if seeing else face.decode(asked)

        return make

    every = np.arange(len(faces))
    swap = quality(faces, swaps.target, decoded(swaps.source, swaps.donor))
    own, unchanged = (quality(faces, targets, decoded(sources, e)) for e in (targets, sources))
    known = (faces.subject != "") & (shown != "")
    out = {
        "reconstruction": quality(faces, every, decoded(every, every, seeing=False)),
        "swap": swap
        | {f"same_subject_{name}": own[name] for name in ("psnr", "ssim")}
        | {f"unswapped_{name}": unchanged[name] for name in ("psnr", "ssim")}
        | {"swaps": len(swaps.target), "targets": len(targets)},
        "intensity": intensity(face, np.asarray(codes.expression), faces, shown),
        "probes": probes(codes, faces, take, shown),
        "leakage": metrics.leakage(np.asarray(codes.identity)[known], faces.subject[known]),
        "baselines": linear_rivals(face, faces),
        "data": {
            "subjects": len(set(faces.subject.tolist()) - {""}),
            "pictures": len(faces),
            "unlabelled": int((~known).sum()),
            "neutral_people_psnr": between_people(faces, shown),
        },
    }
    return Judged(faces, codes, swaps, out, notes(out, faces, known))


def quality(faces: Faces, rows: np.ndarray, make: Callable[[np.ndarray], np.ndarray]) -> dict:
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


def intensity(face: study.Face, code: np.ndarray, faces: Faces, shown: np.ndarray) -> dict:
    """Intensity read from the expression code, each action with the neutral pictures; the mean over actions."""
    actions = [name for name in np.unique(shown) if name not in ("", metrics.NEUTRAL)]
    each = {}
    for name in actions:
        rows = (shown == name) | (shown == metrics.NEUTRAL)
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
    steps = metrics.intensity_step(faces.intensity)
    moving = any(len(np.unique(steps[known & (take == t)])) > 3 for t in np.unique(take[known]))
    if moving:
        even = metrics.even_odd(take, faces.frame)
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


def linear_rivals(face: study.Face, faces: Faces) -> dict:
    """Mean face and PCA fitted on the training pictures of the run's own data folders and their flips."""
    try:
        trained = read_faces(face.info["data"], "train", memory=1.0)
    except records.RecordError as error:
        return {"missing": str(error)}
    pca = baselines.fit(trained.image, max(COMPONENTS), SEED)
    every = np.arange(len(faces))
    rebuilt = lambda k: lambda rows: baselines.reconstruct(pca, faces.image[rows] / np.float32(255), k)  # noqa: E731
    out = {"mean_face": quality(faces, every, rebuilt(0))}
    for k in COMPONENTS:
        out[f"pca_{k}"] = quality(faces, every, rebuilt(k)) | {"components": min(k, len(pca.basis))}
    return out | {"fitted_pictures": pca.fitted}


def between_people(faces: Faces, shown: np.ndarray, most: int = 60) -> float:
    """Mean PSNR between neutral pictures of different people, one each: how alike the people are to begin with."""
    rows = np.flatnonzero((shown == metrics.NEUTRAL) & (faces.subject != ""))
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


def facts(face: study.Face, folders: Sequence[Path], split: str) -> dict:
    """What every figure has to name: data, split, checkpoint, seed, crop."""
    made = [records.read_info(folder) | {"date": (folder / records.PREP_FILE).stat().st_mtime} for folder in folders]
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


def history(run: Path) -> list[dict]:
    """The lines of metrics.jsonl; one cut short by a kill is passed over."""
    lines = (run / "metrics.jsonl").read_text().splitlines() if (run / "metrics.jsonl").is_file() else []
    entries = []
    for line in lines:
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(entry, dict) and "step" in entry:
            entries.append(entry)
    return entries


def plain(value: Any) -> Any:
    """Numbers of numpy as Python's, what is not a finite number as None: JSON knows no NaN."""
    if isinstance(value, dict):
        return {name: plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, float | np.floating):
        return float(value) if np.isfinite(value) else None
    return int(value) if isinstance(value, np.integer) else value


def publish(unfinished: Path, report: Path, own: Sequence[str]) -> None:
    """Move a finished report into place, the page last; an older page goes first, its figures (`own`) with it."""
    (report / "figures").mkdir(parents=True, exist_ok=True)
    for name in ("index.html", *own):
        (report / name).unlink(missing_ok=True)
    for name in own:
        if (unfinished / name).exists():
            os.replace(unfinished / name, report / name)
    for name in ("metrics.json", "index.html"):
        os.replace(unfinished / name, report / name)
    shutil.rmtree(unfinished)
