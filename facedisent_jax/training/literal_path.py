"""Paths that Orbax takes as they are."""

import re
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from facedisent_jax.errors import UserError, reason

# In other paths it expands *?[], its libraries take /gs/ for a cloud, and turn \ into /.
LITERAL_PATH = re.compile(r"(?!/(/|gs/|s3/|az/|hf/))(?!.*/\.\./)[\w /.,+=@%~-]*")


@contextmanager
def literal_path(folder: Path) -> Iterator[Path]:
    """A path of `folder` that Orbax takes literally: its own, or that of a link to it, deleted after the block.

    Raises UserError where no such link can be made in the temporary folder.
    """
    if LITERAL_PATH.fullmatch(str(folder)):
        yield folder
        return
    with ExitStack() as stack:
        try:
            temporary = stack.enter_context(tempfile.TemporaryDirectory(prefix="facedisent-"))
            link = Path(temporary).absolute() / "checkpoints"
            if not LITERAL_PATH.fullmatch(str(link)):
                raise OSError(f"its path is {link.parent}")
            link.symlink_to(folder)
        except OSError as error:
            raise UserError(
                f"--run must be a path of letters, digits, blanks and /_.,+=@%~-, got {folder}, for which there is no "
                f"other path, since no link can be made in the temporary folder ({reason(error)}): choose another "
                "--run, or set TMPDIR."
            ) from error
        yield link
