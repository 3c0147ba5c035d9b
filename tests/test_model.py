"""Shapes, ranges, precision, and what the network's parts promise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from facedisent_jax import model
from facedisent_jax.config import ModelConfig

KINDS = [ModelConfig(kind="dense", width=16, blocks=1), ModelConfig(kind="plain", width=8)]


@pytest.mark.parametrize("config", KINDS, ids=lambda c: c.kind)
@pytest.mark.parametrize("compute", ["float32", "bfloat16"])
def test_codes_and_pictures(config, compute):
    config = ModelConfig(config.kind, config.width, config.blocks, compute)
    params = model.init(config, jax.random.key(0))
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    codes = model.encode(config, params, jax.random.uniform(jax.random.key(1), (5, 64, 64, 3)))
    assert codes.identity.shape == codes.expression.shape == (5, 64)
    assert bool((codes.expression >= 0).all() and (codes.expression <= 1).all())
    pictures = model.decode(config, params, codes)
    assert pictures.shape == (5, 64, 64, 3)
    assert {codes.identity.dtype, codes.expression.dtype, pictures.dtype} == {jnp.dtype("float32")}


@pytest.mark.parametrize("config", KINDS, ids=lambda c: c.kind)
def test_there_is_no_transposed_convolution_in_the_step(config):
    params = model.init(config, jax.random.key(0))

    def loss(params, images):
        codes = model.encode(config, params, images)
        return jnp.mean((model.decode(config, params, codes) - images) ** 2)

    program = str(jax.make_jaxpr(jax.grad(loss))(params, jnp.zeros((1, 64, 64, 3))))
    assert "lhs_dilation=(2" not in program and "rhs_dilation=(2" not in program


@pytest.mark.parametrize("config", KINDS, ids=lambda c: c.kind)
def test_a_picture_is_encoded_alike_whatever_else_is_in_the_batch(config):
    params = model.init(config, jax.random.key(0))
    images = jax.random.uniform(jax.random.key(1), (4, 64, 64, 3))
    alone = model.encode(config, params, images[:1])
    together = model.encode(config, params, images)
    np.testing.assert_allclose(alone.identity[0], together.identity[0], atol=1e-5)


def test_depth_to_space_undoes_space_to_depth():
    x = jax.random.uniform(jax.random.key(0), (2, 8, 8, 3))
    deep = model.space_to_depth(x, 2)
    assert deep.shape == (2, 4, 4, 12)
    np.testing.assert_array_equal(deep[0, 0, 0], x[0, :2, :2].reshape(12))
    np.testing.assert_array_equal(model.depth_to_space(deep, 2), x)


def test_the_linear_path_begins_as_the_reconstruction_by_principal_components():
    rng = np.random.default_rng(0)
    basis = rng.normal(size=(3, 64 * 64 * 3))
    pictures = 128 + rng.normal(size=(30, 3)) @ basis * 8
    images = np.clip(pictures, 0, 255).astype(np.uint8).reshape(-1, 64, 64, 3)
    params = model.begin_at_principal_components(model.init(KINDS[0], jax.random.key(0)), images)
    x = jnp.asarray(images, jnp.float32) / 255
    # 3 directions and their mirror images: 64 components hold them all, but for the rounding to 8 bits.
    decoded = model.decode(KINDS[0], params, model.encode(KINDS[0], params, x))
    assert float(jnp.abs(decoded - x).max()) < 3 / 255
    identity = model.encode(KINDS[0], params, jnp.concatenate([x, x[:, :, ::-1]])).identity
    np.testing.assert_allclose(identity.std(axis=0)[:6], 1, atol=0.05)
