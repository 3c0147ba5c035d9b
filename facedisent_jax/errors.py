"""What ends a command with one sentence, without a traceback."""

import difflib
import os
import re
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


def errno_of(error: Exception) -> int:
    """The system's number of the error behind this one. 0: there is none."""
    if isinstance(error, OSError):
        return error.errno or 0
    match = re.search(r"os_error_code='(\d+)'", str(error))
    return int(match[1]) if match else 0


def reason(error: Exception) -> str:
    """What went wrong, in the system's words where an error of the system is behind it."""
    if number := errno_of(error):
        return os.strerror(number)
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__
