"""Strict while testing: shapes of the numerical core are checked at run time, and silent rank promotion raises."""

import os
import signal
import tempfile

from facedisent_jax.environment import TF_ENVIRONMENT

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell starts a background job ("pytest &") with Ctrl-C ignored, which the commands under test would inherit.
    signal.signal(signal.SIGINT, signal.default_int_handler)
os.environ.update(TF_ENVIRONMENT)
# A third of the tests' compilation time is LLVM's optimization, which comes after all that XLA decides. (A test looks
# for one compiler bug, and finds it with and without this flag. Without XLA's fusion emitters compilation would take
# half the time, but that bug is back.)
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_backend_optimization_level=0".strip()
if "PYTEST_XDIST_WORKER" not in os.environ:  # the workers, and the commands they start, share what was compiled
    XLA_CACHE = tempfile.TemporaryDirectory(prefix="facedisent-xla-")
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", XLA_CACHE.name)  # set by CI: its slow tests find it filled
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.1"

import jax
import pytest
from extras import skip_without_extras
from jaxtyping import install_import_hook

jax.config.update("jax_numpy_rank_promotion", "raise")
NUMERICAL = ("losses", "models", "training.augment", "training.step", "training.validation")
install_import_hook([f"facedisent_jax.{name}" for name in NUMERICAL], "beartype.beartype")

LONGEST = (
    "training/test_resume",
    "test_notebook",
    "training/test_distributed",
    "training/test_run",
    "training/test_step",
    "commands/test_evaluate",
    "models/test_models",
    "training/test_checkpoint",
    "evaluation/test_video",
    "models/test_warp_decoder",
)


def pytest_collection_modifyitems(items):
    """The longest files first: then no process ends long after the others."""
    rank = {f"tests/{name}.py": k for k, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.nodeid.partition("::")[0], len(rank)))
    for item in items:
        skip_without_extras(item)


@pytest.fixture(scope="session")
def work(tmp_path_factory):
    """A folder with data, a compilation cache and, in `alone`, an undisturbed run."""
    from killed import Job, perform
    from tiny_run import person, write_folder

    folder = tmp_path_factory.mktemp("work")
    splits = {"train": [r for k in range(5) for r in person(k)], "validation": person(8) + person(9), "test": person(7)}
    write_folder(folder / "data", splits)
    (result,) = perform(folder, "alone", Job())
    (folder / "digest").write_text(result.digest)
    return folder
