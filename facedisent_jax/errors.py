"""What ends a command with one sentence, without a traceback."""

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """Something that the user can mend: an option, a file or a folder. The message is one clear sentence."""


class Stopped(BaseException):
    """A signal has stopped the run, and nothing is lost; the message says where it stands.

    status: exit status of the process, 143 after SIGTERM and 130 after Ctrl-C. A scheduler would take 0 for "done".
    """

    def __init__(self, signal_number: int, message: str = "Nothing was lost: the same command starts again."):
        super().__init__(message)
        self.status = 128 + signal_number


def did_you_mean(name: str, valid_names: Iterable[str]) -> str:
    """A hint for a mistyped name, " Did you mean X?", or "" if nothing is close."""
    close = difflib.get_close_matches(name, list(valid_names), n=1)
    return f" Did you mean {close[0]}?" if close else ""
