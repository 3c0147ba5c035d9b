"""Validation counts every held-out image once."""

import numpy as np
import pytest
from tiny_run import person

from facedisent_jax.config import Config, ModelConfig
from facedisent_jax.data.record import Faces
from facedisent_jax.data.triplets import Triplets
from facedisent_jax.training.step import init_state
from facedisent_jax.training.validation import _validation_mse, validate

TINY = ModelConfig(width=128, blocks=1)


def test_validation_counts_each_image_once_whatever_the_batch():
    config = Config(model=TINY)
    faces = Faces.of([r for k in range(5) for r in person(k)])
    params = init_state(config, faces).params
    metrics = validate(config, params, Triplets(faces))
    batch = Triplets(faces).batch(0, 0, 10)
    errors = _validation_mse(config, params, batch)
    expected = np.mean(-10 * np.log10(np.asarray(errors["reconstruction"])))
    assert metrics["validation/reconstruction_psnr"] == pytest.approx(expected, rel=1e-4)
