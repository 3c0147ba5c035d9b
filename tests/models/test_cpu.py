"""Every rewrite for XLA on CPU agrees with its plain twin, in value and gradient."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from facedisent_jax import models
from facedisent_jax.config import ModelConfig
from facedisent_jax.models import cpu, hybrid, layers, plain, sampling, warp_decoder

ON_CPU = pytest.mark.skipif(jax.default_backend() != "cpu", reason="what XLA does on CPU")


def assert_twins_agree(rewrite, twin, *shapes, atol=1e-5, dtype="float32"):
    """The same outputs and the same gradients of a weighted sum of them, for random inputs of these shapes."""
    inputs = [jax.random.normal(jax.random.key(k), s).astype(dtype) for k, s in enumerate(shapes)]
    results = []
    for function in (rewrite, twin):
        output, pull_back = jax.vjp(function, *inputs)
        results.append((output, *pull_back(jax.random.normal(jax.random.key(9), output.shape, output.dtype))))
    for a, b in zip(*results, strict=True):
        assert a.shape == b.shape and a.dtype == b.dtype
        np.testing.assert_allclose(jnp.asarray(a, jnp.float32), jnp.asarray(b, jnp.float32), atol=atol)


@pytest.mark.parametrize("batch", [(4,), (2, 3)])
@pytest.mark.parametrize("axis", [0, 1])
def test_matmul(batch, axis):
    rewrite, twin = (partial(function, axis=axis) for function in (cpu.matmul, cpu.plain_matmul))
    assert_twins_agree(rewrite, twin, (*batch, 5), (5, 6) if axis == 0 else (6, 5))


@pytest.mark.parametrize("p", [6, 7])
def test_outer_product(p):
    a, b = (jax.random.normal(jax.random.key(k), (4, n)).astype("bfloat16") for k, n in enumerate((p, 5)))
    product, plain_product = cpu.outer_product(a, b), cpu.plain_outer_product(a, b)
    assert product.dtype == plain_product.dtype == jnp.float32
    np.testing.assert_allclose(product, plain_product, atol=1e-5)


@pytest.mark.parametrize(("inputs", "outputs"), [(3, 5), (5, 3), (4, 4)])
@pytest.mark.parametrize(
    ("dtype", "atol"), [("float32", 1e-5), pytest.param("bfloat16", 0.2, marks=pytest.mark.slow)]
)  # the twin rounds its gradients
def test_conv3x3(inputs, outputs, dtype, atol):
    assert_twins_agree(
        cpu.conv3x3, cpu.plain_conv3x3, (2, 6, 5, inputs), (3, 3, inputs, outputs), dtype=dtype, atol=atol
    )


def test_scale_pixels():
    assert_twins_agree(cpu.scale_pixels, cpu.plain_scale_pixels, (2, 4, 4, 3), (2, 4, 4, 1))


def test_computed_once():
    key = jax.random.key(0)

    def image(function, scale):
        return function(jnp.int32(3), lambda: scale * jax.random.uniform(key, (4, 4)))

    assert_twins_agree(partial(image, cpu.computed_once), partial(image, cpu.plain_computed_once), ())


@ON_CPU
def test_no_transpose_is_written_for_the_gradient_of_a_dense_layer():
    layer, x = layers.dense("float32", 64), jnp.ones((4, 8, 8, 32))
    params = layer.init(jax.random.key(0), x)
    gradient = jax.jit(jax.grad(lambda params, x: jnp.sum(jnp.sin(layer.apply(params, x)))))
    program = gradient.lower(params, x).compile().as_text()
    assert " dot(" in program and " transpose(" not in program


@pytest.mark.slow
def test_every_rewrite_has_a_twin_and_every_import_of_one_can_be_swapped(monkeypatch):
    """A decoder of kind "warp" that uses the twins alone is the same function, with the same gradients."""
    config = ModelConfig(kind="warp", width=128, blocks=1)
    params = jax.jit(partial(models.init, config))(jax.random.key(0))
    rng = np.random.default_rng(1)
    params = jax.tree.map(lambda p: p + 0.05 * rng.standard_normal(p.shape).astype(np.float32), params)
    images = jax.random.uniform(jax.random.key(1), (2, 64, 64, 3))

    def loss(params):
        source = models.encode_source(config, params, images[::-1])
        output = models.decode_from_sources(config, params, models.encode(config, params, images), source)
        return jnp.mean((output.images - images) ** 2) + jnp.mean(source.decoded**2)

    value, gradient = jax.jit(jax.value_and_grad(loss))(params)
    names = ["matmul", "outer_product", "conv3x3", "scale_pixels", "computed_once"]
    public = [name for name, part in vars(cpu).items() if getattr(part, "__module__", "") == cpu.__name__]
    assert sorted(name for name in public if name[0] != "_") == sorted(names + [f"plain_{name}" for name in names])
    for module in (hybrid, layers, plain, sampling, warp_decoder):
        for name in names:
            if hasattr(module, name):
                monkeypatch.setattr(module, name, getattr(cpu, f"plain_{name}"))
    plain_value, plain_gradient = jax.jit(jax.value_and_grad(loss))(params)
    assert float(plain_value) == pytest.approx(float(value), rel=1e-5)
    for a, b in zip(jax.tree.leaves(plain_gradient), jax.tree.leaves(gradient), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-3 * float(jnp.abs(b).max()) + 1e-8)
