"""The built-in faces as records: stills at exact smile intensities, and clips neutral -> smile -> neutral.

The truth is exact: any identity at any smile intensity can be drawn (`draw`). Imports facedisent_jax.records.
"""

import multiprocessing
from collections.abc import Iterator
from functools import partial

import numpy as np

from data_prep.drawing import draw, draw_levels
from data_prep.identity import Identity, random_identity
from facedisent_jax.records import NEUTRAL, Record

__all__ = ["Identity", "draw", "draw_levels", "random_identity", "records", "subject_records", "take_intensities"]

ACTION = "smile"


def take_intensities(seed: int, subject: int, take: int) -> np.ndarray:
    """Smile intensity of each frame of a take, 24-40 frames: neutral, raised-cosine onset, apex, offset, neutral."""
    rng = np.random.default_rng((seed, subject, 1 + take))
    before, onset, apex, offset, after = (
        int(rng.integers(a, b + 1)) for a, b in ((2, 4), (8, 12), (5, 8), (10, 14), (2, 4))
    )
    rise = 0.5 - 0.5 * np.cos(np.pi * np.arange(1, onset) / onset)
    fall = 0.5 + 0.5 * np.cos(np.pi * np.arange(1, offset) / offset)
    return np.concatenate([np.zeros(before), rise, np.ones(apex), fall, np.zeros(after)])


def subject_records(
    subject: int, *, seed: int = 0, stills: bool = True, levels: int = 11, clips: int = 0
) -> list[tuple[str, Record]]:
    """All records of one person, with their keys: one call is one piece of work for a process."""
    name, who = f"p{subject:04d}", random_identity(seed, subject)
    out = []
    if stills:
        steps = np.linspace(0, 1, levels)
        for number, (level, image) in enumerate(zip(steps, draw_levels(who, steps), strict=True)):
            expression = ACTION if level > 0 else NEUTRAL
            out.append(
                (f"{name}/still/{number:03d}", Record(image, name, expression, frame=number, intensity=float(level)))
            )
    for take in range(clips):
        sequence, steps = f"take{take:03d}", take_intensities(seed, subject, take)
        for number, (level, image) in enumerate(zip(steps, draw_levels(who, steps), strict=True)):
            key = f"{name}/{sequence}/{number:04d}"
            out.append((key, Record(image, name, ACTION, sequence, frame=number, intensity=float(level))))
    return out


def records(
    subjects: int,
    seed: int = 0,
    stills: bool = True,
    clips: int = 0,
    levels: int = 11,
    workers: int = 1,
) -> Iterator[tuple[str, Record]]:
    """Keys and records of persons 0 .. subjects-1, in that order, the same for any number of workers.

    stills: `levels` pictures a person, intensity 0 (named neutral) to 1 in equal steps. clips: takes a person, neutral
    to smile and back, all frames named smile. workers: processes that draw.
    """
    if subjects < 1:
        raise ValueError(f"--subjects is {subjects}: at least 1 built-in person is needed.")
    if levels < 2:
        raise ValueError(f"--levels is {levels}: at least 2 are needed, neutral and smile.")
    if clips < 0 or not (stills or clips):
        raise ValueError(f"Nothing to draw: no stills and --clips is {clips}; ask for stills or for at least 1 clip.")
    one = partial(subject_records, seed=seed, stills=stills, levels=levels, clips=clips)
    if workers <= 1:
        for subject in range(subjects):
            yield from one(subject)
        return
    # spawn: forking a process in which TensorFlow or JAX runs threads can hang; a child imports numpy and this alone
    with multiprocessing.get_context("spawn").Pool(min(workers, subjects)) as pool:
        for part in pool.imap(one, range(subjects), chunksize=4):
            yield from part
