"""`explore` shows the people that there are: photographs, held-out people, or drawn ones where the data is gone."""

import json
import re
from pathlib import Path

import pytest
from PIL import Image
from tiny_run import flat_face, person, write_folder, write_run

from facedisent_jax.commands import evaluate


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("explore")
    data = write_folder(folder / "data", {"train": person(0) + person(1), "test": person(4) + person(5)})
    return write_run(folder / "run", data)


def names_on(page: Path) -> list[str]:
    match = re.search(r'id="data">(.*?)</script>', page.read_text(encoding="utf-8"), re.DOTALL)
    assert match
    return [entry["name"] for entry in json.loads(match.group(1))["people"]]


@pytest.mark.slow
@pytest.mark.long
def test_without_photographs_held_out_people_are_shown_and_drawn_ones_where_the_data_is_gone(run, tmp_path, capsys):
    evaluate.run(["explore", str(run), "--out", str(tmp_path / "a.html")])
    assert sorted(names_on(tmp_path / "a.html")) == ["p004", "p005"]
    Image.fromarray(flat_face(9, 0.0)).save(tmp_path / "Ann.png")
    evaluate.run(["explore", str(run), str(tmp_path / "Ann.png"), "--out", str(tmp_path / "b.html")])
    assert names_on(tmp_path / "b.html") == ["Ann"] and "drawn" not in capsys.readouterr().err
    data, moved = run.parent / "data", run.parent / "moved"
    data.rename(moved)
    try:
        evaluate.run(["explore", str(run), "--out", str(tmp_path / "c.html")])
    finally:
        moved.rename(data)
    assert names_on(tmp_path / "c.html") == [f"drawn person {k + 1}" for k in range(8)]
    assert "The data of the run is gone: the page shows drawn people." in capsys.readouterr().err


def test_data_that_was_asked_for_and_is_not_there_is_an_error(run, tmp_path):
    with pytest.raises(SystemExit, match="no data folder"):
        evaluate.run(["explore", str(run), "--data", str(tmp_path / "nowhere"), "--out", str(tmp_path / "a.html")])
    assert not list(tmp_path.iterdir())
