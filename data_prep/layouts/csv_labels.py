"""Tables that a user gives beside the pictures: boxes, points and intensities by CSV. Imports sources and faces.

Every error names the file, the line, what was found and what was expected.
"""

import csv
import math
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data_prep.cropping.face_crop import square_on_eyes, square_on_points
from data_prep.layouts.scan import Rejected, Source
from facedisent_jax.errors import UserError

Square = tuple[float, float, float, float]
BOX = ("left", "top", "right", "bottom")
EYES = ("left_eye_x", "left_eye_y", "right_eye_x", "right_eye_y")
POINTS = tuple(f"{axis}{number}" for number in range(68) for axis in "xy")
UNUSABLE = "line of labels that cannot be used"
FRAME = ("subject", "take", "frame", "intensity")
NAMES = {"person": "subject"}
"""Columns that may name a picture in place of `path`, beside subject and expression themselves."""


def read_boxes(path: Path) -> dict[tuple[str, ...], Square]:
    """Columns path, left, top, right, bottom (pixels of the upright picture) -> the box of each picture."""
    table = {}
    for line, key, (left, top, right, bottom) in _rows(path, BOX):
        if right <= left or bottom <= top:
            raise UserError(
                f"{path}, line {line}: the box from ({left:g}, {top:g}) to ({right:g}, {bottom:g}) has no area; "
                "right must be larger than left, and bottom than top."
            )
        table[key] = (left, top, right, bottom)
    return table


def read_points(path: Path) -> dict[tuple[str, ...], Square]:
    """Columns path and x0, y0 ... x67, y67 (the usual 68 points), or the positions of the eyes -> tight crops."""
    with_eyes = EYES[0] in _header(path)
    table = {}
    for line, key, values in _rows(path, EYES if with_eyes else POINTS):
        at = np.reshape(values, (-1, 2))
        square = square_on_eyes(*at) if with_eyes else square_on_points(at)
        if square.side <= 0:
            raise UserError(f"{path}, line {line}: both eyes are at the same point.")
        table[key] = tuple(square)
    return table


def read_intensities(path: Path) -> dict[tuple[str, ...], float]:
    """Columns path, intensity (0 neutral to 1) -> the intensity of each picture."""
    table = {}
    for line, key, (value,) in _rows(path, ("intensity",)):
        if not 0 <= value <= 1:
            raise UserError(f"{path}, line {line}: intensity {value:g}; a number from 0 (neutral) to 1 was expected.")
        table[key] = value
    return table


class FrameLabels(NamedTuple):
    """Intensities of frames by CSV.

    path:           the file.
    values:         (subject, expression, take, frame) -> intensity; the expression is "" if there is no such column.
    faults:         the same key -> what is wrong with what the file says of that frame.
    remarks:        lines that name no frame.
    with_expression: whether there is a column `expression`.
    """

    path: Path
    values: dict[tuple[str, str, str, int], float]
    faults: dict[tuple[str, str, str, int], str]
    remarks: list[Rejected]
    with_expression: bool

    def key(self, subject: str, expression: str, take: str, frame: int) -> tuple[str, str, str, int]:
        return subject, expression if self.with_expression else "", take, frame


def read_frame_labels(path: Path) -> FrameLabels:
    """Columns subject, take, frame, intensity (0 neutral to 1) and, if there is one, expression; others are ignored.

    A line that is wrong costs its frame alone. Raises PrepError if a column is missing.
    """
    with _open(path) as file:
        rows = _cells(path, file)
        header = [name.strip().lower() for name in next(rows, (1, []))[1]]
        if missing := [name for name in FRAME if name not in header]:
            raise UserError(
                f"{path}, line 1: no column {missing[0]!r}; the columns {', '.join(FRAME)} (and maybe expression) "
                f"were expected, found {', '.join(header[:8]) or 'nothing'}."
            )
        labels = FrameLabels(path, {}, {}, [], "expression" in header)
        lines: dict[tuple[str, str, str, int], int] = {}
        for line, cells in rows:
            if any(cells):
                _one_frame(labels, lines, line, header, [cell.strip() for cell in cells])
    return labels


def _one_frame(labels: FrameLabels, lines: dict, line: int, header: list[str], cells: list[str]) -> None:
    where = f"{labels.path}, line {line}"
    if len(cells) != len(header):
        said = f"{len(cells)} columns, {len(header)} were expected as in line 1"
        labels.remarks.append(Rejected(where, f"{UNUSABLE}: {said}"))
        return
    row = dict(zip(header, cells, strict=True))
    if not row["frame"].isdecimal() or len(row["frame"]) > 18:
        said = f"frame is {row['frame']!r}, a whole number was expected"
        labels.remarks.append(Rejected(where, f"{UNUSABLE}: {said}"))
        return
    key = labels.key(row["subject"], row.get("expression", "").lower(), row["take"], int(row["frame"]))
    try:
        value = float(row["intensity"])
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1:
        said = f"{where}: {row['intensity']!r}, a number from 0 (neutral) to 1 was expected"
        labels.faults[key] = f"intensity outside 0 to 1 in the labels: {said}"
    elif labels.values.get(key, value) != value:
        said = f"{where}: {value:g}, but {labels.values[key]:g} in line {lines[key]}"
        labels.faults[key] = f"two intensities in the labels: {said}"
    else:
        labels.values[key], lines[key] = value, line


def lookup(table: dict, source: Source):
    """What `table` says of the picture, None if nothing."""
    found = table.get(("path", source.key))
    if found is None and source.subject:
        found = table.get(("subject", source.subject, source.expression))
    return found


def require_matches(path: Path, table: dict, sources: list[Source]) -> None:
    """Refuse a table none of whose lines is about one of the pictures."""
    if table and not any(lookup(table, source) is not None for source in sources):
        first = " ".join(next(iter(table))[1:])
        known = f" (such as {sources[0].key})" if sources else ""
        raise UserError(
            f"{path} names none of the {len(sources)} pictures: its first line is about {first!r}; "
            f"paths are relative to RAW{known}."
        )


def _header(path: Path) -> list[str]:
    with _open(path) as file:
        return next(_cells(path, file), (1, []))[1]


def _rows(path: Path, wanted: tuple[str, ...]) -> Iterator[tuple[int, tuple[str, ...], list[float]]]:
    """Line number, the picture that the line is about, and the numbers in the wanted columns."""
    with _open(path) as file:
        rows = _cells(path, file)
        header = [NAMES.get(name.strip().lower(), name.strip().lower()) for name in next(rows, (1, []))[1]]
        missing = [name for name in wanted if name not in header]
        by_path = "path" in header
        if not by_path and not {"subject", "expression"} <= set(header):
            missing.insert(0, "path")
        if missing:
            listed = ", ".join(wanted) if len(wanted) < 10 else f"{', '.join(wanted[:4])} ... {wanted[-1]}"
            raise UserError(
                f"{path}, line 1: no column {missing[0]!r}; the columns path, {listed} were expected, "
                f"found {', '.join(header[:8]) or 'nothing'}{', ...' if len(header) > 8 else ''}."
            )
        at = [header.index(name) for name in wanted]
        for line, cells in rows:
            if not any(cells):
                continue
            if len(cells) != len(header):
                raise UserError(f"{path}, line {line}: {len(cells)} columns, {len(header)} were expected as in line 1.")
            if by_path:
                named = cells[header.index("path")].strip().replace("\\", "/").removeprefix("./")
                key: tuple[str, ...] = ("path", named)
            else:
                key = ("subject", *(cells[header.index(name)].strip() for name in ("subject", "expression")))
            yield line, key, [_number(path, line, name, cells[k]) for name, k in zip(wanted, at, strict=True)]


def _open(path: Path):
    if not path.is_file():
        raise UserError(f"There is no file {path}.")
    return path.open(newline="", encoding="utf-8-sig")


def _cells(path: Path, file) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(file)
    try:
        for cells in reader:
            yield reader.line_num, cells
    except (csv.Error, UnicodeDecodeError) as error:
        raise UserError(f"{path}, after line {reader.line_num}: not a CSV file in UTF-8 ({error}).") from error


def _number(path: Path, line: int, column: str, cell: str) -> float:
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UserError(f"{path}, line {line}: {column} is {cell.strip()!r}; a number was expected.")
    return value
