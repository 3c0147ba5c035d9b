"""Batches that vary in one factor, for the method of Kulkarni et al. 2015 (DC-IGN)."""

from functools import cached_property

import numpy as np

from facedisent_jax.data.labels import group_ids
from facedisent_jax.data.matching import Candidates, match_within_groups
from facedisent_jax.data.triplets import Stream, TripletIndex, Triplets, random_generator


class OneFactor(Triplets):
    """At odd steps people of one intensity, at even steps intensities of one person (of one take, if that has several).

    The images stand alone: b = c = a.
    """

    def index(self, seed: int, step: int, batch: int) -> TripletIndex:
        """The images of a step: all share the factor that is fixed, and repeat as little as possible."""
        random = random_generator(seed, Stream.ONE_FACTOR, step)
        rows, groups = self._one_intensity if step % 2 else self._one_person
        anchor = rows[random.integers(len(rows))]
        group = groups.rows[groups.start[anchor] : groups.end[anchor]]
        chosen = random.choice(len(group), min(batch, len(group)), replace=False)
        a, no = np.resize(group[chosen], batch), np.zeros(batch, bool)
        return TripletIndex(a, a, a, has_b=no, has_c=no, middle=a, has_middle=no)

    @cached_property
    def _one_intensity(self) -> tuple[np.ndarray, Candidates]:
        return self._grouped(self._content(), self.candidates_c)

    @cached_property
    def _one_person(self) -> tuple[np.ndarray, Candidates]:
        take_of_content = np.unique(np.stack([self.take, self._content()])[:, self.is_labelled], axis=1)[0]
        take_varies = np.bincount(take_of_content, minlength=len(self))[self.take] > 1
        group = np.where(take_varies, self.take, group_ids(self.faces.subject))
        return self._grouped(group_ids(take_varies, group), self.candidates_b)

    def _content(self) -> np.ndarray:
        """[n] id of the expression and intensity of each image; neutral is one, whatever the expression."""
        return group_ids(self.label_intensity, np.where(self.label_intensity > 0, self.label_index, 0))

    def _grouped(self, group: np.ndarray, partners: Candidates) -> tuple[np.ndarray, Candidates]:
        """Rows that have partners (all rows, if none has), and for each the rows of its group among them."""
        usable = self.is_labelled & (partners.count() > 0)
        usable = usable if usable.any() else np.ones(len(self), bool)
        return np.flatnonzero(usable), match_within_groups(group, np.arange(len(self)), usable)
