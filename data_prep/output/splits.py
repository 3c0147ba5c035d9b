"""Who is in which split. Splits are by subject, so that no person is seen in training and in testing.

Pure functions. Imports sources for its error.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping

from facedisent_jax.errors import UserError

SHARE = 0.1
"""Fraction of the subjects that are tested on, and that validate."""


def split_subjects(
    subjects: Iterable[str], seed: int = 0, known: Mapping[str, str] | None = None
) -> tuple[dict[str, str], list[str]]:
    """Subject -> "train", "validation" or "test", and notes for the person at the keyboard.

    Subjects are ranked by a hash of (seed, subject): the first tenth is tested on, the next tenth validates, each at
    least one subject. Two subjects: one trains, one tests; a single one trains.
    known: subjects whose split is already given (by another data folder); the others fill up.
    """
    names = sorted({subject for subject in subjects if subject})
    given = {name: known[name] for name in names if known and name in known}
    notes = []
    if len(names) == 2:
        notes.append("There are only 2 subjects: one trains, one is tested on, none validates.")
    elif len(names) == 1:
        notes.append(f"There is only 1 subject ({names[0]}): it trains, nobody is tested on.")
    share = max(1, round(SHARE * len(names)))
    wanted = {"test": share if len(names) >= 2 else 0, "validation": share if len(names) >= 3 else 0}
    out = dict(given)
    rest = sorted((name for name in names if name not in given), key=lambda name: _rank(seed, name))
    for split in ("test", "validation"):
        missing = max(0, wanted[split] - sum(value == split for value in given.values()))
        out.update((name, split) for name in rest[:missing])
        rest = rest[missing:]
    out.update((name, "train") for name in rest)
    return out, notes


def published(subjects: Iterable[str], training: Iterable[str], seed: int = 0) -> dict[str, str]:
    """Subject -> split, by a published list of those that train; of the others a third validates, two thirds test.

    Who validates is drawn by the same hash as in `split_subjects`: at least one is tested on.
    """
    names = sorted({subject for subject in subjects if subject})
    numbers = {int(name) for name in training}
    out = {name: "train" for name in names if name.isdecimal() and int(name) in numbers}
    if names and not out:
        raise UserError(
            f"--split published: none of the {len(names)} subjects (such as {names[0]}) is in the published list "
            f"({', '.join(list(training)[:3])}, ...); --subject-pattern '[0-9]+' makes s008 one with 008."
        )
    rest = sorted((name for name in names if name not in out), key=lambda name: _rank(seed, name))
    out.update((name, "validation" if k < len(rest) // 3 else "test") for k, name in enumerate(rest))
    return out


def _rank(seed: int, subject: str) -> bytes:
    return hashlib.sha256(f"{seed}:{subject}".encode()).digest()


def compiled(pattern: str, option: str) -> re.Pattern[str]:
    """A regular expression that a user gave by `option`; a faulty one gets a sentence."""
    try:
        return re.compile(pattern)
    except re.error as error:
        raise UserError(f"{option} {pattern!r} is not a regular expression: {error}.") from error


def canonical(subject: str, pattern: re.Pattern[str] | None) -> str:
    """The person's name in every data set: the pattern's first group, or all that it matches; else as it stands."""
    found = pattern.search(subject) if pattern and subject else None
    if not found:
        return subject
    return (found.group(1) if found.re.groups else found.group()) or subject
