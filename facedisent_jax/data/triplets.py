"""Which three pictures make a triplet, as a pure function of (seed, step), and their label vectors. numpy alone.

a = (subject s, intensity y); b = (s, y'), shot in the same go; c = (s', y). Two intensities are "the same" when they
round to the same step of 0.1; step 0 is neutral whatever the action.

A take in which no frame's intensity is known is an onset in time order: its first frame is neutral, its last one shows
the action in full, and of those between only the order is known. They serve as a and b, never as c.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from facedisent_jax.config import CODE_DIMS
from facedisent_jax.data.labels import INTENSITY_STEP, group_ids, intensity_step, label_vector
from facedisent_jax.data.record import Faces

MAX_DRAWS = 8
"""Frames that are drawn by intensity before a triplet goes without one that was also shot between its ends."""


class Batch(NamedTuple):
    """B triplets (a, b, c), arrays of numpy on the host and of JAX in the step.

    images:    [B, 3, 64, 64, 3] uint8; or, where the device holds the pictures, their rows [B, 3] int32.
    intensity: [B, 3] in [0, 1], exact; 0 where not known.
    label:     [B, 3, 64] label vectors of the expression, the intensity rounded to its step; 0 where not known.
    labelled:  [B, 3] 1 where the picture's expression and intensity are known, else 0.
    has_pair:  [B] 1 where b is another intensity of a's subject, 0 where there is none and b = a.
    has_peer:  [B] 1 where c is another subject with a's intensity, 0 where there is none and c = a.
    order:     [B] 1 where b shows more of the action than a, -1 where less, 0 where that is not known.
    action_label: [B, 64] the label vector at intensity 1 of the action that a and b are ordered by.
    middle:    [B, 64, 64, 3] uint8 (or [B] int32), a frame of a's and b's take, shot between them and showing an
                 intensity between theirs; a where none is. Without frames [B, 0, 64, 64, 3] (or [B, 0]).
    alpha:     [B] where between their intensities that frame's is: 0 at a's, 1 at b's.
    has_middle: [B] 1 where there is such a frame, else 0.
    """

    images: Any
    intensity: Any
    label: Any
    labelled: Any
    has_pair: Any
    has_peer: Any
    order: Any
    action_label: Any
    middle: Any
    alpha: Any
    has_middle: Any


class TripletIndex(NamedTuple):
    """Row numbers of B triplets and of their frames between: a, b, c, d [B], and the masks of `Batch`."""

    a: np.ndarray
    b: np.ndarray
    c: np.ndarray
    has_pair: np.ndarray
    has_peer: np.ndarray
    middle: np.ndarray
    has_middle: np.ndarray


class Candidates(NamedTuple):
    """For each picture the rows it may be matched with: order[start:end] without order[own_start:own_end]; [n] each."""

    order: np.ndarray
    start: np.ndarray
    end: np.ndarray
    own_start: np.ndarray
    own_end: np.ndarray

    def count(self, rows: np.ndarray | slice = slice(None)) -> np.ndarray:
        """How many candidates each of the rows has (of all: takes as long as they are many)."""
        return (self.end[rows] - self.start[rows]) - (self.own_end[rows] - self.own_start[rows])

    def draw(self, rows: np.ndarray, uniform: np.ndarray) -> np.ndarray:
        """One candidate for each row, by a number in [0, 1); the row itself where it has none."""
        drawn, some = rows.copy(), self.count(rows) > 0
        rows, count = rows[some], self.count(rows[some])
        k = np.minimum((uniform[some] * count).astype(np.int64), count - 1) + self.start[rows]
        k = np.where(k >= self.own_start[rows], k + self.own_end[rows] - self.own_start[rows], k)
        drawn[some] = self.order[k]
        return drawn


class Triplets:
    """The triplets of a set of pictures: `index(seed, step, batch)` and `batch(seed, step, batch)` are pure."""

    def __init__(self, faces: Faces, step: float = INTENSITY_STEP, with_middle: bool = True):
        """step: of the intensities in the label vectors; pictures in one step show the same. with_middle: also draw a
        frame between a and b."""
        self.faces, self.with_middle = faces, with_middle
        subject = np.unique(faces.subject, return_inverse=True)[1]
        self.take = group_ids(subject, faces.condition, faces.sequence)
        intensity, self.order = _in_time_order(faces, self.take)
        level = intensity_step(intensity, step)
        self.labelled = (level >= 0) & (faces.expression != "")
        names, action = np.unique(np.where(level == 0, "", faces.expression), return_inverse=True)
        vectors = [label_vector(str(name)) if name else np.zeros(CODE_DIMS, np.float32) for name in names]
        # Vectors and label vectors are put together for the rows of a batch: for all they would take 512 bytes a row.
        self.vectors, self.action = np.array(vectors).reshape(-1, CODE_DIMS), action
        self.shown = (np.where(self.labelled, level, 0) * step).astype(np.float32)
        self.intensity = np.nan_to_num(intensity)
        ordered = ~np.isnan(self.order) & (faces.subject != "") & (faces.expression != "")
        between = ordered & ~self.labelled
        frame = np.where(between, np.arange(len(self)), -1)  # each shows something of its own
        kind = group_ids(action, level, frame)
        usable = self.labelled & (faces.subject != "")
        rows = np.flatnonzero(self.labelled)
        key = 2 * self.take[rows] + self.intensity[rows].astype(float)
        self.by_intensity = rows[np.argsort(key, kind="stable")], np.sort(key)
        self.peers = match_within_groups(kind, subject, usable)
        # The finest group in which the subject shows something else: one go, one condition, else any picture of theirs.
        groups = (self.take, group_ids(subject, faces.condition), subject)
        levels = [match_within_groups(group, kind, usable | between) for group in groups]
        self.pairs = levels[-1]
        for finer in reversed(levels[:-1]):
            better = finer.count() > 0
            offset = len(self.pairs.order)
            bounds = [np.where(better, new + offset, old) for new, old in zip(finer[1:], self.pairs[1:], strict=True)]
            self.pairs = Candidates(np.concatenate([self.pairs.order, finer.order]), *bounds)

    def __len__(self) -> int:
        return len(self.faces)

    def label(self, rows: np.ndarray) -> np.ndarray:
        """The label vectors of pictures, [..., 64]: intensities are rounded to their step; 0 where not known."""
        return self.vectors[self.action[rows]] * self.shown[rows][..., None]

    def index(self, seed: int, step: int, batch: int) -> TripletIndex:
        """The triplets of a step: each picture is the anchor once an epoch, in an order drawn for the epoch."""
        position = step * batch + np.arange(batch)
        epoch = position // len(self)
        a = np.empty(batch, np.int64)
        for e in np.unique(epoch):
            a[epoch == e] = _epoch_order(seed, int(e), len(self))[position[epoch == e] % len(self)]
        uniform = _random(seed, 1, step).random((2, batch))
        b, c = self.pairs.draw(a, uniform[0]), self.peers.draw(a, uniform[1])
        middle, has_middle = self._between(a, b, (seed, 2, step)) if self.with_middle else (a, np.zeros(batch, bool))
        return TripletIndex(a, b, c, self.pairs.count(a) > 0, self.peers.count(a) > 0, middle, has_middle)

    def batch(self, seed: int, step: int, batch: int, rows: slice = slice(None), pictures: bool = True) -> Batch:
        """The triplets of a step, or some `rows` of them, with their pictures or (pictures False) the rows of them."""
        return Batch._make(field[0] for field in self.batches(seed, [step], batch, rows, pictures))

    def batches(
        self, seed: int, steps: Sequence[int], batch: int, rows: slice = slice(None), pictures: bool = True
    ) -> Batch:
        """`batch` of several steps, [steps, batch, ...] each, gathered at once."""
        indices = [self.index(seed, step, batch) for step in steps]
        together = [np.stack([column[rows] for column in columns]) for columns in zip(*indices, strict=True)]
        found = self.gather(TripletIndex(*map(np.ravel, together)), pictures)
        return Batch._make(field.reshape(*together[0].shape, *field.shape[1:]) for field in found)

    def gather(self, index: TripletIndex, pictures: bool = True) -> Batch:
        """Pictures and labels of given triplets."""
        rows = np.stack([index.a, index.b, index.c], axis=1)
        shown = (rows, index.middle if self.with_middle else np.empty((len(rows), 0), np.int64))
        images, between = (self._pictures(r) if pictures else r.astype(np.int32) for r in shown)
        order, _, high = self._ordered(index.a, index.b)
        low, far, middle = (self.intensity[row] for row in (index.a, index.b, index.middle))
        place = np.where(index.has_middle, (middle - low) / np.where(index.has_middle, far - low, 1), 0)
        action = self.vectors[self.action[high]]
        known = [self.labelled[rows], index.has_pair, index.has_peer, order, action]
        known = [values.astype(np.float32) for values in known]
        beside = [between, place.astype(np.float32), index.has_middle.astype(np.float32)]
        return Batch._make([images, self.intensity[rows], self.label(rows), *known, *beside])

    def _pictures(self, rows: np.ndarray) -> np.ndarray:
        images = self.faces.image
        if isinstance(images, np.ndarray):  # copied whole, not row of pixels by row of pixels
            return images.reshape(len(images), -1)[rows].reshape(*rows.shape, *images.shape[1:])
        return images[rows]

    def _between(self, a: np.ndarray, b: np.ndarray, seeds: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
        """Labelled frames of the takes with intensities between a's and b's, shot between them; a where none is.

        A frame shot earlier or later has the head somewhere else: nobody could tell where from a and b, and a decoder
        learns to blur.
        """
        order, key = self.by_intensity
        step, low, high = self._ordered(a, b)
        first = np.searchsorted(key, 2 * self.take[low] + self.intensity[low], "right")
        last = np.searchsorted(key, 2 * self.take[high] + self.intensity[high], "left")
        has = (step != 0) & self.labelled[a] & self.labelled[b] & (last > first)
        if not has.any():
            return a.copy(), has
        uniform = _random(*seeds).random((MAX_DRAWS, len(a)))
        tried = order[np.clip(first + (uniform * (last - first)).astype(np.int64), 0, len(order) - 1)]
        start, end, frame = (self.faces.frame[rows] for rows in (a, b, tried))
        shot = ((start < frame) & (frame < end)) | ((end < frame) & (frame < start)) | (start == end)
        has &= shot.any(axis=0)
        return np.where(has, tried[shot.argmax(axis=0), np.arange(len(a))], a), has

    def _ordered(self, a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """`order` of Batch, and the rows that show less and more: pictures of one take, and of one action or neutral,
        can be ordered."""
        rise = np.where(self.take[a] == self.take[b], np.nan_to_num(self.order[b] - self.order[a]), 0)
        low, high = np.where(rise > 0, a, b), np.where(rise > 0, b, a)
        less, more = self.action[low], self.action[high]
        shows = np.asarray(self.vectors.any(axis=1))
        return np.sign(rise) * ((less == more) | ~shows[less]) * shows[more], low, high

    def shortage(self) -> list[str]:
        """Sentences about pictures that cannot stand in a whole triplet; empty where all can."""
        n, said = len(self), []
        alone = self.labelled & (self.pairs.count() == 0)
        peerless = self.labelled & (self.peers.count() == 0)
        between = ~self.labelled & (self.pairs.count() > 0)
        for rows, what in (
            (~self.labelled & ~between, "have no expression or intensity: they train reconstruction only"),
            (between, "are of takes without intensities, which are taken for onsets in time order: no label between"),
            (alone, "have no other expression of the same subject: no swap with them"),
            (peerless, "have no other subject with the same expression: no match with one"),
        ):
            if rows.any():
                said.append(f"{int(rows.sum())} of {n} training pictures {what}.")
        return said


def _random(*key: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(key)))


@lru_cache(maxsize=4)
def _epoch_order(seed: int, epoch: int, n: int) -> np.ndarray:
    return _random(seed, 0, epoch).permutation(n)


def _in_time_order(faces: Faces, take: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Intensities, and what orders the frames of a take: [n] each, NaN where not known.

    A take (a sequence of one action) in which no intensity is known is ordered by its frames' numbers, from 0 at the
    first to 1 at the last, and these two have the intensities 0 and 1.
    """
    intensity = faces.intensity.astype(np.float32)
    named = (faces.sequence != "") & (faces.expression != "") & (faces.subject != "")
    order = np.where(faces.expression == "", np.nan, intensity)
    unknown = named & np.isnan(intensity)
    for rows in _groups(take, unknown & ~np.isin(take, take[~unknown])):
        frames = faces.frame[rows]
        if len(rows) == len(np.unique(frames)) > 1 == len(set(faces.expression[rows].tolist())):
            rows = rows[np.argsort(frames)]
            order[rows] = np.linspace(0, 1, len(rows))
            intensity[rows[[0, -1]]] = 0, 1
    return intensity, order


def _groups(group: np.ndarray, usable: np.ndarray) -> list[np.ndarray]:
    """The usable rows of each group."""
    rows = np.flatnonzero(usable)
    rows = rows[np.argsort(group[rows], kind="stable")]
    return np.split(rows, np.flatnonzero(np.diff(group[rows])) + 1) if len(rows) else []


def match_within_groups(group: np.ndarray, own: np.ndarray, usable: np.ndarray) -> Candidates:
    """Match each usable row with the usable rows of the same group that are not `own`."""
    rows = np.flatnonzero(usable)
    order = rows[np.lexsort((own[rows], group[rows]))]
    bounds = np.zeros((4, len(group)), np.int64)
    for k, keys in enumerate((group, group_ids(group, own))):
        _, start, inverse, count = np.unique(keys[order], return_index=True, return_inverse=True, return_counts=True)
        bounds[2 * k, order] = start[inverse]
        bounds[2 * k + 1, order] = (start + count)[inverse]
    return Candidates(order, *bounds)
