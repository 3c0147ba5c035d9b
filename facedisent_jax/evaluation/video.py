"""Video truth: decoded paths from neutral to the apex against the real frames between (docs/video.md).

`write` measures a run and writes RUN/video; `held` reads what is there if it is what would be measured. Imports report
and what lies below it.
"""

import json
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from facedisent_jax import trained_model
from facedisent_jax.data import reading
from facedisent_jax.data.record import PREP_FILE, Faces
from facedisent_jax.errors import UserError
from facedisent_jax.evaluation import clip_metrics, clips, judges, metrics, path_methods
from facedisent_jax.evaluation.clips import Clip
from facedisent_jax.evaluation.judges import Judges
from facedisent_jax.evaluation.stills import SEED, load_held_out, probes, provenance, takes, to_json
from facedisent_jax.models.codes import Codes

VERSION = 3
"""Of what is measured and how: figures of another version are measured anew."""
MOST_CLIPS = 32
MOST_PICTURES = 40_000
SEED = SEED


@dataclass(frozen=True)
class VideoEvalOptions:
    """What is to be measured, and with what."""

    data: tuple[Path, ...] = ()
    """Data folders; none: those the run was trained on."""
    split: str = "test"
    step: str | int = "best"
    most: int = MOST_CLIPS
    """Clips at most, drawn by seed; 0 for all."""
    points: "judges.Points | None" = None
    """The face mesh for 64x64 pictures."""
    no_points: str = "The face mesh was not given."
    """Why there is none."""
    progress: "Callable[[Sequence[Clip]], Iterable[Clip]]" = iter
    """Goes through the clips, and may show how far it is."""


class VideoEval(NamedTuple):
    """All that is known before measuring. key: what figures depend on, as JSON."""

    face: trained_model.TrainedModel
    folders: list[Path]
    faces: Faces
    clips: list[Clip]
    rejected: list[tuple[str, str]]
    left_out: int
    judges: Judges
    said: dict
    key: dict


def load_cached(run: Path | str, asked: VideoEvalOptions) -> dict | None:
    """The figures in RUN/video, if they are of the same data, split, clips, weights and judges as those asked for."""
    run = Path(run)
    key = prepare(run, asked).key
    try:
        found = json.loads((run / "video" / "metrics.json").read_text())
    except (OSError, json.JSONDecodeError):
        return None
    return found if found.get("key") == key else None


def prepare(run: Path, asked: VideoEvalOptions) -> VideoEval:
    """Load the run, find the clips of the split and the judges; refused on people it was trained on."""
    if asked.most < 0:
        raise UserError(f"{asked.most} clips cannot be judged: give the most clips, or 0 for all.")
    face = trained_model.load(run, asked.step)
    folders = [Path(folder) for folder in asked.data or face.info["data"]]
    faces, _ = load_held_out(face, run, folders, asked.split, MOST_PICTURES)
    found = clips.find_clips(faces)
    chosen = clips.subsample(found.clips, asked.most, SEED)
    if not chosen:
        reasons = Counter(reason for _, reason in found.rejected).most_common()
        why = "; ".join(f"{count} takes: {reason}" for reason, count in reasons) or "no take has several frames"
        raise UserError(
            f"There are no clips in {', '.join(map(str, folders))}, {asked.split} split ({why}): a clip takes "
            f"{clips.FEWEST} frames or more of one person from neutral to the full expression, of known intensity."
        )
    infos = [reading.read_info(folder) for folder in folders]
    judged_by, said = judges.available_judges(face, folders, infos, asked.split, asked.points, asked.no_points)
    key = {
        "version": VERSION,
        "folders": [str(folder.resolve()) for folder in folders],
        "prepared": [(folder / PREP_FILE).stat().st_mtime_ns for folder in folders],
        "split": asked.split,
        "clips": [clip.name for clip in chosen],
        "step": face.step,
        "weights": fingerprint(face.params),
        "judges": {name: judge["name"] for name, judge in said.items()},
    }
    return VideoEval(face, folders, faces, chosen, found.rejected, len(found.clips) - len(chosen), judged_by, said, key)


def fingerprint(params: Any) -> str:
    """Of a checkpoint's weights: a run retrained under the same name has others."""
    value = 0
    for leaf in jax.tree.leaves(params):
        value = zlib.crc32(np.asarray(leaf).tobytes(), value)
    return f"{value:08x}"


def measure(begun: VideoEval, asked: VideoEvalOptions) -> tuple[path_methods.TrainingStatistics, dict]:
    """Every figure of metrics.json, with those of each clip."""
    face, faces = begun.face, begun.faces
    learnt = path_methods.fit_training_statistics(face, {clip.action for clip in begun.clips})
    each, meshless = [], 0
    for clip in asked.progress(begun.clips):
        known = path_methods.encode_clip(face, faces, clip)
        ways = path_methods.interpolation_methods(face, known, learnt, asked.points)
        meshless += "morph" not in ways
        found = clip_metrics.measure(known, ways, path_methods.per_frame_references(known, learnt), begun.judges)
        each.append({"subject": clip.subject, "sequence": clip.sequence, "condition": clip.condition,
                     "action": clip.action, "name": clip.name, "frames": len(clip.rows),
                     "methods": {name: one._asdict() for name, one in found.items()}})  # fmt: skip
    reading, codes = read_intensities(face, faces, begun.clips)
    for one, figures in zip(each, reading, strict=True):
        one["intensity"] = figures
    subject = np.array([clip.subject for clip in begun.clips])
    methods = {}
    for name in path_methods.TITLES:
        held = [one["methods"].get(name, {"figures": {}, "series": {}}) for one in each]
        flat = summary([one["figures"] for one in held], subject)
        if any(one["figures"] for one in held):
            curves = {key: by_subject_curve([one["series"].get(key) for one in held], subject)
                      for key in dict.fromkeys(key for one in held for key in one["series"])}  # fmt: skip
            methods[name] = nest_keys(flat) | {"curves": curves}
    missing = list(learnt.missing)
    if asked.points is None:
        missing.append(f"Landmark morph is missing. {asked.no_points}")
    elif meshless:
        missing.append(f"Landmark morph: the face mesh found no face in an end frame of {meshless} clips.")
    missing += [judge["missing"] for judge in begun.said.values() if "missing" in judge]
    out = {
        "key": begun.key,
        "data": facts(begun, asked, subject),
        "judges": begun.said,
        "missing": missing,
        "alpha": clip_metrics.ALPHAS,
        "methods": methods,
        "intensity": nest_keys(summary([one["intensity"] for one in each], subject)),
        "disentanglement": disentanglement(faces, begun.clips, codes),
        "identity_between_people": inter_subject_distance(begun),
        "clips": each,
    }
    return learnt, to_json(out)


def facts(begun: VideoEval, asked: VideoEvalOptions, subject: np.ndarray) -> dict:
    """What every figure has to name."""
    reasons = Counter(reason for _, reason in begun.rejected)
    frames = [len(clip.rows) for clip in begun.clips]
    return provenance(begun.face, begun.folders, asked.split) | {
        "subjects": len(set(subject.tolist())),
        "pictures": int(sum(frames)),
        "clips": len(begun.clips),
        "clips_left_out": begun.left_out,
        "onset_frames": {"fewest": min(frames), "most": max(frames), "all": int(sum(frames))},
        "rejected": dict(reasons.most_common()),
        "rejected_takes": [{"take": name, "reason": reason} for name, reason in begun.rejected],
        "easier_than_video": data_caveats([reading.read_info(folder) for folder in begun.folders]),
    }


def data_caveats(infos: list[dict]) -> list[str]:
    """Sentences about data that is easier than video, where the data folder says so."""
    said = []
    for info in infos:
        raw = str(info.get("options", {}).get("raw", "")).lower()
        if info["source"] == "synthetic":
            said.append("The clips are drawings: their truth is exact, and they are easier than video.")
        elif "derived" in raw:
            said.append(
                "The clips are derived by morphing two photographs: easier than video, and a landmark morph reproduces "
                "them by construction. They measure the path and the person, not realism."
            )
        elif "rendered" in raw:
            said.append("The clips are renderings: easier than video.")
    return list(dict.fromkeys(said))


def read_intensities(
    face: trained_model.TrainedModel, faces: Faces, chosen: list[Clip]
) -> tuple[list[dict[str, float]], Codes]:
    """Intensity read from the expression code, of each clip; and the codes of all frames of all takes, in order.

    The affine map of a person is fixed by the neutral and apex frames of all their takes of that action; frames that
    fixed it do not count in the error after it.
    """
    codes = [face.encode(np.asarray(faces.image[clip.take])) for clip in chosen]
    read = [face.intensity(code.expression, clip.action) for code, clip in zip(codes, chosen, strict=True)]
    person = [(clip.subject, clip.action) for clip in chosen]
    mapped: list[np.ndarray] = [np.empty(0)] * len(chosen)
    for who in dict.fromkeys(person):
        own = [k for k, name in enumerate(person) if name == who]
        truth = [faces.intensity[chosen[k].take].astype(float) for k in own]
        fixed, counts = clip_metrics.read_per_person(np.concatenate([read[k] for k in own]), np.concatenate(truth))
        fixed = np.where(counts, fixed, np.nan)
        for k, part in zip(own, np.split(fixed, np.cumsum(list(map(len, truth)))[:-1]), strict=True):
            mapped[k] = part
    out = []
    for clip, raw, fixed in zip(chosen, read, mapped, strict=True):
        inside, whole = np.isin(clip.take, clip.rows), faces.intensity[clip.take].astype(float)
        error = abs(fixed - whole)[inside]
        out.append(
            {
                "spearman": metrics.spearman(whole[inside], raw[inside]),
                "spearman_whole_take": metrics.spearman(whole, raw),
                "mae": float(abs(raw - whole)[inside].mean()),
                "mae_per_person": float(error[~np.isnan(error)].mean()) if (~np.isnan(error)).any() else np.nan,
            }
        )
    return out, Codes._make(np.concatenate([np.asarray(code[part]) for code in codes]) for part in (0, 1))


def disentanglement(faces: Faces, chosen: list[Clip], codes: Codes) -> dict:
    """The report's probes and leakage, on all frames of the clips' takes."""
    rows = np.concatenate([clip.take for clip in chosen])
    first = np.unique(rows, return_index=True)[1]  # a neutral frame can be in two clips, of two actions
    rows, codes = rows[first], Codes._make(np.asarray(code)[first] for code in codes)
    frames = faces.take(rows)
    shown = metrics.displayed_expression(frames.expression, frames.intensity)
    return {
        "probes": probes(codes, frames, takes(frames), shown),
        "leakage": metrics.leakage(np.asarray(codes.identity), frames.subject),
        "frames": len(rows),
    }


def inter_subject_distance(begun: VideoEval) -> float:
    """Mean identity distance between neutral frames of different people, to hold the others against."""
    first = {clip.subject: clip.rows[0] for clip in begun.clips}
    if begun.judges.identity is None or len(first) < 2:
        return np.nan
    pictures = np.asarray(begun.faces.image[np.array(list(first.values()))], np.float32) / 255
    told = begun.judges.identity.measure(pictures)
    distance = np.linalg.norm(told[:, None] - told[None], axis=-1)
    return float(distance[np.triu_indices(len(told), 1)].mean())


def summary(figures: list[dict[str, float]], subject: np.ndarray) -> dict[str, dict]:
    """Each figure's mean over subjects of their clips' means, and its 95 % bootstrap interval over subjects."""
    out = {}
    for name in dict.fromkeys(name for one in figures for name in one):
        values = np.array([one.get(name, np.nan) for one in figures], float)
        known = np.isfinite(values)
        mean, low, high = metrics.by_subject(values[known], subject[known], SEED)
        out[name] = {"mean": mean, "ci95": [low, high], "clips": int(known.sum())}
    return out


def by_subject_curve(curves: list[np.ndarray | None], subject: np.ndarray) -> np.ndarray:
    """[GRID] mean over subjects of the mean curves of their clips."""
    held = [(who, curve) for who, curve in zip(subject, curves, strict=True) if curve is not None]
    held = [(who, curve) for who, curve in held if np.isfinite(curve).all()]
    if not held:
        return np.full(clip_metrics.GRID, np.nan)
    names = dict.fromkeys(who for who, _ in held)
    return np.mean([np.mean([curve for who, curve in held if who == name], axis=0) for name in names], axis=0)


def nest_keys(flat: dict[str, dict]) -> dict:
    """{"a/b": x} -> {"a": {"b": x}}."""
    out: dict = {}
    for name, value in flat.items():
        *way, last = name.split("/")
        place = out
        for part in way:
            place = place.setdefault(part, {})
        place[last] = value
    return out
