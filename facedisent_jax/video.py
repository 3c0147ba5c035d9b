"""Video truth: decoded paths from neutral to the apex against the real frames between (docs/video.md).

`write` measures a run and writes RUN/video; `held` reads what is there if it is what would be measured. Imports report
and what lies below it.
"""

import json
import shutil
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from facedisent_jax import (
    clip_figures,
    clips,
    judges,
    metrics,
    panel,
    paths,
    records,
    report,
    study,
    trajectory,
    video_page,
)
from facedisent_jax import figures as drawing
from facedisent_jax.clips import Clip
from facedisent_jax.judges import Judges
from facedisent_jax.model import Codes
from facedisent_jax.records import Faces

VERSION = 3
"""Of what is measured and how: figures of another version are measured anew."""
MOST_CLIPS = 32
MOST_PICTURES = 40_000
SEED = report.SEED


class VideoError(ValueError):
    """A study that cannot be made; the message is a sentence for the person at the keyboard."""


@dataclass(frozen=True)
class Asked:
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


class Study(NamedTuple):
    """All that is known before measuring. key: what figures depend on, as JSON."""

    face: study.Face
    folders: list[Path]
    faces: Faces
    clips: list[Clip]
    rejected: list[tuple[str, str]]
    left_out: int
    judges: Judges
    said: dict
    key: dict


def write(run: Path | str, asked: Asked) -> dict:
    """Measure a run and write RUN/video; returns what metrics.json holds. The page is moved into place last."""
    run = Path(run)
    begun = prepare(run, asked)
    learnt, found = measure(begun, asked)
    unfinished = run / "video.unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    (unfinished / "figures").mkdir(parents=True)
    text = json.dumps(found, indent=1, allow_nan=False)
    shown = video_page.draw(begun.face, begun.faces, begun.clips, learnt, found, asked.points)
    for item in shown:
        if item.image is not None:
            drawing.save(item.image, unfinished / "figures" / f"{item.name}.png")
    (unfinished / "metrics.json").write_text(text + "\n", encoding="utf-8")
    html = video_page.render(run.name, found, shown)
    (unfinished / "index.html").write_text(html, encoding="utf-8", errors="backslashreplace")
    report.publish(unfinished, run / "video", [f"figures/{item.name}.png" for item in shown])
    return found


def held(run: Path | str, asked: Asked) -> dict | None:
    """The figures in RUN/video, if they are of the same data, split, clips, weights and judges as those asked for."""
    run = Path(run)
    key = prepare(run, asked).key
    try:
        found = json.loads((run / "video" / "metrics.json").read_text())
    except (OSError, json.JSONDecodeError):
        return None
    return found if found.get("key") == key else None


def prepare(run: Path, asked: Asked) -> Study:
    """Load the run, find the clips of the split and the judges; refused on people it was trained on."""
    if asked.most < 0:
        raise VideoError(f"{asked.most} clips cannot be judged: give the most clips, or 0 for all.")
    face = study.load(run, asked.step)
    folders = [Path(folder) for folder in asked.data or face.info["data"]]
    faces, _ = report.held_out(face, run, folders, asked.split, MOST_PICTURES)
    found = clips.find(faces)
    chosen = clips.drawn(found.clips, asked.most, SEED)
    if not chosen:
        reasons = Counter(reason for _, reason in found.rejected).most_common()
        why = "; ".join(f"{count} takes: {reason}" for reason, count in reasons) or "no take has several frames"
        raise VideoError(
            f"There are no clips in {', '.join(map(str, folders))}, {asked.split} split ({why}): a clip takes "
            f"{clips.FEWEST} frames or more of one person from neutral to the full expression, of known intensity."
        )
    infos = [records.read_info(folder) for folder in folders]
    judged_by, said = panel.find(face, folders, infos, asked.split, asked.points, asked.no_points)
    key = {
        "version": VERSION,
        "folders": [str(folder.resolve()) for folder in folders],
        "prepared": [(folder / records.PREP_FILE).stat().st_mtime_ns for folder in folders],
        "split": asked.split,
        "clips": [clip.name for clip in chosen],
        "step": face.step,
        "weights": fingerprint(face.params),
        "judges": {name: judge["name"] for name, judge in said.items()},
    }
    return Study(face, folders, faces, chosen, found.rejected, len(found.clips) - len(chosen), judged_by, said, key)


def fingerprint(params: Any) -> str:
    """Of a checkpoint's weights: a run retrained under the same name has others."""
    value = 0
    for leaf in jax.tree.leaves(params):
        value = zlib.crc32(np.asarray(leaf).tobytes(), value)
    return f"{value:08x}"


def measure(begun: Study, asked: Asked) -> tuple[paths.Learnt, dict]:
    """Every figure of metrics.json, with those of each clip."""
    face, faces = begun.face, begun.faces
    learnt = paths.learn(face, {clip.action for clip in begun.clips})
    each, meshless = [], 0
    for clip in asked.progress(begun.clips):
        known = paths.given(face, faces, clip)
        ways = paths.ways(face, known, learnt, asked.points)
        meshless += "morph" not in ways
        found = clip_figures.measure(known, ways, paths.beside(known, learnt), begun.judges)
        each.append({"subject": clip.subject, "sequence": clip.sequence, "condition": clip.condition,
                     "action": clip.action, "name": clip.name, "frames": len(clip.rows),
                     "methods": {name: one._asdict() for name, one in found.items()}})  # fmt: skip
    reading, codes = read_intensities(face, faces, begun.clips)
    for one, figures in zip(each, reading, strict=True):
        one["intensity"] = figures
    subject = np.array([clip.subject for clip in begun.clips])
    methods = {}
    for name in paths.TITLES:
        held = [one["methods"].get(name, {"figures": {}, "series": {}}) for one in each]
        flat = summary([one["figures"] for one in held], subject)
        if any(one["figures"] for one in held):
            curves = {key: by_subject_curve([one["series"].get(key) for one in held], subject)
                      for key in dict.fromkeys(key for one in held for key in one["series"])}  # fmt: skip
            methods[name] = nested(flat) | {"curves": curves}
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
        "alpha": clip_figures.ALPHAS,
        "methods": methods,
        "intensity": nested(summary([one["intensity"] for one in each], subject)),
        "disentanglement": disentanglement(faces, begun.clips, codes),
        "identity_between_people": between_people(begun),
        "clips": each,
    }
    return learnt, report.plain(out)


def facts(begun: Study, asked: Asked, subject: np.ndarray) -> dict:
    """What every figure has to name."""
    reasons = Counter(reason for _, reason in begun.rejected)
    frames = [len(clip.rows) for clip in begun.clips]
    return report.facts(begun.face, begun.folders, asked.split) | {
        "subjects": len(set(subject.tolist())),
        "pictures": int(sum(frames)),
        "clips": len(begun.clips),
        "clips_left_out": begun.left_out,
        "onset_frames": {"fewest": min(frames), "most": max(frames), "all": int(sum(frames))},
        "rejected": dict(reasons.most_common()),
        "rejected_takes": [{"take": name, "reason": reason} for name, reason in begun.rejected],
        "easier_than_video": easier([records.read_info(folder) for folder in begun.folders]),
    }


def easier(infos: list[dict]) -> list[str]:
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


def read_intensities(face: study.Face, faces: Faces, chosen: list[Clip]) -> tuple[list[dict[str, float]], Codes]:
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
        fixed, counts = trajectory.read_per_person(np.concatenate([read[k] for k in own]), np.concatenate(truth))
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
    shown = metrics.action(frames.expression, frames.intensity)
    return {
        "probes": report.probes(codes, frames, report.takes(frames), shown),
        "leakage": metrics.leakage(np.asarray(codes.identity), frames.subject),
        "frames": len(rows),
    }


def between_people(begun: Study) -> float:
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
        return np.full(clip_figures.GRID, np.nan)
    names = dict.fromkeys(who for who, _ in held)
    return np.mean([np.mean([curve for who, curve in held if who == name], axis=0) for name in names], axis=0)


def nested(flat: dict[str, dict]) -> dict:
    """{"a/b": x} -> {"a": {"b": x}}."""
    out: dict = {}
    for name, value in flat.items():
        *way, last = name.split("/")
        place = out
        for part in way:
            place = place.setdefault(part, {})
        place[last] = value
    return out
