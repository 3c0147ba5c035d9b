"""The options of the commands of `python -m data_prep`. The docstrings are the text of --help."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import FlagCreatePairsOff, Positional, UseAppendAction, arg


@dataclass(frozen=True, kw_only=True)
class Photographs:
    """Options of all layouts of raw photographs."""

    raw: Annotated[Positional[Path], arg(metavar="RAW")]
    """Folder of the raw photographs."""
    out: Annotated[Positional[Path], arg(metavar="OUT")]
    """Data folder to write."""
    detector: Literal["haar", "mesh", "boxes", "points", "none"] | None = None
    """How to find the face: haar (OpenCV, the default), mesh (steadier; needs the extra `landmarks`), boxes or points
    (read from --boxes or --points, which imply them), none (the pictures are tight crops already)."""
    landmarker: Path | None = None
    """Model file of the face mesh, face_landmarker.task. By default it is downloaded once from Google."""
    boxes: Path | None = None
    """CSV with columns path,left,top,right,bottom: the tight crop of each picture in pixels. Paths are relative to
    RAW."""
    points: Path | None = None
    """CSV with columns path,x0,y0,...,x67,y67 (the usual 68 landmarks), or
    path,left_eye_x,left_eye_y,right_eye_x,right_eye_y. Instead of path: person (or subject) and expression."""
    margin: float = 0.0
    """How much wider than the tight crop (brows to chin), as a fraction: 0 is tight, 0.5 is half as wide again."""
    subject_pattern: str | None = None
    """Regular expression whose first group (or whole match) is the person: '[0-9]+' makes 030 and s030 one person."""
    split_seed: int = 0
    """Seed of the draw of people for test and validation."""
    split_like: Path | None = None
    """Data folder whose people keep their split."""
    workers: int = 0
    """Number of processes that read and crop pictures; 0 is one for each core."""
    overwrite: Annotated[bool, FlagCreatePairsOff] = False
    """Replace OUT if it is a data folder. The old one is deleted once the new one is complete."""
    beam: Annotated[bool, FlagCreatePairsOff] = False
    """Crop and write with Apache Beam (extra `beam`), on all machines of its runner. They must all see RAW and OUT
    under these paths."""
    beam_option: UseAppendAction[tuple[str, ...]] = ()
    """An option of Beam or of its runner: NAME=VALUE or NAME. May be repeated. Example: runner=FlinkRunner."""


@dataclass(frozen=True, kw_only=True)
class Folder(Photographs):
    """Photographs in any folders: a regular expression reads the person and the expression from their paths."""

    pattern: str | None = None
    """Regular expression, searched in each path relative to RAW, with the named groups subject, expression and,
    optionally, sequence (its pictures share one crop), frame, condition, intensity. Example:
    'images/(?P<subject>\\d+)_(?P<expression>\\w+)\\.jpg'. Pictures that it does not match stay unlabelled."""
    neutral: str = "neutral"
    """The expression that means neutral, in upper or lower case."""
    intensities: Path | None = None
    """CSV with columns path,intensity (0 neutral to 1). By default a still has intensity 0 if it is neutral, else 1.
    With a CSV the intensity of a picture that it does not name, and that is not neutral, is unknown."""
    expression: str | None = None
    """The expression on all pictures, such as smile, for a --pattern without the group expression; intensity 0 is
    neutral."""
    no_face: Annotated[bool, FlagCreatePairsOff] = False
    """Do not look for a face: crop by --boxes or --points, or else the central square. For pictures that are tight
    crops already, or that show other things than faces. The same as --detector none."""


@dataclass(frozen=True, kw_only=True)
class MultiPie(Photographs):
    """Multi-PIE, in any folders: the names of the pictures (SSS_0S_RR_CCC_II) hold all labels."""

    cameras: tuple[str, ...] = ("051",)
    """Cameras to use: 051 is frontal; 050 and 140 are 15 degrees to the sides."""
    illuminations: tuple[str, ...] = tuple(f"{number:02}" for number in range(20))
    """Illuminations to use: 00 and 19 are without flash; 07 is frontal."""
    expressions: tuple[str, ...] = ("neutral", "smile")
    """Expressions to use: neutral, smile, surprise, squint, disgust, scream."""
    mat_labels: Path | None = None
    """Folder of the landmark labels (..._lm.mat, key pts). They place the crop of the pictures that have them."""


@dataclass(frozen=True, kw_only=True)
class Mug(Photographs):
    """MUG: subject/expression/takeTTT/img_FFFF.jpg, or a video instead of the frames, below any folders.

    All frames of a take share one crop, found in its neutral frame."""

    expressions: Annotated[tuple[str, ...], arg(aliases=["--expression"])] = ("happiness",)
    """Expressions to use: anger, disgust, fear, happiness (stored as smile), neutral, sadness, surprise."""
    intensity: Literal["csv", "landmarks", "motion", "order"] | None = None
    """Where the intensity of each frame comes from: csv (read from --labels, which implies it), landmarks (face mesh;
    needs the extra `landmarks`), motion (of the lower face; the default), order (unknown: only the frames of the onset
    are kept, in their order)."""
    labels: Path | None = None
    """CSV with columns subject,take,frame,intensity (0 neutral to 1); for several expressions also expression."""
    min_onset: int = 0
    """Leave out takes whose onset has fewer frames. Onsets of fewer than 8 frames are listed in remarks.csv in any
    case."""
    split: Literal["hash", "published"] = "hash"
    """hash: a tenth of the people is for validation, a tenth for the test. published: 26 listed people are for
    training; of the others a third is for validation and the rest for the test."""


@dataclass(frozen=True)
class Synthetic:
    """The built-in faces: drawn people with exact smile intensities."""

    out: Annotated[Positional[Path], arg(metavar="OUT")]
    """Data folder to write."""
    subjects: int = 200
    """Number of people."""
    seed: int = 0
    """Seed of the people."""
    stills: bool = True
    """Draw stills of each person, from neutral to smile in equal steps."""
    levels: int = 11
    """Number of stills of each person."""
    clips: int = 0
    """Number of takes of each person, from neutral to smile and back."""
    independent: Annotated[bool, FlagCreatePairsOff] = False
    """Draw all factors of a person independently of each other, evenly from their ranges. By default sex, skin tone,
    hair and age go together as in people."""
    split_seed: int = 0
    """Seed of the draw of people for test and validation."""
    workers: int = 0
    """Number of processes that draw; 0 is one for each core."""
    overwrite: Annotated[bool, FlagCreatePairsOff] = False
    """Replace OUT if it is a data folder. The old one is deleted once the new one is complete."""


@dataclass(frozen=True)
class Inspect:
    """Show what is in a data folder: counts, a histogram of intensities, a contact sheet, curves of intensity."""

    folder: Annotated[Positional[Path], arg(metavar="OUT")]
    """The data folder."""
    out: Path | None = None
    """File for the contact sheet; by default contact_sheet.png in the data folder. The curves go beside it."""
    pictures: int = 168
    """Approximate number of pictures on the contact sheet."""
    truth: Path | None = None
    """CSV with columns subject,take,frame,intensity to compare the folder's intensities with."""


@dataclass(frozen=True)
class Verify:
    """Check that a data folder is complete: checksums, features, counts, people. Prints a hash of its content."""

    folder: Annotated[Positional[Path], arg(metavar="OUT")]
    """The data folder."""
