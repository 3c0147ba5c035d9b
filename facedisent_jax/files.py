"""Files that are either whole or not there."""

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from facedisent_jax.errors import UserError

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
