"""TODO."""

from functools import cached_property

import numpy as np

from facedisent_jax.data.labels import group_ids
from facedisent_jax.data.triplets import Candidates, TripletIndex, Triplets, _random, match_within_groups


class OneFactor(Triplets):
    """Batches that vary in one factor (DC-IGN): at odd steps people of one intensity, at even ones intensities of one
    person, in one go where it has several. The pictures stand alone: b = c = a."""

    def index(self, seed: int, step: int, batch: int) -> TripletIndex:
        """As of Triplets, but drawn with the least repetition from the pictures that share the factor of the step."""
        rng = _random(seed, 3, step)
        rows, groups = self._people if step % 2 else self._intensities
        anchor = rows[rng.integers(len(rows))]
        group = groups.order[groups.start[anchor] : groups.end[anchor]]
        chosen = rng.choice(len(group), min(batch, len(group)), replace=False)
        a, none = np.resize(group[chosen], batch), np.zeros(batch, bool)
        return TripletIndex(a, a, a, none, none, a, none)

    @cached_property
    def _people(self) -> tuple[np.ndarray, Candidates]:
        return self._sharing(self._kind(), self.peers)

    @cached_property
    def _intensities(self) -> tuple[np.ndarray, Candidates]:
        subject = group_ids(self.faces.subject)
        kinds = np.unique(np.stack([self.take, self._kind()])[:, self.labelled], axis=1)[0]
        several = np.bincount(kinds, minlength=len(self))[self.take] > 1
        return self._sharing(group_ids(several, np.where(several, self.take, subject)), self.pairs)

    def _kind(self) -> np.ndarray:
        """[n] what each picture shows and how much of it; neutral is one kind whatever the action."""
        return group_ids(self.shown, np.where(self.shown > 0, self.action, 0))

    def _sharing(self, group: np.ndarray, partners: Candidates) -> tuple[np.ndarray, Candidates]:
        """Rows that have partners (all, if none has), and for each the rows of its group among them."""
        usable = self.labelled & (partners.count() > 0)
        usable = usable if usable.any() else np.ones(len(self), bool)
        return np.flatnonzero(usable), match_within_groups(group, np.arange(len(self)), usable)
