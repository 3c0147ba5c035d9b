"""Clips: takes with known intensities, trimmed to their onset, which runs from neutral to the full expression."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from facedisent_jax.data.labels import take_ids
from facedisent_jax.data.record import APEX_ABOVE, NEUTRAL, NEUTRAL_BELOW, Faces
from facedisent_jax.evaluation import metrics

MIN_ONSET_FRAMES = 8
MIN_INTENSITY_RANGE = 0.1  # a take whose intensity changes by less has no onset


class Clip(NamedTuple):
    """One onset.

    subject, sequence, condition: as in a Record.
    action:    the expression of its apex.
    rows:      its frames in order of time, as rows of the images; the first is neutral, the last the apex.
    intensity: of these frames, in [0, 1].
    take:      all frames of the take in order of time, as rows of the images.
    """

    subject: str
    sequence: str
    condition: str
    action: str
    rows: Int[np.ndarray, "t"]
    intensity: Float[np.ndarray, "t"]
    take: Int[np.ndarray, "n"]

    @property
    def alpha(self) -> Float[np.ndarray, "t"]:
        """Position of each frame between the ends by intensity: 0 at the first, 1 at the last."""
        return (self.intensity - self.intensity[0]) / (self.intensity[-1] - self.intensity[0])

    @property
    def time(self) -> Float[np.ndarray, "t"]:
        """Position of each frame between the ends by time: 0 at the first, 1 at the last."""
        return np.linspace(0, 1, len(self.rows))

    @property
    def name(self) -> str:
        """Subject, sequence, condition and action, without those that are empty."""
        return _join((self.subject, self.sequence, self.condition, self.action))


class FoundClips(NamedTuple):
    """clips: of some images. rejected: (name, reason) of each take of several frames that has no onset."""

    clips: list[Clip]
    rejected: list[tuple[str, str]]


def find_clips(faces: Faces) -> FoundClips:
    """The onset of every take of several frames.

    Images of one person without a sequence count as a take if their intensities rise like an onset's. A take of several
    actions gives one clip per action, each with all neutral frames.
    """
    clips, rejected = [], []
    displayed = metrics.displayed_expression(faces.expression, faces.intensity)
    take = take_ids(faces)
    for number in np.unique(take[faces.subject != ""]):
        rows = np.flatnonzero(take == number)
        if len(rows) < 2:
            continue
        rows = rows[np.argsort(faces.frame[rows], kind="stable")]
        subject, sequence, condition = (
            str(column[rows[0]]) for column in (faces.subject, faces.sequence, faces.condition)
        )
        actions = [str(name) for name in np.unique(displayed[rows]) if name not in ("", NEUTRAL)]
        if not actions:
            unknown = (displayed[rows] == "").all()
            rejected.append(
                (_join((subject, sequence, condition)), "no known intensity" if unknown else "neutral frames alone")
            )
        for action in actions:
            frames = rows[(displayed[rows] == action) | (displayed[rows] == NEUTRAL) | (displayed[rows] == "")]
            onset_frames = onset_of_take(faces.intensity[frames].astype(float), faces.frame[frames])
            if isinstance(onset_frames, str):
                rejected.append((_join((subject, sequence, condition, action)), onset_frames))
            else:
                onset_rows = frames[onset_frames]
                intensity = faces.intensity[onset_rows].astype(float)
                clips.append(Clip(subject, sequence, condition, action, onset_rows, intensity, frames))
    return FoundClips(clips, rejected)


def _join(parts: tuple[str, ...]) -> str:
    return " ".join(part for part in parts if part)


def onset_of_take(intensity: Float[np.ndarray, "n"], frame: Int[np.ndarray, "n"]) -> slice | str:
    """The onset of a take's frames, which are in order of time; or the reason why it has none."""
    if np.isnan(intensity).any():
        return "frames of unknown intensity"
    if len(np.unique(frame)) < len(frame):
        return "frames with the same number"
    return onset(intensity)


def onset(intensity: Float[np.ndarray, "n"]) -> slice | str:
    """The last frame below 5 % of the take's range to the first above 95 %, both included; or the reason for none."""
    span = np.ptp(intensity)
    if span < MIN_INTENSITY_RANGE:
        return f"intensity changes by less than {MIN_INTENSITY_RANGE:g}"
    relative = (intensity - intensity.min()) / span
    end = int(np.argmax(relative > APEX_ABOVE))
    below = np.flatnonzero(relative[:end] < NEUTRAL_BELOW)
    if not len(below):
        return "does not begin at neutral"
    start = int(below[-1])
    if end - start + 1 < MIN_ONSET_FRAMES:
        return f"fewer than {MIN_ONSET_FRAMES} onset frames"
    return slice(start, end + 1)


def subsample(clips: list[Clip], max_clips: int, seed: int = metrics.SEED) -> list[Clip]:
    """At most `max_clips` clips (0: all), drawn by seed: one of each person before a second of any; in their order."""
    if not max_clips or len(clips) <= max_clips:
        return clips
    return [clips[k] for k in sorted(metrics.shuffle_in_turns([clip.subject for clip in clips], seed)[:max_clips])]
