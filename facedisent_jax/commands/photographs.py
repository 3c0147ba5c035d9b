"""The commands of `eval.py` that use a trained run on photographs.

Heavy imports are inside the commands, so that --help and mistakes are answered at once.
"""

import sys
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from facedisent_jax.commands.options import (
    CropMesh,
    FaceMesh,
    Run,
    Step,
    check_files,
    check_new_folder,
    parse_step,
    progress,
    smile_mesh,
)
from facedisent_jax.errors import UserError
from facedisent_jax.files import STILLS, check_out, check_suffix


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
    check_files(out, *ends, *filter(None, [like]))
    trained_model.check_steps(steps)
    model = trained_model.load(run, parse_step(step))
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
    check_files(out, *photos)
    if len(photos) < 2:
        raise UserError(f"swap needs two photographs or more, got {len(photos)}.")
    model = trained_model.load(run, parse_step(step))
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
    from data_prep.output.build import core_count
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
    check_files(out, *photos)
    check_out(out, images)
    model = trained_model.load(run, parse_step(step))
    left_out: list[str] = []

    def usable_crops():
        crops = user_photos.crop_in_workers(photos, model.info["crop"], landmarker, core_count())
        for k, crop in progress(crops, "image", len(photos)):
            if isinstance(crop, str):
                left_out.append(f"{photos[k]}: {crop}")
            else:
                yield k, crop

    try:
        table = code_table.encode(model, list(map(str, photos)), usable_crops(), data)
    finally:  # also where none is usable
        for line in sorted(left_out):
            print(f"Left out: {line}", file=sys.stderr)
    code_table.write(table, out)
    print(f"{len(table.path)} images, {len(left_out)} left out")
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

    check_new_folder(out)
    check_files(out, codes, *filter(None, [source]))
    model = trained_model.load(run, parse_step(step))
    pairs = code_table.read(codes, model)
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

    check_new_folder(out)
    if scale < 1:
        raise UserError(f"--scale must be at least 1, got {scale}.")
    check_files(out, *photos, *filter(None, [recipe]))
    model = trained_model.load(run, parse_step(step))
    faces = user_photos.crop_photos(photos, model.info["crop"], landmarker)
    names = [path.stem for path in photos]
    if recipe is None:
        mesh, why_none = smile_mesh(model, expression, landmarker)
        smile, identity, _ = still_judges(model, float(model.info["crop"]["margin"] or 0), mesh)
        if smile is None:
            raise UserError(
                f"A judge must measure the smile, and there is none: the training images are gone. {why_none}"
            )
        chosen = stimuli_folder.measure(
            model, names, faces, levels, smile, identity, expression, match_luminance, scale
        )
    else:
        chosen = stimuli_folder.read_recipe(recipe, model, faces)
    stimuli_folder.write(out, model, names, faces, chosen)
    print(f"Measured by {chosen.smile_judge}: at most {chosen.largest_residual():.2f} from the levels.")
    print(out)
