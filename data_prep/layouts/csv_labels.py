"""CSV tables that a user gives with the images: tight crops, landmarks and intensities.

Every error names the file, the line, what was expected and what was found.
"""

import csv
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data_prep.cropping.face_crop import square_on_eyes, square_on_points
from data_prep.layouts.scan import Rejected, Source, plain_name
from facedisent_jax.errors import UserError

BoxEdges = tuple[float, float, float, float]  # left, top, right, bottom in pixels of the upright image
ImageKey = tuple[str, ...]  # ("path", path) or ("subject", subject, expression): how a line names images
FrameKey = tuple[str, str, str, int]  # subject, expression, take, frame

BOX_COLUMNS = ("left", "top", "right", "bottom")
EYE_COLUMNS = ("left_eye_x", "left_eye_y", "right_eye_x", "right_eye_y")
LANDMARK_COLUMNS = tuple(f"{axis}{number}" for number in range(68) for axis in "xy")
FRAME_COLUMNS = ("subject", "take", "frame", "intensity")
COLUMN_ALIASES = {"person": "subject"}
# More values beyond [0, 1] than this, as a fraction of those that are not 0, are of another scale. Fewer are typos.
MAX_STRAY_FRACTION = 0.1
SCALE_OF_1 = 1.5  # the largest intensity of a scale whose full expression is about 1


def read_boxes(path: Path) -> dict[ImageKey, BoxEdges]:
    """Read the tight crop of each image from the columns path, left, top, right, bottom."""
    table = {}
    for line, key, (left, top, right, bottom) in _read_numbers(path, BOX_COLUMNS):
        if right <= left or bottom <= top:
            raise UserError(
                f"{path}, line {line}: right must be larger than left, and bottom than top, "
                f"got the corners ({left:g}, {top:g}) and ({right:g}, {bottom:g})."
            )
        table[key] = (left, top, right, bottom)
    return table


def read_points(path: Path) -> dict[ImageKey, BoxEdges]:
    """Read the tight crop of each image from its landmarks.

    The columns are path and the usual 68 landmarks, x0, y0 ... x67, y67, or path and the positions of both eyes.
    """
    has_eyes = EYE_COLUMNS[0] in _read_header(path)
    table = {}
    for line, key, values in _read_numbers(path, EYE_COLUMNS if has_eyes else LANDMARK_COLUMNS):
        points = np.reshape(values, (-1, 2))
        square = square_on_eyes(*points) if has_eyes else square_on_points(points)
        if square.side <= 0:
            raise UserError(f"{path}, line {line}: the eyes must be at different points, got the same for both.")
        table[key] = tuple(square)
    return table


def read_intensities(path: Path) -> dict[ImageKey, float]:
    """Read the intensity of each image, 0 (neutral) to 1, from the columns path, intensity."""
    rows = [(line, key, value) for line, key, (value,) in _read_numbers(path, ("intensity",))]
    for line, _, value in rows:
        if not 0 <= value <= 1:
            advice = _scale_advice([value for *_, value in rows])
            raise UserError(f"{path}, line {line}: intensity must be from 0 (neutral) to 1, got {value:g}.{advice}")
    return {key: value for _, key, value in rows}


def _scale_advice(values: Sequence[float]) -> str:
    """What to do with a file whose intensities are on another scale than [0, 1], "" if they are not."""
    n_beyond = sum(not 0 <= value <= 1 for value in values)
    if n_beyond <= MAX_STRAY_FRACTION * sum(value != 0 for value in values):
        return ""
    low, high = min(values), max(values)
    description = f" The intensities of this file run from {low:g} to {high:g}: "
    if low < 0:
        return description + "shift and scale them so that a neutral face has 0 and a full expression 1."
    full = 100 if 10 < high <= 100 else math.ceil(high) if high > SCALE_OF_1 else high
    return description + f"divide them by the value of a full expression, such as {full:g}."


def add_boxes(sources: list[Source], boxes: Path | None, points: Path | None) -> list[Source]:
    """Return the sources with their tight crops from the table of boxes or of points, if one is given."""
    path = boxes or points
    if path is None:
        return sources
    table = read_boxes(path) if boxes else read_points(path)
    require_matches(path, table, sources)
    return [source._replace(box=lookup(table, source)) for source in sources]


def lookup(table: dict, source: Source):
    """Return what a table says about an image, None if nothing."""
    return next((table[key] for key in _keys(source) if key in table), None)


def unused_lines(table: dict, sources: Sequence[Source]) -> list[str]:
    """What the lines of a table name that name none of the images."""
    used = {key for source in sources for key in _keys(source)}
    return [" ".join(key[1:]) for key in table if key not in used]


def _keys(source: Source) -> list[ImageKey]:
    """How a line of a table can name an image."""
    by_subject = _subject_key(source.subject, source.expression)
    return [("path", plain_name(source.key)), *([by_subject] if source.subject else [])]


def _subject_key(subject: str, expression: str) -> ImageKey:
    return "subject", plain_name(subject), plain_name(expression).casefold()


def require_matches(path: Path, table: dict, sources: Sequence[Source]) -> None:
    """Raise UserError if a table names none of the images."""
    if table and not any(lookup(table, source) is not None for source in sources):
        first = " ".join(next(iter(table))[1:])
        example = f" (such as {sources[0].key})" if sources else ""
        raise UserError(
            f"{path} must name some of the {len(sources)} images{example}, got {first!r} in its first line. "
            "Paths are relative to RAW."
        )


class FrameLabels(NamedTuple):
    """Intensities of frames from a table.

    values:         intensity of each frame, 0 (neutral) to 1; the expression in a key is "" without a column for it.
    errors:         what is wrong with the label of a frame.
    remarks:        lines that name no frame.
    has_expression: whether the table has a column `expression`.
    """

    path: Path
    values: dict[FrameKey, float]
    errors: dict[FrameKey, str]
    remarks: list[Rejected]
    has_expression: bool

    def key(self, subject: str, expression: str, take: str, frame: int) -> FrameKey:
        return subject, expression if self.has_expression else "", take, frame


def read_frame_labels(path: Path) -> FrameLabels:
    """Read the columns subject, take, frame, intensity and optionally expression. Other columns are ignored.

    A faulty line costs its frame alone. Raises UserError if a column is missing, or if the intensities are on another
    scale.
    """
    with _open(path) as file:
        rows = _read_rows(path, file)
        header = [name.strip().lower() for name in next(rows, (1, []))[1]]
        if missing := [name for name in FRAME_COLUMNS if name not in header]:
            raise UserError(
                f"{path}, line 1: the columns must be {', '.join(FRAME_COLUMNS)} (and optionally expression), "
                f"got {_shorten(header)}, without {missing[0]!r}."
            )
        labels = FrameLabels(path, {}, {}, [], "expression" in header)
        line_of_frame: dict[FrameKey, int] = {}
        values = [
            _add_frame(labels, line_of_frame, line, header, list(map(plain_name, cells)))
            for line, cells in rows
            if any(cells)
        ]
    if advice := _scale_advice([value for value in values if math.isfinite(value)]):
        raise UserError(f"{path}: the intensities must be from 0 (neutral) to 1.{advice}")
    return labels


def _add_frame(
    labels: FrameLabels, line_of_frame: dict[FrameKey, int], line: int, header: list[str], cells: list[str]
) -> float:
    """Add what a line says about a frame. Returns the intensity as it stands there, NaN if there is none."""
    where = f"{labels.path}, line {line}"
    if len(cells) != len(header):
        message = f"must have {len(header)} columns as line 1 has, got {len(cells)}"
        labels.remarks.append(Rejected(where, f"unusable line of labels: {message}"))
        return math.nan
    row = dict(zip(header, cells, strict=True))
    if not row["frame"].isdecimal() or len(row["frame"]) > 18:
        message = f"frame must be a whole number, got {row['frame']!r}"
        labels.remarks.append(Rejected(where, f"unusable line of labels: {message}"))
        return math.nan
    key = labels.key(row["subject"], row.get("expression", "").lower(), row["take"], int(row["frame"]))
    try:
        value = float(row["intensity"])
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1:
        message = f"must be from 0 (neutral) to 1, got {row['intensity']!r}"
        labels.errors[key] = f"unusable intensity in the labels: {where}: {message}"
    elif labels.values.get(key, value) != value:
        message = f"{value:g}, but {labels.values[key]:g} in line {line_of_frame[key]}"
        labels.errors[key] = f"two intensities in the labels: {where}: {message}"
    else:
        labels.values[key], line_of_frame[key] = value, line
    return value


def _read_header(path: Path) -> list[str]:
    with _open(path) as file:
        return next(_read_rows(path, file), (1, []))[1]


def _read_numbers(path: Path, columns: tuple[str, ...]) -> Iterator[tuple[int, ImageKey, list[float]]]:
    """For each line its number, the image it names, and the numbers in the given columns."""
    with _open(path) as file:
        rows = _read_rows(path, file)
        names = [name.strip().lower() for name in next(rows, (1, []))[1]]
        header = [COLUMN_ALIASES.get(name, name) for name in names]
        _check_columns(path, header, columns)
        for line, cells in rows:
            if not any(cells):
                continue
            if len(cells) != len(header):
                raise UserError(
                    f"{path}, line {line}: a line must have {len(header)} columns as line 1 has, got {len(cells)}."
                )
            row = dict(zip(reversed(header), reversed(cells), strict=True))  # of equal names the first one counts
            yield line, _image_key(row), [_parse_number(path, line, name, row[name]) for name in columns]


def _check_columns(path: Path, header: list[str], columns: tuple[str, ...]) -> None:
    missing = [name for name in columns if name not in header]
    if "path" not in header and not {"subject", "expression"} <= set(header):
        missing.insert(0, "path")
    if missing:
        expected = ", ".join(columns) if len(columns) < 10 else f"{', '.join(columns[:4])} ... {columns[-1]}"
        raise UserError(
            f"{path}, line 1: the columns must be path, {expected}, got {_shorten(header)}, without {missing[0]!r}."
        )


def _image_key(row: dict[str, str]) -> ImageKey:
    if "path" in row:
        return "path", plain_name(row["path"]).replace("\\", "/").removeprefix("./")
    return _subject_key(row["subject"], row["expression"])


def _shorten(header: list[str]) -> str:
    return f"{', '.join(header[:8]) or 'nothing'}{', ...' if len(header) > 8 else ''}"


def _open(path: Path):
    if not path.is_file():
        raise UserError(f"There is no file {path}.")
    return path.open(newline="", encoding="utf-8-sig")


def _read_rows(path: Path, file) -> Iterator[tuple[int, list[str]]]:
    """The number and the cells of each line."""
    reader = csv.reader(file)
    try:
        for cells in reader:
            yield reader.line_num, cells
    except (csv.Error, UnicodeDecodeError) as error:
        raise UserError(f"{path} must be a CSV file in UTF-8, got {error} after line {reader.line_num}.") from error


def _parse_number(path: Path, line: int, column: str, cell: str) -> float:
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UserError(f"{path}, line {line}: {column} must be a number, got {cell.strip()!r}.")
    return value
