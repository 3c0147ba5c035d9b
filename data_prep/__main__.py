"""Prepare data: raw photographs, or built-in faces, become a data folder of 64x64 records."""

# Heavy libraries are imported when the work begins, so that --help and typos are answered at once.
import dataclasses
import os
import signal
import sys
from pathlib import Path

import tyro

from data_prep.layouts.scan import printable
from data_prep.options import Folder, Inspect, Mug, MultiPie, Photographs, Synthetic, Verify
from facedisent_jax.environment import quiet_tensorflow, start_command
from facedisent_jax.errors import UserError, did_you_mean
from facedisent_jax.files import STILLS, check_out, check_suffix, replacing

PROGRAM = "python -m data_prep"


def prepare_folder(options: Folder) -> None:
    from data_prep.layouts import folder

    detector = choose_detector(options)
    scan = folder.scan_folder(
        options.raw,
        options.pattern,
        options.neutral,
        options.intensities,
        options.boxes,
        options.points,
        options.expression,
    )
    build_data_folder("folder", options, detector, scan)


def prepare_multipie(options: MultiPie) -> None:
    from data_prep.layouts import multipie

    detector = choose_detector(options, has_mat_labels=options.mat_labels is not None)
    scan = multipie.scan_multipie(
        options.raw,
        options.cameras,
        options.illuminations,
        options.expressions,
        options.mat_labels,
        options.boxes,
        options.points,
    )
    build_data_folder("multipie", options, detector, scan)


def prepare_mug(options: Mug) -> None:
    from data_prep.intensity import IntensityMethod
    from data_prep.layouts import mug

    method = IntensityMethod(choose_intensity(options), options.min_onset)
    detector = choose_detector(options, needs_mesh=method.kind == "landmarks")
    scan = mug.scan_mug(
        options.raw, options.expressions, options.labels, options.min_onset, options.boxes, options.points
    )
    training_subjects = mug.PUBLISHED_TRAINING if options.split == "published" else ()
    build_data_folder("mug", options, detector, scan, method, training_subjects)


def draw_synthetic(options: Synthetic) -> None:
    from data_prep.output.build import build_synthetic

    print_summary(options.out, build_synthetic(**dataclasses.asdict(options)))


def inspect_folder(options: Inspect) -> None:
    from data_prep.layouts import csv_labels
    from data_prep.output import inspect, staging

    sheet_path = options.out or options.folder / staging.SHEET_FILE
    plot_path = sheet_path.with_name(staging.CURVES_FILE)
    inputs = [path for path in options.folder.glob("*") if staging.OWN_FILES.fullmatch(path.name)]
    inputs = [path for path in inputs if path.name not in (staging.SHEET_FILE, staging.CURVES_FILE)]
    for path in (sheet_path, plot_path):
        check_out(path, [*inputs, *filter(None, [options.truth])])
    check_suffix(sheet_path, STILLS)
    labels = csv_labels.read_frame_labels(options.truth) if options.truth else None
    print(inspect.describe(options.folder))
    with replacing(sheet_path) as partial:
        inspect.contact_sheet(options.folder, options.pictures).save(partial)
    print(f"\ncontact sheet: {sheet_path}")
    curves = inspect.intensity_curves(options.folder)
    truth = inspect.truth_from_labels(labels, options.folder) if labels else {}
    if labels:
        print(f"\n{inspect.compare_with_truth(curves, truth)}")
    if curves:
        inspect.plot_curves(curves, plot_path, truth)
        print(f"\nintensity curves: {plot_path}")


def verify_folder(options: Verify) -> None:
    from data_prep.output import verify

    print(verify.describe(options.folder, verify.verify_folder(options.folder)))


COMMANDS = {
    "multipie": (MultiPie, prepare_multipie),
    "mug": (Mug, prepare_mug),
    "folder": (Folder, prepare_folder),
    "synthetic": (Synthetic, draw_synthetic),
    "inspect": (Inspect, inspect_folder),
    "verify": (Verify, verify_folder),
}


def choose_intensity(options: Mug) -> str:
    """The kind of intensity method. Raises UserError for options that do not go together."""
    kind = options.intensity or ("csv" if options.labels else "motion")
    if kind == "csv" and not options.labels:
        raise UserError("--intensity csv needs the intensity of each frame: add --labels FILE.csv.")
    if options.labels and kind != "csv":
        raise UserError(
            f"--intensity must be csv if --labels is given, got {kind}. To compare with labels, prepare without them, "
            "then run `python -m data_prep inspect OUT --truth LABELS.csv`."
        )
    if options.min_onset < 0:
        raise UserError(f"--min-onset must be a number of frames, 0 to keep all takes, got {options.min_onset}.")
    if options.min_onset and kind == "order":
        raise UserError("--min-onset must be 0 with --intensity order, which has no intensities.")
    if options.split == "published" and options.split_like:
        raise UserError("--split published and --split-like cannot go together: give one of them.")
    return kind


def choose_detector(options: Photographs, has_mat_labels: bool = False, needs_mesh: bool = False) -> str:
    """The face detector. Raises UserError for options that do not go together.

    has_mat_labels: whether landmark labels can give the points.
    needs_mesh:     whether the face mesh also measures intensities.
    """
    no_face = isinstance(options, Folder) and options.no_face
    implied = "boxes" if options.boxes else "points" if options.points else "none" if no_face else "haar"
    detector = options.detector or implied
    if no_face and detector in ("haar", "mesh"):
        raise UserError(f"--no-face and --detector {detector} cannot go together: give one of them.")
    if options.boxes and options.points:
        raise UserError("--boxes and --points cannot go together: give one of them.")
    for name, path in (("boxes", options.boxes), ("points", options.points)):
        if path and detector != name:
            raise UserError(f"--detector must be {name} if --{name} is given, got {detector}.")
        if detector == name and not path and not (has_mat_labels and name == "points"):
            raise UserError(f"--detector {name} needs the {name} of each picture: add --{name} FILE.csv.")
    if options.landmarker and detector != "mesh" and not needs_mesh:
        raise UserError(f"--detector must be mesh if --landmarker is given, got {detector}.")
    if not -0.5 <= options.margin <= 5:
        raise UserError(f"--margin must be a fraction from -0.5 to 5, 0 for a tight crop, got {options.margin:g}.")
    if options.workers < 0:
        raise UserError(f"--workers must be a number of processes, 0 for one a core, got {options.workers}.")
    if options.beam_option and not options.beam:
        raise UserError("--beam-option needs --beam.")
    if options.beam:
        if options.workers:
            raise UserError("--workers must be 0 with --beam: the runner's --beam-option sets the number of workers.")
        from data_prep.output.build import import_beam_pipeline

        import_beam_pipeline().parse_options(options.beam_option)  # report mistakes before RAW is searched
    return detector


def build_data_folder(source: str, options, detector: str, scan, intensity_method=None, training_subjects=()) -> None:
    """Build the data folder from the pictures of a layout and print a summary."""
    from data_prep.output.build import Plan, build_from_scan

    plan = Plan(
        source,
        detector,
        options.margin,
        dataclasses.asdict(options),
        options.subject_pattern,
        options.split_seed,
        options.split_like,
        options.overwrite,
        training_subjects,
    )
    beam_options = options.beam_option if options.beam else None
    info = build_from_scan(options.out, scan, plan, options.landmarker, options.workers, intensity_method, beam_options)
    print_summary(options.out, info)


def print_summary(out: Path, info: dict) -> None:
    """Print what a new data folder holds and what was left out. info: the content of prep.json."""
    for note in info["notes"]:
        print(f"Note: {printable(note)}", file=sys.stderr)
    for split, count in info["splits"].items():
        print(f"{split:12}{count:8} images of {len(info['subjects'][split])} subjects")
    for kind, count in info["left_out"].items():
        print(f"passed over {count:8} {kind}")
    rejected = sum(info["rejected"].values())
    print(f"left out    {rejected:8} images{' (listed in rejected.csv):' if rejected else ''}")
    for reason, count in info["rejected"].items():
        print(f"            {count:8} {reason}")
    for remark, count in info["remarks"].items():
        print(f"remark      {count:8} {remark} (listed in remarks.csv)")
    print(printable(f"{out} is ready: `python -m data_prep inspect {out}` shows it."))


def parse(arguments: list[str], program: str = PROGRAM):
    """The options of a command line, of the type that belongs to its command."""
    return tyro.extras.subcommand_cli_from_dict(
        {command: options_type for command, (options_type, _) in COMMANDS.items()},
        prog=program,
        description=__doc__,
        args=arguments or ["--help"],
    )


def main(arguments: list[str], program: str = PROGRAM) -> None:
    """Carry out a command line. A mistake of the user ends in one sentence."""
    start_command()
    name = arguments[0] if arguments else "--help"
    if name not in COMMANDS and not name.startswith("-"):
        hint = did_you_mean(name, COMMANDS)
        sys.exit(f"data_prep: the command must be one of {', '.join(COMMANDS)}, got {name}.{hint}")
    quiet_tensorflow()
    try:
        options = parse(arguments, program)
        if isinstance(options, Photographs):
            check_out(options.out, [options.raw], "OUT")
        COMMANDS[name][1](options)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        os._exit(0)  # whoever reads our output has read enough
    except UserError as error:
        sys.exit(printable(f"data_prep: {error}"))
    except OSError as error:
        sys.exit(printable(f"data_prep: {error.filename or 'the data folder'}: {error.strerror or error}."))


def stop_cleanly_on_sigterm() -> None:
    """As for Ctrl-C, nothing half-made stays."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))


if __name__ == "__main__":
    stop_cleanly_on_sigterm()
    main(sys.argv[1:])
