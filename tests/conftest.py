"""Strict while testing: shapes of the numerical core are checked at run time, and silent rank promotion raises."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import jax
from jaxtyping import install_import_hook

jax.config.update("jax_numpy_rank_promotion", "raise")
NUMERICAL = ("losses", "sampling", "warp", "model", "source_terms", "objective", "augment", "training")
CHECKED = [f"facedisent_jax.{name}" for name in NUMERICAL]
install_import_hook(CHECKED, "beartype.beartype")
