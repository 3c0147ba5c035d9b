"""Which person is in which split. Nobody is in two, so the people of the test are not seen in training."""

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Mapping

from data_prep.layouts.scan import plain_name
from facedisent_jax.data.record import SPLITS, spelling_key
from facedisent_jax.errors import UserError

TEST_FRACTION = 0.1  # of the subjects; the same fraction is for validation
MAX_LISTED = 20  # people in a note


def split_subjects(
    subjects: Iterable[str], seed: int = 0, fixed: Mapping[str, str] | None = None
) -> tuple[dict[str, str], list[str]]:
    """The split of each subject, "train", "validation" or "test", and notes for the user.

    Subjects are ranked by a hash of (seed, subject): the first tenth is for the test, the next tenth for validation, at
    least one each. Of two subjects one trains and one is for the test; a single one trains. Subjects that may be one
    person (`spelling_key`) count as one and share a split.

    fixed: subjects that already have a split, for example in another data folder; the rest fills up.
    """
    people = _ranked_people(subjects, seed)
    # of one person's splits in another folder, training counts: who was trained on is not for the test
    by_split = sorted((fixed or {}).items(), key=lambda item: SPLITS.index(item[1]), reverse=True)
    split_by_key = {spelling_key(name): split for name, split in by_split}
    first_names = [names[0] for names in people]
    split_of_person = {name: split_by_key.get(spelling_key(name), "") for name in first_names}
    free = [name for name in first_names if not split_of_person[name]]
    count = max(1, round(TEST_FRACTION * len(people)))
    targets = {"test": count if len(people) >= 2 else 0, "validation": count if len(people) >= 3 else 0}
    for split, target in targets.items():
        missing = max(0, target - sum(value == split for value in split_of_person.values()))
        split_of_person.update((name, split) for name in free[:missing])
        free = free[missing:]
    split_of_person.update((name, "train") for name in free)
    return {name: split_of_person[names[0]] for names in people for name in names}, _notes(people)


def _notes(people: list[list[str]]) -> list[str]:
    notes = []
    if len(people) == 2:
        notes.append("There are only 2 subjects: one is for training, one for the test, none for validation.")
    elif len(people) == 1:
        notes.append(f"There is only 1 subject ({people[0][0]}): it is for training, and there is no test.")
    alike = sorted(names for names in people if len(names) > 1)
    if alike:
        listed = "; ".join(" and ".join(names) for names in alike[:MAX_LISTED])
        more = f"; and {len(alike) - MAX_LISTED} others" if len(alike) > MAX_LISTED else ""
        notes.append(
            f"Subjects that differ only by case or leading zeros share a split, as they may be one person: {listed}"
            f"{more}. They stay separate subjects unless --subject-pattern gives them one name."
        )
    return notes


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
    held_out_people = _ranked_people((name for name in names if name not in split_by_subject), seed)
    validation = len(held_out_people) // 3
    for k, person in enumerate(held_out_people):
        split_by_subject.update((name, "validation" if k < validation else "test") for name in person)
    return split_by_subject


def split_of(subject: str, split_by_subject: Mapping[str, str]) -> str:
    """The split of a person's images. Images of nobody in particular are for training."""
    return split_by_subject.get(subject, "train")


def _ranked_people(subjects: Iterable[str], seed: int) -> list[list[str]]:
    """The subjects of each person, sorted, in the order of the hashes of their first ones."""
    people: dict[str, list[str]] = {}
    for name in sorted({subject for subject in subjects if subject}):
        people.setdefault(spelling_key(name), []).append(name)
    return sorted(people.values(), key=lambda names: hashlib.sha256(f"{seed}:{names[0]}".encode()).digest())


def compile_pattern(pattern: str, option: str) -> re.Pattern[str]:
    """The regular expression of an option. Raises UserError if it is not valid."""
    try:
        return re.compile(unicodedata.normalize("NFC", pattern))
    except re.error as error:
        raise UserError(f"{option} must be a regular expression, got {pattern!r}: {error}.") from error


def canonical_subject(subject: str, pattern: re.Pattern[str] | None) -> str:
    """The name of a person in all data sets: the pattern's first group, or its match, or else the subject itself."""
    subject = plain_name(subject)
    match = pattern.search(subject) if pattern and subject else None
    if not match:
        return subject
    return plain_name((match.group(1) if match.re.groups else match.group()) or "") or subject
