"""The exact factors of drawn images: `factors.npz` in a data folder, a row an image. numpy alone reads it too."""

import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from facedisent_jax.data.record import FACTORS_FILE, Faces
from facedisent_jax.errors import UserError


class Factors(NamedTuple):
    """The k numbers that each of n images was drawn from.

    subject, sequence, frame: [n] each, the record that a row belongs to.
    name, group:              [k] each; the group is identity, smile (the way of it), photograph or intensity.
    low, high:                [k] each, the range that the factor is drawn from.
    value:                    [n, k].
    """

    subject: np.ndarray
    sequence: np.ndarray
    frame: Int[np.ndarray, "n"]
    name: np.ndarray
    group: np.ndarray
    low: Float[np.ndarray, "k"]
    high: Float[np.ndarray, "k"]
    value: Float[np.ndarray, "n k"]


def write_factors(folder: Path, factors: Factors) -> None:
    np.savez_compressed(folder / FACTORS_FILE, **factors._asdict())


def read_factors(folder: Path) -> Factors | None:
    """The factors of a data folder; None where it has none. Raises UserError for a damaged file."""
    path = folder / FACTORS_FILE
    if not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as arrays:
            factors = Factors(**{name: arrays[name] for name in Factors._fields})
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} is damaged ({error}). Prepare the folder again.") from error
    images, names = len(factors.subject), len(factors.name)
    if factors.value.shape != (images, names) or any(
        len(column) != length for column, length in zip(factors[:-1], [images] * 3 + [names] * 4, strict=True)
    ):
        raise UserError(f"{path} is damaged: its columns differ in length. Prepare the folder again.")
    return factors


def values_of(factors: Factors, faces: Faces) -> Float[np.ndarray, "m k"]:
    """The factors of each record of `faces`. Raises UserError for a record without factors."""
    keys = zip(factors.subject.tolist(), factors.sequence.tolist(), factors.frame.tolist(), strict=True)
    row_by_key = {key: row for row, key in enumerate(keys)}
    rows = []
    for key in zip(faces.subject.tolist(), faces.sequence.tolist(), faces.frame.tolist(), strict=True):
        if key not in row_by_key:
            record = "/".join(str(part) for part in key if part != "")
            raise UserError(f"{FACTORS_FILE} must have a row for each record, got none for {record}.")
        rows.append(row_by_key[key])
    return factors.value[rows]
