"""The built-in faces as records: stills at exact smile intensities, and takes that go neutral -> smile -> neutral."""

import contextlib
from collections import deque
from collections.abc import Iterator

import numpy as np

from data_prep.cropping.workers import Lost, run_jobs
from data_prep.synthetic.drawing import draw, draw_levels, draw_task
from data_prep.synthetic.factors import factors_of, person_identity
from data_prep.synthetic.identity import Identity, random_identity
from facedisent_jax.data.factors import Factors
from facedisent_jax.data.record import NEUTRAL, Record
from facedisent_jax.errors import UserError

__all__ = [
    "Identity",
    "draw",
    "draw_levels",
    "factors",
    "random_identity",
    "records",
    "subject_records",
    "take_intensities",
]

ACTION = "smile"
TIMEOUT_SECONDS = 600.0  # a worker that takes longer to draw a person is killed


def take_intensities(seed: int, subject: int, take: int) -> np.ndarray:
    """Smile intensity of each frame of a take: neutral, raised-cosine onset, apex, offset, neutral; 24 to 40 frames."""
    rng = np.random.default_rng((seed, subject, 1 + take))
    before, onset, apex, offset, after = (
        int(rng.integers(low, high + 1)) for low, high in ((2, 4), (8, 12), (5, 8), (10, 14), (2, 4))
    )
    rise = 0.5 - 0.5 * np.cos(np.pi * np.arange(1, onset) / onset)
    fall = 0.5 + 0.5 * np.cos(np.pi * np.arange(1, offset) / offset)
    return np.concatenate([np.zeros(before), rise, np.ones(apex), fall, np.zeros(after)])


def records(
    subjects: int,
    seed: int = 0,
    stills: bool = True,
    clips: int = 0,
    levels: int = 11,
    workers: int = 1,
    independent: bool = False,
) -> Iterator[tuple[str, Record]]:
    """Keys and records of persons 0 .. subjects - 1, in that order, the same for any number of workers.

    stills:  whether to draw `levels` images of each person, in equal steps of intensity from 0 (neutral) to 1 (smile).
    clips:   number of takes of each person, neutral to smile and back; all their frames have the expression smile.
    workers: number of processes that draw.
    independent: whether the factors of a person are drawn independently of each other.

    Raises UserError for numbers that make no sense.
    """
    if subjects < 1:
        raise UserError(f"--subjects must be at least 1, got {subjects}.")
    if seed < 0:
        raise UserError(f"--seed must be at least 0, got {seed}.")
    if levels < 2:
        raise UserError(f"--levels must be at least 2 (neutral and smile), got {levels}.")
    if clips < 0 or not (stills or clips):
        raise UserError(f"--clips must be at least {0 if stills else '1 with --no-stills'}, got {clips}.")
    identities = [person_identity(seed, subject, independent) for subject in range(subjects)]
    plans = [_undrawn_records(subject, seed, stills, levels, clips) for subject in range(subjects)]
    if workers > 1:
        yield from _draw_in_workers(plans, identities, min(workers, subjects))
    else:
        for plan, identity in zip(plans, identities, strict=True):
            yield from _draw(plan, identity)


def subject_records(
    subject: int, *, seed: int = 0, stills: bool = True, levels: int = 11, clips: int = 0
) -> list[tuple[str, Record]]:
    """Keys and records of one person."""
    return _draw(_undrawn_records(subject, seed, stills, levels, clips), random_identity(seed, subject))


def factors(subjects: int, seed: int, stills: bool, clips: int, levels: int, independent: bool) -> Factors:
    """The factors of the records that `records` draws with the same arguments."""
    undrawn, identities = [], []
    for subject in range(subjects):
        plan = _undrawn_records(subject, seed, stills, levels, clips)
        undrawn += [record for _, record in plan]
        identities += [person_identity(seed, subject, independent)] * len(plan)
    return factors_of(undrawn, identities)


def _undrawn_records(subject: int, seed: int, stills: bool, levels: int, clips: int) -> list[tuple[str, Record]]:
    """Keys and records of one person, with empty images."""
    name, no_image, out = f"p{subject:04d}", np.empty(0, np.uint8), []
    if stills:
        for number, level in enumerate(np.linspace(0, 1, levels)):
            expression = ACTION if level > 0 else NEUTRAL
            record = Record(no_image, name, expression, frame=number, intensity=float(level))
            out.append((f"{name}/still/{number:03d}", record))
    for take in range(clips):
        sequence = f"take{take:03d}"
        for number, level in enumerate(take_intensities(seed, subject, take)):
            record = Record(no_image, name, ACTION, sequence, frame=number, intensity=float(level))
            out.append((f"{name}/{sequence}/{number:04d}", record))
    return out


def _draw(plan: list[tuple[str, Record]], identity: Identity) -> list[tuple[str, Record]]:
    return _with_images(plan, draw_levels(identity, [record.intensity for _, record in plan]))


def _with_images(plan: list[tuple[str, Record]], images: np.ndarray) -> list[tuple[str, Record]]:
    return [(key, record._replace(image=image)) for (key, record), image in zip(plan, images, strict=True)]


def _draw_in_workers(
    plans: list[list[tuple[str, Record]]], identities: list[Identity], workers: int
) -> Iterator[tuple[str, Record]]:
    """The records of all plans (one for each person) in order, drawn by several processes."""
    # A worker imports data_prep.synthetic.drawing, which needs nothing but numpy, so it starts at once.
    tasks = iter(
        [(subject, identities[subject], [record.intensity for _, record in plan]) for subject, plan in enumerate(plans)]
    )
    retries = deque()
    next_task = lambda: retries.popleft() if retries else next(tasks, None)  # noqa: E731
    finished: dict[int, np.ndarray] = {}
    next_subject = losses = 0
    with contextlib.closing(run_jobs(draw_task, next_task, workers, lambda _: TIMEOUT_SECONDS)) as answers:
        for task, images in answers:
            if not isinstance(images, Lost):
                finished[task[0]] = images
            elif (losses := losses + 1) > workers:  # more than somebody killing a process
                raise UserError(f"{losses} processes that drew faces died or hung: try again with --workers 1.")
            else:
                retries.append(task)
            while next_subject in finished:
                yield from _with_images(plans[next_subject], finished.pop(next_subject))
                next_subject += 1
