"""Swaps under independent judges: does the smile follow the one who gave it, and does the person stay?

Imports judges, metrics, model, panel, records and study.
"""

import numpy as np

from facedisent_jax import judges, metrics, panel, study
from facedisent_jax.judges import Judge, Missing
from facedisent_jax.model import Codes
from facedisent_jax.records import Faces

SEED = 0
REAL: tuple[str, ...] = ("source", "donor", "target")
MOST = 100
"""Most swaps judged, drawn by seed."""
SAME_PERSON = 0.6
"""dlib's threshold: pictures nearer than this are of one person (King 2017)."""


def judge(
    face: study.Face, faces: Faces, codes: Codes, swaps: metrics.Swaps, margin: float, points: "judges.Points | None"
) -> dict:
    """Figures of `metrics.swaps` that a smile judge and an identity network give, and sentences of what is missing.

    margin: of the crop of the pictures. points: the face mesh; without it the weaker reader of the mouth region stands
    in, fitted on the run's own training people.
    """
    count = len(swaps.target)
    drawn = np.sort(np.random.default_rng(SEED).permutation(count)[:MOST])
    out: dict = {"swaps": len(drawn), "missing": []}
    if not count:
        return out | {"smile": None, "identity": None}
    source, donor, target = (rows[drawn] for rows in swaps)
    made = face.decode((np.asarray(codes.identity)[source], np.asarray(codes.expression)[donor]))
    rebuilt = face.decode((np.asarray(codes.identity)[source], np.asarray(codes.expression)[source]))
    pictures, place = np.unique([source, donor, target], return_inverse=True)  # a picture has a part in many swaps
    photographs = np.asarray(faces.image[pictures], np.float32) / 255
    of_real = lambda judge: dict(zip(REAL, judge.measure(photographs)[place.reshape(3, -1)], strict=True))  # noqa: E731
    subject = faces.subject[target]
    smile = judges.mesh_smile(points, from_landmarks=False) if points else panel.fit_reader(face.info["data"])
    if smile is None:
        out |= {"smile": None}
        out["missing"].append("No smile judge: the run's training pictures are gone, and there is no face mesh.")
    else:
        out |= {"smile": smiles(smile, made, rebuilt, of_real(smile), subject)}
    known = judges.identity(margin)
    if isinstance(known, Missing):
        out |= {"identity": None}
        out["missing"].append(known.why)
    else:
        out |= {"identity": identities(known, made, of_real(known), subject)}
    return out


def smiles(judge: Judge, made: np.ndarray, rebuilt: np.ndarray, real: dict[str, np.ndarray], subject) -> dict:
    """Whether the measured smile follows the donor's.

    made: the swaps; rebuilt: the reconstructions of their sources, [n, 64, 64, 3] each. real: what the judge measured
    of the real source, donor and target, [n] each.

    followed: of the difference between the donor's smile and the source's, how much the swap took over (least squares
    through 0; 1 is all of it). real_followed: the same of the real picture of the person with that expression, as a
    mark: people smile differently. Swaps in which the judge finds no face are counted, and left out.
    """
    measured = real | {"made": judge.measure(made), "rebuilt": judge.measure(rebuilt)}
    found = np.isfinite(np.stack(list(measured.values()))).all(0)
    s = {name: values[found] for name, values in measured.items()}
    asked = s["donor"] - s["source"]

    def share(rise: np.ndarray) -> float:
        return float(rise @ asked / (asked @ asked)) if asked @ asked > 0 else np.nan

    return {
        "judge": judge.name,
        "note": judge.note,
        "correlation": metrics.spearman(s["made"], s["donor"]),
        "real_correlation": metrics.spearman(s["target"], s["donor"]),
        "followed": share(s["made"] - s["rebuilt"]),
        "real_followed": share(s["target"] - s["source"]),
        "no_face": int((~found).sum()),
        "subjects": len(np.unique(subject[found])),
    }


def identities(judge: Judge, made: np.ndarray, real: dict[str, np.ndarray], subject: np.ndarray) -> dict:
    """How far the swap is from the person and from the donor; mean over people with 95 % interval.

    made: the swaps, [n, 64, 64, 3]. real: what the judge measured of the real source, donor and target, [n, d] each.
    real_distance: between the person's two real pictures, as a mark.
    """
    of_made = judge.measure(made)
    to_source, to_donor, to_target = (np.linalg.norm(of_made - real[name], axis=1) for name in REAL)
    mean, low, high = metrics.by_subject(to_source, subject, SEED)
    return {
        "judge": judge.name,
        "distance": mean,
        "distance_ci95": [low, high],
        "donor_distance": metrics.by_subject(to_donor, subject, SEED)[0],
        "target_distance": metrics.by_subject(to_target, subject, SEED)[0],
        "real_distance": metrics.by_subject(np.linalg.norm(real["source"] - real["target"], axis=1), subject, SEED)[0],
        "nearer_than_donor": metrics.by_subject((to_source < to_donor).astype(float), subject, SEED)[0],
        "same_person": metrics.by_subject((to_source < SAME_PERSON).astype(float), subject, SEED)[0],
    }
