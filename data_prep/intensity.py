"""Frames of a take -> the intensity of each, 0 (neutral) to 1 (apex). Arrays in, arrays out; imports none of ours.

Two measures, both 0 at the first frame: of landmarks (the face mesh) and of pictures (`motion`). Each is smoothed over
time and divided by its value at the apex.
"""

from typing import NamedTuple

import numpy as np

WAYS = ("csv", "landmarks", "motion", "order")
ONSET = (0.05, 0.95)
"""The onset: from the last frame below the one to the first above the other, in fractions of the take's range."""
ONSET_FRAMES = 8
"""Shorter onsets are remarked on: the study of interpolation against the video leaves them out."""
NEUTRAL_AT_MOST = 0.05
"""A frame of less intensity is neutral: it rounds to step 0 of 0.1."""
SMOOTHING = 1.0
"""Standard deviation, in frames, of the Gaussian over time: 0.05 s of MUG, little beside an onset of half a second."""
MIN_SIGNAL_TO_NOISE = 5.0
"""A take in which the apex is less than so many times the flicker between frames shows no action."""
BELOW_START = 0.25
"""A take that falls below its first frame by more than this fraction of the apex is remarked on; by more than the apex
itself, it does not begin neutral. Of faint smiles the head's movement alone gives up to 0.9 (derived London clips)."""

# Points of the mesh: corners of the mouth and of the eyes, and what no expression moves much (eye corners, nose,
# forehead, temples), by which the head's own movement is taken out.
MOUTH_CORNERS = (61, 291)
OUTER_EYES = (33, 263)
STEADY = (33, 133, 362, 263, 168, 6, 197, 195, 5, 4, 1, 10, 151, 9, 8, 127, 356, 234, 454, 103, 332, 67, 297, 109, 338)
IRISES = 468
"""Points from here on are the irises: they move with the gaze."""

# Rows and columns of the 64x64 crop: the mouth region of a tight crop, the whole but its border.
MOUTH = (slice(38, 60), slice(14, 50))
FACE = (slice(2, 62), slice(2, 62))


class TakeError(ValueError):
    """A take that cannot be used; the message is a short phrase, a colon, and what was found or expected."""


class IntensityMethod(NamedTuple):
    """How the intensities of takes come about: one of WAYS; and of how many frames an onset must be, at least."""

    way: str = "motion"
    least_onset: int = 0

    @property
    def measured(self) -> bool:
        return self.way != "csv"


def onset_frames(values) -> range:
    """The places of the onset's frames, both ends counted; none if the take rises from no frame below 5% of its range.

    values: [n] intensities of a take.
    """
    values = np.asarray(values, float)
    low, high = np.nanmin(values), np.nanmax(values)
    if not high > low:
        return range(0)
    part = (values - low) / (high - low)
    end = int(np.argmax(part >= ONSET[1]))
    before = np.flatnonzero(part[:end] <= ONSET[0])
    return range(int(before[-1]), end + 1) if len(before) else range(0)


def onset(values) -> int:
    """How many frames the onset has, both ends counted."""
    return len(onset_frames(values))


def check_onset(values, least: int) -> list[str]:
    """Remarks on the onset of a take; TakeError if it has fewer than `least` frames."""
    number = onset(values)
    if number < least:
        raise TakeError(f"onset of its take has fewer than {least} frames: {number}")
    if number < ONSET_FRAMES:
        return [f"onset of fewer than {ONSET_FRAMES} frames: {number}"]
    return []


def check_neutral(values) -> None:
    """TakeError if no frame is neutral."""
    lowest = float(np.min(values))
    if lowest > NEUTRAL_AT_MOST:
        raise TakeError(f"its take has no neutral frame: the lowest intensity is {lowest:g}, 0 was expected")


def of_take(images: np.ndarray, points: np.ndarray | None = None, smile: bool = True) -> tuple[np.ndarray, list[str]]:
    """[n] in [0, 1], the intensity of each frame of a take in order, and remarks. TakeError if no action is seen.

    The first frame is neutral, and so is what shows less than it.

    images: [n, 64, 64, 3] uint8 crops. points: [n, 478, 3] the mesh of each; without it the pictures are measured.
    """
    if len(images) < 3:
        raise TakeError(f"its take has fewer than 3 frames: {len(images)}")
    if points is None:
        values = scaled(motion(images))
    else:
        values = scaled(smile_of(points) if smile else displacement(points))
    lowest = float(values.min())
    remark = f"frames below the first one, taken to be neutral too: down to {lowest:.2f}"
    return values.clip(0, 1), [remark] if lowest < -BELOW_START else []


def smile_of(points: np.ndarray) -> np.ndarray:
    """[n] width of the mouth plus lift of its corners, in eye distances, the head held still. points: [n, 478, 3].

    Nearer to the truth than the blendshapes mouthSmileLeft and mouthSmileRight, which stay at 0 for faint smiles and
    jump in strong ones: mean absolute error on the derived London clips 0.03 against 0.07.
    """
    still = remove_head_motion(points)
    left, right = still[:, MOUTH_CORNERS[0]], still[:, MOUTH_CORNERS[1]]
    eyes = np.linalg.norm(still[0, OUTER_EYES[1], :2] - still[0, OUTER_EYES[0], :2])
    return (right[:, 0] - left[:, 0] - (left[:, 1] + right[:, 1]) / 2) / eyes  # y goes down


def displacement(points: np.ndarray) -> np.ndarray:
    """[n] how far the face has gone from the first frame towards where it is at its farthest. points: [n, 478, 3]."""
    moved = remove_head_motion(points)[:, :IRISES, :2]
    return _along_apex((moved - moved[:1]).reshape(len(points), -1))


def remove_head_motion(points: np.ndarray) -> np.ndarray:
    """The points after the head's rotation, shift and scale against the first frame are taken out (Umeyama 1991)."""
    out = np.empty_like(points, dtype=float)
    goal = points[0, STEADY].astype(float)
    middle = goal.mean(0)
    for k, frame in enumerate(points.astype(float)):
        steady = frame[list(STEADY)]
        centred = steady - steady.mean(0)
        u, size, v = np.linalg.svd(centred.T @ (goal - middle))
        sign = np.array([1, 1, np.sign(np.linalg.det(u @ v))])  # a rotation, not a mirror
        out[k] = (size * sign).sum() / (centred**2).sum() * (frame - steady.mean(0)) @ (u * sign) @ v + middle
    return out


def motion(images: np.ndarray) -> np.ndarray:
    """[n] how far the lower face has gone from the first picture towards the most different one. [n, 64, 64, 3] uint8.

    Each picture is first laid over the first (shift and rotation, by ECC; Evangelidis and Psarakis 2008) and brought to
    its brightness: without that, the head's movement hides a smile.
    """
    still = register_to_first(images)
    light = still[:, FACE[0], FACE[1]].mean((1, 2, 3), keepdims=True)
    still = still[:, MOUTH[0], MOUTH[1]] * (light[:1] / np.maximum(light, 1))
    return _along_apex((still - still[:1]).reshape(len(images), -1))


def register_to_first(images: np.ndarray) -> np.ndarray:
    """[n, 64, 64, 3] float32, every picture shifted and turned to fit the first."""
    import cv2

    grey = [cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in images]
    mask = np.zeros(grey[0].shape, np.uint8)
    mask[FACE] = 255
    out = images.astype(np.float32)
    move = np.eye(2, 3, dtype=np.float32)
    stop = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 20, 1e-3)
    for k in range(1, len(images)):
        try:
            _, move = cv2.findTransformECC(grey[0], grey[k], move, cv2.MOTION_EUCLIDEAN, stop, mask, 3)
        except cv2.error:  # does not converge: too different, or without any structure
            move = np.eye(2, 3, dtype=np.float32)
        way = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        cv2.warpAffine(out[k].copy(), move, (out.shape[2], out.shape[1]), out[k], way, cv2.BORDER_REPLICATE)
    return out


def _along_apex(differences: np.ndarray) -> np.ndarray:
    """[n] the part of each difference [n, d] from the first frame that goes the way of the largest one.

    Its length alone would never be 0, for noise, and rise late: mean absolute error on the derived London clips 0.08
    against 0.05.
    """
    smooth = smoothed(differences)
    length = np.linalg.norm(smooth, axis=1)
    apex = smooth[int(length.argmax())]
    return differences @ apex / max(float(np.linalg.norm(apex)), 1e-9)


def smoothed(values: np.ndarray) -> np.ndarray:
    """[n, ...] averaged over neighbouring frames; the ends go on beyond."""
    reach = int(np.ceil(3 * SMOOTHING))
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / SMOOTHING) ** 2)
    kernel /= kernel.sum()
    padded = np.concatenate([values[:1].repeat(reach, 0), values, values[-1:].repeat(reach, 0)])
    return np.stack([np.tensordot(kernel, padded[k : k + len(kernel)], 1) for k in range(len(values))])


def scaled(measure: np.ndarray) -> np.ndarray:
    """[n] smoothed; 0 at the first frame, 1 at the apex, below 0 where there is less to see than in the first frame."""
    smooth = smoothed(np.asarray(measure, float))
    rise = smooth - smooth[0]
    flicker = 1.48 * float(np.median(np.abs(measure - smooth)))  # as a standard deviation
    span = float(rise.max() - rise.min())
    if span <= 1e-6 * max(1e-6, float(np.abs(measure).max())):
        raise TakeError("nothing moves in its take: all frames are alike")
    if span < MIN_SIGNAL_TO_NOISE * flicker:
        times = f"{span / flicker:.1f} times the flicker between frames, {MIN_SIGNAL_TO_NOISE:g} were expected"
        raise TakeError(f"nothing moves in its take: from neutral to apex it is {times}")
    if -rise.min() > rise.max():
        raise TakeError("its take does not begin neutral: it falls below its first frame more than it rises above")
    return rise / rise.max()
