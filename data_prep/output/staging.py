"""A data folder is built beside its final path and moved there once it is whole.

So a run that is killed leaves nothing that looks finished. What it does leave, the next run cleans up.
"""

import contextlib
import os
import re
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from data_prep.layouts.scan import decode_file_name
from facedisent_jax.data.record import FACTORS_FILE, NAME, PREP_FILE
from facedisent_jax.errors import UserError

REJECTED_FILE = "rejected.csv"
REMARKS_FILE = "remarks.csv"
SHEET_FILE = "contact_sheet.png"
CURVES_FILE = "intensity_curves.png"
OWN_FILES = re.compile(
    rf"{NAME}-.*\.tfrecord-.*|dataset_info\.json|features\.json"
    rf"|{PREP_FILE}|{FACTORS_FILE}|{REJECTED_FILE}|{REMARKS_FILE}|{SHEET_FILE}|{CURVES_FILE}"
)
STALE_AFTER_SECONDS = 24 * 3600  # a run on another machine that has written nothing for so long has died


def check_output_folder(out: Path | str, overwrite: bool) -> Path:
    """The path of the new data folder, with links resolved. Cleans up what killed runs have left beside it.

    Raises UserError if there is anything that this run must not replace.
    """
    out = Path(out).resolve()
    if decode_file_name(str(out)) != str(out):
        raise UserError(
            f"OUT must be a name in UTF-8, which TensorFlow needs, got {decode_file_name(str(out))}. "
            "In an ASCII locale set PYTHONUTF8=1."
        )
    _clean_up(out)
    if not out.exists():
        return out
    if not out.is_dir():
        raise UserError(f"OUT must be a folder, got the file {out}.")
    entries = sorted(entry.name for entry in out.iterdir())
    if not entries:
        return out
    if PREP_FILE not in entries:
        raise UserError(f"{out} was not made by this command (it holds {entries[0]}): choose another folder.")
    if not overwrite:
        raise UserError(f"{out} is already a data folder: add --overwrite to replace it, or choose another folder.")
    if foreign := [name for name in entries if not OWN_FILES.fullmatch(name)]:
        raise UserError(f"{out} also holds {foreign[0]}, which this command did not make: move it away first.")
    return out


@contextlib.contextmanager
def staging_folder(out: Path) -> Iterator[Path]:
    """A new folder beside `out`, deleted at the end of the block with all that is still in it."""
    out.parent.mkdir(parents=True, exist_ok=True)
    folder = _sibling(out, "incomplete")
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def move_into_place(finished: Path, out: Path, staging: Path) -> None:
    """Move a finished folder to `out`. An older one is deleted only after that."""
    if not out.exists() or not any(out.iterdir()):
        finished.rename(out)
        return
    old = _sibling(out, "replaced")
    try:
        out.rename(old)
        finished.rename(out)
    except BaseException:
        if old.exists() and not out.exists():
            old.rename(out)
        raise
    # It is deleted with the staging folder: a half-deleted one must not be taken for a folder to restore.
    old.rename(staging / "replaced")


def _sibling(out: Path, kind: str) -> Path:
    """The name says which process on which machine works on the folder, see `_clean_up`."""
    return out.with_name(f"{out.name}.{kind}-{socket.gethostname()}-{os.getpid()}")


def _clean_up(out: Path) -> None:
    """Delete what killed runs have left beside `out`. Restore a folder that one of them was replacing."""
    if not out.parent.is_dir():
        return
    for path in sorted(out.parent.iterdir()):
        match = re.fullmatch(rf"{re.escape(out.name)}\.(incomplete|replaced)-(.+)-(\d+)", path.name)
        if not match:
            continue
        kind, host, process = match.groups()
        is_dead = host == socket.gethostname() and not _is_alive(int(process))
        if not is_dead and _seconds_since_change(path) < STALE_AFTER_SECONDS:
            continue
        if kind == "replaced" and not out.exists():
            path.rename(out)
        else:
            shutil.rmtree(path, ignore_errors=True)


def _seconds_since_change(folder: Path) -> float:
    """A running process writes all the time; on another machine, this is the only sign of life."""
    try:
        return time.time() - max(path.lstat().st_mtime for path in [folder, *folder.rglob("*")])
    except OSError:  # somebody is working on it
        return 0.0


def _is_alive(process: int) -> bool:
    """Whether another process has this number. If the system does not tell, assume that it has."""
    if process == os.getpid():
        return False
    try:
        if os.name == "posix":
            os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
