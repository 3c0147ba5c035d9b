"""The notebook of the docs runs from its first cell to its last, and is kept without outputs."""

import csv
import json

import numpy as np
import pytest
from extras import needs
from tiny_run import ROOT

NOTEBOOK = ROOT / "docs" / "interpolation_study.ipynb"


def test_the_notebook_is_kept_without_outputs():
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    for cell in (cell for cell in cells if cell["cell_type"] == "code"):
        assert cell["outputs"] == [] and cell["execution_count"] is None


@pytest.mark.slow
@pytest.mark.parametrize(
    "parameters", ["subjects, steps, batch = 100, 100, 8", pytest.param(None, marks=pytest.mark.long)]
)
@needs("notebook", "nbclient", "ipykernel")
def test_the_notebook_runs_and_its_stimuli_smile_as_asked(tmp_path, monkeypatch, parameters):
    """As it is kept, or with less to train."""
    import nbformat
    from nbclient import NotebookClient

    monkeypatch.setenv("XLA_FLAGS", "")  # the tests' own make compilation quick and training slow
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    (cell,) = (cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", []))
    cell.source = parameters or cell.source
    NotebookClient(notebook, timeout=900, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 2
    with (tmp_path / "study" / "stimuli" / "stimuli.csv").open() as file:
        rows = list(csv.DictReader(file))
    level, measured, alpha = (np.array([float(row[name]) for row in rows]) for name in ("level", "measured", "alpha"))
    assert len(rows) == 20 and measured == pytest.approx(level, abs=0.15)
    assert (np.diff(alpha.reshape(4, 5)) > 0).all()
