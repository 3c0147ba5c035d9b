"""Layout of Multi-PIE, in any folders: the file name SSS_0S_RR_CCC_II alone says what an image shows.

The parts are subject, session, recording, camera and illumination; a suffix may follow. The expression depends on
session and recording. Names that do not fit are reported, never guessed.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from data_prep.layouts import csv_labels
from data_prep.layouts.scan import Rejected, ScanResult, Source, list_images
from facedisent_jax.data.record import NEUTRAL
from facedisent_jax.errors import UserError

EXPRESSIONS = {  # (session, recording) -> expression
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
# From +90 to -90 degrees, then the two elevated cameras; 051 is the frontal one.
CAMERAS = ("240", "010", "200", "190", "041", "050", "051", "140", "130", "080", "090", "120", "110", "191", "081")
ILLUMINATIONS = tuple(f"{number:02}" for number in range(20))
FRONTAL_FLASH = 7  # a face is looked for in this illumination first, then in those with flashes close to it
# Folders beside the images, in lower case: portraits of another format, papers, tables.
SKIPPED_FOLDERS = frozenset({"highres", "documentation", "meta", "autorun"})

IMAGE_NAME = re.compile(r"(\d{3})_(\d{2})_(\d{2})_(\d{3})_(\d{2})(\D.*)?", re.ASCII)
LANDMARK_NAME = re.compile(r"(\d{3})_(\d{2})_(\d{2})_(\d{3})_(\d{2})(\D.*)?\.mat", re.ASCII | re.IGNORECASE)

CropKey = tuple[str, str, str, str]  # subject, session, recording, camera
LandmarkFiles = dict[CropKey, dict[str, Path]]  # by crop, then by illumination


class Shot(NamedTuple):
    """The parts of an image's name, as they are written."""

    subject: str
    session: str
    recording: str
    camera: str
    illumination: str

    @property
    def crop_key(self) -> CropKey:
        """What the images of one burst of flashes have in common: they are taken within 0.7 s and share one crop."""
        return self[:4]

    @property
    def expression(self) -> str:
        return EXPRESSIONS[int(self.session), int(self.recording)]


class _Image(NamedTuple):
    shot: Shot
    suffix: str  # of the name, such as _cropped
    path: Path
    key: str


class _Selection(NamedTuple):
    """Which images the user wants."""

    cameras: tuple[str, ...]
    illuminations: tuple[str, ...]
    expressions: tuple[str, ...]

    def why_left_out(self, shot: Shot) -> str | None:
        """Which images an image is counted with if it is not selected, None if it is."""
        if shot.camera not in self.cameras:
            return "images of cameras that are not selected"
        if shot.illumination not in self.illuminations:
            return "images of illuminations that are not selected"
        return None if shot.expression in self.expressions else "images of expressions that are not selected"


def scan_multipie(
    raw: Path,
    cameras: Sequence[str] = ("051",),
    illuminations: Sequence[str] = ILLUMINATIONS,
    expressions: Sequence[str] = (NEUTRAL, "smile"),
    mat_labels: Path | None = None,
    boxes: Path | None = None,
    points: Path | None = None,
) -> ScanResult:
    """List the images below `raw` of the given cameras, illuminations and expressions.

    mat_labels:    folder of Multi-PIE's landmark files. Where there is one, it places the crop.
    boxes, points: table of tight crops, or of landmarks that define them.
    """
    selection = _Selection(
        _validate_choice("--cameras", cameras, CAMERAS, lambda name: name.replace("_", "")),
        _validate_choice("--illuminations", illuminations, ILLUMINATIONS, lambda name: name.zfill(2)),
        _validate_choice("--expressions", expressions, tuple(dict.fromkeys(EXPRESSIONS.values())), str.lower),
    )
    files, left_out = list_images(raw, SKIPPED_FOLDERS)
    images, rejected = _select(files, selection, left_out)
    landmark_files = _list_landmark_files(mat_labels) if mat_labels else {}
    sources = csv_labels.add_boxes(_group_by_crop(images, landmark_files), boxes, points)
    return ScanResult(sources, rejected, left_out, _notes(sources, landmark_files), [])


def parse_shot(stem: str) -> tuple[Shot, str] | str:
    """Parse a file name without its extension into the shot and the suffix, or say why it is not a Multi-PIE name."""
    match = IMAGE_NAME.fullmatch(stem)
    if not match:
        return "name does not match SSS_0S_RR_CCC_II"
    *parts, suffix = match.groups()
    shot = Shot(*parts)
    if (int(shot.session), int(shot.recording)) not in EXPRESSIONS:
        return f"Multi-PIE has no recording {shot.recording} in session {shot.session}"
    if shot.camera not in CAMERAS:
        return f"Multi-PIE has no camera {shot.camera}"
    if shot.illumination not in ILLUMINATIONS:
        return f"Multi-PIE has no illumination {shot.illumination}"
    return shot, suffix or ""


def _validate_choice(
    option: str, names: Iterable[str], valid_names: Sequence[str], normalize: Callable[[str], str]
) -> tuple[str, ...]:
    chosen = tuple(normalize(name) for name in names)
    for name in chosen:
        if name not in valid_names:
            raise UserError(f"{option} must be among {', '.join(valid_names)}, got {name}.")
    if not chosen:
        raise UserError(f"{option} must name some of {', '.join(valid_names)}, got none.")
    return chosen


def _select(
    files: list[tuple[Path, str]], selection: _Selection, left_out: Counter[str]
) -> tuple[list[_Image], list[Rejected]]:
    """One image of each selected shot. Of several copies the one with the shortest suffix is used."""
    rejected: list[Rejected] = []
    images: dict[Shot, _Image] = {}
    for path, key in files:
        parsed = parse_shot(path.stem)
        if isinstance(parsed, str):
            rejected.append(Rejected(key, parsed))
            continue
        shot, suffix = parsed
        if kind := selection.why_left_out(shot):
            left_out[kind] += 1
            continue
        copies = [_Image(shot, suffix, path, key)]
        if shot in images:
            copies.append(images[shot])
        images[shot], *duplicates = sorted(copies, key=lambda image: (len(image.suffix), image.key))
        rejected += [Rejected(image.key, "another copy of this image is used") for image in duplicates]
    return list(images.values()), rejected


def _list_landmark_files(folder: Path) -> LandmarkFiles:
    if not folder.is_dir():
        raise UserError(f"--mat-labels must be a folder of landmark files, got {folder}, which is no folder.")
    files: LandmarkFiles = defaultdict(dict)
    for path, _ in list_images(folder, types=frozenset({".mat"}))[0]:
        if match := LANDMARK_NAME.fullmatch(path.name):
            shot = Shot(*match.groups()[:5])
            files[shot.crop_key][shot.illumination] = path
    if not files:
        raise UserError(f"--mat-labels must hold files named like 001_01_01_051_05_lm.mat, got {folder} without any.")
    return files


def _group_by_crop(images: list[_Image], landmark_files: LandmarkFiles) -> list[Source]:
    groups: dict[tuple[CropKey, str], list[_Image]] = defaultdict(list)
    for image in images:
        groups[image.shot.crop_key, image.suffix].append(image)
    sources = []
    for crop_key, suffix in sorted(groups):
        # A suffix such as _cropped marks an edited image, which the landmarks do not fit.
        by_illumination = {} if suffix else landmark_files.get(crop_key, {})
        sources += _sources_of_crop("_".join((*crop_key, suffix)), groups[crop_key, suffix], by_illumination)
    return sources


def _sources_of_crop(crop_group: str, images: list[_Image], landmark_files: dict[str, Path]) -> list[Source]:
    """The sources of one crop: first those with a landmark file, then from the frontal flash to those at the sides.

    landmark_files: by illumination. Those of illuminations that are not selected serve images without their own.
    """
    illuminations = {image.shot.illumination for image in images}
    spare = [path for illumination, path in sorted(landmark_files.items()) if illumination not in illuminations]
    sources = []
    for image in sorted(images, key=lambda image: _search_order(image.shot, landmark_files)):
        landmark_file = landmark_files.get(image.shot.illumination) or (spare.pop() if spare else None)
        sources.append(_to_source(image, crop_group, landmark_file))
    return sources


def _search_order(shot: Shot, landmark_files: dict[str, Path]) -> tuple[bool, int]:
    return shot.illumination not in landmark_files, abs(int(shot.illumination) - FRONTAL_FLASH)


def _to_source(image: _Image, crop_group: str, landmark_file: Path | None) -> Source:
    shot = image.shot
    return Source(
        image.path,
        image.key,
        crop_group,
        shot.subject,
        shot.expression,
        sequence=shot.session,
        condition=f"{shot.camera}_{shot.illumination}",
        frame=int(shot.recording),
        intensity=0.0 if shot.expression == NEUTRAL else 1.0,
        landmark_file=landmark_file,
    )


def _notes(sources: list[Source], landmark_files: LandmarkFiles) -> list[str]:
    if not landmark_files:
        return []
    with_landmarks = {source.crop_group for source in sources if source.landmark_file}
    groups = {source.crop_group for source in sources}
    remark = "" if with_landmarks == groups else "; the detector finds the others"
    return [f"{len(with_landmarks)} of {len(groups)} crops have landmark files{remark}."]
