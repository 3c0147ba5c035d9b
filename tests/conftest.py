"""Strict while testing: shapes of the numerical core are checked at run time, and silent rank promotion raises."""

import os
import signal

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell starts what goes on behind it ("pytest &") deaf to Ctrl-C, which the commands of the tests would inherit.
    signal.signal(signal.SIGINT, signal.default_int_handler)
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# Compilation is most of the time of the tests, and a third of theirs is LLVM's optimisation, which comes after all that
# XLA decides. (The one fault of the compiler that a test looks for, in test_training, it finds with and without.)
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_backend_optimization_level=0".strip()

import jax
import pytest
from jaxtyping import install_import_hook

jax.config.update("jax_numpy_rank_promotion", "raise")
NUMERICAL = ("losses", "models", "training.augment", "training.step", "training.validation")
install_import_hook([f"facedisent_jax.{name}" for name in NUMERICAL], "beartype.beartype")


@pytest.fixture(scope="session")
def work(tmp_path_factory):
    """A folder with the data, the compilation cache and, in `alone`, a run left alone."""
    made = tmp_path_factory.mktemp("resume")
    from killed import perform
    from tiny_run import person, write_folder

    splits = {"train": [r for k in range(5) for r in person(k)], "validation": person(8) + person(9), "test": person(7)}
    write_folder(made / "data", splits)
    (alone,) = perform(made, "alone", {})
    (made / "digest").write_text(alone["digest"])
    return made
