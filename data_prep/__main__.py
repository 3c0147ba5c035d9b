"""The command `python -m data_prep`: raw photographs, or drawn faces, -> a folder of 64x64 records.

Heavy libraries are imported when the work begins, so that --help and typos are answered at once.
"""

import dataclasses
import difflib
import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro
from tyro.conf import Positional, arg

from data_prep.layouts.scan import printable
from facedisent_jax.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Common:
    """Options of every kind of raw photographs."""

    raw: Annotated[Positional[Path], arg(metavar="RAW")]
    """Folder of the raw photographs."""
    out: Annotated[Positional[Path], arg(metavar="OUT")]
    """The data folder to be made."""
    detector: Literal["haar", "mesh", "boxes", "points", "none"] | None = None
    """How the face is found: haar (OpenCV, the default), mesh (steadier; extra `landmarks`), boxes or points (given by
    --boxes or --points, which imply it), none (the pictures are tight crops already)."""
    landmarker: Path | None = None
    """The file face_landmarker.task for the mesh; fetched once from Google if not given."""
    boxes: Path | None = None
    """CSV with columns path,left,top,right,bottom: the tight crop of each picture, in pixels. Paths relative to RAW."""
    points: Path | None = None
    """CSV with columns path,x0,y0,...,x67,y67 (the usual 68 landmarks), or
    path,left_eye_x,left_eye_y,right_eye_x,right_eye_y. In place of path: person (or subject) and expression."""
    margin: float = 0.0
    """How much wider than the tight crop (brows to chin), as a fraction: 0 is tight, 0.5 half as wide again."""
    subject_pattern: str | None = None
    """Regular expression whose first group (or match) is the person: '[0-9]+' makes 030 and s030 one person."""
    split_seed: int = 0
    """Other seeds draw other people for test and validation."""
    split_like: Path | None = None
    """A data folder: people that are in it are put in the same split here."""
    workers: int = 0
    """Processes that read and crop pictures; 0 is one a core."""
    overwrite: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Replace OUT if it is a data folder; the old one goes when the new one is whole."""
    beam: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Crop and write with Apache Beam (extra `beam`), on as many machines as its runner has; they must all see RAW and
    OUT under these paths."""
    beam_option: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """An option of Beam or of its runner as NAME=VALUE, or NAME; once for each. E.g. runner=FlinkRunner."""


@dataclass(frozen=True, kw_only=True)
class Folder(Common):
    """Anybody's photographs: a regular expression on their paths says who they show and with which expression."""

    pattern: str | None = None
    """Regular expression, searched in each path relative to RAW, with named groups subject, expression and optionally
    sequence (its pictures share one crop), frame, condition, intensity. E.g.
    'images/(?P<subject>\\d+)_(?P<expression>\\w+)\\.jpg'. Pictures it does not match stay unlabelled."""
    neutral: str = "neutral"
    """The expression that means neutral."""
    intensities: Path | None = None
    """CSV with columns path,intensity (0 neutral to 1). Without it a still has 0 or 1 by its expression."""
    no_face: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """No face is looked for: the crop is that of --boxes or --points, else the middle square. For tight crops, and for
    pictures of other things than faces. The same as --detector none."""


@dataclass(frozen=True, kw_only=True)
class MultiPie(Common):
    """Multi-PIE, in any arrangement of folders: the pictures' names (SSS_0S_RR_CCC_II) tell all."""

    cameras: tuple[str, ...] = ("051",)
    """Which cameras: 051 is frontal, 050 and 140 are 15 degrees to the sides."""
    illuminations: tuple[str, ...] = tuple(f"{number:02}" for number in range(20))
    """Which illuminations: 00 and 19 are without flash, 07 is the frontal one."""
    expressions: tuple[str, ...] = ("neutral", "smile")
    """Which expressions: neutral, smile, surprise, squint, disgust, scream."""
    mat_labels: Path | None = None
    """Folder of the landmark labels (..._lm.mat, key pts): where there are any, they place the crop."""


@dataclass(frozen=True, kw_only=True)
class Mug(Common):
    """MUG: subject/expression/takeTTT/img_FFFF.jpg (or a video in place of the frames), below any folders.

    A take is one crop, found in its neutral frame."""

    expressions: Annotated[tuple[str, ...], arg(aliases=["--expression"])] = ("happiness",)
    """Which expressions: anger, disgust, fear, happiness (recorded as smile), neutral, sadness, surprise."""
    intensity: Literal["csv", "landmarks", "motion", "order"] | None = None
    """How strong the expression is in each frame: csv (by --labels, which implies it), landmarks (face mesh; extra
    `landmarks`), motion (of the lower face; the default), order (left open: the frames of the onset, found by their
    motion, have their order alone)."""
    labels: Path | None = None
    """CSV with columns subject,take,frame,intensity (0 neutral to 1), with several expressions also expression."""
    min_onset: int = 0
    """Takes whose onset has fewer frames are left out. Those of fewer than 8 are named in remarks.csv in any case."""
    split: Literal["hash", "published"] = "hash"
    """hash: a tenth of the people validates, a tenth tests. published: 26 given people train; of the others a third
    validates and two thirds test."""


@dataclass(frozen=True)
class Inspect:
    """What is in a data folder: counts, a histogram of intensities, a contact sheet of faces, curves of intensity."""

    folder: Annotated[Positional[Path], arg(metavar="OUT")]
    """The data folder."""
    out: Path | None = None
    """Where the contact sheet goes; contact_sheet.png in the data folder if not given. The curves go beside it."""
    pictures: int = 168
    """How many pictures the contact sheet shows, about."""
    truth: Path | None = None
    """CSV with columns subject,take,frame,intensity: how far the folder's intensities are from these."""


@dataclass(frozen=True)
class Verify:
    """Whether a data folder is whole: checksums, features, counts, people; and a hash of its content to compare."""

    folder: Annotated[Positional[Path], arg(metavar="OUT")]
    """The data folder."""


@dataclass(frozen=True)
class Synthetic:
    """The built-in faces: drawn people at exact smile intensities."""

    out: Annotated[Positional[Path], arg(metavar="OUT")]
    """The data folder to be made."""
    subjects: int = 200
    """How many people."""
    seed: int = 0
    """Other seeds draw other people."""
    stills: bool = True
    """Pictures of each person from neutral to smile in equal steps."""
    levels: int = 11
    """How many stills a person."""
    clips: int = 0
    """Takes of each person, neutral to smile and back."""
    split_seed: int = 0
    """Other seeds draw other people for test and validation."""
    workers: int = 0
    """Processes that draw; 0 is one a core."""
    overwrite: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Replace OUT if it is a data folder; the old one goes when the new one is whole."""


def run(command) -> None:
    if isinstance(command, Synthetic):
        from data_prep.output import build

        options = dataclasses.asdict(command)
        report(command.out, build.synthetic(options.pop("out"), **options))
    elif isinstance(command, Folder):
        from data_prep.layouts import folder

        detector = check(command)
        c = command
        found = folder.scan_folder(c.raw, c.pattern, c.neutral, c.intensities, c.boxes, c.points)
        make("folder", command, detector, found)
    elif isinstance(command, MultiPie):
        from data_prep.layouts import multipie

        detector = check(command, labels=command.mat_labels is not None)
        c = command
        shots = (c.cameras, c.illuminations, c.expressions)
        found = multipie.scan_multipie(c.raw, *shots, c.mat_labels, c.boxes, c.points)
        make("multipie", command, detector, found)
    elif isinstance(command, Mug):
        from data_prep.intensity import IntensityMethod
        from data_prep.layouts import mug

        takes = IntensityMethod(check_intensity(command), command.min_onset)
        detector = check(command, landmarks=takes.kind == "landmarks")
        c = command
        found = mug.scan_mug(c.raw, c.expressions, c.labels, c.min_onset, c.boxes, c.points)
        make("mug", command, detector, found, takes, mug.PUBLISHED_TRAINING if c.split == "published" else ())
    elif isinstance(command, Verify):
        from data_prep.output import verify, writer

        writer.quiet_tensorflow()
        print(verify.describe(command.folder, verify.verify(command.folder)))
    else:
        inspect(command)


def inspect(command: Inspect) -> None:
    from data_prep.layouts import csv_labels
    from data_prep.output import build, inspect, writer

    writer.quiet_tensorflow()
    truth = csv_labels.read_frame_labels(command.truth) if command.truth else None
    print(inspect.describe(command.folder))
    sheet = command.out or command.folder / build.SHEET_FILE
    inspect.contact_sheet(command.folder, command.pictures).save(sheet)
    print(f"\ncontact sheet: {sheet}")
    takes = inspect.takes(command.folder)
    if truth:
        print(f"\n{inspect.compare(takes, inspect.of_labels(truth, command.folder))}")
    if takes:
        picture = sheet.with_name(build.CURVES_FILE)
        inspect.plot(takes, picture, inspect.of_labels(truth, command.folder) if truth else {})
        print(f"\nintensity curves: {picture}")


def check_intensity(command: Mug) -> str:
    """Where the intensities come from, after a look at the options that go with it."""
    way = command.intensity or ("csv" if command.labels else "motion")
    if way == "csv" and not command.labels:
        raise UserError("--intensity csv needs the intensity of each frame: give it by --labels FILE.csv.")
    if command.labels and way != "csv":
        raise UserError(
            f"--labels goes with --intensity csv, not with --intensity {way}; to compare with labels, prepare without "
            "them and then `python -m data_prep inspect OUT --truth LABELS.csv`."
        )
    if command.min_onset < 0:
        raise UserError(f"--min-onset is {command.min_onset}: a number of frames was expected, 0 to leave out no take.")
    if command.min_onset and way == "order":
        raise UserError("--min-onset needs intensities, and --intensity order has none.")
    if command.split == "published" and command.split_like:
        raise UserError("Both --split published and --split-like were given: give one of them.")
    return way


def check(command: Common, labels: bool = False, landmarks: bool = False) -> str:
    """The detector, after a look at the options that go with it.

    labels: the points may also come from landmark labels. landmarks: the mesh is used for something else as well.
    """
    no_face = isinstance(command, Folder) and command.no_face
    implied = "boxes" if command.boxes else "points" if command.points else "none" if no_face else "haar"
    detector = command.detector or implied
    if no_face and detector in ("haar", "mesh"):
        raise UserError(f"--no-face looks for no face, and --detector {detector} does: give one of them.")
    if command.boxes and command.points:
        raise UserError("Both --boxes and --points were given: give one of them.")
    for name in ("boxes", "points"):
        given = getattr(command, name)
        if given and detector != name:
            raise UserError(f"--{name} goes with --detector {name}, not with --detector {detector}.")
        if detector == name and not given and not (labels and name == "points"):
            raise UserError(f"--detector {name} needs the {name} of each picture: give them by --{name} FILE.csv.")
    if command.landmarker and detector != "mesh" and not landmarks:
        raise UserError(f"--landmarker goes with --detector mesh, not with --detector {detector}.")
    if not -0.5 <= command.margin <= 5:
        raise UserError(f"--margin is {command.margin:g}: a fraction from -0.5 to 5 was expected, 0 for a tight crop.")
    if command.workers < 0:
        raise UserError(f"--workers is {command.workers}: the number of processes was expected, or 0 for one a core.")
    if command.beam_option and not command.beam:
        raise UserError("--beam-option goes with --beam, which was not given.")
    if command.beam:
        if command.workers:
            raise UserError("--workers is of a run without --beam: with it, the runner's --beam-option says how many.")
        from data_prep.output import build

        build.beams().configured(command.beam_option)  # a mistake is said before RAW is looked through
    return detector


def make(source: str, command, detector: str, found, takes=None, training: tuple[str, ...] = ()) -> None:
    from data_prep.output import build

    plan = build.Plan(
        source,
        detector,
        command.margin,
        dataclasses.asdict(command),
        command.subject_pattern,
        command.split_seed,
        command.split_like,
        command.overwrite,
        training,
    )
    by = command.beam_option if command.beam else None
    report(command.out, build.from_sources(command.out, found, plan, command.landmarker, command.workers, takes, by))


def report(out: Path, info: dict) -> None:
    """Say what was made."""
    for note in info["notes"]:
        print(f"Note: {printable(note)}", file=sys.stderr)
    for split, number in info["splits"].items():
        print(f"{split:12}{number:8} pictures of {len(info['subjects'][split])} subjects")
    for kind, number in info["left_out"].items():
        print(f"passed over {number:8} {kind}")
    rejected = sum(info["rejected"].values())
    print(f"left out    {rejected:8} pictures{' (listed in rejected.csv):' if rejected else ''}")
    for reason, number in info["rejected"].items():
        print(f"            {number:8} {reason}")
    for remark, number in info["remarks"].items():
        print(f"noticed     {number:8} {remark} (listed in remarks.csv)")
    print(printable(f"{out} is ready: `python -m data_prep inspect {out}` shows it."))


COMMANDS = {
    "multipie": MultiPie,
    "mug": Mug,
    "folder": Folder,
    "synthetic": Synthetic,
    "inspect": Inspect,
    "verify": Verify,
}


def main(arguments: list[str]) -> None:
    named = arguments[0] if arguments else "--help"
    if named not in COMMANDS and not named.startswith("-"):
        near = difflib.get_close_matches(named, COMMANDS, 1)
        hint = f"did you mean {near[0]}?" if near else f"the commands are {', '.join(COMMANDS)}."
        sys.exit(f"data_prep: there is no command {named!r}: {hint}")
    command = tyro.extras.subcommand_cli_from_dict(
        COMMANDS, prog="python -m data_prep", description=__doc__, args=arguments or ["--help"]
    )
    try:
        run(command)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        os._exit(0)  # the reader of our output has seen enough
    except UserError as error:
        sys.exit(printable(f"data_prep: {error}"))
    except OSError as error:
        sys.exit(printable(f"data_prep: {error.filename or 'the data folder'}: {error.strerror or error}."))


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # ends as Ctrl-C does: nothing half-made stays
    main(sys.argv[1:])
