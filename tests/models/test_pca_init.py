"""The linear path starts at principal components of the training images."""

import compiled
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from facedisent_jax.config import ModelConfig
from facedisent_jax.data.record import MOUTH
from facedisent_jax.losses.functions import pixel_weights
from facedisent_jax.models.pca_init import init_from_pca

CONFIG = ModelConfig(kind="hybrid", width=128, blocks=1)


@pytest.fixture(scope="module")
def start():
    """init_from_pca on new weights, on the device."""
    params = compiled.init(CONFIG, jax.random.key(0))

    def start(*arguments):
        return jax.tree.map(jnp.asarray, init_from_pca(params, *arguments))

    return start


def reconstruct(params, images):
    return compiled.decode(CONFIG, params, compiled.encode(CONFIG, params, jnp.asarray(images)))


def test_identity_codes_start_with_how_people_differ_and_expression_codes_with_how_one_person_does(start):
    rng = np.random.default_rng(0)
    # 3 directions in which people differ, and 3 in which one person changes
    identity_basis, expression_basis = rng.normal(size=(2, 3, 64 * 64 * 3)) * 8
    subject = np.repeat(np.arange(20), 4)
    change = rng.normal(size=(20, 2, 3))
    change = np.concatenate([change, -change], axis=1).reshape(80, 3)  # adds up to nothing within a person
    values = 128 + rng.normal(size=(20, 3))[subject] @ identity_basis + change @ expression_basis
    images = np.clip(values, 0, 255).astype(np.uint8).reshape(-1, 64, 64, 3)
    params = start(images, np.array([f"s{k}" for k in subject]), pixel_weights(3.0), 64)
    x = jnp.asarray(images, jnp.float32) / 255
    encoded = compiled.encode_logits(CONFIG, params, x)
    decoded = compiled.decode(CONFIG, params, encoded.codes)
    # All directions and their mirror images fit into the codes. Little is lost: to 8 bits and to the sigmoid.
    assert float(jnp.sqrt(jnp.mean((decoded - x) ** 2))) < 0.15 * float(x.std(axis=0).mean())
    # The first six dimensions of each are three directions and their mirror images; the others hold the rounding.
    identity, logits = np.asarray(encoded.identity)[:, :6], np.asarray(encoded.logits)[:, :6]
    deviations = np.concatenate([identity[subject == k] - identity[subject == k].mean(0) for k in range(20)])
    assert deviations.var() < 0.02 * np.var(identity)
    means = np.stack([logits[subject == k].mean(0) for k in range(20)])
    assert means.var() < 0.02 * np.var(logits)


def test_images_of_unknown_subjects_start_as_one_subject_each(start):
    images = np.random.default_rng(0).integers(0, 255, (5, 64, 64, 3), np.uint8)
    params = start(images, np.array([""] * 5), pixel_weights(1.0), 64)
    x = np.asarray(images, np.float32) / 255
    np.testing.assert_allclose(reconstruct(params, x), x, atol=5e-2)  # the images differ by 0.3 on average


@pytest.mark.slow
def test_the_pixel_weight_decides_which_changes_the_expression_code_starts_with(start):
    """Changes of the mouth and larger ones elsewhere, together more kinds than the code has dimensions."""
    rng = np.random.default_rng(0)
    is_mouth = np.zeros((64, 64, 3), bool)
    is_mouth[MOUTH] = True
    mouth_axes, other_axes = rng.normal(size=(2, 40, is_mouth.size)) * np.stack([is_mouth, ~is_mouth]).reshape(2, 1, -1)
    changes = 3 * rng.normal(size=(300, 40)) @ mouth_axes + 6 * rng.normal(size=(300, 40)) @ other_axes
    images = np.clip(128 + changes, 0, 255).astype(np.uint8).reshape(-1, 64, 64, 3)
    x = np.asarray(images, np.float32) / 255

    def errors(mouth_weight):
        """Mean squared errors at the mouth and elsewhere."""
        params = start(images, np.array(["s"] * 300), pixel_weights(mouth_weight), 64)
        squared_error = (np.asarray(reconstruct(params, x)) - x) ** 2
        return squared_error[:, is_mouth].mean(), squared_error[:, ~is_mouth].mean()

    (mouth_error, other_error), (weighted_mouth_error, weighted_other_error) = errors(1.0), errors(100.0)
    assert weighted_mouth_error < 0.3 * mouth_error and weighted_other_error > other_error


def test_the_dimensions_that_the_label_overwrites_start_with_the_smallest_components(start):
    rng = np.random.default_rng(0)
    changes = rng.normal(size=(60, 20)) * np.linspace(10, 2, 20) @ rng.normal(size=(20, 64 * 64 * 3))
    images = np.clip(128 + changes, 0, 255).astype(np.uint8).reshape(-1, 64, 64, 3)
    x = jnp.asarray(images, jnp.float32) / 255

    def error_without_first_16(label_dims):
        params = start(images, np.array(["s"] * 60), pixel_weights(1.0), label_dims)
        codes = compiled.encode(CONFIG, params, x)
        overwritten_codes = codes._replace(expression=codes.expression.at[:, :16].set(0.5))
        image, changed_image = (compiled.decode(CONFIG, params, c) for c in (codes, overwritten_codes))
        return float(jnp.mean((changed_image - image) ** 2))

    assert error_without_first_16(16) < 0.01 * error_without_first_16(64)
