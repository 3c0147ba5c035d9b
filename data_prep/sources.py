"""Source: where a picture is and what is known of it. The layouts (multipie, mug, folder) give streams of them."""

from pathlib import Path
from typing import NamedTuple


class Source(NamedTuple):
    """One picture to be cropped.

    path:       the picture file.
    key:        its name in reports and record keys: the path relative to RAW, with / between parts.
    crop_group: sources with equal crop_group share one crop, found in the first of them in which a face is found.
    subject ... intensity: as in facedisent_jax.records.Record.
    box:        left, top, right, bottom of the face's crop in pixels, if given by the user.
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
    points: Path | None = None


class Rejected(NamedTuple):
    """A file that was left out, and why, as a short phrase that names what was found ("no face found")."""

    key: str
    reason: str
