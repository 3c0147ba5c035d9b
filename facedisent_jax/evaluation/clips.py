"""Clips: takes whose frames have known intensities, trimmed to their onset. Imports metrics and records.

An onset runs from neutral to the full expression, and is what a path from neutral to the apex is compared with.
"""

from typing import NamedTuple

import numpy as np

from facedisent_jax.data.record import NEUTRAL, Faces
from facedisent_jax.evaluation import metrics

LOW, HIGH = 0.05, 0.95
"""An onset runs from the last frame below LOW of the take's range of intensity to the first one above HIGH."""
FEWEST = 8
"""Frames of the shortest onset that is judged."""
SMALLEST_RANGE = 0.1
"""A take whose intensity changes by less shows no onset."""


class Clip(NamedTuple):
    """One onset.

    subject, sequence, condition, action: as in records.Record.
    rows:      [t] its frames, as rows of the pictures, in order of time; the first is neutral, the last the apex.
    intensity: [t] in [0, 1].
    take:      [n] all frames of the take, likewise.
    """

    subject: str
    sequence: str
    condition: str
    action: str
    rows: np.ndarray
    intensity: np.ndarray
    take: np.ndarray

    @property
    def alpha(self) -> np.ndarray:
        """[t] each frame's place between the ends by intensity: 0 at the first, 1 at the last."""
        return (self.intensity - self.intensity[0]) / (self.intensity[-1] - self.intensity[0])

    @property
    def time(self) -> np.ndarray:
        """[t] each frame's place between the ends by time: 0 at the first, 1 at the last."""
        return np.linspace(0, 1, len(self.rows))

    @property
    def name(self) -> str:
        return " ".join(part for part in (self.subject, self.sequence, self.condition, self.action) if part)


class FoundClips(NamedTuple):
    """The clips of some pictures, and (name, reason) of each take with several frames that is none."""

    clips: list[Clip]
    rejected: list[tuple[str, str]]


def find_clips(faces: Faces) -> FoundClips:
    """Every take (subject, sequence, condition) with several frames of an action: its onset, or why it has none.

    Stills of one person count as a take where their intensities rise as an onset's do. A take of several actions makes
    a clip of each, all with its neutral frames.
    """
    clips, rejected = [], []
    shown = metrics.displayed_expression(faces.expression, faces.intensity)
    takes: dict[tuple[str, str, str], list[int]] = {}
    columns = (faces.subject, faces.sequence, faces.condition)
    for row, key in enumerate(zip(*(column.tolist() for column in columns), strict=True)):
        if key[0]:
            takes.setdefault(key, []).append(row)
    for key, members in sorted(takes.items()):
        rows = np.array(members)
        if len(rows) < 2:
            continue
        rows = rows[np.argsort(faces.frame[rows], kind="stable")]
        actions = [str(name) for name in np.unique(shown[rows]) if name not in ("", NEUTRAL)]
        if not actions:
            unknown = (shown[rows] == "").all()
            reason = "no known intensity" if unknown else "neutral frames alone"
            rejected.append((" ".join(part for part in key if part), reason))
        for action in actions:
            chosen = rows[(shown[rows] == action) | (shown[rows] == NEUTRAL) | (shown[rows] == "")]
            named = (*key, action)
            made = of_take(faces.intensity[chosen].astype(float), faces.frame[chosen])
            if isinstance(made, str):
                rejected.append((" ".join(part for part in named if part), made))
            else:
                onset = chosen[made]
                clips.append(Clip(*named, onset, faces.intensity[onset].astype(float), chosen))
    return FoundClips(clips, rejected)


def of_take(intensity: np.ndarray, frame: np.ndarray) -> slice | str:
    """The onset of a take's frames in order of time, or why there is none."""
    if np.isnan(intensity).any():
        return "frames of unknown intensity"
    if len(np.unique(frame)) < len(frame):
        return "frames with the same number"
    return onset(intensity)


def onset(intensity: np.ndarray) -> slice | str:
    """From the last frame below 5 % of the range to the first above 95 %, both included; or why that is no onset.

    intensity: [n] of a take's frames in order of time.
    """
    span = np.ptp(intensity)
    if span < SMALLEST_RANGE:
        return f"intensity changes by less than {SMALLEST_RANGE:g}"
    relative = (intensity - intensity.min()) / span
    end = int(np.argmax(relative > HIGH))
    below = np.flatnonzero(relative[:end] < LOW)
    if not len(below):
        return "does not begin at neutral"
    start = int(below[-1])
    if end - start + 1 < FEWEST:
        return f"fewer than {FEWEST} onset frames"
    return slice(start, end + 1)


def subsample(clips: list[Clip], most: int, seed: int = 0) -> list[Clip]:
    """At most `most` clips (0: all), drawn by seed: one of each person before a second of any; in their own order."""
    if not most or len(clips) <= most:
        return clips
    turn: dict[str, int] = {}
    ranked = []
    for k in np.random.default_rng(seed).permutation(len(clips)).tolist():
        turn[clips[k].subject] = turn.get(clips[k].subject, -1) + 1
        ranked.append((turn[clips[k].subject], k))
    kept = sorted(k for _, k in sorted(ranked, key=lambda pair: pair[0])[:most])
    return [clips[k] for k in kept]
