"""Latent codes as a table, one row an image: .csv for people and other programs, .npz for NumPy."""

import csv
import math
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

from facedisent_jax.config import IMAGE_SIZE
from facedisent_jax.data import reading
from facedisent_jax.data.record import SPLITS
from facedisent_jax.errors import UserError
from facedisent_jax.files import check_suffix, replacing
from facedisent_jax.models import Codes
from facedisent_jax.trained_model import TrainedModel

SUFFIXES = (".csv", ".npz")
LABELS = ("path", "subject", "expression", "intensity")
CHUNK = 256  # images in memory at a time
PREFIXES = {"identity": "id_", "expression": "ex_"}  # of the columns id_00, id_01, ..., ex_00, ...


class CodeTable(NamedTuple):
    """n images and their codes.

    path, subject, expression: texts, "" if unknown.
    intensity: of the label, NaN if unknown.
    codes:     identity and expression, [n, dim] each.
    readings:  the intensity read from the code, [n], by action.
    checksum:  of the weights of the model that made the codes.
    """

    path: list[str]
    subject: list[str]
    expression: list[str]
    intensity: Float[np.ndarray, "n"]
    codes: Codes
    readings: dict[str, Float[np.ndarray, "n"]]
    checksum: str


def encode(
    model: TrainedModel,
    names: Sequence[str],
    crops: Iterable[tuple[int, UInt8[np.ndarray, "64 64 3"]]],
    data: Sequence[Path] = (),
) -> CodeTable:
    """The codes of photographs, and of all images of data folders, which are called FOLDER/SPLIT/number.

    names: of all photographs. crops: the position of a photograph in `names` and its crop, in any order. A photograph
    without a crop is left out. Only some crops are in memory at a time.

    Raises UserError if there is no image, or if a folder was cropped with another margin than the training data.
    """
    check_margins(model, data)
    position, codes = _encode_crops(model, crops)
    order = np.argsort(position)
    path = [names[int(position[k])] for k in order]
    subject, expression = [""] * len(path), [""] * len(path)
    intensity = [np.full(len(path), np.nan, np.float32)]
    parts = [Codes._make(code[order] for code in codes)]
    for folder in data:
        for split in SPLITS:
            faces = reading.read_split(folder, split, in_memory=False)
            path += [f"{folder}/{split}/{k}" for k in range(len(faces))]
            subject += map(str, faces.subject)
            expression += map(str, faces.expression)
            intensity.append(faces.intensity)
            parts += [model.encode(faces.image[k : k + CHUNK]) for k in range(0, len(faces), CHUNK)]
    if not path:
        raise UserError("There must be an image to encode, got none.")
    codes = _join(parts)
    readings = {action: model.intensity(codes.expression, action) for action in model.expressions}
    return CodeTable(path, subject, expression, np.concatenate(intensity), codes, readings, model.checksum)


def check_margins(model: TrainedModel, data: Sequence[Path]) -> None:
    """Raises UserError for a data folder that was cropped with another margin than the training data."""
    for folder in data:
        margin, expected = reading.crop_of([folder])["margin"], model.info["crop"]["margin"]
        if margin != expected:
            raise UserError(f"{folder} must be cropped as the training data (--margin {expected}), got {margin}.")


def _encode_crops(
    model: TrainedModel, crops: Iterable[tuple[int, UInt8[np.ndarray, "64 64 3"]]]
) -> tuple[list[int], Codes]:
    crops, position = iter(crops), []
    parts = [model.encode(np.empty((0, IMAGE_SIZE, IMAGE_SIZE, 3), np.uint8))]
    while chunk := list(islice(crops, CHUNK)):
        position += [k for k, _ in chunk]
        parts.append(model.encode(np.stack([crop for _, crop in chunk])))
    return position, _join(parts)


def _join(parts: Sequence[Codes]) -> Codes:
    return Codes._make(np.concatenate(code) for code in zip(*parts, strict=True))


def write(table: CodeTable, path: Path) -> None:
    """Columns path, subject, expression, intensity, reading_ACTION, id_00 ..., ex_00 ..., checksum; in .npz, arrays.

    Unknown intensities are empty (.csv) or NaN (.npz). Raises UserError.
    """
    if path.suffix.lower() == ".npz":
        arrays = {name: np.asarray(getattr(table, name)) for name in LABELS}
        arrays |= {f"reading_{action}": values for action, values in table.readings.items()}
        arrays |= {f"{name}_code": np.asarray(code) for name, code in table.codes._asdict().items()}
        with replacing(path) as partial:
            np.savez(partial, allow_pickle=False, checksum=np.array(len(table.path) * [table.checksum]), **arrays)
        return
    header = [*LABELS, *(f"reading_{action}" for action in table.readings)]
    for name, code in table.codes._asdict().items():
        width = len(str(code.shape[1] - 1))
        header += [f"{PREFIXES[name]}{k:0{width}}" for k in range(code.shape[1])]
    header.append("checksum")
    with replacing(path) as partial, partial.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        numbers = np.column_stack([*table.readings.values(), *table.codes])
        for *labels, intensity, values in zip(
            table.path, table.subject, table.expression, table.intensity, numbers, strict=True
        ):
            intensity_text = "" if math.isnan(intensity) else _digits(intensity)
            writer.writerow([*labels, intensity_text, *map(_digits, values), table.checksum])


def _digits(value: float) -> str:
    return f"{value:.9g}"  # a float32 is read back exactly


def read(path: Path, model: TrainedModel) -> Codes:
    """The codes of a table. Without the column checksum they may be of any model with codes of this length.

    Raises UserError for a table that is not of codes of this length, or is of a model with other weights.
    """
    check_suffix(path, SUFFIXES)
    dim = model.config.model.code_dims
    try:
        checksums, codes = _read_npz(path) if path.suffix.lower() == ".npz" else _read_csv(path)
    except (OSError, ValueError, KeyError, csv.Error) as error:
        raise UserError(f"{path} cannot be read as a table of codes ({error}).") from error
    for name, code in codes._asdict().items():
        if code.ndim != 2 or code.shape[1] != dim or not len(code):
            raise UserError(f"The {name} codes of {path} must be rows of {dim} numbers, got {list(code.shape)}.")
        if not np.isfinite(code).all():
            raise UserError(f"The {name} codes of {path} must be numbers, got {code[~np.isfinite(code)][0]}.")
    if others := checksums - {model.checksum}:
        raise UserError(
            f"{path} must hold codes of these weights ({model.checksum}), got codes of others ({min(others)}). "
            "Decode it with the run and the --step that made it."
        )
    return codes


def _read_npz(path: Path) -> tuple[set[str], Codes]:
    with np.load(path, allow_pickle=False) as arrays:
        codes = Codes._make(np.asarray(arrays[f"{name}_code"], np.float32) for name in Codes._fields)
        return set(map(str, arrays["checksum"])) if "checksum" in arrays else set(), codes


def _read_csv(path: Path) -> tuple[set[str], Codes]:
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
    return {row[header.index("checksum")] for row in rows} if "checksum" in header else set(), codes
