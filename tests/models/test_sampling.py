"""Images read at fractional positions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from facedisent_jax.models import sampling


def test_the_gradient_of_sampling_is_that_of_finite_differences():
    keys = jax.random.split(jax.random.key(0), 3)
    images = jax.random.uniform(keys[0], (2, 7, 9, 3))
    # Away from whole pixels, where the gradient of linear interpolation jumps, and from the edge.
    corners = jax.random.randint(keys[1], (2, 7, 9), 1, 5) + 0.0
    rows, columns = corners + jax.random.uniform(keys[2], (2, 7, 9), minval=0.1, maxval=0.9), corners + 0.5
    weight = jax.random.normal(keys[1], images.shape)

    @jax.jit
    def value(*arrays):  # the differences come as numpy
        return jnp.sum(weight * sampling.sample_bilinear(*map(jnp.asarray, arrays)))

    check_grads(value, (images, rows, columns), order=1, modes=("rev",), eps=1e-2, rtol=1e-2, atol=1e-2)


def test_cubic_sampling_keeps_parabolas_which_bilinear_sampling_flattens():
    """Keys 1981: exact to the second order away from the edge; at whole pixels the pixel itself."""
    x = jnp.arange(16.0)
    image = ((x[:, None] - 8) ** 2 + (x[None] - 6) ** 2)[None, :, :, None]
    rows, columns = jnp.full((1, 16, 16), 7.5), jnp.full((1, 16, 16), 5.25)
    truth = 0.5**2 + 0.75**2
    assert sampling.sample_cubic(image, rows, columns) == pytest.approx(np.full((1, 16, 16, 1), truth), abs=1e-4)
    assert (sampling.sample_bilinear(image, rows, columns) > truth + 0.2).all()
    no_flow = jnp.zeros((1, 16, 16, 2))
    np.testing.assert_array_equal(sampling.warp_image(image, no_flow, cubic=True), image)


def test_a_flow_reads_each_pixel_from_where_it_points():
    image = jnp.arange(64.0).reshape(1, 8, 8, 1)
    assert (sampling.warp_image(image, jnp.zeros((1, 8, 8, 2))) == image).all()
    down = jnp.zeros((1, 8, 8, 2)).at[..., 0].set(1.5)
    np.testing.assert_allclose(sampling.warp_image(image, down)[0, 2, 3, 0], image[0, 3, 3, 0] + 4)


def test_bilinear_sampling_of_a_ramp_is_the_ramp():
    ramp = jnp.arange(64.0)[None, :, None, None] + 100 * jnp.arange(64.0)[None, None, :, None]
    rows, columns = jnp.full((1, 64, 64), 10.25), jnp.full((1, 64, 64), 20.5)
    np.testing.assert_allclose(sampling.sample_bilinear(ramp, rows, columns), 10.25 + 2050, rtol=1e-5)
    edge = sampling.sample_bilinear(ramp, rows * 0 - 5, columns * 0 + 80)  # beyond the edge: the edge
    np.testing.assert_allclose(edge, 6300, rtol=1e-5)
