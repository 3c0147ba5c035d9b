"""`eval.py disentangle` on a tiny run: numbers in their range, the figure, and the rows for a report."""

import json

import numpy as np
import pytest
from PIL import Image
from tiny_run import HARM, harmful, person, tags, write_folder, write_run

from data_prep.synthetic.factors import factors_of, person_identity
from facedisent_jax.data.factors import write_factors
from facedisent_jax.errors import UserError
from facedisent_jax.reporting import disentanglement_report, heat_map
from facedisent_jax.reporting.figures import ReportFigure

TEST = [(k, record) for k in range(4, 16) for record in person(k, (0.0, 0.5, 1.0))]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of an untrained network, and its data: 12 test people, without factors and (in `drawn`) with them."""
    folder = tmp_path_factory.mktemp("disentangle")
    splits = {"train": [r for k in range(3) for r in person(k)], "test": [record for _, record in TEST]}
    data = write_folder(folder / "data", splits)
    write_folder(folder / "drawn", splits)
    identities = [person_identity(0, k, independent=True) for k, _ in TEST]
    write_factors(folder / "drawn", factors_of([record for _, record in TEST], identities))
    return write_run(folder / "run", data)


@pytest.fixture(scope="module")
def metrics(run):
    return disentanglement_report.write(run, [run.parent / "drawn"], "test", "best", run / "disentangle")


def numbers(table: dict) -> list[float]:
    return [x for value in table.values() for x in (numbers(value) if isinstance(value, dict) else [value])]


def test_every_score_is_in_0_to_1_and_in_the_file(run, metrics):
    assert metrics == json.loads((run / "disentangle" / "metrics.json").read_text())
    scores = {key: metrics[key] for key in ("mig", "sap", "dci", "irs", "modularity", "expected", "unexpected")}
    values = numbers(scores) + numbers(metrics["chance"]) + numbers(metrics["blocks"]) + numbers(metrics["subject"])
    assert all(0 <= value <= 1 for value in values)
    assert [factor["name"] for factor in metrics["factors"]][-1] == "intensity" and len(metrics["factors"]) == 51
    assert set(metrics["blocks"]) == {"identity", "expression"}  # this run's labels constrain the whole code
    assert metrics["data"]["subjects"] == 12 and metrics["data"]["pictures"] == 36


def test_the_page_shows_the_figure_and_every_score(run, metrics):
    page = (run / "disentangle" / "index.html").read_text()
    assert 'src="figures/blocks.png"' in page and "nan" not in page.lower()
    for text in ("MIG", "SAP", "DCI completeness", "IRS", "modularity", "person from the expression code", "20 bins"):
        assert text in page
    with Image.open(run / "disentangle" / "figures" / "blocks.png") as image:
        assert image.width > 800 and image.height > 1500


def test_no_text_becomes_a_tag(metrics):
    drawing = [ReportFigure(text, text, text, Image.new("RGB", (2, 2))) for text in (HARM, "a")]
    harmed = metrics | {"data": metrics["data"] | {"folders": harmful(metrics["data"]["folders"])}}
    page = disentanglement_report.render(HARM, harmed, drawing[0])
    assert tags(page) == tags(disentanglement_report.render("run", metrics, drawing[1]))


def test_a_report_of_the_same_checkpoint_and_data_shows_the_rows(run, metrics):
    rows = disentanglement_report.earlier_rows(run, metrics["data"])
    assert rows == disentanglement_report.metric_rows(metrics) and rows[0].name == "MIG"
    for change in ({"step": 7}, {"folders": ["elsewhere"]}, {"split": "validation"}):
        assert disentanglement_report.earlier_rows(run, metrics["data"] | change) == []
    assert disentanglement_report.earlier_rows(run.parent, metrics["data"]) == []


def test_photographs_have_the_factors_of_their_labels(run, tmp_path):
    metrics = disentanglement_report.write(run, [run.parent / "data"], "test", "best", tmp_path / "out")
    assert [factor["name"] for factor in metrics["factors"]] == ["subject", "intensity"]
    assert set(metrics["blocks"]["identity"]["linear"]) == {"intensity"}
    assert set(metrics["subject"]) == {"identity", "expression"}


def test_data_with_one_factor_is_refused(run, tmp_path):
    records = [record for k in range(20, 26) for record in person(k, (0.0, 1.0))]
    data = write_folder(tmp_path / "data", {"test": [record._replace(intensity=1.0) for record in records]})
    with pytest.raises(UserError, match="differ in two factors at least, got subject"):
        disentanglement_report.write(run, [data], "test", "best", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_cells_are_coloured_by_whether_the_factor_should_be_there():
    assert heat_map.mark_of("identity", "identity") == "expected"
    assert heat_map.mark_of("identity", "expression_free") == "unexpected"
    assert heat_map.mark_of("", "expression") == ""
    image = heat_map.draw(np.array([[1.0, np.nan]]), [["expected", "unexpected"]], ["a", "b"], ["x"], ["group"])
    pixels, counts = np.asarray(image).astype(int), []
    for mark in ("expected", "unexpected"):
        colour = [int(heat_map.COLOURS[mark][k : k + 2], 16) for k in (1, 3, 5)]
        counts.append((np.abs(pixels - colour).max(-1) < 3).sum())
    assert counts[0] > 5 * counts[1] > 0  # one full cell; the other is empty, and red is in the legend alone
