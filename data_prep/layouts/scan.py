"""Source: where a picture is and what is known of it. The layouts (multipie, folder, ...) give lists of them.

Imports none of ours.
"""

import os
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from facedisent_jax.errors import UserError

IMAGE_TYPES = frozenset(
    ".png .jpg .jpeg .jpe .jfif .bmp .webp .tif .tiff .gif .ppm .pgm .pbm .pnm .jp2".split()
)  # in lower case
VIDEO_TYPES = frozenset(".avi .mp4 .m4v .mov .mkv .mpg .mpeg .webm .wmv".split())


def decode_file_name(name: str) -> str:
    """A file's name as text, whatever its bytes: those that are not UTF-8 are written as \\xff."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def printable(text: str) -> str:
    """For a terminal: what would move its cursor, colour it or break the line is written as an escape."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


class Source(NamedTuple):
    """One picture to be cropped.

    path:       the picture file, or the video (known by its ending) of which it is frame number `frame`, from 0.
    key:        its name in reports and record keys: the path relative to RAW, with / between parts.
    crop_group: sources with equal crop_group share one crop, found in the first of them in which a face is found.
    subject ... intensity: as in facedisent_jax.records.Record.
    box:        left, top, right, bottom of the tight crop in pixels of the upright picture, if given by the user.
    points:     path of a file of landmarks (Multi-PIE's .mat), if given.
    """

    path: Path
    key: str
    crop_group: str
    subject: str = ""
    expression: str = ""
    sequence: str = ""
    condition: str = ""
    frame: int = 0
    intensity: float = float("nan")
    box: tuple[float, float, float, float] | None = None
    landmark_file: Path | None = None


class Rejected(NamedTuple):
    """A file that was left out, and why; or, as a remark, something noticed of a file that is used.

    reason: a short phrase that names what was found ("no face found"), which is summed up at the end; and after a
    colon what exactly, and what was expected, where that differs from file to file.
    """

    key: str
    reason: str

    @property
    def kind(self) -> str:
        """The reason as it is summed up."""
        return self.reason.partition(": ")[0]


class ScanResult(NamedTuple):
    """What a layout made of a folder RAW.

    sources:  pictures to be cropped; those of one crop group follow each other, the best one to find a face in first.
    rejected: pictures that were meant to be used and cannot be, each with its reason.
    left_out: files that are not for this data set (other types, cameras not asked for), as counts by kind.
    notes:    sentences for the person at the keyboard.
    remarks:  what was noticed of files and takes that are used.
    """

    sources: list[Source]
    rejected: list[Rejected]
    left_out: dict[str, int]
    notes: list[str]
    remarks: list[Rejected]


def list_images(
    raw: Path | str, skip_folders: frozenset[str] = frozenset(), types: frozenset[str] = IMAGE_TYPES
) -> tuple[list[tuple[Path, str]], dict]:
    """Every picture file below `raw` as (path, key), in order of the keys, and what was passed over, as counts.

    Pictures are known by the ending of their name alone, which is one of `types`. skip_folders: names of folders (lower
    case) whose files are counted, not listed. Links to folders are followed, each folder being visited once, but for
    those to a folder that holds `raw`: these would lead to all that lies beside it.
    """
    raw = Path(raw)
    if not raw.exists():
        raise UserError(f"There is no folder {raw}: give the folder of the raw pictures.")
    if not raw.is_dir():
        raise UserError(f"{raw} is a file; a folder of pictures was expected.")
    found: list[tuple[Path, str]] = []
    passed_over: Counter[str] = Counter()
    visited = set()
    above = {(status.st_dev, status.st_ino) for status in map(os.stat, raw.resolve().parents)}
    waiting = [(str(raw), "", "")]
    while waiting:
        folder, prefix, skipped = waiting.pop()
        try:
            status = os.stat(folder)
            if (status.st_dev, status.st_ino) in visited:
                continue
            visited.add((status.st_dev, status.st_ino))
            if (status.st_dev, status.st_ino) in above:
                passed_over["links to a folder that holds RAW"] += 1
                continue
            entries = list(os.scandir(folder))
        except OSError as error:
            passed_over[f"folders that cannot be read ({error.strerror})"] += 1
            continue
        if any(entry.name == "prep.json" for entry in entries):
            passed_over["data folders made by this command"] += 1
            continue
        for entry in entries:
            name = decode_file_name(entry.name)
            if _is_folder(entry):
                below = skipped or (entry.name.lower() if entry.name.lower() in skip_folders else "")
                waiting.append((entry.path, f"{prefix}{name}/", below))
            elif skipped:
                passed_over[f"files in {skipped} folders"] += 1
            elif entry.name.startswith("."):
                passed_over["hidden files"] += 1
            elif os.path.splitext(name)[1].lower() not in types:
                passed_over["files that are not pictures by their name"] += 1
            else:
                found.append((Path(entry.path), prefix + name))
    found.sort(key=lambda item: item[1])
    return found, dict(passed_over)


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads back to itself
        return False
