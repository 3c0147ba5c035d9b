"""Comparison of runs: intervals, seeds and paired differences told by hand; figures that are used again; files."""

import csv
import json
import shutil

import numpy as np
import pytest
from tiny_run import person, write_folder, write_run

from facedisent_jax.errors import UserError
from facedisent_jax.evaluation import judges, video
from facedisent_jax.evaluation.judges import Missing
from facedisent_jax.evaluation.video import VideoEvalOptions
from facedisent_jax.reporting import comparison

LEVELS = tuple(np.linspace(0, 1, 11).tolist())


def test_runs_and_groups_are_read_from_the_command_line():
    held = comparison.groups(["runs/a", "binary=runs/b0,runs/b1"])
    assert {name: list(map(str, runs)) for name, runs in held.items()} == {
        "runs/a": ["runs/a"],
        "binary": ["runs/b0", "runs/b1"],
    }


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["a"], "takes two"),
        (["a", "a"], "given twice"),
        (["a", "b="], "names no runs"),
        (["a", "b=x,x"], "names a run twice"),
    ],
)
def test_arguments_that_make_no_groups_are_sentences(arguments, said):
    with pytest.raises(UserError, match=said):
        comparison.groups(arguments)


def test_a_person_counts_once_however_many_clips_and_seeds():
    clips = [{"subject": "p", "x": 1.0}, {"subject": "p", "x": 3.0}, {"subject": "q", "x": 5.0}, {"subject": "r"}]
    people = comparison.per_person(clips, lambda clip: clip.get("x"))
    assert people == {"p": 2.0, "q": 5.0}
    assert comparison.over_seeds([people, {"p": 4.0, "q": 6.0, "s": 0.0}]) == {"p": 3.0, "q": 5.5}


def test_differences_are_paired_over_people():
    """People differ by far more than the runs do: the figures' intervals overlap, that of the difference does not."""
    rng = np.random.default_rng(0)
    first = {f"p{k}": value for k, value in enumerate(10 * rng.standard_normal(20))}
    second = {name: value + 1 + 0.1 * rng.standard_normal() for name, value in first.items()}
    a, b = comparison.figures_of({"a": [first], "b": [second]})
    assert a.low < b.mean < a.high and b.difference == pytest.approx(1, abs=0.1)
    assert 0.8 < b.difference_low < b.difference < b.difference_high < 1.2 and b.people == 20
    assert a.people == 0 and np.isnan(a.difference)
    row = comparison.Row("way", "figure", "more", 2, [a, b])
    assert comparison.mark(b, row) == "*" and comparison.mark(b, row._replace(better="less")) == "!"
    assert comparison.mark(b, row._replace(better="")) == "~" and comparison.mark(a, row) == ""
    none = comparison.figures_of({"a": [first], "b": [dict(first)]})[1]
    assert (none.difference, none.difference_low, none.difference_high) == (0, 0, 0) and comparison.mark(
        none, row
    ) == ""


def test_the_spread_is_that_of_the_seeds_means():
    seeds = [{"p": 1.0, "q": 3.0}, {"p": 2.0, "q": 6.0}]  # means 2 and 4
    (figure,) = comparison.figures_of({"a": seeds})
    assert figure.mean == 3 and figure.spread == pytest.approx(np.sqrt(2))
    assert np.isnan(comparison.figures_of({"a": seeds[:1]})[0].spread)


def test_people_that_only_one_group_has_are_not_paired():
    figures = comparison.figures_of({"a": [{"p": 1.0, "q": 2.0}], "b": [{"q": 5.0, "r": 9.0}]})
    assert figures[1].mean == 7 and (figures[1].difference, figures[1].people) == (3, 1)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(judges, "identity", lambda margin=0.0: Missing("no dlib"))
        patch.setattr(judges, "perceptual", lambda: Missing("no lpips"))
        folder = tmp_path_factory.mktemp("compare")
        train, test = ([r for k in people for r in person(k, LEVELS)] for people in (range(4), range(4, 7)))
        data = write_folder(folder / "data", {"train": train, "test": test})
        write_run(folder / "a", data)
        other = write_folder(folder / "other", {"train": [r for k in range(10, 13) for r in person(k, LEVELS)]})
        write_run(folder / "b", other)
        yield folder


def test_every_run_is_measured_once_on_the_same_clips_and_used_again(runs):
    measured = []
    held = comparison.groups([str(runs / "a"), f"b={runs / 'b'}"])
    table = comparison.compare(held, VideoEvalOptions((runs / "data",)), measured.append)
    assert measured == [runs / "a", runs / "b"]
    again = comparison.compare(held, VideoEvalOptions((runs / "data",)), measured.append)
    assert len(measured) == 2 and again.text() == table.text()
    first = json.loads((runs / "a" / "video" / "metrics.json").read_text())
    (row,) = [row for row in table.rows if (row.what, row.figure) == ("whole code", "mouth PSNR, dB")]
    assert row.figures[0].mean == pytest.approx(first["methods"]["whole"]["intensity"]["mouth"]["psnr"]["mean"])
    assert row.figures[1].people == 3
    text = table.text()
    assert "3 clips of 3 people, test split" in text and "seed 3" in text and "reader of the mouth region" in text
    assert not any("LPIPS" in row.figure for row in table.rows)  # nothing to show without the judge


def test_a_run_trained_on_a_test_person_is_refused(runs):
    data = write_folder(runs / "mixed", {"train": person(40, LEVELS), "test": person(10, LEVELS)})
    from facedisent_jax.errors import UserError

    with pytest.raises(UserError, match="p010"):
        comparison.compare(comparison.groups([str(runs / "a"), str(runs / "b")]), VideoEvalOptions((data,)))


def test_without_data_all_are_compared_on_the_first_runs(runs):
    table = comparison.compare(comparison.groups([str(runs / "a"), str(runs / "b")]), VideoEvalOptions())
    assert table.facts["folders"] == [str(runs / "data")]


def test_changed_data_is_measured_anew(runs):
    held = comparison.groups([str(runs / "a"), str(runs / "b")])
    comparison.compare(held, VideoEvalOptions((runs / "data",)))
    prep = runs / "data" / "prep.json"
    shutil.copy(prep, prep.with_suffix(".copy"))
    prep.with_suffix(".copy").replace(prep)  # made again: another time
    measured = []
    comparison.compare(held, VideoEvalOptions((runs / "data",)), measured.append)
    assert measured == [runs / "a", runs / "b"]


def test_the_table_is_saved_as_csv_and_json(runs, tmp_path):
    held = comparison.groups([str(runs / "a"), f"b={runs / 'b'}"])
    table = comparison.compare(held, VideoEvalOptions((runs / "data",)))
    for name in ("table.csv", "table.json"):
        comparison.save(table, tmp_path / name)
    with (tmp_path / "table.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 2 * len(table.rows) and "nan" not in (tmp_path / "table.csv").read_text()
    made = json.loads((tmp_path / "table.json").read_text())
    assert made["facts"]["runs"]["b"][0]["seed"] == 3 and len(made["rows"]) == len(table.rows)
    figure = made["rows"][0]["groups"][1]
    assert float(lines[1]["difference"]) == pytest.approx(figure["difference"]) and lines[1]["group"] == "b"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["table.csv", "table.json"]
    with pytest.raises(UserError, match=r"\.csv or \.json"):
        comparison.check_out(tmp_path / "table.tex")


def test_the_video_module_has_the_version_of_what_it_measures(runs):
    found = json.loads((runs / "a" / "video" / "metrics.json").read_text())
    assert found["key"]["version"] == video.VERSION
