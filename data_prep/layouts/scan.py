"""What a layout finds in a folder RAW: the images to crop, the files it rejects, and what the user should know."""

import os
import unicodedata
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from facedisent_jax.errors import UserError

# Suffixes, in lower case.
HEIC_TYPES = frozenset({".heic", ".heif"})  # listed, so that each is rejected by name: nothing here reads them
IMAGE_TYPES = HEIC_TYPES | frozenset(
    ".png .jpg .jpeg .jpe .jfif .bmp .webp .avif .tif .tiff .gif .ppm .pgm .pbm .pnm .jp2".split()
)
VIDEO_TYPES = frozenset(".avi .mp4 .m4v .mov .mkv .mpg .mpeg .webm .wmv".split())
# Folders of copies and thumbnails that systems make, in lower case. They are passed over like hidden ones.
SYSTEM_FOLDERS = frozenset(
    "@eadir @__thumb @recycle #recycle $recycle.bin __macosx lost+found".split() + ["system volume information"]
)


def decode_file_name(name: str) -> str:
    """Return a file name as valid text: bytes that are not UTF-8 become escapes such as \\xff."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def printable(text: str) -> str:
    """Return text that is safe to print: characters that move the cursor, colour text or break a line are escaped."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


def plain_name(text: str) -> str:
    """Return a name in the form in which names are compared: composed Unicode (NFC), no blanks at the ends.

    The same `é` is one character in one file name and two (decomposed) in another, as macOS writes it.
    """
    return unicodedata.normalize("NFC", text).strip()


class Source(NamedTuple):
    """One image to be cropped.

    path:          image file, or a video (recognised by its suffix) of which `frame` is the frame number, from 0.
    key:           name in reports and record keys: the path relative to RAW, with / between the parts.
    crop_group:    sources with the same group share one crop, located in the first of them that shows a face.
    subject ... intensity: as in facedisent_jax.data.record.Record.
    box:           left, top, right, bottom of the tight crop in pixels of the upright image, if the user gave one.
    landmark_file: Multi-PIE's .mat file with the landmarks of the image, if there is one.
    digest:        hash of the image as it is stored, once it has been cropped.
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
    digest: bytes = b""


class Rejected(NamedTuple):
    """A file that was left out, with the reason; or, as a remark, something noticed in a file that is used.

    reason: a short phrase such as "no face found". Details that differ from file to file follow after a colon.
    """

    key: str
    reason: str

    @property
    def kind(self) -> str:
        """The reason without its details: reports count files by kind."""
        return self.reason.partition(": ")[0]


class ScanResult(NamedTuple):
    """What a layout found in a folder.

    sources:  images to crop. Those of one crop group are adjacent, the best one for finding a face first.
    rejected: files that look as if they belong to the data set and cannot be used.
    left_out: counts, by kind, of files that do not belong to the data set or that no option selects.
    notes:    sentences for the user.
    remarks:  what was noticed in files and takes that are used.
    """

    sources: list[Source]
    rejected: list[Rejected]
    left_out: dict[str, int]
    notes: list[str]
    remarks: list[Rejected]


def list_images(
    raw: Path | str, skip_folders: frozenset[str] = frozenset(), types: frozenset[str] = IMAGE_TYPES
) -> tuple[list[tuple[Path, str]], Counter[str]]:
    """List the image files below `raw`, recognised by their suffix alone.

    skip_folders: names of folders, in lower case, whose files are counted but not listed.
    types:        suffixes of the files to list, in lower case.

    Links to folders are followed and each folder is visited once. Links to a folder that contains `raw` are not
    followed: they would lead to everything beside `raw`. Files in hidden folders are counted, too.

    Returns (path, key) pairs in order of their keys, HEIC files last, and counts, by kind, of what is not listed.
    """
    raw = Path(raw)
    if not raw.is_dir():
        raise UserError(f"RAW must be a folder of images, got {raw}, which {_why_no_folder(raw)}.")
    files: list[tuple[Path, str]] = []
    left_out: Counter[str] = Counter()
    visited = set()
    parents = {(status.st_dev, status.st_ino) for status in map(os.stat, raw.resolve().parents)}
    to_visit = [(str(raw), "", "")]  # folder, prefix of its keys, name of the skipped folder that it lies in
    while to_visit:
        folder, prefix, skipped = to_visit.pop()
        try:
            status = os.stat(folder)
            folder_id = status.st_dev, status.st_ino
            if folder_id in visited:
                continue
            visited.add(folder_id)
            if folder_id in parents:
                left_out["links to a folder that contains RAW"] += 1
                continue
            entries = list(os.scandir(folder))
        except OSError as error:
            left_out[f"folders that cannot be read ({error.strerror})"] += 1
            continue
        if any(entry.name == "prep.json" for entry in entries):
            left_out["data folders made by this command"] += 1
            continue
        for entry in entries:
            name = decode_file_name(entry.name)
            if _is_folder(entry):
                to_visit.append((entry.path, f"{prefix}{name}/", skipped or _why_skipped(name.lower(), skip_folders)))
            elif kind := _why_not_listed(name, types, skipped):
                left_out[kind] += 1
            else:
                files.append((Path(entry.path), prefix + name))
    # an image of another type with the same name is the one to use
    files.sort(key=lambda item: (item[0].suffix.lower() in HEIC_TYPES, item[1]))
    return files, left_out


def _why_no_folder(path: Path) -> str:
    return "is a file" if path.exists() else "does not exist"


def _why_skipped(name: str, skip_folders: frozenset[str]) -> str:
    """The kind of a folder whose files are only counted, "" for another. name: in lower case."""
    if name.startswith(".") or name in SYSTEM_FOLDERS:
        return "hidden"
    return name if name in skip_folders else ""


def _why_not_listed(name: str, types: frozenset[str], skipped: str) -> str | None:
    if skipped:
        return f"files in {skipped} folders"
    if name.startswith("."):
        return "hidden files"
    if os.path.splitext(name)[1].lower() not in types:
        return "files that are not images by their suffix"
    return None


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads back to itself
        return False
