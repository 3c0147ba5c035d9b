"""`python eval.py COMMAND`: evaluate trained runs, or use one on photographs.

Heavy imports are inside the commands, so that --help and mistakes are answered at once.
"""

import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from tyro.conf import Positional, arg

from facedisent_jax.environment import quiet_tensorflow, start_command
from facedisent_jax.errors import Stopped, UserError, did_you_mean
from facedisent_jax.files import STILLS, check_out, check_suffix

Run = Annotated[Positional[Path], arg(metavar="RUN", help="Run folder, made by train.py.")]
Data = Annotated[
    tuple[Path, ...],
    arg(help="Data folders, made by `python -m data_prep`. None: those of the (first) run."),
]
Split = Annotated[
    Literal["test", "validation", "train"],
    arg(help="Which subjects. Subjects that a run was trained on are refused."),
]
Step = Annotated[
    str,
    arg(
        metavar="best|last|N",
        help="Checkpoint: the best on validation subjects, the last, or the one of training step N.",
    ),
]
Clips = Annotated[int, arg(help="At most this many clips, a first one of every subject before a second. 0: all.")]
FaceMesh = Annotated[
    Path | None,
    arg(
        metavar="FILE",
        help="Model file of the face mesh, which measures the smile. None: the one fetched by data_prep, if any.",
    ),
]
ReportFolder = Annotated[
    Path | None, arg(metavar="FOLDER", help="Folder of the page, its metrics and figures. None: inside the run folder.")
]
CropMesh = Annotated[
    Path | None, arg(metavar="FILE", help="Model file of the face mesh, if the run's data was cropped with it.")
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
    mesh, _ = _face_mesh(landmarker)
    metrics = write(run, data, split, _parse_step(step), mesh, folder)
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
        _check_files(out)
        folders = [run for group in groups.values() for run in group]
        check_out(out, [*folders, *(data or map(Path, trained_model.load(folders[0], _parse_step(step)).info["data"]))])
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


def interpolate(
    run: Run,
    a: Annotated[
        Positional[Path],
        arg(metavar="A", help="First photograph. Cropped as the training data was, unless it has 64x64 pixels."),
    ],
    b: Annotated[
        Positional[Path | None],
        arg(metavar="[B]", help="Last photograph. None: A begins to smile, or to show --expression."),
    ] = None,
    to: Annotated[
        float, arg(help="Where the path ends: 1 is B, more is beyond B. Without B: the intensity of the smile.")
    ] = 1.0,
    steps: Annotated[int, arg(help="Images on the path, both ends included.")] = 11,
    move: Annotated[
        Literal["expression", "identity", "both"], arg(help='What changes. "expression": the person stays that of A.')
    ] = "expression",
    out: Annotated[
        Path, arg(help=".png or .jpg: a strip with both photographs. .gif, .webp or .mp4: an animation there and back.")
    ] = Path("strip.png"),
    expression: Annotated[
        str | None,
        arg(help="Without B: the expression that A begins to show. None: the only one of the training data."),
    ] = None,
    like: Annotated[
        Path | None,
        arg(
            help="Without B: a photograph of somebody who shows the expression in full, to show it alike. None: as "
            "people do on average."
        ),
    ] = None,
    landmarker: CropMesh = None,
    step: Step = "best",
) -> None:
    """Move from one face to another, or towards a smile, along a straight line in the codes."""
    from data_prep.cropping import user_photos
    from facedisent_jax import trained_model
    from facedisent_jax.reporting import figures

    check_suffix(out, STILLS + figures.ANIMATIONS)
    ends = [a] if b is None else [a, b]
    if b is not None and like is not None:
        raise UserError("--like must be given without B, which has a way of its own to show the expression.")
    _check_files(out, *ends, *filter(None, [like]))
    trained_model.check_steps(steps)
    model = trained_model.load(run, _parse_step(step))
    photos = user_photos.crop_photos([*ends, *filter(None, [like])], model.info["crop"], landmarker)
    frames = model.interpolate(
        photos[0], None if b is None else photos[1], steps, move, to, expression, None if like is None else photos[-1]
    )
    photos = photos[: len(ends)]
    if out.suffix.lower() in figures.ANIMATIONS:
        figures.animate(frames, out)
    else:
        alphas = [f"{to * k / (steps - 1):.2f}".removesuffix("0") for k in range(steps)]
        labels = [a.stem, *alphas, *(path.stem for path in ends[1:])]
        cells = [[photos[0], *frames, *photos[1:]]]
        figures.save(figures.grid(cells, labels, margin_columns=1, end_columns=len(ends) - 1), out)
    print(out)


def swap(
    run: Run,
    photos: Annotated[
        Positional[tuple[Path, ...]],
        arg(
            metavar="PHOTO [PHOTO ...]",
            help="Two or more photographs. Cropped as the training data was, unless they have 64x64 pixels.",
        ),
    ],
    out: Annotated[Path, arg(help=".png or .jpg.")] = Path("grid.png"),
    landmarker: CropMesh = None,
    step: Step = "best",
) -> None:
    """Give every person the expression of every other: a grid with people down and expressions across."""
    from data_prep.cropping import user_photos
    from facedisent_jax import trained_model
    from facedisent_jax.reporting import figures

    check_suffix(out, STILLS)
    _check_files(out, *photos)
    if len(photos) < 2:
        raise UserError(f"swap needs two photographs or more, got {len(photos)}.")
    model = trained_model.load(run, _parse_step(step))
    faces = user_photos.crop_photos(photos, model.info["crop"], landmarker)
    names = [path.stem for path in photos]
    rows = [[face, *row] for face, row in zip(faces, model.swap_grid(faces, faces), strict=True)]
    labels = ["expression\nof", *names]
    figures.save(figures.grid([[None, *faces], *rows], ["", *names], labels, margin_rows=1, margin_columns=1), out)
    print(out)


def encode(
    run: Run,
    images: Annotated[
        Positional[tuple[Path, ...]],
        arg(
            metavar="PHOTO|FOLDER [...]",
            help="Photographs, folders of them, or data folders made by data_prep, all splits. Photographs are cropped "
            "as the training data was, unless they have 64x64 pixels.",
        ),
    ],
    out: Annotated[Path, arg(help=".csv or .npz.")] = Path("codes.csv"),
    landmarker: CropMesh = None,
    step: Step = "best",
) -> None:
    """Write the latent codes of images as a table, one row an image."""
    from data_prep.cropping import user_photos
    from data_prep.layouts.scan import list_images
    from facedisent_jax import trained_model
    from facedisent_jax.data.record import PREP_FILE
    from facedisent_jax.evaluation import code_table

    check_suffix(out, code_table.SUFFIXES)
    data = [path for path in images if (path / PREP_FILE).is_file()]
    photos = [
        photo
        for path in images
        if path not in data
        for photo in ([file for file, _ in list_images(path)[0]] if path.is_dir() else [path])
    ]
    _check_files(out, *photos)
    check_out(out, images)
    model = trained_model.load(run, _parse_step(step))
    crops, names = [], []
    for photo in _progress(photos, "image"):
        try:
            crops.append(user_photos.crop_photos([photo], model.info["crop"], landmarker)[0])
            names.append(str(photo))
        except UserError as error:
            print(f"Left out: {error}", file=sys.stderr)
    table = code_table.encode(model, names, crops, data)
    code_table.write(table, out)
    print(f"{len(table.path)} images, {len(photos) - len(crops)} left out")
    print(out)


def decode(
    run: Run,
    codes: Annotated[Positional[Path], arg(metavar="CODES", help="Table of codes, .csv or .npz, as encode writes it.")],
    out: Annotated[
        Path, arg(metavar="FOLDER", help="New folder of the images: 0000.png for the first row, ...")
    ] = Path("decoded"),
    source: Annotated[
        Path | None,
        arg(help="Preset warp: a photograph of the person, to whom every row gives its expression. None: codes alone."),
    ] = None,
    landmarker: CropMesh = None,
    step: Step = "best",
) -> None:
    """Decode a table of codes to images of 64x64 pixels."""
    import numpy as np

    from data_prep.cropping import user_photos
    from facedisent_jax import trained_model
    from facedisent_jax.evaluation import code_table
    from facedisent_jax.reporting import figures

    if out.exists():
        raise UserError(f"--out must be a new folder, got {out}, which exists.")
    _check_files(out, codes, *filter(None, [source]))
    model = trained_model.load(run, _parse_step(step))
    _, pairs = code_table.read(codes, model.config.model.code_dims)
    sources = None
    if source is not None:
        photo = user_photos.crop_photos([source], model.info["crop"], landmarker)
        sources = np.repeat(photo, len(pairs.identity), axis=0)
    decoded = model.decode(pairs, sources)
    out.mkdir()
    for k, image in enumerate(decoded):
        figures.save(figures.enlarge(image, 1), out / f"{k:04}.png")
    print(f"{len(decoded)} images")
    print(out)


def stimuli(
    run: Run,
    photos: Annotated[
        Positional[tuple[Path, ...]],
        arg(
            metavar="PHOTO [PHOTO ...]",
            help="Photographs, one a person. Cropped as the training data was, unless they have 64x64 pixels.",
        ),
    ],
    out: Annotated[Path, arg(metavar="FOLDER", help="New folder of the images, stimuli.csv and recipe.json.")] = Path(
        "stimuli"
    ),
    levels: Annotated[
        tuple[float, ...],
        arg(help="Measured smile of the images: 0 is the photograph, 1 what the model makes of it at full strength."),
    ] = (0.0, 0.25, 0.5, 0.75, 1.0),
    match_luminance: Annotated[
        bool, arg(help="Give all images of a person the mean luminance and the contrast of the photograph.")
    ] = False,
    scale: Annotated[int, arg(help="Width of the images in multiples of 64 pixels (Lanczos).")] = 4,
    expression: Annotated[str | None, arg(help="The expression. None: the only one of the training data.")] = None,
    recipe: Annotated[
        Path | None,
        arg(metavar="FILE", help="recipe.json of other stimuli: the same images are made again, nothing is measured."),
    ] = None,
    landmarker: FaceMesh = None,
    step: Step = "best",
) -> None:
    """Make images of each person at equal steps of the measured smile, for experiments on perception."""
    from data_prep.cropping import user_photos
    from facedisent_jax import trained_model
    from facedisent_jax.evaluation.judges import still_judges
    from facedisent_jax.reporting import stimuli_folder

    if out.exists():
        raise UserError(f"--out must be a new folder, got {out}, which exists.")
    if scale < 1:
        raise UserError(f"--scale must be at least 1, got {scale}.")
    _check_files(out, *photos, *filter(None, [recipe]))
    model = trained_model.load(run, _parse_step(step))
    faces = user_photos.crop_photos(photos, model.info["crop"], landmarker)
    names = [path.stem for path in photos]
    if recipe is None:
        mesh, why_none = _smile_mesh(model, expression, landmarker)
        judges = still_judges(model, float(model.info["crop"]["margin"] or 0), mesh)
        if judges.smile is None:
            raise UserError(
                f"A judge must measure the smile, and there is none: the training images are gone. {why_none}"
            )
        chosen = stimuli_folder.measure(model, names, faces, levels, judges, expression, match_luminance, scale)
    else:
        chosen = stimuli_folder.read_recipe(recipe, model, faces)
    stimuli_folder.write(out, model, names, faces, chosen)
    print(out)


def explore(
    run: Run,
    photos: Annotated[
        Positional[tuple[Path, ...]],
        arg(
            metavar="[PHOTO ...]",
            help="Photographs, one a person, at most eight. Cropped as the training data was, unless they have 64x64 "
            "pixels. None: people of --data.",
        ),
    ] = (),
    out: Annotated[Path, arg(help=".html: one file, which opens from disk.")] = Path("explore.html"),
    data: Data = (),
    split: Split = "test",
    expression: Annotated[
        str | None, arg(help="The expression of the slider. None: the first of the training data.")
    ] = None,
    landmarker: FaceMesh = None,
    step: Step = "best",
) -> None:
    """A page with a slider from neutral to full expression for each person, and what judges measure on each image."""
    from data_prep.cropping import user_photos
    from facedisent_jax import trained_model
    from facedisent_jax.evaluation.judges import still_judges
    from facedisent_jax.evaluation.stills import load_held_out
    from facedisent_jax.reporting import explorer

    check_suffix(out, (".html",))
    _check_files(out, *photos)
    model = trained_model.load(run, _parse_step(step))
    folders = [Path(folder) for folder in data or model.info["data"]]
    check_out(out, folders)
    if photos:
        faces = user_photos.crop_photos(photos, model.info["crop"], landmarker)
        names = [path.stem for path in photos]
    else:
        names, faces = explorer.held_out_people(model, load_held_out(model, run, folders, split)[0])
    judges = still_judges(
        model, float(model.info["crop"]["margin"] or 0), _smile_mesh(model, expression, landmarker)[0]
    )
    explorer.write(model, names, faces, judges, expression, out)
    print(out)


COMMANDS: dict[str, Callable[..., None]] = {
    "report": report,
    "video": video,
    "compare": compare,
    "table1": table1,
    "interpolate": interpolate,
    "swap": swap,
    "encode": encode,
    "decode": decode,
    "stimuli": stimuli,
    "explore": explore,
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

    mesh, why_none = _face_mesh(landmarker)
    return VideoEvalOptions(data, split, _parse_step(step), clips, mesh, why_none, partial(_progress, unit="clip"))


def _progress(items: Any, unit: str) -> Any:
    """The items, with a bar."""
    from tqdm import tqdm

    return tqdm(items, unit=f" {unit}", dynamic_ncols=True)


def _report_folder(out: Path | None, default: Path) -> Path:
    """The folder of a page. Raises UserError before any work is done."""
    from facedisent_jax.reporting import html

    if out is not None:
        html.check_out(out)
    return out or default


def _face_mesh(landmarker: Path | None) -> tuple[Any, str]:
    """The face mesh that judges smiles, and why there is none."""
    from data_prep.cropping import user_photos

    mesh = user_photos.crop_landmark_finder(landmarker)
    return (None, mesh) if isinstance(mesh, str) else (mesh, "")


def _smile_mesh(model: Any, expression: str | None, landmarker: Path | None) -> tuple[Any, str]:
    """`_face_mesh`, which measures nothing but the smile."""
    if (expression or "".join(model.expressions[:1])) != "smile":
        return None, "The face mesh measures nothing but the smile."
    return _face_mesh(landmarker)


def _parse_step(step: str) -> str | int:
    return int(step) if step.isdecimal() else step


def _check_files(out: Path, *photos: Path) -> None:
    """Raises UserError before any work is done."""
    if not out.parent.is_dir():
        raise UserError(f"--out must be in an existing folder, got {out}.")
    for path in photos:
        if not path.is_file():
            raise UserError(f"A photograph must be an existing file, got {path}.")
    check_out(out, photos)
