"""The one error that the commands show as a sentence, without a traceback."""

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """Something that the user can mend: an option, a file or a folder. The message is one clear sentence."""


def did_you_mean(name: str, valid_names: Iterable[str]) -> str:
    """A hint for a mistyped name, " Did you mean X?", or "" if nothing is close."""
    close = difflib.get_close_matches(name, list(valid_names), n=1)
    return f" Did you mean {close[0]}?" if close else ""
