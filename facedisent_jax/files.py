"""Files that are either whole or not there, and never written over what they are made from."""

import os
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from facedisent_jax.errors import UserError

STILLS = (".png", ".jpg", ".jpeg")  # endings of a picture
PARTIAL = ".partial-"  # how the name of an unfinished file begins


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`, with the same ending, to write to. It becomes `path` at the end of the block, or
    is deleted where the block fails.

    Raises UserError where the file cannot be written.
    """
    if not path.parent.is_dir():
        raise UserError(f"There is no folder {path.parent} to write {path.name} into.")
    partial = path.with_name(f"{PARTIAL}{uuid.uuid4().hex[:8]}-{path.name}")
    try:
        yield partial
        partial.replace(path)
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror or error}).") from error
    finally:
        with suppress(OSError):
            partial.unlink()


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file so that neither a reader nor a crash ever finds half of it. Raises UserError."""
    with replacing(path) as partial, partial.open("wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)
        file.flush()
        os.fsync(file.fileno())


def check_suffix(path: Path, suffixes: Sequence[str]) -> None:
    """Raises UserError unless the file name ends in one of `suffixes`."""
    if path.suffix.lower() not in suffixes:
        raise UserError(f'The ending of {path} must be one of {", ".join(suffixes)}, got "{path.suffix}".')


def check_out(out: Path, inputs: Iterable[Path], name: str = "--out") -> None:
    """Raises UserError where `out` is one of the inputs or lies in one, by whatever spelling or link.

    inputs: files and folders that are read. name: of the option or argument that gives `out`.
    """
    for path in inputs:
        is_input = out.exists() and path.exists() and out.samefile(path)
        if is_input or (path.is_dir() and path.resolve() in out.resolve().parents):
            raise UserError(f"{name} must not be an input, nor lie in one, got {out} (input {path}).")
