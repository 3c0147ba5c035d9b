"""`python eval.py COMMAND`: evaluate trained runs, use one on photographs (`photographs.py`), or make a page or model
files of one for others (`explore_and_export.py`).

Heavy imports are inside the commands, so that --help and mistakes are answered at once.
"""

import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from tyro.conf import Positional, arg

from facedisent_jax.commands import explore_and_export, photographs
from facedisent_jax.commands.options import (
    Data,
    FaceMesh,
    Run,
    Split,
    Step,
    check_files,
    judge_mesh,
    parse_step,
    progress,
)
from facedisent_jax.environment import quiet_tensorflow, start_command
from facedisent_jax.errors import Stopped, UserError, did_you_mean
from facedisent_jax.files import check_out

Clips = Annotated[int, arg(help="At most this many clips, a first one of every subject before a second. 0: all.")]
ReportFolder = Annotated[
    Path | None, arg(metavar="FOLDER", help="Folder of the page, its metrics and figures. None: inside the run folder.")
]


def report(
    run: Run,
    data: Data = (),
    split: Split = "test",
    step: Step = "best",
    landmarker: FaceMesh = None,
    out: ReportFolder = None,
) -> None:
    """Evaluate a run on people it never saw: RUN/report/index.html, metrics.json and figures."""
    from facedisent_jax.reporting import html
    from facedisent_jax.reporting.report import write

    folder = _report_folder(out, run / "report")
    mesh, _ = judge_mesh(landmarker)
    metrics = write(run, data, split, parse_step(step), mesh, folder)
    print(f"{metrics['data']['pictures']} {split} images of {metrics['data']['subjects']} held-out subjects")
    rows = {"reconstruction": metrics["reconstruction"], "swap": metrics["swap"]}
    rows |= {name: values for name, values in metrics["baselines"].items() if isinstance(values, dict)}
    for name, values in rows.items():
        if values["psnr"] is not None:
            print(f"{name.replace('_', ' '):15s} {values['psnr']:6.2f} dB   SSIM {values['ssim']:.3f}")
    if metrics["intensity"]["spearman"] is not None:
        print(f"{'intensity':15s} Spearman {metrics['intensity']['spearman']:.3f}")
    print(folder / html.PAGE)


def video(
    run: Run,
    data: Data = (),
    split: Split = "test",
    step: Step = "best",
    clips: Clips = 32,
    landmarker: FaceMesh = None,
    out: ReportFolder = None,
) -> None:
    """Compare the path from neutral to full expression with real clips: RUN/video/index.html, metrics.json, figures."""
    from facedisent_jax.reporting import html, video_report

    folder = _report_folder(out, run / "video")
    metrics = video_report.write(run, _video_options(data, split, step, clips, landmarker), folder)
    about = metrics["data"]
    print(
        f"{about['clips']} clips of {about['subjects']} held-out subjects, {about['onset_frames']['all']} onset frames"
    )
    for reason, count in about["rejected"].items():
        print(f"rejected {count:4d} takes: {reason}")
    for sentence in dict.fromkeys([*about["easier_than_video"], *metrics["missing"]]):
        print(f"Note: {sentence}")
    print(video_report.as_text(metrics))
    print(folder / html.PAGE)


def disentangle(
    run: Run, data: Data = (), split: Split = "test", step: Step = "best", out: ReportFolder = None
) -> None:
    """Which code holds which factor (MIG, SAP, DCI, IRS, probes): RUN/disentangle/index.html, metrics.json, figure."""
    from facedisent_jax.reporting import disentanglement_report, html

    folder = _report_folder(out, run / disentanglement_report.FOLDER)
    metrics = disentanglement_report.write(run, data, split, parse_step(step), folder)
    about = metrics["data"]
    print(f"{len(metrics['factors'])} factors, {about['pictures']} images of {about['subjects']} held-out people")
    for row in disentanglement_report.metric_rows(metrics):
        print(f"{row.name:58s}{row.value:>9s}   chance {row.reference}")
    print(folder / html.PAGE)


def compare(
    runs: Annotated[
        Positional[tuple[str, ...]],
        arg(
            metavar="RUN [RUN ...]",
            help="Two or more run folders. Several seeds count as one when given as NAME=RUN,RUN,...",
        ),
    ],
    data: Data = (),
    split: Split = "test",
    step: Step = "best",
    clips: Clips = 32,
    landmarker: FaceMesh = None,
    out: Annotated[Path | None, arg(help=".csv or .json: also write the table to this file.")] = None,
) -> None:
    """Video metrics of several runs in one table, with paired differences to the first."""
    from facedisent_jax import trained_model
    from facedisent_jax.reporting import comparison

    groups = comparison.groups(runs)
    if out is not None:
        comparison.check_out(out)
        check_files(out)
        folders = [run for group in groups.values() for run in group]
        check_out(out, [*folders, *(data or map(Path, trained_model.load(folders[0], parse_step(step)).info["data"]))])
    options = _video_options(data, split, step, clips, landmarker)
    table = comparison.compare(groups, options, lambda run: print(f"Evaluating {run}", file=sys.stderr))
    print(table.text())
    if out is not None:
        comparison.save(table, out)
        print(out)


def table1(
    data: Annotated[
        tuple[Path, ...],
        arg(help="Data folders of the same people in the same splits, one with a tight crop, others with a margin."),
    ],
    out: Annotated[Path, arg(help="Folder of the runs and of table1.json. The same command again continues.")] = Path(
        "runs/table1"
    ),
    preset: Annotated[
        Literal["poster", "binary", "intensity", "smile"], arg(help="Settings of all runs, but for crop and swap loss.")
    ] = "poster",
    steps: Annotated[int | None, arg(help="Steps and learning-rate decay of each run. None: the preset's.")] = None,
    seeds: Annotated[tuple[int, ...], arg(help="Random seeds, each a run of every row.")] = (0, 1, 2),
) -> None:
    """The poster's Table 1: tight and loose crops, with and without the swap loss, trained and compared."""
    from facedisent_jax.evaluation import table1
    from facedisent_jax.presets import PRESETS

    check_out(out, data)
    rows, size = table1.train_and_evaluate(data, out, PRESETS[preset].config, seeds, steps)
    print(f"\nPSNR in dB on the face at {size}x{size} pixels, held-out people, mean and spread over seeds")
    print(table1.format_table(rows))
    print(out / table1.FILE)


COMMANDS: dict[str, Callable[..., None]] = {
    "report": report,
    "video": video,
    "disentangle": disentangle,
    "compare": compare,
    "table1": table1,
    "interpolate": photographs.interpolate,
    "swap": photographs.swap,
    "encode": photographs.encode,
    "decode": photographs.decode,
    "stimuli": photographs.stimuli,
    "explore": explore_and_export.explore,
    "export": explore_and_export.export,
}


def run(arguments: Sequence[str], program: str = "eval.py") -> None:
    """Carry out a command line. A mistake of the user ends in one sentence."""
    start_command()
    name, *options = arguments or ["--help"]
    if name in ("-h", "--help"):
        about = "Evaluate trained runs, or use one on photographs. `COMMAND --help` lists its options."
        tyro.extras.subcommand_cli_from_dict(COMMANDS, prog=program, description=about, args=arguments)
    if name not in COMMANDS:
        sys.exit(f"The command must be one of {', '.join(COMMANDS)}, got {name!r}.{did_you_mean(name, COMMANDS)}")
    quiet_tensorflow()
    try:
        tyro.cli(COMMANDS[name], prog=f"{program} {name}", args=options)
    except Stopped as stopped:
        print(f"{program}: {stopped}", file=sys.stderr)
        sys.exit(stopped.status)
    except (UserError, OSError) as error:
        sys.exit(f"{program}: {error}")


def _video_options(data: tuple[Path, ...], split: str, step: str, clips: int, landmarker: Path | None) -> Any:
    from facedisent_jax.evaluation.video import VideoEvalOptions

    mesh, why_none = judge_mesh(landmarker)
    return VideoEvalOptions(data, split, parse_step(step), clips, mesh, why_none, partial(progress, unit="clip"))


def _report_folder(out: Path | None, default: Path) -> Path:
    """The folder of a page. Raises UserError before any work is done."""
    from facedisent_jax.reporting import html

    if out is not None:
        html.check_out(out)
    return out or default
