"""Video evaluation: decoded paths from neutral to the apex against the real frames in between (docs/video.md)."""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from facedisent_jax import trained_model
from facedisent_jax.data import reading
from facedisent_jax.data.labels import take_ids
from facedisent_jax.data.record import PREP_FILE, Faces
from facedisent_jax.errors import UserError
from facedisent_jax.evaluation import clip_metrics, clips, judges, metrics, path_methods
from facedisent_jax.evaluation.clip_metrics import MethodMetrics
from facedisent_jax.evaluation.clips import Clip
from facedisent_jax.evaluation.judges import FaceMesh, Judges
from facedisent_jax.evaluation.stills import load_held_out, probes, provenance, to_json
from facedisent_jax.evaluation.training_statistics import TrainingStatistics, fit_training_statistics
from facedisent_jax.models import Codes
from facedisent_jax.trained_model import TrainedModel

VERSION = 6  # of the metrics and their definitions; metrics of another version are measured anew
MAX_CLIPS = 32
MAX_IMAGES = 40_000  # among which clips are looked for


@dataclass(frozen=True)
class VideoEvalOptions:
    """What to measure, and with what."""

    data: tuple[Path, ...] = ()
    """Data folders; none: those the run was trained on."""
    split: str = "test"
    step: str | int = "best"
    max_clips: int = MAX_CLIPS
    """Clips at most, drawn by seed; 0 for all."""
    face_mesh: FaceMesh | None = None
    no_face_mesh: str = "The face mesh was not given."
    """Why there is no face mesh."""
    progress: "Callable[[Sequence[Clip]], Iterable[Clip]]" = iter
    """Iterates over the clips, and may show a progress bar."""


class VideoEval(NamedTuple):
    """An evaluation ready to be measured.

    left_out:   clips that were not drawn.
    rejected:   (name, reason) of each take without an onset.
    judge_info: a description of each judge, or what is missing.
    key:        all that the metrics depend on, as JSON.
    """

    model: TrainedModel
    folders: list[Path]
    faces: Faces
    clips: list[Clip]
    rejected: list[tuple[str, str]]
    left_out: int
    judges: Judges
    judge_info: dict[str, dict]
    key: dict


def load_cached(run: Path | str, options: VideoEvalOptions) -> dict | None:
    """RUN/video/metrics.json, if it is of the data, split, clips, weights and judges that the options ask for."""
    run = Path(run)
    key = prepare(run, options).key
    try:
        metrics = json.loads((run / "video" / "metrics.json").read_text())
    except (OSError, json.JSONDecodeError):
        return None
    return metrics if metrics.get("key") == key else None


def prepare(run: Path, options: VideoEvalOptions) -> VideoEval:
    """Load the model, and find the clips of the split and the judges.

    Raises UserError for people that the model was trained on, and where there is no clip.
    """
    if options.max_clips < 0:
        raise UserError(f"--clips must be 0 (all) or a number of clips, got {options.max_clips}.")
    model = trained_model.load(run, options.step)
    folders = [Path(folder) for folder in options.data or model.info["data"]]
    faces, _ = load_held_out(model, run, folders, options.split, MAX_IMAGES)
    selection = clips.find_clips(faces)
    chosen = clips.subsample(selection.clips, options.max_clips)
    if not chosen:
        reasons = Counter(reason for _, reason in selection.rejected).most_common()
        reason = "; ".join(f"{count} takes: {reason}" for reason, count in reasons) or "no take has several frames"
        raise UserError(
            f"--data must hold clips, got no clips in {', '.join(map(str, folders))}, {options.split} split "
            f"({reason}). A clip is {clips.MIN_ONSET_FRAMES} frames or more of one person from neutral to the full "
            "expression, with known intensities."
        )
    infos = [reading.read_info(folder) for folder in folders]
    panel, judge_info = judges.available_judges(
        model, folders, infos, options.split, options.face_mesh, options.no_face_mesh
    )
    key = {
        "version": VERSION,
        "folders": [str(folder.resolve()) for folder in folders],
        "prepared": [(folder / PREP_FILE).stat().st_mtime_ns for folder in folders],
        "split": options.split,
        "clips": [clip.name for clip in chosen],
        "step": model.step,
        "weights": model.checksum,
        "judges": {name: judge["name"] for name, judge in judge_info.items()},
    }
    left_out = len(selection.clips) - len(chosen)
    return VideoEval(model, folders, faces, chosen, selection.rejected, left_out, panel, judge_info, key)


def measure_clips(setup: VideoEval, options: VideoEvalOptions) -> tuple[TrainingStatistics, dict]:
    """All that video/metrics.json holds: every metric, over people and of each clip."""
    model, faces = setup.model, setup.faces
    statistics = fit_training_statistics(model, {clip.action for clip in setup.clips})
    entries = []
    for onset in options.progress(setup.clips):
        clip = path_methods.encode_clip(model, faces, onset)
        methods = path_methods.interpolation_methods(model, clip, statistics, options.face_mesh)
        references = path_methods.per_frame_references(clip, statistics)
        entries.append(clip_entry(onset, clip_metrics.measure_clip(clip, methods, references, setup.judges)))
    intensities, codes = read_intensities(model, faces, setup.clips)
    for entry, intensity in zip(entries, intensities, strict=True):
        entry["intensity"] = intensity
    subject = np.array([clip.subject for clip in setup.clips])
    out = {
        "key": setup.key,
        "data": describe_data(setup, options, subject),
        "judges": setup.judge_info,
        "missing": missing_notes(setup, options, statistics, entries),
        "alpha": clip_metrics.ALPHAS,
        "methods": summarize_methods(entries, subject),
        "intensity": nest_keys(summarize(intensities, subject)),
        "disentanglement": disentanglement(faces, setup.clips, codes),
        "identity_between_people": inter_subject_distance(setup),
        "clips": entries,
    }
    return statistics, to_json(out)


def clip_entry(clip: Clip, methods: dict[str, MethodMetrics]) -> dict:
    """A clip's entry in metrics.json, as yet without the intensity read from the codes."""
    return {
        "subject": clip.subject,
        "sequence": clip.sequence,
        "condition": clip.condition,
        "action": clip.action,
        "name": clip.name,
        "frames": len(clip.rows),
        "methods": {name: {"figures": m.metrics, "series": m.series} for name, m in methods.items()},
    }


def missing_notes(
    setup: VideoEval, options: VideoEvalOptions, statistics: TrainingStatistics, entries: list[dict]
) -> list[str]:
    """A sentence for each statistic, method and judge that is missing."""
    out = list(statistics.missing)
    without_morph = sum("morph" not in entry["methods"] for entry in entries)
    if options.face_mesh is None:
        out.append(f"Landmark morph is missing. {options.no_face_mesh}")
    elif without_morph:
        out.append(f"Landmark morph: the face mesh found no face in an end frame of {without_morph} clips.")
    return out + [judge["missing"] for judge in setup.judge_info.values() if "missing" in judge]


def describe_data(setup: VideoEval, options: VideoEvalOptions, subject: np.ndarray) -> dict:
    """What every metric has to be reported with: the provenance, and how the clips were chosen."""
    reasons = Counter(reason for _, reason in setup.rejected)
    frames = [len(clip.rows) for clip in setup.clips]
    return provenance(setup.model, setup.folders, options.split) | {
        "subjects": len(set(subject.tolist())),
        "pictures": int(sum(frames)),
        "clips": len(setup.clips),
        "clips_left_out": setup.left_out,
        "onset_frames": {"fewest": min(frames), "most": max(frames), "all": int(sum(frames))},
        "rejected": dict(reasons.most_common()),
        "rejected_takes": [{"take": name, "reason": reason} for name, reason in setup.rejected],
        "easier_than_video": data_caveats([reading.read_info(folder) for folder in setup.folders]),
    }


def data_caveats(infos: list[dict]) -> list[str]:
    """A sentence for each kind of data that is easier than video, as far as the folders' infos tell."""
    out = []
    for info in infos:
        raw = str(info.get("options", {}).get("raw", "")).lower()
        if info["source"] == "synthetic":
            out.append("The clips are drawings: their truth is exact, and they are easier than video.")
        elif "derived" in raw:
            out.append(
                "The clips are derived by morphing two photographs: easier than video, and a landmark morph reproduces "
                "them by construction. They measure the path and the person, not realism."
            )
        elif "rendered" in raw:
            out.append("The clips are renderings: easier than video.")
    return list(dict.fromkeys(out))


# Intensity and disentanglement


def read_intensities(model: TrainedModel, faces: Faces, chosen: list[Clip]) -> tuple[list[dict[str, float]], Codes]:
    """Metrics of the intensity read from the expression code, of each clip; and the codes of all frames of all takes.

    mae_per_person is the error after `calibrate_per_person`, over all takes of a person and action, without the frames
    that the map was fitted on.
    """
    codes = [model.encode(np.asarray(faces.image[clip.take])) for clip in chosen]
    predictions = [
        model.intensity(code.expression, clip.action)
        if clip.action in model.expressions
        else np.full(len(clip.take), np.nan)
        for code, clip in zip(codes, chosen, strict=True)
    ]
    truths = [faces.intensity[clip.take].astype(float) for clip in chosen]
    calibrated = calibrate(chosen, predictions, truths)
    out = []
    for clip, prediction, truth, mapped in zip(chosen, predictions, truths, calibrated, strict=True):
        onset = np.isin(clip.take, clip.rows)
        error = abs(mapped - truth)[onset]
        out.append(
            {
                "spearman": metrics.spearman(truth[onset], prediction[onset]),
                "spearman_whole_take": metrics.spearman(truth, prediction),
                "mae": float(abs(prediction - truth)[onset].mean()),
                "mae_per_person": float(error[~np.isnan(error)].mean()) if (~np.isnan(error)).any() else np.nan,
            }
        )
    return out, Codes._make(np.concatenate([np.asarray(code[k]) for code in codes]) for k in (0, 1))


def calibrate(chosen: list[Clip], predictions: list[np.ndarray], truths: list[np.ndarray]) -> list[np.ndarray]:
    """The predictions after one affine map per person and action; NaN for the frames that it was fitted on."""
    person = [(clip.subject, clip.action) for clip in chosen]
    out: list[np.ndarray] = [np.empty(0)] * len(chosen)
    for name in dict.fromkeys(person):
        indices = [k for k, clip_name in enumerate(person) if clip_name == name]
        truth = [truths[k] for k in indices]
        mapped, is_test = clip_metrics.calibrate_per_person(
            np.concatenate([predictions[k] for k in indices]), np.concatenate(truth)
        )
        mapped = np.where(is_test, mapped, np.nan)
        for k, part in zip(indices, np.split(mapped, np.cumsum(list(map(len, truth)))[:-1]), strict=True):
            out[k] = part
    return out


def disentanglement(faces: Faces, chosen: list[Clip], codes: Codes) -> dict:
    """The report's probes and leakage, on all frames of the clips' takes."""
    rows = np.concatenate([clip.take for clip in chosen])
    first = np.unique(rows, return_index=True)[1]  # a neutral frame can be in two clips, of two actions
    rows, codes = rows[first], Codes._make(np.asarray(code)[first] for code in codes)
    frames = faces.take(rows)
    displayed = metrics.displayed_expression(frames.expression, frames.intensity)
    return {
        "probes": probes(codes, frames, take_ids(frames), displayed),
        "leakage": metrics.leakage(np.asarray(codes.identity), frames.subject),
        "frames": len(rows),
    }


def inter_subject_distance(setup: VideoEval) -> float:
    """Mean identity distance between neutral frames of different people: the scale of the other identity distances."""
    neutral_rows = {clip.subject: clip.rows[0] for clip in setup.clips}
    if setup.judges.identity is None or len(neutral_rows) < 2:
        return np.nan
    images = np.asarray(setup.faces.image[np.array(list(neutral_rows.values()))], np.float32) / 255
    embeddings = setup.judges.identity.measure(images)
    distance = np.linalg.norm(embeddings[:, None] - embeddings[None], axis=-1)
    return float(distance[np.triu_indices(len(embeddings), 1)].mean())


# Means over people


def summarize_methods(entries: list[dict], subject: np.ndarray) -> dict:
    """Every metric and curve of every method, over people."""
    out = {}
    for name in path_methods.TITLES:
        by_clip = [entry["methods"].get(name, {"figures": {}, "series": {}}) for entry in entries]
        if any(measured["figures"] for measured in by_clip):
            keys = dict.fromkeys(key for measured in by_clip for key in measured["series"])
            curves = {key: mean_curve([measured["series"].get(key) for measured in by_clip], subject) for key in keys}
            out[name] = nest_keys(summarize([m["figures"] for m in by_clip], subject)) | {"curves": curves}
    return out


def summarize(by_clip: list[dict[str, float]], subject: np.ndarray) -> dict[str, dict]:
    """Each metric's mean over people of their clips' means, with its 95 % interval over people."""
    out = {}
    for name in dict.fromkeys(name for clip in by_clip for name in clip):
        values = np.array([clip.get(name, np.nan) for clip in by_clip], float)
        finite = np.isfinite(values)
        mean, low, high = metrics.subject_mean(values[finite], subject[finite])
        out[name] = {"mean": mean, "ci95": [low, high], "clips": int(finite.sum())}
    return out


def mean_curve(curves: list[np.ndarray | None], subject: np.ndarray) -> Float[np.ndarray, "11"]:
    """Mean over people of the mean curves of their clips; without the clips that have none or a NaN."""
    by_subject: dict[str, list[np.ndarray]] = {}
    for name, curve in zip(subject.tolist(), curves, strict=True):
        if curve is not None and np.isfinite(curve).all():
            by_subject.setdefault(name, []).append(curve)
    if not by_subject:
        return np.full(clip_metrics.GRID_SIZE, np.nan)
    return np.mean([np.mean(subject_curves, axis=0) for subject_curves in by_subject.values()], axis=0)


def nest_keys(flat: dict[str, dict]) -> dict:
    """{"a/b": x} -> {"a": {"b": x}}."""
    out: dict = {}
    for name, value in flat.items():
        *parents, last = name.split("/")
        branch = out
        for parent in parents:
            branch = branch.setdefault(parent, {})
        branch[last] = value
    return out
