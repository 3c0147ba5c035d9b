"""Measures how strong the expression is in each frame of a take: 0 (neutral) to 1 (apex). Arrays in, arrays out.

There are two measures: one from the landmarks of a face mesh, one from the images. Both are smoothed over time and
scaled so that the first frame is 0 and the apex is 1.
"""

from typing import NamedTuple

import numpy as np

from facedisent_jax.data.record import MOUTH

ONSET_START = 0.05  # fraction of the take's range: the onset starts at the last frame at or below it
ONSET_END = 0.95  # fraction of the take's range: the onset ends at the first frame at or above it
SHORT_ONSET_FRAMES = 8  # shorter onsets get a remark: the evaluation on video leaves them out
MAX_NEUTRAL_INTENSITY = 0.05  # of a neutral frame: it rounds to step 0 of 0.1
SMOOTHING_FRAMES = 1.0  # standard deviation of the Gaussian over time: 0.05 s in MUG, where an onset takes about 0.5 s
MIN_SIGNAL_TO_NOISE = 5.0  # the apex must exceed the flicker between frames by this factor
# A take that falls below its first frame by more than this fraction of the apex gets a remark. If it falls by more than
# the apex itself, it does not begin neutral. In faint smiles head motion alone gives up to 0.9 (derived London clips).
MAX_FALL_BELOW_START = 0.25
MAD_TO_STANDARD_DEVIATION = 1.48  # for normally distributed values

# Points of the face mesh.
MOUTH_CORNERS = (61, 291)
OUTER_EYES = (33, 263)
# Eye corners, nose, forehead and temples: no expression moves them much, so they show the motion of the head.
STEADY = (33, 133, 362, 263, 168, 6, 197, 195, 5, 4, 1, 10, 151, 9, 8, 127, 356, 234, 454, 103, 332, 67, 297, 109, 338)
FIRST_IRIS_POINT = 468  # points from here on move with the gaze

FACE = (slice(2, 62), slice(2, 62))  # rows and columns of a tight crop: all but the border


class TakeError(ValueError):
    """A take that cannot be used. The message is a short phrase, a colon, and what was found or expected."""


class IntensityMethod(NamedTuple):
    """Where the intensities of takes come from.

    kind:      "csv" (given by the user), "landmarks", "motion" or "order" (only the order of the onset's frames).
    min_onset: takes whose onset has fewer frames are left out.
    """

    kind: str = "motion"
    min_onset: int = 0

    @property
    def needs_images(self) -> bool:
        """Whether the intensities are measured on the crops."""
        return self.kind != "csv"


def onset_frames(intensities) -> range:
    """Indices of the onset's frames, both ends included; empty if the take does not rise from its lowest 5 %.

    intensities: [n], of the frames of a take in order.
    """
    values = np.asarray(intensities, float)
    low, high = np.nanmin(values), np.nanmax(values)
    if not high > low:
        return range(0)
    fraction = (values - low) / (high - low)
    end = int(np.argmax(fraction >= ONSET_END))
    starts = np.flatnonzero(fraction[:end] <= ONSET_START)
    return range(int(starts[-1]), end + 1) if len(starts) else range(0)


def onset_length(intensities) -> int:
    """Number of frames of the onset, both ends included."""
    return len(onset_frames(intensities))


def check_onset(intensities, min_frames: int) -> list[str]:
    """Remarks on the onset of a take.

    Raises TakeError if the onset has fewer than `min_frames` frames.
    """
    length = onset_length(intensities)
    if length < min_frames:
        raise TakeError(f"onset of its take has fewer than {min_frames} frames: {length}")
    if length < SHORT_ONSET_FRAMES:
        return [f"onset of fewer than {SHORT_ONSET_FRAMES} frames: {length}"]
    return []


def check_neutral(intensities) -> None:
    """Raise TakeError if no frame of a take is neutral."""
    lowest = float(np.min(intensities))
    if lowest > MAX_NEUTRAL_INTENSITY:
        raise TakeError(f"its take has no neutral frame: the lowest intensity must be 0, got {lowest:g}")


def measure_take(
    images: np.ndarray, mesh: np.ndarray | None = None, is_smile: bool = True
) -> tuple[np.ndarray, list[str]]:
    """The intensity of each frame of a take.

    The first frame is taken to be neutral; frames that show less than it are neutral too.

    images:   [n, 64, 64, 3] uint8, the crops in order of time.
    mesh:     [n, 478, 3], the face mesh of each; without it the images are measured.
    is_smile: whether to measure the mouth corners of the mesh, and not the whole mesh.

    Returns the intensities, [n] in [0, 1], and remarks. Raises TakeError if nothing moves.
    """
    if len(images) < 3:
        raise TakeError(f"its take has fewer than 3 frames: {len(images)}")
    if mesh is None:
        measure = image_motion(images)
    else:
        measure = mesh_smile(mesh) if is_smile else mesh_motion(mesh)
    intensities = scale_to_apex(measure)
    lowest = float(intensities.min())
    remark = f"frames below the first one count as neutral too: down to {lowest:.2f}"
    return intensities.clip(0, 1), [remark] if lowest < -MAX_FALL_BELOW_START else []


def mesh_smile(mesh: np.ndarray) -> np.ndarray:
    """Width of the mouth plus the lift of its corners, in eye distances, without head motion.

    It is closer to the truth than the blendshapes mouthSmileLeft and mouthSmileRight, which stay at 0 for faint smiles
    and jump for strong ones: mean absolute error on the derived London clips 0.03 against 0.07.

    mesh: [n, 478, 3]. Returns [n].
    """
    points = remove_head_motion(mesh)
    left, right = points[:, MOUTH_CORNERS[0]], points[:, MOUTH_CORNERS[1]]
    eye_distance = np.linalg.norm(points[0, OUTER_EYES[1], :2] - points[0, OUTER_EYES[0], :2])
    return (right[:, 0] - left[:, 0] - (left[:, 1] + right[:, 1]) / 2) / eye_distance  # y goes down


def mesh_motion(mesh: np.ndarray) -> np.ndarray:
    """How far the face has moved from the first frame towards the most different one, without head motion.

    mesh: [n, 478, 3]. Returns [n].
    """
    points = remove_head_motion(mesh)[:, :FIRST_IRIS_POINT, :2]
    return _project_on_apex((points - points[:1]).reshape(len(mesh), -1))


def remove_head_motion(mesh: np.ndarray) -> np.ndarray:
    """The mesh with the head's rotation, shift and scale relative to the first frame removed.

    mesh: [n, points, 3]. Returns the same shape. Source: Umeyama 1991.
    """
    out = np.empty_like(mesh, dtype=float)
    target = mesh[0, STEADY].astype(float)
    target_mean = target.mean(0)
    for k, points in enumerate(mesh.astype(float)):
        steady = points[list(STEADY)]
        centred = steady - steady.mean(0)
        u, singular, v = np.linalg.svd(centred.T @ (target - target_mean))
        sign = np.array([1, 1, np.sign(np.linalg.det(u @ v))])  # a rotation, not a mirror image
        out[k] = (singular * sign).sum() / (centred**2).sum() * (points - steady.mean(0)) @ (u * sign) @ v + target_mean
    return out


def image_motion(images: np.ndarray) -> np.ndarray:
    """How far the lower face has moved from the first image towards the most different one.

    Each image is first registered to the first one and brought to its brightness: otherwise head motion hides a smile.

    images: [n, 64, 64, 3] uint8. Returns [n].
    """
    registered = register_to_first(images)
    brightness = registered[:, FACE[0], FACE[1]].mean((1, 2, 3), keepdims=True)
    mouth = registered[:, MOUTH[0], MOUTH[1]] * (brightness[:1] / np.maximum(brightness, 1))
    return _project_on_apex((mouth - mouth[:1]).reshape(len(images), -1))


def register_to_first(images: np.ndarray) -> np.ndarray:
    """Every image shifted and rotated to match the first.

    images: [n, 64, 64, 3] uint8. Returns the same shape, float32.
    Source: ECC, Evangelidis and Psarakis 2008.
    """
    import cv2

    grey = [cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in images]
    mask = np.zeros(grey[0].shape, np.uint8)
    mask[FACE] = 255
    out = images.astype(np.float32)
    transform = np.eye(2, 3, dtype=np.float32)  # the search starts at that of the frame before
    criteria = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 20, 1e-3)
    for k in range(1, len(images)):
        try:
            _, transform = cv2.findTransformECC(grey[0], grey[k], transform, cv2.MOTION_EUCLIDEAN, criteria, mask, 3)
        except cv2.error:  # no convergence: the images differ too much or are flat
            transform = np.eye(2, 3, dtype=np.float32)
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        cv2.warpAffine(out[k].copy(), transform, (out.shape[2], out.shape[1]), out[k], flags, cv2.BORDER_REPLICATE)
    return out


def _project_on_apex(differences: np.ndarray) -> np.ndarray:
    """Projection of each frame's difference from the first on the direction of the largest one.

    The length of the difference alone is never 0 because of noise, and rises late: mean absolute error on the derived
    London clips 0.08 against 0.05.

    differences: [n, d]. Returns [n].
    """
    smoothed = smooth(differences)
    length = np.linalg.norm(smoothed, axis=1)
    apex = smoothed[int(length.argmax())]
    return differences @ apex / max(float(np.linalg.norm(apex)), 1e-9)


def smooth(values: np.ndarray) -> np.ndarray:
    """Gaussian average over neighbouring frames; the first and the last frame are repeated beyond the ends.

    values: [n, ...]. Returns the same shape.
    """
    radius = int(np.ceil(3 * SMOOTHING_FRAMES))
    kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1) / SMOOTHING_FRAMES) ** 2)
    kernel /= kernel.sum()
    padded = np.concatenate([values[:1].repeat(radius, 0), values, values[-1:].repeat(radius, 0)])
    return np.stack([np.tensordot(kernel, padded[k : k + len(kernel)], 1) for k in range(len(values))])


def scale_to_apex(measure: np.ndarray) -> np.ndarray:
    """A measure, smoothed and scaled to 0 at the first frame and 1 at the apex. It may fall below 0.

    measure: [n], in any unit. Returns [n]. Raises TakeError if nothing moves, or if the take does not begin neutral.
    """
    smoothed = smooth(np.asarray(measure, float))
    rise = smoothed - smoothed[0]
    flicker = MAD_TO_STANDARD_DEVIATION * float(np.median(np.abs(measure - smoothed)))
    span = float(rise.max() - rise.min())
    if span <= 1e-6 * max(1e-6, float(np.abs(measure).max())):
        raise TakeError("nothing moves in its take: all frames are alike")
    if span < MIN_SIGNAL_TO_NOISE * flicker:
        raise TakeError(
            f"nothing moves in its take: from neutral to apex must be at least {MIN_SIGNAL_TO_NOISE:g} times the "
            f"flicker between frames, got {span / flicker:.1f} times"
        )
    if -rise.min() > rise.max():
        raise TakeError("its take does not begin neutral: it falls below its first frame more than it rises above")
    return rise / rise.max()
