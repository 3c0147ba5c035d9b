"""Shapes, ranges, precision, and what the network's parts promise."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from facedisent_jax import models
from facedisent_jax.config import ModelConfig
from facedisent_jax.data.record import MOUTH
from facedisent_jax.losses import functions
from facedisent_jax.models import layers
from facedisent_jax.models.cpu import depthwise, matmul
from facedisent_jax.models.pca_init import init_from_pca

KINDS = [ModelConfig(kind="hybrid", width=128, blocks=1), ModelConfig(kind="plain", width=8)]


def fresh(config):
    """New weights."""
    return jax.jit(partial(models.init, config))(jax.random.key(0))


@pytest.mark.parametrize("config", KINDS, ids=lambda c: c.kind)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_codes_and_pictures(config, dtype):
    config = replace(config, dtype=dtype)
    params = fresh(config)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    codes = jax.jit(partial(models.encode, config))(params, jax.random.uniform(jax.random.key(1), (5, 64, 64, 3)))
    assert codes.identity.shape == codes.expression.shape == (5, 64)
    assert bool((codes.expression >= 0).all() and (codes.expression <= 1).all())
    pictures = jax.jit(partial(models.decode, config))(params, codes)
    assert pictures.shape == (5, 64, 64, 3)
    assert {codes.identity.dtype, codes.expression.dtype, pictures.dtype} == {jnp.dtype("float32")}


@pytest.mark.parametrize("config", KINDS, ids=lambda c: c.kind)
def test_there_is_no_transposed_convolution_in_the_step(config):
    params = jax.eval_shape(partial(models.init, config), jax.random.key(0))

    def loss(params, images):
        codes = models.encode(config, params, images)
        return jnp.mean((models.decode(config, params, codes) - images) ** 2)

    program = str(jax.make_jaxpr(jax.grad(loss))(params, jnp.zeros((1, 64, 64, 3))))
    assert "lhs_dilation=(2" not in program and "rhs_dilation=(2" not in program


@pytest.mark.parametrize("config", KINDS, ids=lambda c: c.kind)
def test_a_picture_is_encoded_alike_whatever_else_is_in_the_batch(config):
    params = fresh(config)
    images = jax.random.uniform(jax.random.key(1), (4, 64, 64, 3))
    encode = jax.jit(partial(models.encode, config))
    alone, together = encode(params, images[:1]), encode(params, images)
    np.testing.assert_allclose(alone.identity[0], together.identity[0], atol=1e-5)


def products(jaxpr):
    """The matrix products of a program, as types of what they take and give."""
    for step in jaxpr.eqns:
        if step.primitive.name == "dot_general":
            yield (*(str(v.aval.dtype) for v in step.invars), str(step.outvars[0].aval.dtype))
        for inner in jax.tree.leaves(list(step.params.values()), is_leaf=lambda p: hasattr(p, "eqns")):
            yield from products(inner.jaxpr) if hasattr(inner, "jaxpr") else ()
            yield from products(inner) if hasattr(inner, "eqns") else ()


@pytest.mark.parametrize("config", KINDS, ids=lambda c: c.kind)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_every_product_of_a_step_takes_the_precision_asked_for_and_adds_up_in_float32(config, dtype):
    config = replace(config, dtype=dtype)
    params = jax.eval_shape(partial(models.init, config), jax.random.key(0))

    def loss(params, images):
        return jnp.mean((models.decode(config, params, models.encode(config, params, images)) - images) ** 2)

    program = jax.make_jaxpr(jax.grad(loss))(params, jnp.zeros((2, 64, 64, 3)))
    found = list(products(program.jaxpr))
    assert len(found) > 3 and set(found) == {(dtype, dtype, "float32")}


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("outputs", [6, 7])
def test_gradients_of_a_rounded_product_are_those_of_the_exact_one_but_for_rounding(axis, outputs):
    x, w, to = (
        jax.random.normal(jax.random.key(k), s) for k, s in enumerate([(4, 3, 5), (5, outputs), (4, 3, outputs)])
    )
    w = w if axis == 0 else w.T

    def found(dtype):
        return jax.value_and_grad(lambda x, w: jnp.sum(matmul(dtype, x, w, axis) * to), (0, 1))(x, w)

    (exact, gradients), (rounded, others) = found("float32"), found("bfloat16")
    np.testing.assert_allclose(exact, jnp.einsum("nmk,kp,nmp->", x, w if axis == 0 else w.T, to), rtol=1e-4)
    np.testing.assert_allclose(rounded, exact, atol=0.1)
    for a, b in zip(gradients, others, strict=True):
        assert a.dtype == b.dtype == jnp.float32 and 0 < float(jnp.abs(a - b).max()) < 0.05


@pytest.mark.parametrize("inputs, outputs", [(3, 5), (5, 3), (4, 4)])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_gradients_of_a_convolution_are_jaxs_own(inputs, outputs, dtype):
    x, kernel, to = (
        jax.random.normal(jax.random.key(k), s)
        for k, s in enumerate([(2, 6, 5, inputs), (3, 3, inputs, outputs), (2, 6, 5, outputs)])
    )
    layer, bias = layers.conv(dtype, outputs), jnp.zeros(outputs)

    def own(x, kernel):
        x, kernel = (jnp.asarray(v.astype(dtype), jnp.float32) for v in (x, kernel))
        return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))

    ours, back = jax.vjp(lambda x, kernel: layer.apply({"params": {"kernel": kernel, "bias": bias}}, x), x, kernel)
    theirs, own_back = jax.vjp(own, x, kernel)
    for a, b in zip((ours, *back(to)), (theirs, *own_back(to)), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5 if dtype == "float32" else 0.2)  # which rounds them to bfloat16


@pytest.mark.parametrize("apart", [1, 2])
def test_a_depthwise_convolution_and_its_gradients_are_jaxs_own(apart):
    x, kernel, to = (
        jax.random.normal(jax.random.key(k), s) for k, s in enumerate([(2, 6, 5, 4), (3, 3, 4), (2, 6, 5, 4)])
    )

    def own(x, kernel):
        return jax.lax.conv_general_dilated(
            x,
            kernel[:, :, None],
            (1, 1),
            [(apart, apart)] * 2,
            rhs_dilation=(apart, apart),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=4,
        )

    ours, back = jax.vjp(lambda x, kernel: depthwise(x, kernel, apart), x, kernel)
    theirs, own_back = jax.vjp(own, x, kernel)
    for a, b in zip((ours, *back(to)), (theirs, *own_back(to)), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="what XLA does on CPU")
def test_no_transpose_is_written_for_the_gradient_of_a_dense_layer():
    layer, x = layers.dense("float32", 64), jnp.ones((4, 8, 8, 32))
    params = layer.init(jax.random.key(0), x)
    gradient = jax.jit(jax.grad(lambda params, x: jnp.sum(jnp.sin(layer.apply(params, x)))))
    program = gradient.lower(params, x).compile().as_text()
    assert " dot(" in program and " transpose(" not in program


def test_depth_to_space_undoes_space_to_depth():
    x = jax.random.uniform(jax.random.key(0), (2, 8, 8, 3))
    deep = model.space_to_depth(x, 2)
    assert deep.shape == (2, 4, 4, 12)
    np.testing.assert_array_equal(deep[0, 0, 0], x[0, :2, :2].reshape(12))
    np.testing.assert_array_equal(model.depth_to_space(deep, 2), x)


def test_the_linear_path_begins_with_people_in_the_identity_code_and_their_changes_in_the_other():
    rng = np.random.default_rng(0)
    who, what = rng.normal(size=(2, 3, 64 * 64 * 3)) * 8  # 3 directions in which people differ, 3 in which one changes
    subject = np.repeat(np.arange(20), 4)
    change = rng.normal(size=(20, 2, 3))
    change = np.concatenate([change, -change], axis=1).reshape(80, 3)  # adds up to nothing within a person
    pictures = 128 + rng.normal(size=(20, 3))[subject] @ who + change @ what
    images = np.clip(pictures, 0, 255).astype(np.uint8).reshape(-1, 64, 64, 3)
    names = np.array([f"s{k}" for k in subject])
    params = init_from_pca(fresh(KINDS[0]), images, names, functions.mouth_weights(3.0), 64)
    x = jnp.asarray(images, jnp.float32) / 255
    encoded = models.encode_logits(KINDS[0], params, x)
    decoded = models.decode(KINDS[0], params, encoded.codes)
    # All directions and their mirror images fit into the codes: little is lost, to 8 bits and the sigmoid's bend.
    assert float(jnp.sqrt(jnp.mean((decoded - x) ** 2))) < 0.15 * float(x.std(axis=0).mean())
    # The first six numbers of each: three directions and their mirror images; the others hold the rounding to 8 bits.
    identity, logits = np.asarray(encoded.identity)[:, :6], np.asarray(encoded.logits)[:, :6]
    within = np.concatenate([identity[subject == k] - identity[subject == k].mean(0) for k in range(20)])
    assert within.var() < 0.02 * np.var(identity)
    means = np.stack([logits[subject == k].mean(0) for k in range(20)])
    assert means.var() < 0.02 * np.var(logits)


def test_pictures_of_nobody_known_begin_as_people_of_their_own():
    images = np.random.default_rng(0).integers(0, 255, (5, 64, 64, 3), np.uint8)
    nobody = np.array([""] * 5)
    params = init_from_pca(fresh(KINDS[0]), images, nobody, functions.mouth_weights(1.0), 64)
    x = jnp.asarray(images, jnp.float32) / 255
    decoded = models.decode(KINDS[0], params, models.encode(KINDS[0], params, x))
    np.testing.assert_allclose(decoded, x, atol=5e-2)  # the pictures differ by 0.3 on average


def test_what_is_weighted_is_what_the_expression_code_begins_with():
    """Changes of the mouth and larger ones elsewhere, together more kinds than the code has numbers."""
    rng = np.random.default_rng(0)
    inside = np.zeros((64, 64, 3), bool)
    inside[MOUTH] = True
    at_mouth, elsewhere = rng.normal(size=(2, 40, inside.size)) * np.stack([inside, ~inside]).reshape(2, 1, -1)
    changes = 3 * rng.normal(size=(300, 40)) @ at_mouth + 6 * rng.normal(size=(300, 40)) @ elsewhere
    images = np.clip(128 + changes, 0, 255).astype(np.uint8).reshape(-1, 64, 64, 3)
    x = np.asarray(images, np.float32) / 255

    def errors(mouth):
        """Mean squared errors at the mouth and elsewhere."""
        weight = functions.mouth_weights(mouth)
        params = init_from_pca(fresh(KINDS[0]), images, np.array(["s"] * 300), weight, 64)
        off = (np.asarray(models.decode(KINDS[0], params, models.encode(KINDS[0], params, jnp.asarray(x)))) - x) ** 2
        return off[:, inside].mean(), off[:, ~inside].mean()

    (mouth, rest), (weighted, more) = errors(1.0), errors(100.0)
    assert weighted < 0.3 * mouth and more > rest


def test_what_the_label_will_overwrite_is_missed_least():
    rng = np.random.default_rng(0)
    changes = rng.normal(size=(60, 20)) * np.linspace(10, 2, 20) @ rng.normal(size=(20, 64 * 64 * 3))
    images = np.clip(128 + changes, 0, 255).astype(np.uint8).reshape(-1, 64, 64, 3)
    x = jnp.asarray(images, jnp.float32) / 255

    def lost(numbers):
        names, weight = np.array(["s"] * 60), functions.mouth_weights(1.0)
        params = init_from_pca(fresh(KINDS[0]), images, names, weight, numbers)
        codes = models.encode(KINDS[0], params, x)
        less = codes._replace(expression=codes.expression.at[:, :16].set(0.5))
        first, second = (models.decode(KINDS[0], params, given) for given in (codes, less))
        return float(jnp.mean((second - first) ** 2))

    assert lost(16) < 0.01 * lost(64)
