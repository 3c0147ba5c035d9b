"""Imports go one way between the folders, and TensorFlow stays where the records are."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_run import ROOT

BASE = {"config", "errors", "files", "environment"}
ALLOWED = {
    "models": BASE,
    "data": BASE,
    "losses": BASE | {"models", "data"},
    "training": BASE | {"presets", "models", "data", "losses"},
    "trained_model": BASE | {"models", "data", "training"},
    "evaluation": BASE | {"presets", "models", "data", "losses", "training", "trained_model"},
    "reporting": BASE | {"models", "data", "trained_model", "evaluation", "training"},
}
"""What each folder of facedisent_jax may import of the others; `commands` may import all, `data_prep` the data."""


def imported(path: Path) -> set[str]:
    """Full names of all that a file imports, at whatever depth."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names} | {str(node.module)}
    return names


def rooms(path: Path) -> set[str]:
    """The folders and files of facedisent_jax that a file imports from."""
    return {name.split(".")[1] for name in imported(path) if name.startswith("facedisent_jax.")}


def files(room: str) -> list[Path]:
    package = ROOT / "facedisent_jax"
    return [package / f"{room}.py"] if (package / f"{room}.py").exists() else sorted((package / room).glob("*.py"))


@pytest.mark.parametrize("room", ALLOWED)
def test_imports_go_one_way(room):
    assert files(room)
    for path in files(room):
        assert rooms(path) <= ALLOWED[room] | {room}, path


def test_tensorflow_is_imported_where_records_and_events_are_read_or_written():
    users = {
        path.relative_to(ROOT).as_posix()
        for path in [*ROOT.glob("*.py"), *(ROOT / "facedisent_jax").rglob("*.py")]
        if any(re.match(r"tensorflow|facedisent_jax\.environment\.import_tensorflow", name) for name in imported(path))
    }
    assert users <= {
        "facedisent_jax/environment.py",  # for the others
        "facedisent_jax/data/record.py",  # TFDS features
        "facedisent_jax/data/shards.py",
        "facedisent_jax/data/stream.py",
        "facedisent_jax/training/log.py",  # TensorBoard events
    }


def test_data_prep_imports_the_record_and_nothing_of_jax():
    for path in (ROOT / "data_prep").rglob("*.py"):
        assert rooms(path) <= BASE | {"data"}, path
        assert not any(name.split(".")[0] in ("jax", "flax", "optax") for name in imported(path)), path


@pytest.mark.parametrize(
    "module", ["facedisent_jax", "facedisent_jax.training.step", "facedisent_jax.trained_model", "train", "eval"]
)
def test_importing_brings_no_tensorflow(module):
    code = f"import sys, {module}; print('tensorflow' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"
