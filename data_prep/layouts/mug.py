"""Layout of MUG: subject/expression/takeTTT/img_FFFF.jpg, or a video in place of the frames, below any folders.

A folder `sessionN` may lie between subject and expression. A take is one crop, located in its neutral frame. Files that
do not fit are reported, never guessed.
"""

import re
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from data_prep import intensity
from data_prep.cropping import video_io
from data_prep.cropping.image_io import ImageError
from data_prep.layouts import csv_labels
from data_prep.layouts.csv_labels import FrameKey, FrameLabels
from data_prep.layouts.scan import (
    IMAGE_TYPES,
    VIDEO_TYPES,
    Rejected,
    ScanResult,
    Source,
    decode_file_name,
    list_images,
    plain_name,
)
from facedisent_jax.data.record import NEUTRAL
from facedisent_jax.errors import UserError, did_you_mean

EXPRESSIONS = {  # name of a folder, or another word for it -> expression of the record
    "anger": "anger",
    "disgust": "disgust",
    "fear": "fear",
    "happiness": "smile",
    "neutral": NEUTRAL,
    "sadness": "sadness",
    "surprise": "surprise",
    "smile": "smile",
}
MUG_EXPRESSIONS = tuple(EXPRESSIONS)[:7]  # the names of MUG's own folders
# Training subjects of a published split: 26 of the 52 subjects that are distributed.
PUBLISHED_TRAINING = tuple(
    "008 017 021 028 030 031 034 036 037 038 039 042 043 044 045 055 060 061 062 063 071 075 076 077 083 084".split()
)

SESSION = re.compile(r"session\d*", re.IGNORECASE | re.ASCII)
TAKE = re.compile(r"take[ _-]?\d+", re.IGNORECASE | re.ASCII)
FRAME = re.compile(r"\d+$", re.ASCII)
LAYOUT = "subject/expression/takeTTT/img_FFFF.jpg"

File = tuple[Path, str]  # path and key


class Take(NamedTuple):
    """A take, from the names of its folders. `expression` is that of the record; `name` is such as take000."""

    subject: str
    expression: str
    session: str
    name: str

    @property
    def sequence(self) -> str:
        """The take's name in the record: unique within the subject, and take000 for the first smile."""
        prefix = [self.session] if self.session not in ("", "session0") else []
        prefix += [self.expression] if self.expression != "smile" else []
        return "/".join([*prefix, self.name])


class _TakeFiles(NamedTuple):
    take: Take
    images: list[File]
    videos: list[File]


Takes = dict[str, _TakeFiles]  # by the take's folder, or by the path (without suffix) of a video in place of one


def scan_mug(
    raw: Path,
    expressions: Sequence[str] = ("happiness",),
    labels: Path | None = None,
    min_onset: int = 0,
    boxes: Path | None = None,
    points: Path | None = None,
) -> ScanResult:
    """List the takes below `raw` that show one of `expressions`: their frames in order, a neutral one first.

    labels:        table of the intensities, which else are unknown (NaN).
    min_onset:     with `labels`, takes whose onset has fewer frames are left out.
    boxes, points: table of tight crops, or of landmarks that define them.
    """
    chosen = _choose_expressions(expressions)
    frame_labels = _read_labels(labels, chosen) if labels else None
    files, left_out = list_images(raw, types=IMAGE_TYPES | VIDEO_TYPES)
    result = ScanResult([], [], left_out, [], [])
    takes = _find_takes(raw, files, chosen, result)
    frames_by_take = _find_frames(takes, result)
    used_labels: set[FrameKey] = set()
    for folder, (take, *_) in takes.items():
        numbered = sorted(frames_by_take.get(folder, {}).items())
        frames = [_to_source(take, folder, number, *file) for number, file in numbered]
        _remark_gaps(folder, frames, result)
        if frame_labels and frames and (take.expression != NEUTRAL or frame_labels.has_expression):
            used_labels |= {_label_key(take, frame.frame, frame_labels) for frame in frames}
            frames = _add_labels(take, folder, frames, frame_labels, min_onset, result)
        result.sources.extend(frames)
    if frame_labels:
        result.remarks.extend(frame_labels.remarks)
        _check_labels_match([files.take for files in takes.values()], frame_labels, used_labels, result)
    return result._replace(sources=csv_labels.add_boxes(result.sources, boxes, points))


def parse_take(folders: Sequence[str], video_name: str | None = None) -> Take | str:
    """Parse the folders of a frame, from the root down, into its take, or say what is wrong with them.

    video_name: name, without suffix, of a video that lies where the folder of a take could be.
    """
    folders = [plain_name(folder) for folder in folders]
    names = [folder.lower() for folder in folders]
    expression_at = max((k for k, name in enumerate(names) if name in EXPRESSIONS), default=None)
    if expression_at is None:
        return "not in the folder of an expression"
    below = [*folders[expression_at + 1 :], *([plain_name(video_name)] if video_name else [])]
    if len(below) != 1 or not (TAKE.fullmatch(below[0]) or below[0].lower().endswith("end")):
        return "not in the folder of a take"
    session, subject_at = "", expression_at - 1
    while subject_at >= 0 and (SESSION.fullmatch(names[subject_at]) or names[subject_at] in EXPRESSIONS):
        session = names[subject_at] if SESSION.fullmatch(names[subject_at]) else session
        subject_at -= 1
    if subject_at < 0:
        return "not in the folder of a subject"
    return Take(folders[subject_at], EXPRESSIONS[names[expression_at]], session, below[0])


def _choose_expressions(names: Iterable[str]) -> set[str]:
    chosen = set()
    for name in names:
        if name.lower() not in EXPRESSIONS:
            hint = did_you_mean(name.lower(), EXPRESSIONS)
            raise UserError(f"--expressions must be among {', '.join(MUG_EXPRESSIONS)}, got {name}.{hint}")
        chosen.add(EXPRESSIONS[name.lower()])
    if not chosen:
        raise UserError(f"--expressions must name some of {', '.join(MUG_EXPRESSIONS)}, got none.")
    return chosen


def _read_labels(path: Path, chosen: set[str]) -> FrameLabels:
    labels = csv_labels.read_frame_labels(path)
    expressions = sorted(chosen - {NEUTRAL})
    if len(expressions) > 1 and not labels.has_expression:
        raise UserError(
            f"{path}, line 1: the columns must include 'expression' for several --expressions, "
            f"got {', '.join(expressions)}. Add the column, or prepare one expression at a time."
        )
    for table in (labels.values, labels.errors):
        for key in [key for key in table if EXPRESSIONS.get(key[1], key[1]) != key[1]]:
            table[key[0], EXPRESSIONS[key[1]], *key[2:]] = table.pop(key)  # type: ignore[assignment]
    return labels


def _label_key(take: Take, frame: int, labels: FrameLabels) -> FrameKey:
    return labels.key(take.subject, take.expression, take.name, frame)


def _find_takes(raw: Path, files: list[File], chosen: set[str], result: ScanResult) -> Takes:
    """The takes of the chosen expressions. Files that belong to none of them are counted or rejected in `result`."""
    root = [decode_file_name(part) for part in raw.resolve().parts[1:]]
    takes: Takes = {}
    folder_of_take: dict[Take, str] = {}
    for path, key in files:
        is_video = Path(key).suffix.lower() in VIDEO_TYPES
        take, folder = _take_of_file(root, key, is_video)
        if isinstance(take, str):
            result.rejected.append(Rejected(key, f"{take}: expected {LAYOUT}"))
        elif take.expression not in chosen:
            result.left_out[f"{'videos' if is_video else 'frames'} of expressions that are not selected"] += 1
        elif take.name.lower().endswith("end"):
            result.left_out["files of takes whose name ends in `end`"] += 1
        elif folder_of_take.setdefault(take, folder) != folder:
            result.rejected.append(Rejected(key, f"another copy of this take is used: {folder_of_take[take]}"))
        else:
            take_files = takes.setdefault(folder, _TakeFiles(take, [], []))
            (take_files.videos if is_video else take_files.images).append((path, key))
    return takes


def _take_of_file(root: list[str], key: str, is_video: bool) -> tuple[Take | str, str]:
    """The take of a file (or why it has none) and the take's folder. A video may lie in place of that folder."""
    *folders, name = key.split("/")
    take = parse_take([*root, *folders])
    if not is_video or isinstance(take, Take):
        return take, "/".join(folders)
    take = parse_take([*root, *folders], Path(name).stem)
    return take, key.removesuffix(Path(name).suffix)


def _find_frames(takes: Takes, result: ScanResult) -> dict[str, dict[int, File]]:
    """The frames of each take by their number. A video is used for takes without images."""
    frames: dict[str, dict[int, File]] = {}
    videos: dict[str, File] = {}
    for folder, (_, take_images, take_videos) in takes.items():
        if take_images:
            if take_videos:
                result.left_out["videos of takes that have frames"] += len(take_videos)
            frames[folder] = _number_images(take_images, result)
        else:
            videos[folder], *duplicates = take_videos
            used_key = videos[folder][1]
            result.rejected.extend(
                Rejected(key, f"another video of this take is used: {used_key}") for _, key in duplicates
            )
    with ThreadPoolExecutor() as pool:  # OpenCV releases Python's lock while it decodes
        frame_counts = pool.map(_count_frames, [path for path, _ in videos.values()])
        for (folder, (path, key)), count in zip(videos.items(), frame_counts, strict=True):
            if isinstance(count, str):
                result.rejected.append(Rejected(key, count))
            else:
                frames[folder] = {number: (path, f"{key}#{number:04}") for number in range(count)}
    return frames


def _count_frames(video: Path) -> int | str:
    """Number of frames of a video, or why it cannot be used."""
    try:
        return video_io.count_frames(video)
    except ImageError as error:
        return str(error)


def _number_images(images: list[File], result: ScanResult) -> dict[int, File]:
    frames: dict[int, File] = {}
    for path, key in images:
        number = FRAME.search(path.stem)
        if not number:
            result.rejected.append(Rejected(key, "no frame number at the end of its name: expected img_FFFF.jpg"))
        elif int(number[0]) in frames:
            used_key = frames[int(number[0])][1]
            result.rejected.append(Rejected(key, f"another image of this frame is used: {used_key}"))
        else:
            frames[int(number[0])] = path, key
    return frames


def _to_source(take: Take, folder: str, frame: int, path: Path, key: str) -> Source:
    value = 0.0 if take.expression == NEUTRAL else float("nan")
    return Source(path, key, folder, take.subject, take.expression, take.sequence, "", frame, value)


def _remark_gaps(folder: str, frames: list[Source], result: ScanResult) -> None:
    numbers = [frame.frame for frame in frames]
    gaps = [(a + 1, b - 1) for a, b in zip(numbers, numbers[1:], strict=False) if b > a + 1]
    if gaps:
        missing = ", ".join(f"{first}" if first == last else f"{first} to {last}" for first, last in gaps)
        result.remarks.append(Rejected(folder, f"missing frame numbers: {missing}"))


def _add_labels(
    take: Take, folder: str, frames: list[Source], labels: FrameLabels, min_onset: int, result: ScanResult
) -> list[Source]:
    """The frames with their intensities, a neutral one first and the others in order. Empty if the take is rejected."""
    labelled_or_rejected = [_add_label(take, frame, labels) for frame in frames]
    labelled = [entry for entry in labelled_or_rejected if isinstance(entry, Source)]
    result.rejected.extend(entry for entry in labelled_or_rejected if isinstance(entry, Rejected))
    if take.expression == NEUTRAL or not labelled:
        return labelled
    values = [source.intensity for source in labelled]
    try:
        intensity.check_neutral(values)
        remarks = intensity.check_onset(values, min_onset)
    except intensity.TakeError as error:
        result.rejected.extend(Rejected(source.key, str(error)) for source in labelled)
        return []
    result.remarks.extend(Rejected(folder, remark) for remark in remarks)
    neutral = values.index(min(values))
    return [labelled[neutral], *labelled[:neutral], *labelled[neutral + 1 :]]


def _add_label(take: Take, frame: Source, labels: FrameLabels) -> Source | Rejected:
    key = _label_key(take, frame.frame, labels)
    value = labels.values.get(key)
    if error := labels.errors.get(key):
        return Rejected(frame.key, error)
    if take.expression == NEUTRAL:
        return Rejected(frame.key, f"neutral by its folder, not by its label: {value:g}") if value else frame
    if value is None:
        return Rejected(frame.key, f"frame without a label: {labels.path}")
    return frame._replace(intensity=value)


def _check_labels_match(takes: list[Take], labels: FrameLabels, used_labels: set[FrameKey], result: ScanResult) -> None:
    """Refuse labels for none of the takes. Note labels for other takes, and remark on labels for missing frames."""
    take_keys = {_label_key(take, 0, labels)[:3] for take in takes}
    frame_keys = [*labels.values, *labels.errors]
    labelled_takes = list(dict.fromkeys(key[:3] for key in frame_keys))
    if takes and not any(key in take_keys for key in labelled_takes):
        first = ", ".join(filter(None, labelled_takes[0])) if labelled_takes else "no label"
        example = ", ".join(filter(None, min(take_keys)))
        raise UserError(
            f"{labels.path} must label some of the {len(takes)} takes (such as {example}), "
            f"got {first} in its first line."
        )
    if unused := [key for key in labelled_takes if key not in take_keys]:
        example = " ".join(filter(None, unused[0]))
        result.notes.append(f"{labels.path} also labels {len(unused)} takes that are not used (such as {example}).")
    for key in frame_keys:
        if key[:3] in take_keys and key not in used_labels:
            frame = " ".join(str(part) for part in key if part != "")
            result.remarks.append(Rejected(str(labels.path), f"label of a missing frame: {frame}"))
