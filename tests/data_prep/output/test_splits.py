"""One person is in one split, however the name is written."""

import unicodedata

import pytest
from prep_helpers import write_photographs

from data_prep.__main__ import main
from data_prep.output import splits
from facedisent_jax.data.reading import read_info, read_split

PEOPLE = [f"S{number:03}" for number in range(40)]


def test_people_who_differ_by_case_or_leading_zeros_share_a_split_and_are_named():
    twins = [f"s{number}" for number in range(40)]
    split_by_subject, (note,) = splits.split_subjects([*PEOPLE, *twins])
    assert all(split_by_subject[name] == split_by_subject[twin] for name, twin in zip(PEOPLE, twins, strict=True))
    assert list(split_by_subject.values()).count("test") == 8, "a tenth of 40 people, twice"
    assert "S000 and s0; S001 and s1; " in note and "and 20 others" in note and "--subject-pattern" in note
    assert split_by_subject == splits.split_subjects([*twins, *PEOPLE])[0]


@pytest.mark.parametrize("name", ["S102", "S120", "S0120", "T12", "S12b", "S 12"])
def test_people_with_other_numbers_or_letters_are_other_people(name):
    assert splits.split_subjects(["S12", name, "x"])[1] == []


def test_people_whose_names_have_one_spelling_keep_the_splits_of_earlier_versions():
    split_by_subject, _ = splits.split_subjects(PEOPLE)
    test = [name for name in PEOPLE if split_by_subject[name] == "test"]
    assert test == ["S008", "S010", "S012", "S037"]


def test_who_was_trained_on_in_another_folder_is_trained_on_under_another_spelling_too():
    fixed = {"S002": "train", "s2": "test", "Jose\u0301": "validation"}
    split_by_subject, notes = splits.split_subjects(["S2", "José", "a", "b"], fixed=fixed)
    assert split_by_subject["S2"] == "train" and split_by_subject["José"] == "validation" and not notes


def test_a_published_split_keeps_spellings_of_one_person_together():
    names = [f"{letter}{number}" for number in range(101, 109) for letter in "pP"]
    split_by_subject = splits.published_split(["8", "008", *names], ["008"])
    assert split_by_subject["8"] == split_by_subject["008"] == "train"
    assert all(split_by_subject[name] == split_by_subject[name.upper()] for name in names)
    assert set(split_by_subject[name] for name in names) == {"validation", "test"}


def test_one_name_in_two_unicode_forms_or_with_blanks_is_one_person(tmp_path):
    raw = write_photographs(tmp_path / "raw")
    rename = {"s00_neutral": "José _neutral", "s00_smile": "José_smile", "s01_neutral": "s01  _neutral"}
    for old, new in rename.items():
        form = "NFC" if "neutral" in new else "NFD"  # macOS writes NFD
        (raw / f"{old}.png").rename(raw / f"{unicodedata.normalize(form, new)}.png")
    pattern = r"(?P<subject>[^_]+)_(?P<expression>\w+)\.png"
    main(["folder", str(raw), str(tmp_path / "out"), "--pattern", pattern, "--no-face", "--workers", "1"])
    info = read_info(tmp_path / "out")
    assert sorted(sum(info["subjects"].values(), [])) == ["José", "s01", "s02", "s03"]
    for split, names in info["subjects"].items():
        subjects = read_split(tmp_path / "out", split).subject
        assert all((subjects == name).sum() == 2 for name in names)
