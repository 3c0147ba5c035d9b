"""Who judges a study of clips: the independent networks that are installed, and what stands in for those that are not.

Imports data, judges, records and study.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from facedisent_jax import judges, records, study
from facedisent_jax.data import crop_of, read_faces
from facedisent_jax.judges import Judge, Judges, Missing

SEED = 0


def find(
    face: study.Face,
    folders: Sequence[Path],
    infos: Sequence[dict],
    split: str,
    points: "judges.Points | None",
    no_points: str,
) -> tuple[Judges, dict]:
    """The judges that are there, and what is said of each: name, independence, or what is missing.

    infos: what prep wrote of the folders. points: the face mesh for 64x64 pictures; without it no_points says why.
    """
    margin = float(crop_of(folders)["margin"] or 0)
    identity, perceptual = judges.identity(margin), judges.perceptual()
    own = split != "train"  # nobody reads the smile of people it was fitted on
    reader = fit_reader(folders if own else face.info["data"])
    mesh = None
    if points is not None:
        mesh = judges.mesh_smile(points, any(made_by_landmarks(info) for info in infos))
    smile, second = (mesh, reader) if mesh else (reader, None)
    last_resort = judges.DIFFERENCE
    said = {
        "smile": describe(smile) if smile else {"name": last_resort.name, "note": last_resort.note},
        "identity": describe(identity),
        "lpips": describe(perceptual),
    }
    said["smile"]["fallback"] = mesh is None
    if mesh is None:
        said["smile"]["missing"] = f"The smile is measured by a fallback. {no_points}"
    if second:
        said["smile_reader"] = describe(second)
    kept = [None if isinstance(judge, Missing) else judge for judge in (identity, perceptual)]
    return Judges(smile, second, *kept), said


def describe(judge: Judge | Missing) -> dict:
    if isinstance(judge, Missing):
        return {"name": None, "missing": judge.why}
    independent = {"independent": not judge.note.startswith("NOT")}
    return {"name": judge.name} | ({"note": judge.note} if judge.note else {}) | independent


def fit_reader(folders: Sequence[Path | str]) -> Judge | None:
    """The reader of the mouth region, fitted on the training people of data folders; None if there are none."""
    try:
        faces = read_faces(folders, "train", memory=1.0)
    except records.RecordError:
        return None
    known = faces.intensity[~np.isnan(faces.intensity)]
    return judges.reader(faces.image, faces.intensity, SEED) if len(known) > 1 and np.ptp(known) > 0 else None


def made_by_landmarks(info: dict) -> bool:
    """Whether a data folder's intensities were measured on the face mesh."""
    return info.get("options", {}).get("intensity") == "landmarks"
