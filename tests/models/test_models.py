"""What holds for every kind of network: shapes, ranges and precision."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from facedisent_jax import models
from facedisent_jax.config import IMAGE_SIZE, ModelConfig
from facedisent_jax.models.hybrid import FLOW_GRID

KINDS = [ModelConfig(kind="hybrid", width=128, blocks=1), ModelConfig(kind="plain", width=8)]


def new_params(config):
    return jax.jit(partial(models.init, config))(jax.random.key(0))


@pytest.mark.parametrize("config", KINDS, ids=lambda c: c.kind)
@pytest.mark.parametrize("dtype", ["float32", pytest.param("bfloat16", marks=pytest.mark.slow)])
def test_codes_and_images_have_their_shapes_ranges_and_dtype(config, dtype):
    config = replace(config, dtype=dtype)
    params = new_params(config)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    codes = jax.jit(partial(models.encode, config))(params, jax.random.uniform(jax.random.key(1), (5, 64, 64, 3)))
    assert codes.identity.shape == codes.expression.shape == (5, 64)
    assert bool((codes.expression >= 0).all() and (codes.expression <= 1).all())
    decoded = jax.jit(partial(models.decode, config))(params, codes)
    assert decoded.shape == (5, 64, 64, 3)
    assert {codes.identity.dtype, codes.expression.dtype, decoded.dtype} == {jnp.dtype("float32")}


@pytest.mark.parametrize("config", [*KINDS, ModelConfig(kind="warp", width=128, blocks=1)], ids=lambda c: c.kind)
@pytest.mark.parametrize("code_dims", [32, 256])
def test_codes_can_have_another_length(config, code_dims):
    config = replace(config, code_dims=code_dims)
    params = jax.eval_shape(partial(models.init, config), jax.random.key(0))
    images = jnp.zeros((2, 64, 64, 3))
    codes = jax.eval_shape(partial(models.encode, config), params, images)
    assert codes.identity.shape == codes.expression.shape == (2, code_dims)
    if config.kind == "warp":
        source = jax.eval_shape(partial(models.encode_source, config), params, images)
        decoded = jax.eval_shape(partial(models.decode_from_sources, config), params, codes, source).images
    else:
        decoded = jax.eval_shape(partial(models.decode, config), params, codes)
    assert decoded.shape == images.shape


@pytest.mark.parametrize("config", KINDS, ids=lambda c: c.kind)
def test_expression_codes_of_rank_two_lie_in_a_plane(config):
    config = replace(config, expression_rank=2)
    params = new_params(config)
    images = jax.random.uniform(jax.random.key(1), (6, 64, 64, 3))
    logits = np.asarray(models.encode_logits(config, params, images).logits)
    size = np.linalg.svd(logits - logits.mean(0), compute_uv=False)
    assert logits.shape == (6, 64) and size[1] > 1e-3 * size[0] > 0 and (size[2:] < 1e-5 * size[0]).all()


def test_the_flow_of_the_decoder_starts_at_nothing_and_then_moves_the_image():
    """After Shu et al. 2018: appearance and shape apart."""
    config = KINDS[0]
    params, codes = new_params(config), models.Codes(jnp.ones((1, 64)), jnp.full((1, 64), 0.3))
    params["decoder"]["mean"] = jax.random.uniform(jax.random.key(1), params["decoder"]["mean"].shape)
    still = models.decode(config, params, codes)
    params["decoder"]["flow"]["bias"] = jnp.tile(jnp.array([0.0, 0.5]), FLOW_GRID**2)  # columns, half of 4 pixels
    moved = models.decode(config, params, codes)
    np.testing.assert_allclose(moved[:, :, :-2], still[:, :, 2:], atol=1e-5)


@pytest.mark.parametrize("config", KINDS, ids=lambda c: c.kind)
def test_there_is_no_transposed_convolution_in_the_step(config):
    params = jax.eval_shape(partial(models.init, config), jax.random.key(0))

    def loss(params, images):
        codes = models.encode(config, params, images)
        return jnp.mean((models.decode(config, params, codes) - images) ** 2)

    program = str(jax.make_jaxpr(jax.grad(loss))(params, jnp.zeros((1, 64, 64, 3))))
    assert "lhs_dilation=(2" not in program and "rhs_dilation=(2" not in program


@pytest.mark.parametrize("config", KINDS, ids=lambda c: c.kind)
def test_an_image_is_encoded_alike_whatever_else_is_in_the_batch(config):
    params = new_params(config)
    images = jax.random.uniform(jax.random.key(1), (4, 64, 64, 3))
    encode = jax.jit(partial(models.encode, config))
    single_codes, batch_codes = encode(params, images[:1]), encode(params, images)
    np.testing.assert_allclose(single_codes.identity[0], batch_codes.identity[0], atol=1e-5)


def products(jaxpr):
    """The dtypes of both inputs and of the output of every matrix product in a program, but for enlarging the flow."""
    for step in jaxpr.eqns:
        if step.primitive.name == "dot_general" and not any(
            {FLOW_GRID, IMAGE_SIZE} == set(v.aval.shape) for v in step.invars
        ):
            yield (*(str(v.aval.dtype) for v in step.invars), str(step.outvars[0].aval.dtype))
        for subprogram in jax.tree.leaves(list(step.params.values()), is_leaf=lambda p: hasattr(p, "eqns")):
            yield from products(subprogram.jaxpr) if hasattr(subprogram, "jaxpr") else ()
            yield from products(subprogram) if hasattr(subprogram, "eqns") else ()


@pytest.mark.parametrize("config", KINDS, ids=lambda c: c.kind)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_every_product_of_a_step_takes_its_inputs_in_the_dtype_and_sums_in_float32(config, dtype):
    config = replace(config, dtype=dtype)
    params = jax.eval_shape(partial(models.init, config), jax.random.key(0))

    def loss(params, images):
        return jnp.mean((models.decode(config, params, models.encode(config, params, images)) - images) ** 2)

    program = jax.make_jaxpr(jax.grad(loss))(params, jnp.zeros((2, 64, 64, 3)))
    dtypes = list(products(program.jaxpr))
    assert len(dtypes) > 3 and set(dtypes) == {(dtype, dtype, "float32")}
