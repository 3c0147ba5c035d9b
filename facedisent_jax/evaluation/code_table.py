"""Latent codes as a table, one row an image: .csv for people and other programs, .npz for NumPy."""

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

from facedisent_jax.data import reading
from facedisent_jax.data.record import SPLITS, Faces, Record
from facedisent_jax.errors import UserError
from facedisent_jax.files import check_suffix, replacing, write_atomically
from facedisent_jax.models import Codes
from facedisent_jax.trained_model import TrainedModel

SUFFIXES = (".csv", ".npz")
LABELS = ("path", "subject", "expression", "intensity")
PREFIXES = {"identity": "id_", "expression": "ex_"}  # of the columns id_00, id_01, ..., ex_00, ...


class CodeTable(NamedTuple):
    """n images and their codes.

    path, subject, expression: texts, "" if unknown.
    intensity: of the label, NaN if unknown.
    codes:     identity and expression, [n, dim] each.
    readings:  the intensity read from the code, [n], by action.
    """

    path: list[str]
    subject: list[str]
    expression: list[str]
    intensity: Float[np.ndarray, "n"]
    codes: Codes
    readings: dict[str, Float[np.ndarray, "n"]]


def encode(
    model: TrainedModel, names: Sequence[str], crops: Sequence[UInt8[np.ndarray, "64 64 3"]], data: Sequence[Path] = ()
) -> CodeTable:
    """The codes of crops, by name, and of all images of data folders, which are called FOLDER/SPLIT/number.

    Raises UserError if there is no image, or if a folder was cropped with another margin than the training data.
    """
    parts = [Faces.of([Record(crop) for crop in crops])]
    names = list(names)
    for folder in data:
        margin, expected = reading.crop_of([folder])["margin"], model.info["crop"]["margin"]
        if margin != expected:
            raise UserError(f"{folder} must be cropped as the training data (--margin {expected}), got {margin}.")
        for split in SPLITS:
            parts.append(reading.read_split(folder, split, in_memory=False))
            names += [f"{folder}/{split}/{k}" for k in range(len(parts[-1]))]
    if not names:
        raise UserError("There must be an image to encode, got none.")
    encoded = [model.encode(part.image[:]) for part in parts if len(part)]
    codes = Codes._make(np.concatenate(code) for code in zip(*encoded, strict=True))
    subject, expression = (
        [str(text) for part in parts for text in getattr(part, name)] for name in ("subject", "expression")
    )
    intensity = np.concatenate([part.intensity for part in parts])
    readings = {action: model.intensity(codes.expression, action) for action in model.expressions}
    return CodeTable(names, subject, expression, intensity, codes, readings)


def write(table: CodeTable, path: Path) -> None:
    """Columns path, subject, expression, intensity, reading_ACTION, id_00 ..., ex_00 ...; in .npz, arrays of them.

    Unknown intensities are empty (.csv) or NaN (.npz). Raises UserError.
    """
    if path.suffix.lower() == ".npz":
        arrays = {name: np.asarray(getattr(table, name)) for name in LABELS}
        arrays |= {f"reading_{action}": values for action, values in table.readings.items()}
        arrays |= {f"{name}_code": np.asarray(code) for name, code in table.codes._asdict().items()}
        with replacing(path) as partial:
            np.savez(partial, allow_pickle=False, **arrays)
        return
    columns = {name: [*getattr(table, name)] for name in LABELS}
    columns["intensity"] = ["" if math.isnan(value) else _digits(value) for value in table.intensity]
    columns |= {f"reading_{action}": [*map(_digits, values)] for action, values in table.readings.items()}
    for name, code in table.codes._asdict().items():
        width = len(str(code.shape[1] - 1))
        for k in range(code.shape[1]):
            columns[f"{PREFIXES[name]}{k:0{width}}"] = [*map(_digits, np.asarray(code)[:, k])]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    write_atomically(path, text.getvalue())


def _digits(value: float) -> str:
    return f"{value:.9g}"  # a float32 is read back exactly


def read(path: Path, dim: int) -> tuple[list[str], Codes]:
    """The column path ("" if there is none), and the codes, of a table. dim: length of each code.

    Raises UserError for a table that is not of codes of this length.
    """
    check_suffix(path, SUFFIXES)
    try:
        names, codes = _read_npz(path) if path.suffix.lower() == ".npz" else _read_csv(path)
    except (OSError, ValueError, KeyError, csv.Error) as error:
        raise UserError(f"{path} cannot be read as a table of codes ({error}).") from error
    for name, code in codes._asdict().items():
        if code.ndim != 2 or code.shape[1] != dim or not len(code):
            raise UserError(f"The {name} codes of {path} must be rows of {dim} numbers, got {list(code.shape)}.")
        if not np.isfinite(code).all():
            raise UserError(f"The {name} codes of {path} must be numbers, got {code[~np.isfinite(code)][0]}.")
    return names, codes


def _read_npz(path: Path) -> tuple[list[str], Codes]:
    with np.load(path, allow_pickle=False) as arrays:
        codes = Codes._make(np.asarray(arrays[f"{name}_code"], np.float32) for name in Codes._fields)
        return [str(name) for name in arrays["path"]] if "path" in arrays else [""] * len(codes.identity), codes


def _read_csv(path: Path) -> tuple[list[str], Codes]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        header, *rows = csv.reader(file)
    rows = [row for row in rows if row]
    if not rows:
        raise ValueError("it has no rows")
    for row in rows:
        if len(row) != len(header):
            raise ValueError(f"a row has {len(row)} cells and the first line {len(header)}")
    columns = {prefix: [k for k, name in enumerate(header) if name.startswith(prefix)] for prefix in PREFIXES.values()}
    codes = Codes._make(
        np.array([[row[k] for k in columns[PREFIXES[name]]] for row in rows], np.float32) for name in Codes._fields
    )
    return [row[header.index("path")] for row in rows] if "path" in header else [""] * len(rows), codes
