"""Multi-PIE as users have it, in any folders: the basename alone tells what a picture is. Imports sources and tables.

SSS_0S_RR_CCC_II: subject, session, recording, camera, illumination; then an optional suffix and the extension. The
expression is a function of session and recording. What does not match is reported, never guessed.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from data_prep.layouts import csv_labels
from data_prep.layouts.scan import Rejected, ScanResult, Source, list_images
from facedisent_jax.data.record import NEUTRAL
from facedisent_jax.errors import UserError

EXPRESSIONS = {
    (1, 1): NEUTRAL,
    (1, 2): "smile",
    (2, 1): NEUTRAL,
    (2, 2): "surprise",
    (2, 3): "squint",
    (3, 1): NEUTRAL,
    (3, 2): "smile",
    (3, 3): "disgust",
    (4, 1): NEUTRAL,
    (4, 2): NEUTRAL,
    (4, 3): "scream",
}
"""(session, recording) -> expression."""
CAMERAS = ("240", "010", "200", "190", "041", "050", "051", "140", "130", "080", "090", "120", "110", "191", "081")
"""From +90 to -90 degrees, then the two elevated ones; 051 is frontal."""
ILLUMINATIONS = tuple(f"{number:02}" for number in range(20))
FRONTAL_FLASH = 7
"""The illumination in which a face is looked for first; then those with flashes near to it."""
OTHER_FOLDERS = frozenset({"highres", "documentation", "meta", "autorun"})
"""Folders that lie beside the pictures, in lower case: portraits of another format, papers, tables."""

NAME = re.compile(r"(\d{3})_(\d{2})_(\d{2})_(\d{3})_(\d{2})(\D.*)?", re.ASCII)
LABEL = re.compile(r"(\d{3})_(\d{2})_(\d{2})_(\d{3})_(\d{2})(\D.*)?\.mat", re.ASCII | re.IGNORECASE)


class Shot(NamedTuple):
    """The fields of a picture's name, as they are written."""

    subject: str
    session: str
    recording: str
    camera: str
    illumination: str

    @property
    def place(self) -> tuple[str, str, str, str]:
        """What the pictures have in common that are shot within 0.7 s, and so one crop."""
        return self[:4]


def parse_shot(stem: str) -> tuple[Shot, str] | str:
    """A file's name without its extension -> its fields and its suffix; or why it is not a Multi-PIE name."""
    found = NAME.fullmatch(stem)
    if not found:
        return "name does not match SSS_0S_RR_CCC_II"
    *fields, suffix = found.groups()
    shot = Shot(*fields)
    if (int(shot.session), int(shot.recording)) not in EXPRESSIONS:
        return f"Multi-PIE has no recording {shot.recording} in a session {shot.session}"
    if shot.camera not in CAMERAS:
        return f"Multi-PIE has no camera {shot.camera}"
    if shot.illumination not in ILLUMINATIONS:
        return f"Multi-PIE has no illumination {shot.illumination}"
    return shot, suffix or ""


def scan_multipie(
    raw: Path,
    cameras: Sequence[str] = ("051",),
    illuminations: Sequence[str] = ILLUMINATIONS,
    expressions: Sequence[str] = (NEUTRAL, "smile"),
    mat_labels: Path | None = None,
    boxes: Path | None = None,
    points: Path | None = None,
) -> ScanResult:
    """The pictures below `raw` that were asked for. mat_labels: folder of landmark files, which then place the crop."""
    cameras = _chosen(cameras, CAMERAS, "--cameras", lambda name: name.replace("_", ""))
    illuminations = _chosen(illuminations, ILLUMINATIONS, "--illuminations", lambda name: name.zfill(2))
    known = tuple(dict.fromkeys(EXPRESSIONS.values()))
    expressions = _chosen(expressions, known, "--expressions", str.lower)
    files, passed_over = list_images(raw, OTHER_FOLDERS)
    left_out = Counter(passed_over)
    rejected: list[Rejected] = []
    best: dict[Shot, tuple[str, str, Path]] = {}  # suffix, key, path
    for path, key in files:
        parsed = parse_shot(path.stem)
        if isinstance(parsed, str):
            rejected.append(Rejected(key, parsed))
            continue
        shot, suffix = parsed
        kind = _not_asked_for(shot, cameras, illuminations, expressions)
        if kind:
            left_out[kind] += 1
        elif shot in best and (len(best[shot][0]), best[shot][1]) <= (len(suffix), key):
            rejected.append(Rejected(key, "another copy of this picture is used"))
        else:
            if shot in best:
                rejected.append(Rejected(best[shot][1], "another copy of this picture is used"))
            best[shot] = suffix, key, path
    labels = _labels(mat_labels) if mat_labels else {}
    squares = csv_labels.read_boxes(boxes) if boxes else csv_labels.read_points(points) if points else {}
    groups: dict[tuple, list[tuple[Shot, Path, str]]] = defaultdict(list)
    for shot, (suffix, key, path) in best.items():
        groups[*shot.place, suffix].append((shot, path, key))
    sources = []
    for place in sorted(groups):
        members = sorted(groups[place], key=lambda member: _looked_at(member[0]))
        own = labels.get(place[:4], {}) if not place[4] else {}
        lights = {shot.illumination for shot, *_ in members}
        spare = [path for light, path in sorted(own.items()) if light not in lights]  # of pictures not asked for
        members.sort(key=lambda member: member[0].illumination not in own)
        for shot, path, key in members:
            label = own.get(shot.illumination) or (spare.pop() if spare else None)
            sources.append(_source(shot, path, key, "_".join(place), label))
    if squares:
        sources = [source._replace(box=csv_labels.lookup(squares, source)) for source in sources]
        csv_labels.require_matches(boxes or points or Path(), squares, sources)
    return ScanResult(sources, rejected, dict(left_out), _notes(sources, labels), [])


def _source(shot: Shot, path: Path, key: str, group: str, label: Path | None) -> Source:
    expression = EXPRESSIONS[int(shot.session), int(shot.recording)]
    return Source(
        path,
        key,
        group,
        shot.subject,
        expression,
        sequence=shot.session,
        condition=f"{shot.camera}_{shot.illumination}",
        frame=int(shot.recording),
        intensity=0.0 if expression == NEUTRAL else 1.0,
        landmark_file=label,
    )


def _chosen(given: Iterable[str], known: Sequence[str], option: str, written) -> tuple[str, ...]:
    chosen = tuple(written(name) for name in given)
    for name in chosen:
        if name not in known:
            raise UserError(f"{option} {name}: Multi-PIE has {', '.join(known)}.")
    if not chosen:
        raise UserError(f"{option} names none: give some of {', '.join(known)}.")
    return chosen


def _not_asked_for(shot: Shot, cameras, illuminations, expressions) -> str | None:
    """Which option leaves the picture out, as a kind to count; None if it was asked for."""
    expression = EXPRESSIONS[int(shot.session), int(shot.recording)]
    if shot.camera not in cameras:
        return "pictures of cameras that were not asked for"
    if shot.illumination not in illuminations:
        return "pictures of illuminations that were not asked for"
    return None if expression in expressions else "pictures of expressions that were not asked for"


def _looked_at(shot: Shot) -> int:
    """The order in which a face is looked for: from the frontal flash to those at the sides."""
    return abs(int(shot.illumination) - FRONTAL_FLASH)


def _labels(folder: Path) -> dict[tuple[str, ...], dict[str, Path]]:
    """Landmark files: (subject, session, recording, camera) -> illumination -> file."""
    if not folder.is_dir():
        raise UserError(f"There is no folder {folder} of landmark labels (--mat-labels).")
    found: dict[tuple[str, ...], dict[str, Path]] = defaultdict(dict)
    for path, _ in list_images(folder, types=frozenset({".mat"}))[0]:
        if named := LABEL.fullmatch(path.name):
            found[named.groups()[:4]][named[5]] = path
    if not found:
        raise UserError(f"{folder} (--mat-labels) holds no file named like 001_01_01_051_05_lm.mat.")
    return found


def _notes(sources: list[Source], labels: dict) -> list[str]:
    if not labels:
        return []
    labelled = {source.crop_group for source in sources if source.landmark_file}
    groups = {source.crop_group for source in sources}
    return [f"Landmark labels are there for {len(labelled)} of {len(groups)} crops; the detector finds the others."]
