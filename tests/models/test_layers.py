"""Layers that are not about one compiler."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from facedisent_jax.models import layers


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("outputs", [6, 7])
def test_a_bfloat16_product_and_its_gradients_differ_from_the_exact_ones_by_rounding_alone(axis, outputs):
    x, w, weight = (
        jax.random.normal(jax.random.key(k), s) for k, s in enumerate([(4, 3, 5), (5, outputs), (4, 3, outputs)])
    )
    w = w if axis == 0 else w.T

    def value_and_gradients(dtype):
        weighted = lambda x, w: jnp.sum(layers.mixed_matmul(dtype, x, w, axis) * weight)  # noqa: E731
        return jax.jit(jax.value_and_grad(weighted, (0, 1)))(x, w)

    (product, gradients), (bf16_product, bf16_gradients) = map(value_and_gradients, ("float32", "bfloat16"))
    np.testing.assert_allclose(product, jnp.einsum("nmk,kp,nmp->", x, w if axis == 0 else w.T, weight), rtol=1e-4)
    np.testing.assert_allclose(bf16_product, product, atol=0.1)
    for a, b in zip(gradients, bf16_gradients, strict=True):
        assert a.dtype == b.dtype == jnp.float32 and 0 < float(jnp.abs(a - b).max()) < 0.05


def test_depth_to_space_undoes_space_to_depth():
    x = jax.random.uniform(jax.random.key(0), (2, 8, 8, 3))
    blocks = layers.space_to_depth(x, 2)
    assert blocks.shape == (2, 4, 4, 12)
    np.testing.assert_array_equal(blocks[0, 0, 0], x[0, :2, :2].reshape(12))
    np.testing.assert_array_equal(layers.depth_to_space(blocks, 2), x)


@pytest.mark.parametrize("block", [layers.DenseBlock, layers.ConvBlock])
def test_a_residual_block_starts_as_the_identity(block):
    x = jax.random.normal(jax.random.key(0), (2, 8) if block is layers.DenseBlock else (2, 4, 4, 8))
    layer = block("float32")
    start = jax.jit(lambda x: layer.apply(layer.init(jax.random.key(1), x), x))
    np.testing.assert_array_equal(start(x), x)
