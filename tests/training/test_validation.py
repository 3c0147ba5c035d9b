"""Validation counts every held-out image once, and a checkpoint knows the mean expressions."""

from dataclasses import replace

import compiled
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_run import person

from facedisent_jax.config import Config, ModelConfig, ObjectiveConfig
from facedisent_jax.data.record import Faces
from facedisent_jax.data.triplets import Triplets
from facedisent_jax.training.step import init_state
from facedisent_jax.training.validation import _validation_mse, expression_statistics, validate

TINY = ModelConfig(width=128, blocks=1)


@pytest.mark.slow
def test_validation_counts_each_image_once_whatever_the_batch():
    config = Config(model=TINY)
    faces = Faces.of([r for k in range(5) for r in person(k)])
    params = init_state(config, faces).params
    metrics = validate(config, params, Triplets(faces))
    batch = Triplets(faces).batch(0, 0, 10)
    errors = _validation_mse(config, params, batch)
    expected = np.mean(-10 * np.log10(np.asarray(errors["reconstruction"])))
    assert metrics["validation/reconstruction_psnr"] == pytest.approx(expected, rel=1e-4)


@pytest.mark.slow
def test_a_mean_expression_is_that_of_the_images_at_its_end():
    config = Config(model=TINY)
    faces = Faces.of([r for k in range(3) for r in person(k, [0, 0.5, 1.0])])
    params = init_state(config, faces).params
    means, deviation = expression_statistics(config, params, Triplets(faces))
    codes = compiled.encode(TINY, params, jnp.asarray(faces.image, jnp.float32) / 255).expression
    assert set(means) == {"neutral", "smile"}
    assert means["neutral"] == pytest.approx(np.asarray(codes[0::3]).mean(0), abs=1e-5)
    assert means["smile"] == pytest.approx(np.asarray(codes[2::3]).mean(0), abs=1e-5)
    assert deviation == {}  # the label constrains all dimensions
    config = replace(config, objective=ObjectiveConfig(label_dims=16, style_dims=8))
    means, deviation = expression_statistics(config, params, Triplets(faces))
    assert means["smile"] == pytest.approx(np.asarray(codes[2::3, :24]).mean(0), abs=1e-5)
    assert deviation["validation/style_deviation"] == pytest.approx(
        np.asarray(codes[2::3, 16:24]).std(0).mean(), abs=1e-5
    )
