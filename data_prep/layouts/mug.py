"""MUG as users have it: subject/expression/takeTTT/img_FFFF.jpg or a video. Imports sources, tables, videos, intensity.

The folders' names tell all, whatever lies above the subject; `sessionN` may lie between subject and expression. A take
is one crop, found in its neutral frame. What does not match is reported, never guessed.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from data_prep import intensity
from data_prep.cropping import video_io
from data_prep.cropping.image_io import ImageError
from data_prep.layouts import csv_labels
from data_prep.layouts.csv_labels import FrameLabels
from data_prep.layouts.scan import IMAGE_TYPES, VIDEO_TYPES, Rejected, ScanResult, Source, decode_file_name, list_images
from facedisent_jax.data.record import NEUTRAL
from facedisent_jax.errors import UserError, did_you_mean

EXPRESSIONS = {
    "anger": "anger",
    "disgust": "disgust",
    "fear": "fear",
    "happiness": "smile",
    "neutral": NEUTRAL,
    "sadness": "sadness",
    "surprise": "surprise",
    "smile": "smile",
}
"""Folder, or word for it -> expression of the record."""
MUG_EXPRESSIONS = tuple(EXPRESSIONS)[:7]
"""The seven that MUG has."""
PUBLISHED_TRAINING = tuple(
    "008 017 021 028 030 031 034 036 037 038 039 042 043 044 045 055 060 061 062 063 071 075 076 077 083 084".split()
)
"""Training subjects of a split in use (26 of the 52 that are distributed)."""

SESSION = re.compile(r"session\d*", re.IGNORECASE | re.ASCII)
TAKE = re.compile(r"take[ _-]?\d+", re.IGNORECASE | re.ASCII)
FRAME = re.compile(r"\d+$", re.ASCII)
LAYOUT = "subject/expression/takeTTT/img_FFFF.jpg was expected"


class Take(NamedTuple):
    """Who shows what in which take, as the folders' names say; expression is the record's."""

    subject: str
    expression: str
    session: str
    take: str

    @property
    def sequence(self) -> str:
        """The take's name; one that is another's too (another expression, a further session) has that in front."""
        before = [self.session] if self.session not in ("", "session0") else []
        before += [self.expression] if self.expression != "smile" else []
        return "/".join([*before, self.take])


class _Files(NamedTuple):
    """The files of a take: its pictures, or its videos."""

    pictures: list[tuple[Path, str]]
    videos: list[tuple[Path, str]]


def parse_take(folders: Sequence[str], take: str | None = None) -> Take | str:
    """The folders of a frame from the root down -> its take, or what is wrong with them.

    take: the name of a video that lies where a take's folder could be.
    """
    words = [folder.lower() for folder in folders]
    at = max((k for k, word in enumerate(words) if word in EXPRESSIONS), default=None)
    if at is None:
        return "not in a folder of an expression"
    below = [*folders[at + 1 :], *([take] if take else [])]
    if len(below) != 1 or not (TAKE.fullmatch(below[0]) or below[0].lower().endswith("end")):
        return "not in the folder of a take"
    session, above = "", at - 1
    while above >= 0 and (SESSION.fullmatch(words[above]) or words[above] in EXPRESSIONS):
        session = words[above] if SESSION.fullmatch(words[above]) else session
        above -= 1
    if above < 0:
        return "not in the folder of a subject"
    return Take(folders[above], EXPRESSIONS[words[at]], session, below[0])


def scan_mug(
    raw: Path,
    expressions: Sequence[str] = ("happiness",),
    labels: Path | None = None,
    least_onset: int = 0,
    boxes: Path | None = None,
    points: Path | None = None,
) -> ScanResult:
    """The takes below `raw` of the expressions asked for, their frames in order, the neutral one first.

    labels: CSV of the intensities, without which they are not known (NaN). least_onset: with labels, takes whose onset
    has fewer frames are left out.
    """
    chosen = _chosen(expressions)
    given = _labels(labels, chosen) if labels else None
    files, passed_over = list_images(raw, types=IMAGE_TYPES | VIDEO_TYPES)
    found = ScanResult([], [], Counter(passed_over), [], [])
    squares = csv_labels.read_boxes(boxes) if boxes else csv_labels.read_points(points) if points else {}
    takes = _takes(raw, files, chosen, found)
    numbered = _numbered(takes, found)
    seen = set()
    for place, take in takes.items():
        frames = [_source(take[0], place, number, *at) for number, at in sorted(numbered.get(place, {}).items())]
        _remark_gaps(place, frames, found)
        if given and frames and (take[0].expression != NEUTRAL or given.with_expression):
            seen |= {given.key(take[0].subject, take[0].expression, take[0].take, frame.frame) for frame in frames}
            frames = _labelled(take[0], place, frames, given, least_onset, found)
        found.sources.extend(frame._replace(box=csv_labels.lookup(squares, frame)) for frame in frames)
    if squares:
        csv_labels.require_matches(boxes or points or Path(), squares, found.sources)
    if given:
        found.remarks.extend(given.remarks)
        _check_use(given, [take for take, _ in takes.values()], seen, found)
    return found._replace(left_out=dict(found.left_out))


def _chosen(words: Iterable[str]) -> set[str]:
    chosen = set()
    for word in words:
        if word.lower() not in EXPRESSIONS:
            hint = did_you_mean(word.lower(), EXPRESSIONS)
            raise UserError(f"--expressions must be among {', '.join(MUG_EXPRESSIONS)}, got {word}.{hint}")
        chosen.add(EXPRESSIONS[word.lower()])
    if not chosen:
        raise UserError(f"--expressions names none: give some of {', '.join(MUG_EXPRESSIONS)}.")
    return chosen


def _labels(path: Path, chosen: set[str]) -> FrameLabels:
    given = csv_labels.read_frame_labels(path)
    actions = sorted(chosen - {NEUTRAL})
    if len(actions) > 1 and not given.with_expression:
        raise UserError(
            f"{path}, line 1: no column 'expression', and several expressions were asked for ({', '.join(actions)}): "
            "add the column, or prepare one expression at a time."
        )
    for table in (given.values, given.faults):
        for key in [key for key in table if EXPRESSIONS.get(key[1], key[1]) != key[1]]:
            table[key[0], EXPRESSIONS[key[1]], *key[2:]] = table.pop(key)  # type: ignore[assignment]
    return given


def _takes(raw: Path, files, chosen: set[str], found: ScanResult) -> dict[str, tuple[Take, _Files]]:
    """Place of a take (folder, or a video in place of one) -> the take and its files; the rest is accounted for."""
    root = [decode_file_name(part) for part in raw.resolve().parts[1:]]
    takes: dict[str, tuple[Take, _Files]] = {}
    where: dict[Take, str] = {}
    for path, key in files:
        *folders, name = key.split("/")
        is_video = Path(name).suffix.lower() in VIDEO_TYPES
        take = parse_take([*root, *folders])
        place = "/".join(folders)
        if is_video and isinstance(take, str):
            alone = parse_take([*root, *folders], Path(name).stem)
            take, place = (take, key) if isinstance(alone, str) else (alone, key[: -len(Path(name).suffix)])
        if isinstance(take, str):
            found.rejected.append(Rejected(key, f"{take}: {LAYOUT}"))
        elif take.expression not in chosen:
            found.left_out[f"{'videos' if is_video else 'frames'} of expressions that were not asked for"] += 1
        elif take.take.lower().endswith("end"):
            found.left_out["files of takes whose name ends in `end`"] += 1
        elif where.setdefault(take, place) != place:
            found.rejected.append(Rejected(key, f"another copy of this take is used: {where[take]}"))
        else:
            _, listed = takes.setdefault(place, (take, _Files([], [])))
            (listed.videos if is_video else listed.pictures).append((path, key))
    return takes


def _numbered(takes: dict[str, tuple[Take, _Files]], found: ScanResult) -> dict[str, dict[int, tuple[Path, str]]]:
    """Place of a take -> frame number -> file and key. A video serves where there are no frames."""
    out: dict[str, dict[int, tuple[Path, str]]] = {}
    waiting: list[tuple[str, Path, str]] = []
    for place, (_, listed) in takes.items():
        if listed.pictures:
            if listed.videos:
                found.left_out["videos of takes that have frames"] += len(listed.videos)
            out[place] = _pictures(listed.pictures, found)
            continue
        (path, key), *others = listed.videos
        waiting.append((place, path, key))
        found.rejected.extend(Rejected(other, f"another video of this take is used: {key}") for _, other in others)
    with ThreadPoolExecutor() as pool:  # OpenCV decodes without Python's lock
        lengths = pool.map(_length, [path for _, path, _ in waiting])
        for (place, path, key), number in zip(waiting, lengths, strict=True):
            if isinstance(number, str):
                found.rejected.append(Rejected(key, number))
            else:
                out[place] = {frame: (path, f"{key}#{frame:04}") for frame in range(number)}
    return out


def _length(path: Path) -> int | str:
    """Frames of a video, or why it cannot be used."""
    try:
        return video_io.count_frames(path)
    except ImageError as error:
        return str(error)


def _pictures(files: list[tuple[Path, str]], found: ScanResult) -> dict[int, tuple[Path, str]]:
    out: dict[int, tuple[Path, str]] = {}
    for path, key in files:
        number = FRAME.search(path.stem)
        if not number:
            found.rejected.append(Rejected(key, "no frame number at the end of its name: img_FFFF.jpg was expected"))
        elif int(number[0]) in out:
            found.rejected.append(Rejected(key, f"another picture of this frame is used: {out[int(number[0])][1]}"))
        else:
            out[int(number[0])] = path, key
    return out


def _source(take: Take, place: str, number: int, path: Path, key: str) -> Source:
    known = 0.0 if take.expression == NEUTRAL else float("nan")
    return Source(path, key, place, take.subject, take.expression, take.sequence, "", number, known)


def _remark_gaps(place: str, frames: list[Source], found: ScanResult) -> None:
    numbers = [frame.frame for frame in frames]
    gaps = [(a + 1, b - 1) for a, b in zip(numbers, numbers[1:], strict=False) if b > a + 1]
    if gaps:
        said = ", ".join(f"{a}" if a == b else f"{a} to {b}" for a, b in gaps)
        found.remarks.append(Rejected(place, f"missing frame numbers: {said}"))


def _labelled(
    take: Take, place: str, frames: list[Source], given: FrameLabels, least_onset: int, found: ScanResult
) -> list[Source]:
    """The frames with the intensities of the CSV, the neutral one first and the others in order."""
    known = []
    for source in frames:
        key = given.key(take.subject, take.expression, take.take, source.frame)
        fault, value = given.faults.get(key), given.values.get(key)
        if fault:
            found.rejected.append(Rejected(source.key, fault))
        elif take.expression == NEUTRAL and not value:
            known.append(source)
        elif take.expression == NEUTRAL:
            found.rejected.append(Rejected(source.key, f"neutral by its folder, not by the labels: {value:g}"))
        elif value is None:
            found.rejected.append(Rejected(source.key, f"frame without a line in the labels: {given.path}"))
        else:
            known.append(source._replace(intensity=value))
    if take.expression == NEUTRAL or not known:
        return known
    values = [source.intensity for source in known]
    try:
        intensity.check_neutral(values)
        remarks = intensity.check_onset(values, least_onset)
    except intensity.TakeError as error:
        found.rejected.extend(Rejected(source.key, str(error)) for source in known)
        return []
    found.remarks.extend(Rejected(place, remark) for remark in remarks)
    neutral = values.index(min(values))
    return [known[neutral], *known[:neutral], *known[neutral + 1 :]]


def _check_use(given: FrameLabels, takes: list[Take], seen: set[tuple[str, str, str, int]], found: ScanResult) -> None:
    """Refuse labels that name none of the takes; note those of other takes, remark those of frames that are missing."""
    here = {given.key(take.subject, take.expression, take.take, 0)[:3] for take in takes}
    said = dict.fromkeys(key[:3] for key in [*given.values, *given.faults])
    if takes and not any(key in here for key in said):
        first = ", ".join(filter(None, next(iter(said), ("nobody",))))
        such = ", ".join(filter(None, min(here)))
        raise UserError(
            f"{given.path} names none of the {len(takes)} takes: its first line is about {first}; "
            f"a take is written as here: {such}."
        )
    if unknown := [key for key in said if key not in here]:
        such = " ".join(filter(None, unknown[0]))
        found.notes.append(
            f"{given.path} also has lines about {len(unknown)} takes that are not used (such as {such})."
        )
    for key in [*given.values, *given.faults]:
        if key[:3] in here and key not in seen:
            named = " ".join(str(part) for part in key if part != "")
            found.remarks.append(Rejected(str(given.path), f"label of a frame that is not there: {named}"))
