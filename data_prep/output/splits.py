"""Which person is in which split. Nobody is in two, so the people of the test are not seen in training."""

import hashlib
import re
from collections.abc import Iterable, Mapping

from facedisent_jax.errors import UserError

TEST_FRACTION = 0.1  # of the subjects; the same fraction is for validation


def split_subjects(
    subjects: Iterable[str], seed: int = 0, fixed: Mapping[str, str] | None = None
) -> tuple[dict[str, str], list[str]]:
    """The split of each subject, "train", "validation" or "test", and notes for the user.

    Subjects are ranked by a hash of (seed, subject): the first tenth is for the test, the next tenth for validation, at
    least one each. Of two subjects one trains and one is for the test; a single one trains.

    fixed: subjects that already have a split, for example in another data folder; the rest fills up.
    """
    names = sorted({subject for subject in subjects if subject})
    split_by_subject = {name: fixed[name] for name in names if fixed and name in fixed}
    notes = []
    if len(names) == 2:
        notes.append("There are only 2 subjects: one is for training, one for the test, none for validation.")
    elif len(names) == 1:
        notes.append(f"There is only 1 subject ({names[0]}): it is for training, and there is no test.")
    count = max(1, round(TEST_FRACTION * len(names)))
    targets = {"test": count if len(names) >= 2 else 0, "validation": count if len(names) >= 3 else 0}
    free = _ranked((name for name in names if name not in split_by_subject), seed)
    for split, target in targets.items():
        missing = max(0, target - sum(value == split for value in split_by_subject.values()))
        split_by_subject.update((name, split) for name in free[:missing])
        free = free[missing:]
    split_by_subject.update((name, "train") for name in free)
    return split_by_subject, notes


def published_split(subjects: Iterable[str], training: Iterable[str], seed: int = 0) -> dict[str, str]:
    """The split of each subject by a published list of training subjects.

    Of the others a third is for validation and the rest, at least one, for the test, drawn as in `split_subjects`.
    """
    names = sorted({subject for subject in subjects if subject})
    numbers = {int(name) for name in training}
    split_by_subject = {name: "train" for name in names if name.isdecimal() and int(name) in numbers}
    if names and not split_by_subject:
        raise UserError(
            f"--split published: subjects must be numbers of the published list ({', '.join(list(training)[:3])}, ...),"
            f" got {len(names)} others such as {names[0]}. --subject-pattern '[0-9]+' reads s008 as 008."
        )
    others = _ranked((name for name in names if name not in split_by_subject), seed)
    validation = len(others) // 3
    split_by_subject.update((name, "validation" if k < validation else "test") for k, name in enumerate(others))
    return split_by_subject


def split_of(subject: str, split_by_subject: Mapping[str, str]) -> str:
    """The split of a person's images. Images of nobody in particular are for training."""
    return split_by_subject.get(subject, "train")


def _ranked(subjects: Iterable[str], seed: int) -> list[str]:
    """The subjects in the order of their hashes."""
    return sorted(subjects, key=lambda name: hashlib.sha256(f"{seed}:{name}".encode()).digest())


def compile_pattern(pattern: str, option: str) -> re.Pattern[str]:
    """The regular expression of an option. Raises UserError if it is not valid."""
    try:
        return re.compile(pattern)
    except re.error as error:
        raise UserError(f"{option} must be a regular expression, got {pattern!r}: {error}.") from error


def canonical_subject(subject: str, pattern: re.Pattern[str] | None) -> str:
    """The name of a person in all data sets: the pattern's first group, or its match, or else the subject itself."""
    match = pattern.search(subject) if pattern and subject else None
    if not match:
        return subject
    return (match.group(1) if match.re.groups else match.group()) or subject
