"""Draws triplets of images, as a pure function of (seed, step), with their label vectors. numpy alone.

a = (subject s, intensity y); b = (s, y'), from the same take where there is one; c = (s', y). Two intensities are equal
if they round to the same step of 0.1. Step 0 is neutral, whatever the expression.

A take without any known intensity counts as an onset: its first frame is neutral, its last one the apex, and of the
frames between only the order is known. Those serve as a and b, never as c.
"""

from collections.abc import Sequence
from enum import IntEnum
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from facedisent_jax.config import LABEL_DIMS
from facedisent_jax.data.labels import INTENSITY_STEP, group_ids, intensity_step, label_vector
from facedisent_jax.data.matching import match_in_finest, match_within_groups
from facedisent_jax.data.record import APEX_ABOVE, NEUTRAL_BELOW, Faces

MAX_DRAWS = 8  # tries to draw a middle frame by intensity that was also shot between a and b


class Stream(IntEnum):
    """Random numbers of one purpose never depend on those of another."""

    EPOCH_ORDER = 0
    PARTNERS = 1
    MIDDLE = 2
    ONE_FACTOR = 3
    ANCHORS = 4
    FULL_CHANGES = 5


class Batch(NamedTuple):
    """B triplets (a, b, c): numpy arrays on the host, JAX arrays in the step. Axis 0 of [3, B] is a, b, c everywhere.

    images:       [3, B, 64, 64, 3] uint8; or their rows, [3, B] int32, where the device holds the data set.
    intensity:    [3, B] in [0, 1], exact; 0 if unknown.
    label:        [3, B, 64] label vectors, with the intensity rounded to its step; 0 if unknown.
    is_labelled:  [3, B] 1 if expression and intensity of the image are known, else 0.
    has_b:     [B] 1 if b shows a's subject at another intensity, else 0 (then b = a).
    has_c:     [B] 1 if c shows another subject at a's intensity, else 0 (then c = a).
    order:        [B] 1 if b shows more of the expression than a, -1 if less, 0 if unknown.
    action_label: [B, 64] the label vector, at intensity 1, of the expression that orders a and b.
    middle:       [M, B, 64, 64, 3] uint8 (or [M, B] int32), M = 1: a frame of a's and b's take, shot between them, with
                  an intensity between theirs; a if there is none. M = 0: not drawn.
    alpha:        [B] position of the middle frame between a (0) and b (1), by intensity.
    has_middle:   [B] 1 if there is a middle frame, else 0.
    """

    images: Any
    intensity: Any
    label: Any
    is_labelled: Any
    has_b: Any
    has_c: Any
    order: Any
    action_label: Any
    middle: Any
    alpha: Any
    has_middle: Any


BATCH_AXIS = Batch(1, 1, 1, 1, 0, 0, 0, 0, 1, 0, 0)
"""Which axis of each field of a `Batch` counts the triplets."""


class TripletIndex(NamedTuple):
    """Rows of B triplets in the data, with the masks of `Batch`."""

    a: Int[np.ndarray, "*b"]
    b: Int[np.ndarray, "*b"]
    c: Int[np.ndarray, "*b"]
    has_b: Bool[np.ndarray, "*b"]
    has_c: Bool[np.ndarray, "*b"]
    middle: Int[np.ndarray, "*b"]
    has_middle: Bool[np.ndarray, "*b"]


class Triplets:
    """The triplets of a data set. `index(seed, step, batch)` and `batch(seed, step, batch)` are pure."""

    def __init__(
        self, faces: Faces, label_step: float = INTENSITY_STEP, with_middle: bool = True, full_changes: float = 0.0
    ):
        """label_step: of the intensities in the label vectors. Images that round to the same step show the same.

        with_middle: also draw a frame between a and b.
        full_changes: share of the triplets whose a and b are a neutral and a full expression, at least.
        """
        self.faces, self.with_middle, self.full_changes = faces, with_middle, full_changes
        subject = group_ids(faces.subject)
        self.take = group_ids(subject, faces.condition, faces.sequence)
        intensity, self.rank = _intensity_and_rank(faces, self.take)
        self.intensity = np.nan_to_num(intensity)

        # Label vectors are put together for the rows of a batch: for all rows they would take 512 bytes a row.
        level = intensity_step(intensity, label_step)
        self.is_labelled = (level >= 0) & (faces.expression != "")
        names, self.label_index = np.unique(np.where(level == 0, "", faces.expression), return_inverse=True)
        vectors = [label_vector(str(name)) if name else np.zeros(LABEL_DIMS, np.float32) for name in names]
        self.label_vectors = np.array(vectors).reshape(-1, LABEL_DIMS)
        self.label_intensity = (np.where(self.is_labelled, level, 0) * label_step).astype(np.float32)

        labelled_rows = np.flatnonzero(self.is_labelled)
        key = self._take_key(labelled_rows)
        self.rows_by_intensity, self.keys_by_intensity = labelled_rows[np.argsort(key, kind="stable")], np.sort(key)

        has_rank = ~np.isnan(self.rank) & (faces.subject != "") & (faces.expression != "")
        is_ranked_only = has_rank & ~self.is_labelled
        unique_id = np.where(is_ranked_only, np.arange(len(self)), -1)  # each of these shows something of its own
        content = group_ids(self.label_index, level, unique_id)
        has_subject = self.is_labelled & (faces.subject != "")
        self.candidates_c = match_within_groups(content, subject, has_subject)
        # b comes from the finest group in which the subject shows something else: the take, the condition, or any.
        scopes = (self.take, group_ids(subject, faces.condition), subject)
        self.candidates_b = match_in_finest(scopes, content, has_subject | is_ranked_only)
        end = np.where(intensity < NEUTRAL_BELOW, 0, np.where(intensity > APEX_ABOVE, 1, -1))
        self.opposite_ends = match_in_finest(scopes, end, has_subject & (end >= 0))

        has_opposite = self.opposite_ends.count() > 0
        self.rows_by_folder = [np.flatnonzero(faces.folder == k) for k in range(faces.folder.max(initial=0) + 1)]
        self.end_rows_by_folder = [rows[has_opposite[rows]] for rows in self.rows_by_folder]
        people = np.array([len(set(faces.subject[rows].tolist())) for rows in self.rows_by_folder])
        self.folder_shares = people / max(people.sum(), 1)

    def __len__(self) -> int:
        return len(self.faces)

    def label(self, rows: np.ndarray) -> np.ndarray:
        """Label vectors [..., 64] of images, intensities rounded to their step; 0 if unknown."""
        return self.label_vectors[self.label_index[rows]] * self.label_intensity[rows][..., None]

    def index(self, seed: int, step: int, batch: int) -> TripletIndex:
        """Draw the triplets of a step.

        Of one data folder each image is the anchor a once an epoch, in an order drawn for the epoch. Of several
        folders each gives anchors in proportion to its people (`folder_shares`).
        """
        a = self._draw_anchors(seed, step, batch)
        uniform = random_generator(seed, Stream.PARTNERS, step).random((2, batch))
        b = self.candidates_b.draw(a, uniform[0])
        if self.full_changes:
            a, b = self._draw_full_changes(a, b, random_generator(seed, Stream.FULL_CHANGES, step))
        c = self.candidates_c.draw(a, uniform[1])
        middle, has_middle = a, np.zeros(batch, bool)
        if self.with_middle:
            middle, has_middle = self._draw_middle(a, b, random_generator(seed, Stream.MIDDLE, step))
        return TripletIndex(a, b, c, self.candidates_b.count(a) > 0, self.candidates_c.count(a) > 0, middle, has_middle)

    def _draw_anchors(self, seed: int, step: int, batch: int) -> np.ndarray:
        if len(self.rows_by_folder) > 1:
            random = random_generator(seed, Stream.ANCHORS, step)
            folder = random.choice(len(self.folder_shares), batch, p=self.folder_shares)
            return self._draw_rows(self.rows_by_folder, folder, random)
        position = step * batch + np.arange(batch)
        epoch = position // len(self)
        a = np.empty(batch, np.int64)
        for e in np.unique(epoch):
            a[epoch == e] = _epoch_order(seed, int(e), len(self))[position[epoch == e] % len(self)]
        return a

    def _draw_full_changes(
        self, a: np.ndarray, b: np.ndarray, random: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """a and b, a share of them replaced by a neutral and a full expression of one person of the same folder."""
        folder = self.faces.folder[a]
        has_ends = np.array([len(rows) > 0 for rows in self.end_rows_by_folder])
        is_full = (random.random(len(a)) < self.full_changes) & has_ends[folder]
        a = a.copy()
        a[is_full] = self._draw_rows(self.end_rows_by_folder, folder[is_full], random)
        opposite = self.opposite_ends.draw(a, random.random(len(a)))
        return a, np.where(is_full, opposite, b)

    @staticmethod
    def _draw_rows(rows_by_folder: list[np.ndarray], folder: np.ndarray, random: np.random.Generator) -> np.ndarray:
        sizes = np.array([len(rows) for rows in rows_by_folder])[folder]
        position = (random.random(len(folder)) * sizes).astype(np.int64)
        return np.array([rows_by_folder[f][k] for f, k in zip(folder, position, strict=True)], np.int64)

    def batch(self, seed: int, step: int, batch: int, rows: slice = slice(None), with_images: bool = True) -> Batch:
        """The triplets of a training step, or some `rows` of that batch.

        with_images: False gives the rows of the images in the data set instead.
        """
        return Batch._make(field[0] for field in self.batches(seed, [step], batch, rows, with_images))

    def batches(
        self, seed: int, steps: Sequence[int], batch: int, rows: slice = slice(None), with_images: bool = True
    ) -> Batch:
        """`batch` of several steps, gathered at once: every field has a leading axis of steps."""
        indices = [self.index(seed, step, batch) for step in steps]
        stacked = [np.stack([column[rows] for column in columns]) for columns in zip(*indices, strict=True)]
        return self.gather(TripletIndex(*stacked), with_images)

    def gather(self, index: TripletIndex, with_images: bool = True) -> Batch:
        """Images and labels of given triplets. index: [B], or [steps, B] for a batch with a leading axis of steps."""
        rows = np.stack([index.a, index.b, index.c], axis=-2)
        middle_rows = np.expand_dims(index.middle, -2) if self.with_middle else rows[..., :0, :]
        order, _, more = self._ordered(index.a, index.b)
        intensity_a, intensity_b, intensity_m = (self.intensity[row] for row in (index.a, index.b, index.middle))
        span = np.where(index.has_middle, intensity_b - intensity_a, 1)
        batch = Batch(
            images=self._images(rows) if with_images else rows.astype(np.int32),
            intensity=self.intensity[rows],
            label=self.label(rows),
            is_labelled=self.is_labelled[rows],
            has_b=index.has_b,
            has_c=index.has_c,
            order=order,
            action_label=self.label_vectors[self.label_index[more]],
            middle=self._images(middle_rows) if with_images else middle_rows.astype(np.int32),
            alpha=np.where(index.has_middle, (intensity_m - intensity_a) / span, 0),
            has_middle=index.has_middle,
        )
        to_float = {
            name: getattr(batch, name).astype(np.float32) for name in Batch._fields if name not in ("images", "middle")
        }
        return batch._replace(**to_float)

    def _images(self, rows: np.ndarray) -> np.ndarray:
        images = self.faces.image
        if isinstance(images, np.ndarray):  # one copy per image, not one per row of pixels
            return images.reshape(len(images), -1)[rows].reshape(*rows.shape, *images.shape[1:])
        return images[rows]

    def _take_key(self, rows: np.ndarray) -> np.ndarray:
        """A number that sorts by take, then by intensity: takes are 2 apart, so their intensities never mix."""
        return 2 * self.take[rows] + self.intensity[rows].astype(float)

    def _draw_middle(self, a: np.ndarray, b: np.ndarray, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """A labelled frame with an intensity between a's and b's, shot between them, and whether there is one.

        Frames outside [a, b] in time are excluded: their head pose cannot be inferred from a and b, and the decoder
        would learn to blur.
        """
        order, less, more = self._ordered(a, b)
        first = np.searchsorted(self.keys_by_intensity, self._take_key(less), "right")
        last = np.searchsorted(self.keys_by_intensity, self._take_key(more), "left")
        has_middle = (order != 0) & self.is_labelled[a] & self.is_labelled[b] & (last > first)
        if not has_middle.any():
            return a.copy(), has_middle
        uniform = random.random((MAX_DRAWS, len(a)))
        position = np.clip(first + (uniform * (last - first)).astype(np.int64), 0, len(self.rows_by_intensity) - 1)
        sampled = self.rows_by_intensity[position]
        start, end, frame = (self.faces.frame[rows] for rows in (a, b, sampled))
        lies_between = ((start < frame) & (frame < end)) | ((end < frame) & (frame < start)) | (start == end)
        has_middle &= lies_between.any(axis=0)
        return np.where(has_middle, sampled[lies_between.argmax(axis=0), np.arange(len(a))], a), has_middle

    def _ordered(self, a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """`order` of `Batch`, and the rows that show less and more.

        Images have an order if they are of one take, and of one expression or neutral.
        """
        rise = np.where(self.take[a] == self.take[b], np.nan_to_num(self.rank[b] - self.rank[a]), 0)
        less, more = np.where(rise > 0, a, b), np.where(rise > 0, b, a)
        label_of_less, label_of_more = self.label_index[less], self.label_index[more]
        is_expressive = np.asarray(self.label_vectors.any(axis=1))
        comparable = ((label_of_less == label_of_more) | ~is_expressive[label_of_less]) * is_expressive[label_of_more]
        return np.sign(rise) * comparable, less, more

    def describe_shares(self, folders: Sequence[Path]) -> list[str]:
        """A sentence for each data folder: how many of the triplets come from it."""
        shares = [*self.folder_shares, *[0.0] * len(folders)]  # the last folders may have no training image
        return [
            f"{share:.0%} of the triplets come from {folder}." for share, folder in zip(shares, folders, strict=False)
        ]

    def describe_missing_partners(self) -> list[str]:
        """A sentence for each reason why images cannot stand in a whole triplet; empty if all can."""
        has_b, has_c = self.candidates_b.count() > 0, self.candidates_c.count() > 0
        is_ranked_only = ~self.is_labelled & has_b
        reasons = (
            (~self.is_labelled & ~is_ranked_only, "have no expression or intensity. They train reconstruction only"),
            (is_ranked_only, "are of takes without intensities. Their order alone trains the expression code"),
            (self.is_labelled & ~has_b, "have no other expression of the same subject. They are never swapped"),
            (self.is_labelled & ~has_c, "have no other subject with the same expression. They are never matched"),
        )
        return [f"{rows.sum()} of {len(self)} training images {reason}." for rows, reason in reasons if rows.any()]


def random_generator(*key: int) -> np.random.Generator:
    """Random numbers that are a function of the key alone: (seed, Stream, step or epoch)."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([int(part) for part in key])))


@lru_cache(maxsize=4)
def _epoch_order(seed: int, epoch: int, n: int) -> np.ndarray:
    return random_generator(seed, Stream.EPOCH_ORDER, epoch).permutation(n)


def _intensity_and_rank(faces: Faces, take: np.ndarray) -> tuple[Float[np.ndarray, "n"], Float[np.ndarray, "n"]]:
    """Intensities, and what orders the frames of a take; NaN if unknown.

    A take (a sequence of one expression) without any known intensity is ranked by its frame numbers, from 0 at the
    first to 1 at the last, and these two get the intensities 0 and 1.
    """
    intensity = faces.intensity.astype(np.float32)
    is_named = (faces.sequence != "") & (faces.expression != "") & (faces.subject != "")
    rank = np.where(faces.expression == "", np.nan, intensity)
    is_unknown = is_named & np.isnan(intensity)
    for rows in _split_by_group(take, is_unknown & ~np.isin(take, take[~is_unknown])):
        frames = faces.frame[rows]
        if len(rows) == len(np.unique(frames)) > 1 == len(set(faces.expression[rows].tolist())):
            rows = rows[np.argsort(frames)]
            rank[rows] = np.linspace(0, 1, len(rows))
            intensity[rows[[0, -1]]] = 0, 1
    return intensity, rank


def _split_by_group(group: np.ndarray, usable: np.ndarray) -> list[np.ndarray]:
    """The usable rows of each group."""
    rows = np.flatnonzero(usable)
    rows = rows[np.argsort(group[rows], kind="stable")]
    return np.split(rows, np.flatnonzero(np.diff(group[rows])) + 1) if len(rows) else []
