"""Ways from the neutral frame of a clip to its apex: the network's, and what they have to beat.

A way makes a picture for every alpha from the two end frames alone (or from one of them); what stands beside the real
frames is made from each of them. Imports baselines, clips, data, metrics, model, records, reference_terms
and study.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Literal, NamedTuple

import jax.numpy as jnp
import numpy as np

from facedisent_jax import trained_model
from facedisent_jax.data.reading import read_faces
from facedisent_jax.data.record import Faces
from facedisent_jax.errors import UserError
from facedisent_jax.evaluation import baselines, judges, metrics
from facedisent_jax.evaluation.clips import Clip
from facedisent_jax.losses.related_work import rotate
from facedisent_jax.models.codes import Codes
from facedisent_jax.models.pca import PCA, fit_pca, reconstruct

SEED = 0
COMPONENTS = 128
APEX, NEUTRAL = 0.95, 0.05
"""Training frames count as full expression from this intensity up, as neutral up to this one."""
MOST_ENCODED = 500
"""Most training frames of which a mean code is taken, drawn by seed."""
FAR = 0.3
"""Another frame of a clip is at least so far away in intensity."""
DRAWN = 64
"""Training pictures whose codes stand in where codes are shuffled."""
Method = Callable[[np.ndarray], np.ndarray]
"""alpha [k] -> pictures [k, 64, 64, 3] float in [0, 1]."""

TITLES = {
    "expression": ("expression code", "the network: expression code moved between the ends, identity of the neutral"),
    "whole": ("whole code", "the network: both codes moved between the ends"),
    "one_picture": ("one picture", "the network: neutral frame alone, moved to the training set's mean smile code"),
    "own_smile": ("one picture, own smile", "the network: neutral frame alone, moved to the apex's expression code"),
    "own_codes": ("one picture, own codes", "the network: neutral frame alone, moved to both codes of the apex"),
    "rotated": ("rotated code", "the network: the neutral frame's code turned in proportion to the intensity"),
    "codes_alone": ("codes alone", "the network: as own smile, and no picture seen"),
    "codes_shuffled": ("codes shuffled", "the network: neutral frame, with codes of training pictures drawn at random"),
    "displacement_alone": ("displacement alone", "the network: as own smile, and nothing painted"),
    "paint_alone": ("paint alone", "the network: as own smile, and nothing displaced"),
    "reconstruction": ("reconstruction", "the ceiling: each real frame encoded and decoded"),
    "from_another": (
        "from another frame",
        "the network: another 0.3 of intensity or more away, with the real one's codes",
    ),
    "cross_fade": ("cross-fade", "of the two real end frames"),
    "cross_fade_reconstructions": ("cross-fade, reconstructed", "of the reconstructions of the two end frames"),
    "morph": ("landmark morph", "both end frames warped to the shape in between, and cross-faded"),
    "mean_difference": ("mean difference", "neutral frame + the training set's mean difference of smile and neutral"),
    "unchanged": ("unchanged", "the neutral frame"),
    "pca_128": ("PCA-128", "each real frame rebuilt from 128 principal components of the training pictures"),
    "nearest": ("nearest frame", "the training picture nearest to each real frame"),
    "real": ("real frames", "the clip itself, for the judges' own figures"),
}
"""Every way and what stands beside: its name for readers, and what it is."""
MODES = ("expression", "whole", "one_picture", "own_smile", "own_codes", "rotated")
ABLATION = ("codes_alone", "codes_shuffled", "displacement_alone", "paint_alone")
"""What a decoder that sees pictures is without one of its parts, taken from the trained network."""
SEES_THE_FRAMES = ("real", "reconstruction", "from_another", "pca_128", "nearest")
"""Made from each real frame, not from the ends."""


class TrainingStatistics(NamedTuple):
    """What the training pictures of the run tell; None and empty where they are gone, and `missing` says so.

    smile_code: mean expression code of full expression [64], by action. difference: mean picture of full expression
    minus neutral, over people, by action. drawn: expression codes of training pictures drawn by seed [n, 64].
    """

    faces: Faces | None
    pca: PCA | None
    smile_code: dict[str, np.ndarray]
    difference: dict[str, np.ndarray]
    missing: list[str]
    drawn: np.ndarray | None = None


class EncodedClip(NamedTuple):
    """A clip as the ways see it. real, rebuilt: its t frames and their reconstructions, [t, 64, 64, 3] float; another:
    each made from another frame (`elsewhere`), where the decoder sees pictures."""

    clip: Clip
    real: np.ndarray
    rebuilt: np.ndarray
    codes: Codes
    another: np.ndarray | None = None


def fit_training_statistics(face: trained_model.TrainedModel, actions: set[str]) -> TrainingStatistics:
    """From the run's own data folders."""
    try:
        faces = read_faces(face.info["data"], "train", memory=1.0)
    except UserError as error:
        why = "PCA, nearest frame, mean difference and the path from one picture: the run's training pictures are gone."
        return TrainingStatistics(None, None, {}, {}, [f"Missing: {why} {error}"])
    shown = metrics.displayed_expression(faces.expression, faces.intensity)
    codes, differences, missing = {}, {}, []
    for action in sorted(actions):
        apex = np.flatnonzero((faces.expression == action) & (faces.intensity >= APEX))
        if len(apex):
            drawn = np.sort(np.random.default_rng(SEED).permutation(apex)[:MOST_ENCODED])
            codes[action] = np.asarray(face.encode(faces.image[drawn]).expression).mean(0)
        else:
            missing.append(f"Missing: the path from one picture, as no training picture shows {action} in full.")
        difference = mean_difference(faces, shown, action)
        if difference is None:
            missing.append(f"Missing: mean difference, as no training person shows both neutral and full {action}.")
        else:
            differences[action] = difference
    rows = np.sort(np.random.default_rng(SEED).permutation(len(faces))[:DRAWN])
    drawn = np.asarray(face.encode(faces.image[rows]).expression)
    return TrainingStatistics(faces, fit_pca(faces.image, COMPONENTS, SEED), codes, differences, missing, drawn)


def mean_difference(faces: Faces, shown: np.ndarray, action: str) -> np.ndarray | None:
    """Mean over people of (mean picture of full expression - mean neutral picture), [64, 64, 3]; None for nobody."""
    full = (shown == action) & (faces.intensity >= APEX)
    neutral = (faces.intensity <= NEUTRAL) & (shown != "")
    total, people = np.zeros((64, 64, 3), np.float32), 0
    for subject in np.unique(faces.subject[full]):
        both = [np.flatnonzero((faces.subject == subject) & mask) for mask in (full, neutral)]
        if subject and all(map(len, both)):
            high, low = (np.asarray(faces.image[rows], np.float32).mean(0) / 255 for rows in both)
            total += high - low
            people += 1
    return total / people if people else None


def encode_clip(face: trained_model.TrainedModel, faces: Faces, clip: Clip) -> EncodedClip:
    """Encode and rebuild the frames of a clip."""
    pictures = np.asarray(faces.image[clip.rows])
    codes = face.encode(pictures)
    real = pictures.astype(np.float32) / 255
    another = face.decode(codes, real[distant_frames(clip.intensity)]) if face.uses_source else None
    return EncodedClip(clip, real, face.decode(codes), codes, another)


def distant_frames(intensity: np.ndarray) -> np.ndarray:
    """For each frame of a clip, intensities [t], the row of another that is at least `FAR` away, drawn by seed; where
    none is, of the end that is further away -> [t]."""
    rng, rows = np.random.default_rng(SEED), []
    for own in intensity:
        distance = np.abs(intensity - own)
        far = np.flatnonzero(distance >= FAR)
        rows.append(rng.choice(far) if len(far) else (0, len(intensity) - 1)[int(distance[-1] > distance[0])])
    return np.array(rows)


def interpolation_methods(
    face: trained_model.TrainedModel,
    known: EncodedClip,
    learnt: TrainingStatistics,
    points: "judges.Points | None" = None,
) -> dict[str, Method]:
    """Every way that can be gone between the ends of a clip; points: the face mesh, for the morph."""
    first, last = known.real[0], known.real[-1]
    identity, expression = (np.asarray(code) for code in known.codes)
    action, intensity = known.clip.action, known.clip.intensity

    def decoded(start: tuple, end: tuple, *seen: np.ndarray) -> Method:
        def way(alpha: np.ndarray) -> np.ndarray:
            weight = np.asarray(alpha, np.float32)[:, None]
            codes = [(1 - weight) * a + weight * b for a, b in zip(start, end, strict=True)]
            pictures = [np.repeat(picture[None], len(weight), axis=0) for picture in seen]
            return face.decode_with_source(codes, *pictures, alpha=alpha)

        return way

    def degree(alpha: np.ndarray) -> np.ndarray:
        """How far from neutral to the full expression of the training set: that is intensity 1, not this clip's."""
        absolute = intensity[0] + np.asarray(alpha) * (intensity[-1] - intensity[0])
        return (absolute - intensity[0]) / (1 - intensity[0])

    neutral = (identity[0], expression[0])
    out: dict[str, Method] = {
        "expression": decoded(neutral, (identity[0], expression[-1]), first, last),
        "whole": decoded(neutral, (identity[-1], expression[-1]), first, last),
        "cross_fade": lambda alpha: baselines.cross_fade(first, last, alpha),
        "cross_fade_reconstructions": lambda alpha: baselines.cross_fade(known.rebuilt[0], known.rebuilt[-1], alpha),
        "unchanged": lambda alpha: np.repeat(first[None], len(alpha), axis=0),
    }
    if action in learnt.smile_code:
        full = decoded(neutral, (identity[0], learnt.smile_code[action]), first)
        out["one_picture"] = lambda alpha: full(degree(alpha))
    if face.config.method == "rotation":

        def rotated(alpha: np.ndarray) -> np.ndarray:
            who, neutral = (np.repeat(code[:1], len(alpha), axis=0) for code in (identity, expression))
            change = jnp.asarray(alpha * (intensity[-1] - intensity[0]), jnp.float32)
            return face.decode((who, np.asarray(rotate(jnp.asarray(neutral), change))))

        out["rotated"] = rotated
    if face.uses_source:
        out["own_smile"] = decoded(neutral, (identity[0], expression[-1]), first)
        out["own_codes"] = decoded(neutral, (identity[-1], expression[-1]), first)
        out |= ablation(face, known, learnt)
    if action in learnt.difference:
        step = learnt.difference[action]
        out["mean_difference"] = lambda alpha: np.clip(
            first + degree(alpha).astype(np.float32)[:, None, None, None] * step, 0, 1
        )
    meshes = [points(picture) for picture in judges.as_bytes(known.real[[0, -1]])] if points else []
    if len(both := [mesh for mesh in meshes if mesh is not None]) == 2:
        out["morph"] = lambda alpha: baselines.morph(first, last, both[0], both[1], alpha)
    return {name: out[name] for name in TITLES if name in out}


def ablation(face: trained_model.TrainedModel, known: EncodedClip, learnt: TrainingStatistics) -> dict[str, Method]:
    """From the neutral frame towards the apex's code, each without one of the parts of a decoder that sees pictures."""
    identity, expressions = (np.asarray(code) for code in known.codes)

    def way(face: trained_model.TrainedModel, sees: bool = True, codes: np.ndarray | None = None) -> Method:
        def made(alpha: np.ndarray) -> np.ndarray:
            weight = np.asarray(alpha, np.float32)[:, None]
            expression = (1 - weight) * expressions[0] + weight * expressions[-1]
            if codes is not None:
                expression = codes[np.random.default_rng(SEED).integers(0, len(codes), len(alpha))]
            asked = (np.repeat(identity[:1], len(alpha), axis=0), expression)
            return face.decode(asked, np.repeat(known.real[:1], len(alpha), axis=0) if sees else None)

        return made

    def only(parts: Literal["flow", "paint"]) -> trained_model.TrainedModel:
        return replace(face, config=replace(face.config, model=replace(face.config.model, warp_ablation=parts)))

    out = {"codes_alone": way(face, sees=False)}
    if learnt.drawn is not None:
        out["codes_shuffled"] = way(face, codes=learnt.drawn)
    return out | {"displacement_alone": way(only("flow")), "paint_alone": way(only("paint"))}


def per_frame_references(known: EncodedClip, learnt: TrainingStatistics) -> dict[str, np.ndarray]:
    """What is made from each real frame of a clip: pictures [t, 64, 64, 3] float."""
    out = {"real": known.real, "reconstruction": known.rebuilt}
    if known.another is not None:
        out["from_another"] = known.another
    if learnt.faces is not None and learnt.pca is not None:
        out["pca_128"] = reconstruct(learnt.pca, known.real, COMPONENTS)
        rows = baselines.nearest(learnt.faces.image, known.real)
        out["nearest"] = np.stack([np.asarray(learnt.faces.image[row : row + 1])[0] for row in rows]) / np.float32(255)
    return out
