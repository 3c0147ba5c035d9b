"""Judge a trained run, or use it on pictures: `python eval.py COMMAND --help` tells more.

Reads the command line; everything else is in the library, imported once the command is understood.
"""

import difflib
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from facedisent_jax.errors import UserError
from facedisent_jax.training.signals import Stopped

Step = Annotated[str, tyro.conf.arg(metavar="best|last|N")]


@dataclass(frozen=True)
class Report:
    """Judge a run on people it never saw: RUN/report/index.html, metrics.json and figures."""

    run: tyro.conf.Positional[Path]
    """Run folder, made by train.py."""
    data: tuple[Path, ...] = ()
    """Data folders made by `python -m data_prep`; none: those the run was trained with."""
    split: Literal["test", "validation", "train"] = "test"
    """Which subjects. Subjects that the run was trained on are refused."""
    step: Step = "best"
    """Checkpoint: the best on validation subjects, the last, or that of a step."""
    landmarker: Path | None = None
    """Model file of the face mesh, which judges the smile of the swaps; without it, the one fetched by data_prep."""


@dataclass(frozen=True)
class Interpolate:
    """Move from one face to another, or towards a smile, along a straight line in the code."""

    run: tyro.conf.Positional[Path]
    """Run folder, made by train.py."""
    a: tyro.conf.Positional[Path]
    """Photograph to begin with. Cropped as the training data was, unless it is 64x64 pixels."""
    b: tyro.conf.Positional[Path | None] = None
    """Photograph to end with; none: A begins to smile."""
    to: float = 1.0
    """Where the way ends: 1 is B, above it beyond B. Without B the strength of the smile, 1 a full one."""
    steps: int = 11
    """Pictures on the way, both ends included."""
    move: Literal["expression", "identity", "both"] = "expression"
    """What moves; with "expression" the face stays that of A."""
    out: Path = Path("strip.png")
    """.png or .jpg: a strip with both photographs; .gif, .webp or .mp4: an animation there and back."""
    landmarker: Path | None = None
    """Model file of the face mesh, for runs whose data was cropped with it."""
    step: Step = "best"
    """Checkpoint: the best on validation subjects, the last, or that of a step."""


@dataclass(frozen=True)
class Swap:
    """Give each person of some photographs the expression of each: a grid, people down, expressions across."""

    run: tyro.conf.Positional[Path]
    """Run folder, made by train.py."""
    photos: tyro.conf.Positional[tuple[Path, ...]]
    """Two or more photographs. Cropped as the training data was, unless they are 64x64 pixels."""
    out: Path = Path("grid.png")
    """.png or .jpg."""
    landmarker: Path | None = None
    """Model file of the face mesh, for runs whose data was cropped with it."""
    step: Step = "best"
    """Checkpoint: the best on validation subjects, the last, or that of a step."""


@dataclass(frozen=True)
class Table1:
    """The poster's Table 1: train with tight and loose crops, with and without the swapping loss, and compare."""

    data: tuple[Path, ...]
    """Data folders of the same people in the same splits, one cropped tightly and one or more with a margin."""
    out: Path = Path("runs/table1")
    """Folder of the runs, and of table1.json. The same command again continues."""
    preset: Literal["poster", "binary", "intensity", "smile"] = "poster"
    """What is trained; crop and swapping loss alone differ."""
    steps: int | None = None
    """Steps of each run, and the length of its learning rate's schedule; the preset's if not given."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Random seeds, each a run of every row."""


@dataclass(frozen=True)
class Video:
    """Compare the path from neutral to the apex with real clips it never saw: RUN/video/index.html, metrics.json."""

    run: tyro.conf.Positional[Path]
    """Run folder, made by train.py."""
    data: tuple[Path, ...] = ()
    """Data folders with clips, made by `python -m data_prep`; none: those the run was trained with."""
    split: Literal["test", "validation", "train"] = "test"
    """Which subjects. Subjects that the run was trained on are refused."""
    step: Step = "best"
    """Checkpoint: the best on validation subjects, the last, or that of a step."""
    clips: int = 32
    """Clips to judge at most, drawn by seed, each person's first before anybody's second; 0 for all."""
    landmarker: Path | None = None
    """Model file of the face mesh, which judges the smile and morphs; without it, the one fetched by data_prep."""


@dataclass(frozen=True)
class Compare:
    """Video figures of several runs in one table, with paired differences to the first."""

    runs: tyro.conf.Positional[tuple[str, ...]]
    """Run folders, two or more; several seeds of one kind as NAME=RUN,RUN,... count as one."""
    data: tuple[Path, ...] = ()
    """Data folders with clips; none: those the first run was trained with."""
    split: Literal["test", "validation", "train"] = "test"
    """Which subjects. Subjects that any of the runs was trained on are refused."""
    step: Step = "best"
    """Checkpoint of each run: the best on validation subjects, the last, or that of a step."""
    clips: int = 32
    """Clips to judge at most, the same for every run; 0 for all."""
    landmarker: Path | None = None
    """Model file of the face mesh; without it, the one fetched by data_prep."""
    out: Path | None = None
    """.csv or .json: the table as a file."""


COMMANDS = {
    "report": Report,
    "video": Video,
    "compare": Compare,
    "table1": Table1,
    "interpolate": Interpolate,
    "swap": Swap,
}


def main(command: Report | Video | Compare | Table1 | Interpolate | Swap) -> None:
    """Carry out a command; can be imported and called."""
    if isinstance(command, Report):
        report(command)
    elif isinstance(command, Video):
        video(command)
    elif isinstance(command, Compare):
        compare(command)
    elif isinstance(command, Interpolate):
        interpolate(command)
    elif isinstance(command, Swap):
        swap(command)
    else:
        table1(command)


def report(command: Report) -> None:
    from data_prep.cropping import user_photos
    from facedisent_jax.reporting import report as reports

    points = user_photos.crop_landmark_finder(command.landmarker)
    mesh = None if isinstance(points, str) else points
    found = reports.write(command.run, command.data, command.split, _step(command.step), mesh)
    rows = [("reconstruction", found["reconstruction"]), ("swap", found["swap"])]
    rows += [(name, values) for name, values in found["baselines"].items() if isinstance(values, dict)]
    print(f"{found['data']['pictures']} {command.split} pictures of {found['data']['subjects']} held-out subjects")
    for name, values in rows:
        if values["psnr"] is not None:
            print(f"{name.replace('_', ' '):15s} {values['psnr']:6.2f} dB   SSIM {values['ssim']:.3f}")
    if found["intensity"]["spearman"] is not None:
        print(f"{'intensity':15s} Spearman {found['intensity']['spearman']:.3f}")
    print(command.run / "report" / "index.html")


def video(command: Video) -> None:
    from facedisent_jax.reporting import video_report

    found = video_report.write(command.run, _asked(command))
    data = found["data"]
    print(f"{data['clips']} clips of {data['subjects']} held-out subjects, {data['onset_frames']['all']} onset frames")
    for reason, count in data["rejected"].items():
        print(f"rejected {count:4d} takes: {reason}")
    for sentence in dict.fromkeys([*data["easier_than_video"], *found["missing"]]):
        print(f"Note: {sentence}")
    print(video_report.as_text(found))
    print(command.run / "video" / "index.html")


def compare(command: Compare) -> None:
    from facedisent_jax.reporting import comparison

    if command.out is not None:
        comparison.check_out(command.out)
        _check_files(command.out)
    groups = comparison.groups(command.runs)
    table = comparison.compare(groups, _asked(command), lambda run: print(f"Judging {run}", file=sys.stderr))
    print(table.text())
    if command.out is not None:
        comparison.save(table, command.out)
        print(command.out)


def _asked(command: Video | Compare):
    """What the video figures are asked for, with the face mesh where it can be had."""
    from tqdm import tqdm

    from data_prep.cropping import user_photos
    from facedisent_jax.evaluation import video as videos

    points = user_photos.crop_landmark_finder(command.landmarker)
    return videos.VideoEvalOptions(
        command.data,
        command.split,
        _step(command.step),
        command.clips,
        None if isinstance(points, str) else points,
        points if isinstance(points, str) else "",
        lambda clips: tqdm(clips, unit="clip", dynamic_ncols=True),
    )


def interpolate(command: Interpolate) -> None:

    from data_prep.cropping import user_photos
    from facedisent_jax import trained_model
    from facedisent_jax.reporting import figures

    figures.check_suffix(command.out, figures.STILLS + figures.ANIMATIONS)
    ends = [command.a] if command.b is None else [command.a, command.b]
    _check_files(command.out, *ends)
    trained_model.check_steps(command.steps)
    face = _load(command.run, command.step)
    real = user_photos.crop_photos(ends, face.info["crop"], command.landmarker)
    frames = face.interpolate(real[0], None if command.b is None else real[1], command.steps, command.move, command.to)
    if command.out.suffix.lower() in figures.ANIMATIONS:
        figures.animate(frames, command.out)
    else:
        alphas = [f"{command.to * k / (command.steps - 1):.2f}".removesuffix("0") for k in range(command.steps)]
        top = [command.a.stem, *alphas, *(path.stem for path in ends[1:])]
        cells = [[real[0], *frames, *real[1:]]]
        figures.save(figures.grid(cells, top, margin_columns=1, end_columns=len(ends) - 1), command.out)
    print(command.out)


def swap(command: Swap) -> None:

    from data_prep.cropping import user_photos
    from facedisent_jax.reporting import figures

    figures.check_suffix(command.out, figures.STILLS)
    _check_files(command.out, *command.photos)
    if len(command.photos) < 2:
        raise UserError(f"Swapping takes two photographs or more, {len(command.photos)} given.")
    face = _load(command.run, command.step)
    faces = user_photos.crop_photos(command.photos, face.info["crop"], command.landmarker)
    made = face.swap_grid(faces, faces)
    names = [path.stem for path in command.photos]
    cells = [[None, *faces], *([real, *row] for real, row in zip(faces, made, strict=True))]
    image = figures.grid(cells, ["", *names], ["expression\nof", *names], margin_rows=1, margin_columns=1)
    figures.save(image, command.out)
    print(command.out)


def table1(command: Table1) -> None:
    import train
    from facedisent_jax.evaluation import table1 as tables
    from facedisent_jax.presets import PRESETS

    preset = PRESETS[command.preset].config
    rows, size = tables.train_and_judge(command.data, command.out, preset, command.seeds, command.steps, train.main)
    print(f"\nPSNR in dB on the face at {size}x{size} pixels, held-out people, mean and spread of the seeds")
    print(tables.text(rows))
    print(command.out / tables.FILE)


def _load(run: Path, step: str):

    from facedisent_jax import trained_model

    return trained_model.load(run, _step(step))


def _step(step: str) -> str | int:
    return int(step) if step.isdecimal() else step


def _check_files(out: Path, *photos: Path) -> None:
    """Raises UserError before any work is done."""
    if not out.parent.is_dir():
        raise UserError(f"There is no folder {out.parent} to write {out.name} into.")
    for path in photos:
        if not path.is_file():
            raise UserError(f"There is no photograph {path}.")


def _mistyped(arguments: Sequence[str]) -> str | None:
    """The sentence for an unknown command, None if the command is one of ours or help is asked for."""
    if not arguments or arguments[0] in COMMANDS or arguments[0] in ("-h", "--help"):
        return None
    near = difflib.get_close_matches(arguments[0], COMMANDS, n=1)
    hint = f"Did you mean {near[0]}?" if near else f"The commands are {', '.join(COMMANDS)}."
    return f'eval.py has no command "{arguments[0]}". {hint}'


def run(arguments: Sequence[str]) -> None:
    """Understand a command line and carry it out; a mistake ends in a sentence."""
    if said := _mistyped(arguments):
        sys.exit(said)
    about = (__doc__ or "").partition("\n")[0]
    command = tyro.extras.subcommand_cli_from_dict(COMMANDS, prog="eval.py", description=about, args=arguments)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow's notices are not for the user
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    if isinstance(command, Table1):
        import train

        train.settle_environment()
    try:
        main(command)
    except Stopped as stopped:
        print(f"eval.py: {stopped}", file=sys.stderr)
        sys.exit(stopped.status)
    except (UserError, OSError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    run(sys.argv[1:])
