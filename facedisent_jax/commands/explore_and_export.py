"""`eval.py explore` and `export`: a page with sliders, and a model for other programs.

Heavy imports are inside the commands, so that --help and mistakes are answered at once.
"""

import sys
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import Positional, arg

from facedisent_jax.commands.options import (
    Data,
    FaceMesh,
    Run,
    Split,
    Step,
    check_files,
    check_new_folder,
    parse_step,
    progress,
    smile_mesh,
)
from facedisent_jax.files import check_out, check_suffix

DRAWN_SEED = 1  # of the drawn people on a page. The built-in faces have seed 0, so nobody here was trained on


def explore(
    run: Run,
    photos: Annotated[
        Positional[tuple[Path, ...]],
        arg(
            metavar="[PHOTO ...]",
            help="Photographs, one a person, at most eight. Cropped as the training data was, unless they have 64x64 "
            "pixels. None: people of --data, or drawn ones where the data of the run is gone.",
        ),
    ] = (),
    out: Annotated[Path, arg(help=".html: one file, which opens from disk.")] = Path("explore.html"),
    data: Data = (),
    split: Split = "test",
    expression: Annotated[
        str | None, arg(help="The expression of the slider. None: the only one of the training data.")
    ] = None,
    landmarker: FaceMesh = None,
    step: Step = "best",
) -> None:
    """A page with a slider from neutral to full expression for each person, and what judges measure on each image."""
    from data_prep.cropping import user_photos
    from facedisent_jax import trained_model
    from facedisent_jax.data.record import PREP_FILE
    from facedisent_jax.evaluation.judges import still_judges
    from facedisent_jax.evaluation.stills import load_held_out
    from facedisent_jax.files import write_atomically
    from facedisent_jax.reporting import explorer

    check_suffix(out, (".html",))
    check_files(out, *photos)
    model = trained_model.load(run, parse_step(step))
    folders = [Path(folder) for folder in data or model.info["data"]]
    check_out(out, folders)
    if photos:
        faces = user_photos.crop_photos(photos, model.info["crop"], landmarker)
        names = [path.stem for path in photos]
    elif data or any((folder / PREP_FILE).is_file() for folder in folders):
        names, faces = explorer.held_out_people(model, load_held_out(model, run, folders, split)[0])
    else:
        print("The data of the run is gone: the page shows drawn people. Give photographs, or --data.", file=sys.stderr)
        names, faces = drawn_people(explorer.MAX_PEOPLE)
    judges = still_judges(model, float(model.info["crop"]["margin"] or 0), smile_mesh(model, expression, landmarker)[0])
    write_atomically(out, explorer.render(model, names, faces, judges, expression))
    print(out)


def drawn_people(count: int) -> tuple[list[str], Any]:
    """Names and neutral faces, [n, 64, 64, 3] uint8, of people that this project draws."""
    import numpy as np

    from data_prep.synthetic.faces import draw, random_identity

    faces = np.stack([draw(random_identity(DRAWN_SEED, k), 0.0) for k in range(count)])
    return [f"drawn person {k + 1}" for k in range(count)], faces


def export(
    run: Run,
    out: Annotated[Path, arg(metavar="FOLDER", help="New folder of the files.")] = Path("exported"),
    data_licence: Annotated[
        str | None,
        arg(metavar="TEXT", help="Licence of the training images, for the model card. None: not stated there."),
    ] = None,
    step: Step = "best",
) -> None:
    """Write a model for use without this project: parameters (safetensors), encoder and decoder (ONNX), model card."""
    from facedisent_jax.reporting import export_folder

    check_new_folder(out)
    check_files(out)
    export_folder.check_installed()
    from facedisent_jax import trained_model

    model = trained_model.load(run, parse_step(step))
    for sentence in export_folder.write(out, model, run, data_licence, lambda parts: progress(parts, "ONNX file")):
        print(sentence)
    if export_folder.report_metrics(model, run) is None:
        print("The model card has no metrics: `python eval.py report RUN` measures them for this checkpoint.")
    print(out)
