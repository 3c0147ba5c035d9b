"""Options that several commands of `eval.py` share, and what they turn into."""

from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import Positional, arg

from facedisent_jax.errors import UserError
from facedisent_jax.files import check_out

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
FaceMesh = Annotated[
    Path | None,
    arg(
        metavar="FILE",
        help="Model file of the face mesh, which measures the smile. None: the one fetched by data_prep, if any.",
    ),
]
CropMesh = Annotated[
    Path | None, arg(metavar="FILE", help="Model file of the face mesh, if the run's data was cropped with it.")
]


def judge_mesh(landmarker: Path | None) -> tuple[Any, str]:
    """The face mesh that judges smiles, and why there is none."""
    from data_prep.cropping import user_photos

    mesh = user_photos.crop_landmark_finder(landmarker)
    return (None, mesh) if isinstance(mesh, str) else (mesh, "")


def smile_mesh(model: Any, expression: str | None, landmarker: Path | None) -> tuple[Any, str]:
    """`judge_mesh`, which measures nothing but the smile."""
    if (expression or "".join(model.expressions[:1])) != "smile":
        return None, "The face mesh measures nothing but the smile."
    return judge_mesh(landmarker)


def parse_step(step: str) -> str | int:
    return int(step) if step.isdecimal() else step


def check_new_folder(out: Path) -> None:
    """Raises UserError for an --out that exists."""
    if out.exists():
        raise UserError(f"--out must be a new folder, got {out}, which exists.")


def check_files(out: Path, *photos: Path) -> None:
    """Raises UserError before any work is done."""
    if not out.parent.is_dir():
        raise UserError(f"--out must be in an existing folder, got {out}.")
    for path in photos:
        if not path.is_file():
            raise UserError(f"An input must be an existing file, got {path}.")
    check_out(out, photos)


def progress(items: Any, unit: str, total: int | None = None) -> Any:
    """The items, with a bar. total: how many there are, if `items` does not know."""
    from tqdm import tqdm

    return tqdm(items, unit=f" {unit}", total=total, dynamic_ncols=True)
