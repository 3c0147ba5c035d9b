"""Images read at fractional positions."""

import jax
import jax.numpy as jnp
import numpy as np
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


def test_cubic_sampling_keeps_fine_stripes_which_bilinear_sampling_fades():
    """Keys 1981. At whole pixels: the pixel itself."""
    wave = jnp.broadcast_to(jnp.sin(2 * jnp.pi * jnp.arange(32.0) / 4)[:, None], (32, 32))[None, :, :, None]
    half_a_pixel = jnp.zeros((1, 32, 32, 2)).at[..., 0].set(0.5)

    def amplitude(cubic):
        return float(jnp.abs(sampling.warp_image(wave, half_a_pixel, cubic)[0, 4:-4]).max())

    truth = np.sin(np.pi / 4)  # between two pixels at 0 and 1
    assert amplitude(cubic=False) < 0.75 * truth < 0.95 * truth < amplitude(cubic=True) < 1.05 * truth
    np.testing.assert_array_equal(sampling.warp_image(wave, 0 * half_a_pixel, cubic=True), wave)


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
