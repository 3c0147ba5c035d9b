"""A model of kind "warp" small enough for tests."""

from dataclasses import replace
from functools import partial

import jax
import numpy as np

from facedisent_jax import models
from facedisent_jax.config import AugmentConfig, ModelConfig
from facedisent_jax.presets import PRESETS
from facedisent_jax.trained_model import TrainedModel

MODEL = ModelConfig(kind="warp", width=128, blocks=1)
CONFIG = replace(PRESETS["warp"].config, model=MODEL, batch=4, augment=AugmentConfig(enabled=False))


def warp_model() -> TrainedModel:
    """An untrained model whose weights are large enough that every code moves and paints something."""
    params = jax.jit(partial(models.init, MODEL))(jax.random.key(0))
    rng = np.random.default_rng(1)
    params = jax.tree.map(lambda p: np.asarray(p) + 0.05 * rng.standard_normal(p.shape).astype(np.float32), params)
    return TrainedModel(params, CONFIG, {"expressions": ["smile"]}, 0)
