"""Imports go one way, and TensorFlow stays where the records are."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ALLOWED = {
    "config": set(),
    "presets": {"config"},
    "runlog": {"config"},
    "mapped": set(),
    "records": {"mapped"},
    "losses": set(),
    "metrics": set(),
    "figures": set(),
    "sampling": set(),
    "layers": set(),
    "augment": {"config", "sampling"},
    "triplets": {"config", "records"},
    "data": {"records", "triplets"},
    "align": {"layers", "sampling"},
    "warp": {"config", "layers", "sampling"},
    "model": {"align", "config", "layers", "warp"},
    "source_terms": {"config", "model", "losses", "triplets"},
    "reference_terms": {"config", "losses", "model", "triplets"},
    "objective": {"config", "losses", "model", "reference_terms", "source_terms", "triplets"},
    "devices": set(),
    "training": {"config", "devices", "losses", "records", "model", "objective", "augment", "triplets"},
    "checkpoint": {"config", "model", "training"},
    "preemption": set(),
    "processes": {"devices", "preemption"},
    "runs": {"checkpoint", "config", "data", "devices", "preemption", "processes", "runlog", "training", "triplets"},
    "study": {"checkpoint", "config", "metrics", "model", "triplets"},
    "baselines": set(),
    "page": set(),
    "gallery": {"figures", "metrics", "model", "records", "study"},
    "report": {
        "baselines",
        "data",
        "figures",
        "gallery",
        "judges",
        "metrics",
        "model",
        "page",
        "records",
        "study",
        "swap_judges",
    },  # fmt: skip
    "table1": {"config", "metrics", "model", "records", "report", "runlog", "study"},
    "judges": {"baselines", "losses"},
    "clips": {"metrics", "records"},
    "trajectory": {"metrics"},
    "swap_judges": {"judges", "metrics", "model", "panel", "records", "study"},
    "panel": {"data", "judges", "records", "study"},
    "paths": {"baselines", "clips", "data", "judges", "metrics", "model", "records", "reference_terms", "study"},
    "clip_figures": {"judges", "metrics", "paths", "trajectory"},
    "video_page": {"clips", "figures", "gallery", "judges", "page", "paths", "records", "study"},
    "video": {
        "clip_figures",
        "clips",
        "figures",
        "judges",
        "metrics",
        "model",
        "panel",
        "paths",
        "records",
        "report",
        "study",
        "trajectory",
        "video_page",
    },  # fmt: skip
    "comparison": {"metrics", "paths", "video"},
    "__init__": {"study", "model"},
}
"""What each module of facedisent_jax may import of ours."""


def imported(path: Path) -> set[str]:
    """Full names of all that a file imports, at whatever depth."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names} | {str(node.module)}
    return names


def ours(names: set[str]) -> set[str]:
    modules = {path.stem for path in (ROOT / "facedisent_jax").glob("*.py")}
    return {n.split(".")[1] for n in names if n.startswith("facedisent_jax.")} & modules


def test_every_module_has_its_place():
    assert {path.stem for path in (ROOT / "facedisent_jax").glob("*.py")} == set(ALLOWED)


@pytest.mark.parametrize("module", ALLOWED)
def test_imports_go_one_way(module):
    assert ours(imported(ROOT / "facedisent_jax" / f"{module}.py")) <= ALLOWED[module]


def test_tensorflow_is_imported_by_the_records_and_the_data_alone():
    users = {
        path.relative_to(ROOT).as_posix()
        for path in [*ROOT.glob("*.py"), *(ROOT / "facedisent_jax").glob("*.py"), *(ROOT / "data_prep").glob("*.py")]
        if any(name.split(".")[0] in ("tensorflow", "tensorflow_datasets") for name in imported(path))
    }
    assert {user for user in users if not user.startswith("data_prep/")} <= {
        "facedisent_jax/records.py",
        "facedisent_jax/data.py",
        "facedisent_jax/runlog.py",  # TensorBoard events
    }


def test_data_prep_knows_the_records_and_nothing_of_jax():
    for path in (ROOT / "data_prep").glob("*.py"):
        names = imported(path)
        assert ours(names) <= {"records"}, path
        assert not any(name.split(".")[0] in ("jax", "flax", "optax") for name in names), path


@pytest.mark.parametrize("what", ["facedisent_jax", "facedisent_jax.training", "facedisent_jax.study", "train", "eval"])
def test_importing_brings_no_tensorflow(what):
    code = f"import sys, {what}; print('tensorflow' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
