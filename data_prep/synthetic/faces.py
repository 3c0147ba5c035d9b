"""The built-in faces as records: stills at exact smile intensities, and clips neutral -> smile -> neutral.

The truth is exact: any identity at any smile intensity can be drawn (`draw`). Imports facedisent_jax.records.
"""

import contextlib
from collections import deque
from collections.abc import Iterator

import numpy as np

from data_prep.cropping.workers import Lost, run
from data_prep.synthetic.drawing import draw, draw_levels, draw_task
from data_prep.synthetic.identity import Identity, random_identity
from facedisent_jax.data.record import NEUTRAL, Record

__all__ = ["Identity", "draw", "draw_levels", "random_identity", "records", "subject_records", "take_intensities"]

ACTION = "smile"
PATIENCE = 600.0
"""Seconds after which a process that draws a person has hung."""


def take_intensities(seed: int, subject: int, take: int) -> np.ndarray:
    """Smile intensity of each frame of a take, 24-40 frames: neutral, raised-cosine onset, apex, offset, neutral."""
    rng = np.random.default_rng((seed, subject, 1 + take))
    before, onset, apex, offset, after = (
        int(rng.integers(a, b + 1)) for a, b in ((2, 4), (8, 12), (5, 8), (10, 14), (2, 4))
    )
    rise = 0.5 - 0.5 * np.cos(np.pi * np.arange(1, onset) / onset)
    fall = 0.5 + 0.5 * np.cos(np.pi * np.arange(1, offset) / offset)
    return np.concatenate([np.zeros(before), rise, np.ones(apex), fall, np.zeros(after)])


def _plan(subject: int, seed: int, stills: bool, levels: int, clips: int) -> list[tuple[str, Record]]:
    """Keys and records of one person, their pictures still to be drawn."""
    name, nothing, out = f"p{subject:04d}", np.empty(0, np.uint8), []
    if stills:
        for number, level in enumerate(np.linspace(0, 1, levels)):
            expression = ACTION if level > 0 else NEUTRAL
            record = Record(nothing, name, expression, frame=number, intensity=float(level))
            out.append((f"{name}/still/{number:03d}", record))
    for take in range(clips):
        sequence = f"take{take:03d}"
        for number, level in enumerate(take_intensities(seed, subject, take)):
            record = Record(nothing, name, ACTION, sequence, frame=number, intensity=float(level))
            out.append((f"{name}/{sequence}/{number:04d}", record))
    return out


def _with_images(plan: list[tuple[str, Record]], images: np.ndarray) -> list[tuple[str, Record]]:
    return [(key, record._replace(image=image)) for (key, record), image in zip(plan, images, strict=True)]


def subject_records(
    subject: int, *, seed: int = 0, stills: bool = True, levels: int = 11, clips: int = 0
) -> list[tuple[str, Record]]:
    """All records of one person, with their keys."""
    plan = _plan(subject, seed, stills, levels, clips)
    return _with_images(plan, draw_levels(random_identity(seed, subject), [record.intensity for _, record in plan]))


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
    if seed < 0:
        raise ValueError(f"--seed is {seed}: it must be at least 0.")
    if levels < 2:
        raise ValueError(f"--levels is {levels}: at least 2 are needed, neutral and smile.")
    if clips < 0 or not (stills or clips):
        raise ValueError(f"Nothing to draw: no stills and --clips is {clips}; ask for stills or for at least 1 clip.")
    if workers <= 1:
        for subject in range(subjects):
            yield from subject_records(subject, seed=seed, stills=stills, levels=levels, clips=clips)
        return
    plans = [_plan(subject, seed, stills, levels, clips) for subject in range(subjects)]
    people = [random_identity(seed, subject) for subject in range(subjects)]
    intensities = [[record.intensity for _, record in plan] for plan in plans]
    # A child gets data_prep.drawing alone: it imports numpy and nothing else, so it starts at once
    tasks, again = iter(zip(range(subjects), people, intensities, strict=True)), deque()
    next_task = lambda: again.popleft() if again else next(tasks, None)  # noqa: E731
    drawn: dict[int, np.ndarray] = {}
    number = lost = 0
    with contextlib.closing(run(draw_task, next_task, min(workers, subjects), lambda _: PATIENCE)) as done:
        for task, images in done:
            if not isinstance(images, Lost):
                drawn[task[0]] = images
            elif (lost := lost + 1) > workers:  # it was not one process that somebody killed
                raise ValueError(f"{lost} processes that drew died or hung: try again with --workers 1.")
            else:
                again.append(task)
            while number in drawn:  # in order
                yield from _with_images(plans[number], drawn.pop(number))
                number += 1
