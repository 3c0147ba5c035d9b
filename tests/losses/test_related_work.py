"""The poster's two references: rotated codes form a group and keep their length; clamped codes are pulled together."""

from dataclasses import replace

import compiled
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_triplets import batch_of, face, floats, pairs

from facedisent_jax import models
from facedisent_jax.config import Config, LossWeights, ModelConfig
from facedisent_jax.data.one_factor import OneFactor
from facedisent_jax.data.record import Faces
from facedisent_jax.losses import objective
from facedisent_jax.losses.related_work import CLAMP_GRADIENT_SCALE, clamp, rotate
from facedisent_jax.models import Codes
from facedisent_jax.training.step import augment_batch

CONFIG = Config(model=ModelConfig(width=128, blocks=1))


def codes(n=5):
    return jnp.asarray(np.random.default_rng(0).uniform(size=(n, 64)).astype(np.float32))


def test_two_rotations_are_the_rotation_by_their_sum():
    a, b = jnp.array([0.3, -0.2, 1.0, 0.5, 0.0]), jnp.array([0.4, 0.9, -1.0, 0.5, 0.7])
    np.testing.assert_allclose(rotate(rotate(codes(), a), b), rotate(codes(), a + b), atol=1e-6)
    np.testing.assert_allclose(rotate(codes(), jnp.zeros(5)), codes(), atol=1e-6)


def test_a_rotation_keeps_the_length_and_a_full_change_is_a_quarter_turn():
    code, rotated_code = 2 * codes() - 1, 2 * rotate(codes(), jnp.ones(5)) - 1
    np.testing.assert_allclose(jnp.linalg.norm(rotated_code, axis=1), jnp.linalg.norm(code, axis=1), rtol=1e-6)
    np.testing.assert_allclose(jnp.sum(rotated_code * code, axis=1), np.zeros(5), atol=1e-5)


def test_a_clamped_code_is_the_mean_and_its_gradient_pulls_towards_it_whatever_the_error():
    z = codes()
    np.testing.assert_allclose(clamp(z, 1.0), jnp.tile(z.mean(0)[None], (5, 1)), rtol=1e-6)
    for error, scale in ((1.0, 1.0), (100.0, 1.0), (1.0, 0.1)):
        gradient = jax.grad(lambda z, error=error, scale=scale: error * jnp.sum(jnp.asarray(clamp(z, scale)) ** 3))(z)
        np.testing.assert_allclose(gradient, CLAMP_GRADIENT_SCALE * scale * (z - z.mean(0)[None]), rtol=1e-5, atol=1e-8)


@pytest.fixture(scope="module")
def params():
    return compiled.init(CONFIG.model, jax.random.key(0))


@pytest.mark.slow
def test_rotation_decodes_each_from_the_other_and_only_where_the_change_is_known(params):
    config = replace(CONFIG, method="rotation", loss=LossWeights(rotation=1.0))
    batch = batch_of()
    encoded = [compiled.encode(CONFIG.model, params, floats(batch)[k]) for k in (0, 1)]
    change = batch.intensity[1] - batch.intensity[0]
    error = []
    for a, b, rise in ((0, 1, change), (1, 0, -change)):
        rotated = Codes(encoded[a].identity, rotate(encoded[a].expression, rise))
        error.append(jnp.mean((compiled.decode(CONFIG.model, params, rotated) - floats(batch)[b]) ** 2, axis=(1, 2, 3)))
    loss = compiled.loss_terms(config, params, floats(batch), batch)["rotation"]
    np.testing.assert_allclose(loss, jnp.mean(jnp.stack(error)), rtol=1e-4)
    partial_batch = batch._replace(has_b=jnp.array([0.0, 1.0, 0.0, 1.0]), is_labelled=jnp.ones((3, 4)).at[:, 3].set(0))
    loss = compiled.loss_terms(config, params, floats(partial_batch), partial_batch)["rotation"]
    np.testing.assert_allclose(loss, (error[0][1] + error[1][1]) / 2, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("factor", ["label", "image"])
def test_images_teach_the_code_of_what_varies_and_the_other_code_is_pulled_together(params, factor):
    """Batches of one label vary in identity, others in expression."""
    config = replace(CONFIG, method="clamping", loss=LossWeights(clamping=1.0))
    batch = batch_of()
    if factor == "label":
        batch = batch._replace(label=jnp.zeros_like(batch.label))
    images = floats(batch)

    def loss(params):
        return objective.loss_terms(config, params, images, batch)["clamping"]

    gradient = jax.jit(jax.grad(loss))(params)["encoder"]["pixel_kernel"]
    z = compiled.encode(CONFIG.model, params, images[0])
    clamped_code = z.expression if factor == "label" else z.identity

    def pull(params):  # what a squared distance to the mean of the batch would do alone
        z = models.encode(CONFIG.model, params, images[0])
        z = z.expression if factor == "label" else z.identity
        return jnp.sum(z * CLAMP_GRADIENT_SCALE * (clamped_code - clamped_code.mean(0)[None])) / images[0].size

    block = slice(-64, None) if factor == "label" else slice(-128, -64)  # of the linear path, the last of the matrix
    np.testing.assert_allclose(
        gradient[:, block], jax.jit(jax.grad(pull))(params)["encoder"]["pixel_kernel"][:, block], atol=1e-10
    )
    assert float(jnp.abs(gradient).max()) > 0


@pytest.mark.slow
def test_augmentation_varies_nothing_within_a_clamped_batch():
    """Light or a shift that differed from image to image would have to go into the code of what varies."""
    batch = batch_of()
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    batch = batch._replace(images=jnp.broadcast_to(jnp.asarray(image), batch.images.shape))
    config = replace(CONFIG, method="clamping", loss=LossWeights(clamping=1.0))
    augment = jax.jit(augment_batch, static_argnums=0)
    outputs = [augment(config, jax.random.key(k), batch) for k in range(2)]
    np.testing.assert_allclose(outputs[0], jnp.broadcast_to(outputs[0][0, 0], outputs[0].shape), atol=1e-6)
    assert float(jnp.abs(outputs[0] - outputs[1]).mean()) > 0.01
    unclamped_images = augment(CONFIG, jax.random.key(0), batch)
    assert float(jnp.abs(unclamped_images[:, 0] - unclamped_images[:, 1]).mean()) > 0.01


def test_batches_of_one_factor_show_one_person_or_one_intensity():
    records = pairs(6)[:10] + [
        face("s5", "neutral", 0, "take0"),
        face("s5", "smile", 1, "take1"),
        face("s9", "smile", 0.5, value=200),
        face("", "", value=250),
    ]
    triplets = OneFactor(Faces.of(records))
    for step in range(20):
        index = triplets.index(0, step, 8)
        batch = [records[row] for row in index.a]
        people, levels = {record.subject for record in batch}, {record.intensity for record in batch}
        assert (len(levels), len(people)) == (1, 6) if step % 2 else (len(people), len(levels)) == (1, 2)
        assert (index.a == index.b).all() and not index.has_b.any()
    np.testing.assert_array_equal(triplets.index(1, 3, 8), OneFactor(Faces.of(records)).index(1, 3, 8))
