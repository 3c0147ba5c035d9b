"""Augmentation changes the three images of a triplet alike, and does nothing when it is off."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from facedisent_jax.config import AugmentConfig
from facedisent_jax.training import augment as augmentation
from facedisent_jax.training.augment import random_partner

OFF = AugmentConfig(face_mix_prob=0, flip=False, shift=0, warp=0, light=0, colour=0)
KEY = jax.random.key(0)
augment = jax.jit(augmentation.augment, static_argnums=0)
LABEL = jnp.zeros((3, 6, 64))


def images(n=6):
    return jax.random.uniform(jax.random.key(1), (3, n, 64, 64, 3), minval=0.3, maxval=0.7)


def augment_config(**settings):
    return AugmentConfig(**{**vars(OFF), **settings})


def test_off_is_off():
    x = images()
    np.testing.assert_array_equal(augment(AugmentConfig(enabled=False), KEY, x, LABEL), x)
    np.testing.assert_allclose(augment(OFF, KEY, x, LABEL), x, atol=1e-6)


@pytest.mark.parametrize(
    "settings", [{"flip": True}, {"shift": 2.0}, {"warp": 2.0}, {"light": 0.1}, {"colour": 0.1}, {"tone": 0.4}]
)
def test_the_three_pictures_of_a_triplet_change_alike(settings):
    x = jnp.broadcast_to(images()[:1], (3, 6, 64, 64, 3))
    y = augment(augment_config(**settings), KEY, x, LABEL)
    assert float(jnp.abs(y - x).max()) > 0.01
    for k in (1, 2):
        np.testing.assert_allclose(y[k], y[0], atol=1e-6)


def test_flip_mirrors_some_triplets_and_leaves_the_others():
    x = images()
    y = augment(augment_config(flip=True), KEY, x, LABEL)
    is_mirrored = np.array([np.allclose(y[:, k], x[:, k, :, ::-1], atol=1e-6) for k in range(6)])
    is_same = np.array([np.allclose(y[:, k], x[:, k], atol=1e-6) for k in range(6)])
    assert (is_mirrored ^ is_same).all() and is_mirrored.any() and is_same.any()


def test_tone_darkens_and_lightens_and_keeps_black_white_and_the_order_between():
    levels = jnp.linspace(0, 1, 64)
    y = augment(
        augment_config(tone=0.4), KEY, jnp.broadcast_to(levels[:, None], (3, 64, 64, 64, 3)), jnp.zeros((3, 64, 64))
    )
    curves = np.asarray(y[0, :, 0, :, 0])
    np.testing.assert_allclose(curves[:, [0, -1]], np.broadcast_to([0, 1], (64, 2)), atol=1e-6)
    assert (np.diff(curves) > -1e-6).all()
    gamma = np.log(curves[:, 32]) / np.log(levels[32])
    assert np.log(gamma).std() == pytest.approx(0.4, rel=0.25) and abs(np.log(gamma).mean()) < 0.15


def test_mix_joins_only_triplets_with_equal_labels():
    x = jnp.broadcast_to(jnp.linspace(0.1, 0.9, 6)[None, :, None, None, None], (3, 6, 64, 64, 3))
    label = jnp.zeros((3, 6, 64)).at[:, 3:].set(1).at[:, 5].set(0.5)  # 0 1 2 alike, 3 4 alike, 5 alone
    y = augment(augment_config(face_mix_prob=1.0), KEY, x, label)
    low, high = y.min(axis=(0, 2, 3, 4)), y.max(axis=(0, 2, 3, 4))
    assert (low[:3] >= 0.1 - 1e-5).all() and (high[:3] <= 0.42 + 1e-5).all()
    assert (low[3:5] >= 0.58 - 1e-5).all() and (high[3:5] <= 0.74 + 1e-5).all()
    assert (high[:5] - low[:5] > 0.05).all()
    np.testing.assert_allclose(y[:, 5], x[:, 5], atol=1e-6)


def test_every_row_with_an_equal_label_is_equally_likely_as_a_partner():
    kinds = np.array([0, 1, 0, 2, 0, 1, 0, 0.5])
    label = jnp.asarray(np.stack([kinds / 2, kinds == 0.5, *np.zeros((62, 8))], axis=1), jnp.float32)
    partners = np.asarray(jax.jit(jax.vmap(random_partner, (0, None)))(jax.random.split(KEY, 400), label))
    assert (kinds[partners] == kinds).all()
    assert (partners[:, [3, 7]] == [3, 7]).all()  # they are alone
    for row in (0, 2, 4, 6):
        counts = np.bincount(partners[:, row], minlength=8)
        assert counts[row] == 0 and (counts[[k for k in (0, 2, 4, 6) if k != row]] > 90).all()


def test_a_motion_moves_each_image_by_its_share():
    ramp = jnp.broadcast_to(jnp.linspace(0, 1, 64)[:, None, None], (4, 2, 64, 64, 3))
    alpha = jnp.tile(jnp.array([[0.0], [1.0], [0.0], [0.5]]), (1, 2))
    difference = augment(augment_config(warp=1e-9, motion=2.0), KEY, ramp, jnp.zeros((4, 2, 64)), alpha) - ramp
    centre = difference[:, :, 16:48, 16:48]
    assert abs(centre[jnp.array([0, 2])]).max() < 1e-5 and abs(centre[1]).max() > 0.005
    np.testing.assert_allclose(centre[3], centre[1] / 2, atol=1e-3)  # cubic convolution ripples a ramp by 0.001
