"""Comparison of runs: intervals, seeds and paired differences worked out by hand, cached metrics, files."""

import csv
import json
import shutil

import numpy as np
import pytest
from extras import hide_judges
from tiny_run import person, write_folder, write_run

from facedisent_jax.errors import UserError
from facedisent_jax.evaluation import video
from facedisent_jax.evaluation.video import VideoEvalOptions
from facedisent_jax.reporting import comparison

LEVELS = tuple(np.linspace(0, 1, 11).tolist())


def test_runs_and_groups_are_read_from_the_command_line():
    groups = comparison.groups(["runs/a", "binary=runs/b0,runs/b1"])
    assert {name: list(map(str, runs)) for name, runs in groups.items()} == {
        "runs/a": ["runs/a"],
        "binary": ["runs/b0", "runs/b1"],
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a"], "at least two"),
        (["a", "a"], "got a twice"),
        (["a", "b="], "got b="),
        (["a", "b=x,x"], "run twice in b=x,x"),
    ],
)
def test_arguments_that_make_no_groups_are_explained(arguments, message):
    with pytest.raises(UserError, match=message):
        comparison.groups(arguments)


def test_a_person_counts_once_however_many_clips_and_seeds():
    clips = [{"subject": "p", "x": 1.0}, {"subject": "p", "x": 3.0}, {"subject": "q", "x": 5.0}, {"subject": "r"}]
    people = comparison.person_means(clips, lambda clip: clip.get("x"))
    assert people == {"p": 2.0, "q": 5.0}
    assert comparison.seed_means([people, {"p": 4.0, "q": 6.0, "s": 0.0}]) == {"p": 3.0, "q": 5.5}


def test_differences_are_paired_over_people():
    """People differ by far more than the runs do: the intervals overlap, but that of the difference excludes 0."""
    rng = np.random.default_rng(0)
    values_a = {f"p{k}": value for k, value in enumerate(10 * rng.standard_normal(20))}
    values_b = {name: value + 1 + 0.1 * rng.standard_normal() for name, value in values_a.items()}
    a, b = comparison.group_cells({"a": [values_a], "b": [values_b]})
    assert a.low < b.mean < a.high and b.difference == pytest.approx(1, abs=0.1)
    assert 0.8 < b.difference_low < b.difference < b.difference_high < 1.2 and b.people == 20
    assert a.people == 0 and np.isnan(a.difference)
    row = comparison.Row("method", "metric", "more", 2, [a, b])
    marks = [comparison.significance_mark(b, direction) for direction in ("more", "less", "")]
    assert marks == ["*", "!", "~"] and comparison.significance_mark(a, "more") == ""
    assert "+1." in comparison.difference_text(b, row) and comparison.difference_text(a, row) == ""
    tie = comparison.group_cells({"a": [values_a], "b": [dict(values_a)]})[1]
    assert (tie.difference, tie.difference_low, tie.difference_high) == (0, 0, 0)
    assert comparison.significance_mark(tie, "more") == ""


def test_the_spread_is_the_standard_deviation_of_the_seeds_means():
    seeds = [{"p": 1.0, "q": 3.0}, {"p": 2.0, "q": 6.0}]  # means 2 and 4
    (cell,) = comparison.group_cells({"a": seeds})
    assert cell.mean == 3 and cell.spread == pytest.approx(np.sqrt(2))
    assert np.isnan(comparison.group_cells({"a": seeds[:1]})[0].spread)


def test_people_that_only_one_group_has_are_not_paired():
    cells = comparison.group_cells({"a": [{"p": 1.0, "q": 2.0}], "b": [{"q": 5.0, "r": 9.0}]})
    assert cells[1].mean == 7 and (cells[1].difference, cells[1].people) == (3, 1)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        hide_judges(patch)
        folder = tmp_path_factory.mktemp("compare")
        train, test = ([r for k in people for r in person(k, LEVELS)] for people in (range(4), range(4, 7)))
        data = write_folder(folder / "data", {"train": train, "test": test})
        write_run(folder / "a", data)
        other_data = write_folder(folder / "other", {"train": [r for k in range(10, 13) for r in person(k, LEVELS)]})
        write_run(folder / "b", other_data)
        yield folder


@pytest.mark.slow
def test_every_run_is_evaluated_once_and_then_read_from_its_folder(runs):
    evaluated_runs = []
    groups = comparison.groups([str(runs / "a"), f"b={runs / 'b'}"])
    table = comparison.compare(groups, VideoEvalOptions((runs / "data",)), evaluated_runs.append)
    assert evaluated_runs == [runs / "a", runs / "b"]
    second_table = comparison.compare(groups, VideoEvalOptions((runs / "data",)), evaluated_runs.append)
    assert len(evaluated_runs) == 2 and second_table.text() == table.text()
    metrics = json.loads((runs / "a" / "video" / "metrics.json").read_text())
    (row,) = [row for row in table.rows if (row.method, row.metric) == ("whole code", "mouth PSNR, dB")]
    assert row.cells[0].mean == pytest.approx(metrics["methods"]["whole"]["intensity"]["mouth"]["psnr"]["mean"])
    assert row.cells[1].people == 3
    text = table.text()
    assert "3 clips of 3 people, test split" in text and "seed 3" in text and "reader of the mouth region" in text
    assert not any("LPIPS" in row.metric for row in table.rows)  # nothing to show without the judge


@pytest.mark.slow
def test_a_run_trained_on_a_test_person_is_refused(runs):
    data = write_folder(runs / "mixed", {"train": person(40, LEVELS), "test": person(10, LEVELS)})
    with pytest.raises(UserError, match="p010"):
        comparison.compare(comparison.groups([str(runs / "a"), str(runs / "b")]), VideoEvalOptions((data,)))


@pytest.mark.slow
def test_without_data_all_runs_are_compared_on_the_data_of_the_first(runs):
    table = comparison.compare(comparison.groups([str(runs / "a"), str(runs / "b")]), VideoEvalOptions())
    assert table.provenance["folders"] == [str(runs / "data")]


@pytest.mark.slow
@pytest.mark.long
def test_with_changed_data_the_runs_are_evaluated_anew(runs):
    groups = comparison.groups([str(runs / "a"), str(runs / "b")])
    comparison.compare(groups, VideoEvalOptions((runs / "data",)))
    prep = runs / "data" / "prep.json"
    shutil.copy(prep, prep.with_suffix(".copy"))
    prep.with_suffix(".copy").replace(prep)  # prepared again: another time
    evaluated_runs = []
    comparison.compare(groups, VideoEvalOptions((runs / "data",)), evaluated_runs.append)
    assert evaluated_runs == [runs / "a", runs / "b"]


@pytest.mark.slow
def test_the_table_is_saved_as_csv_and_json(runs, tmp_path):
    groups = comparison.groups([str(runs / "a"), f"b={runs / 'b'}"])
    table = comparison.compare(groups, VideoEvalOptions((runs / "data",)))
    for name in ("table.csv", "table.json"):
        comparison.save(table, tmp_path / name)
    with (tmp_path / "table.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 2 * len(table.rows) and "nan" not in (tmp_path / "table.csv").read_text()
    content = json.loads((tmp_path / "table.json").read_text())
    assert content["provenance"]["runs"]["b"][0]["seed"] == 3 and len(content["rows"]) == len(table.rows)
    cell = content["rows"][0]["groups"][1]
    assert float(lines[1]["difference"]) == pytest.approx(cell["difference"]) and lines[1]["group"] == "b"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["table.csv", "table.json"]
    with pytest.raises(UserError, match=r"\.csv or \.json"):
        comparison.check_out(tmp_path / "table.tex")


@pytest.mark.slow  # reads what the tests above have written
def test_the_metrics_of_a_run_have_the_version_of_the_evaluation(runs):
    metrics = json.loads((runs / "a" / "video" / "metrics.json").read_text())
    assert metrics["key"]["version"] == video.VERSION
