"""The losses equal values worked out by hand, and their gradients are finite where codes coincide."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from facedisent_jax.losses import functions


def test_mse_is_the_mean_over_pixels_per_picture():
    a = jnp.zeros((2, 2, 2, 1))
    b = jnp.stack([jnp.ones((2, 2, 1)), jnp.array([[[3.0], [0.0]], [[0.0], [0.0]]])])
    np.testing.assert_allclose(functions.mse(a, b), [1.0, 9 / 4])


def test_l1_is_the_mean_absolute_difference():
    np.testing.assert_allclose(functions.l1(jnp.array([[1.0, -2.0]]), jnp.array([[0.0, 1.0]])), [2.0])


@pytest.mark.parametrize(
    ("code", "is_same", "margin", "expected"),
    [
        ([3.0, 4.0], True, 0.0, 0.0),
        ([-3.0, -4.0], True, 0.0, 2.0),
        ([4.0, 3.0], True, 0.0, 1 - 24 / 25),
        ([4.0, 3.0], False, 0.0, 24 / 25),
        ([4.0, 3.0], False, 0.5, 24 / 25 - 0.5),
        ([-3.0, -4.0], False, 0.0, 0.0),
    ],
)
def test_cosine_embedding(code, is_same, margin, expected):
    loss = functions.cosine_embedding(jnp.array([[3.0, 4.0]]), jnp.array([code]), is_same, margin)
    np.testing.assert_allclose(loss, [expected], atol=1e-5)


def test_triplet_margin_counts_only_what_is_missing_to_the_margin():
    anchor = jnp.zeros((3, 2))
    positive = jnp.array([[3.0, 4.0], [0.0, 1.0], [0.0, 1.0]])  # at 5, 1, 1
    negative = jnp.array([[0.0, 1.0], [0.0, 1.5], [6.0, 8.0]])  # at 1, 1.5, 10
    np.testing.assert_allclose(functions.triplet_margin(anchor, positive, negative, 1.0), [5.0, 0.5, 0.0], atol=1e-5)
    losses = functions.triplet_margin(anchor, positive, negative, jnp.array([0.0, 2.0, 9.5]))
    np.testing.assert_allclose(losses, [4.0, 1.5, 0.5], atol=1e-5)


def test_label_bce_of_hand_computed_logits():
    logits, label = jnp.array([[0.0, jnp.log(3.0)]]), jnp.array([[1.0, 0.25]])
    # p = 1/2 against 1: log 2. p = 3/4 against 1/4: -(1/4 log 3/4 + 3/4 log 1/4).
    expected = (np.log(2) - (0.25 * np.log(0.75) + 0.75 * np.log(0.25))) / 2
    np.testing.assert_allclose(functions.label_bce(logits, label), [expected], rtol=1e-6)


def test_ranking_of_hand_computed_rises():
    losses = functions.ranking(jnp.array([0.0, 0.3, 5.0]), jnp.array([0.0, 0.5, 0.0]), temperature=0.5)
    np.testing.assert_allclose(losses, [0.5 * np.log(2), 0.5 * np.log1p(np.exp(0.4)), 0.5 * np.log1p(np.exp(-10))])
    ranknet = functions.ranking(jnp.array([1.5]), temperature=1.0)
    np.testing.assert_allclose(ranknet, [-np.log(1 / (1 + np.exp(-1.5)))], rtol=1e-6)


def test_label_bce_stays_finite_for_extreme_logits():
    loss = functions.label_bce(jnp.array([[1000.0, -1000.0]]), jnp.array([[0.0, 1.0]]))
    np.testing.assert_allclose(loss, [1000.0])


@pytest.mark.parametrize("loss", [functions.distance, functions.cosine, functions.l1])
def test_gradient_is_finite_between_equal_and_zero_codes(loss):
    for a in (jnp.zeros((1, 4)), jnp.ones((1, 4))):
        gradient = jax.grad(lambda x, a=a: loss(x, a).sum())(a)
        assert bool(jnp.isfinite(gradient).all())


def test_the_structural_error_of_a_lip_grows_with_its_distance():
    """A squared error would be the same for both: two half lips cost as much wherever they are."""
    error = jax.jit(lambda images, target: functions.multiscale_charbonnier(images, target, jnp.ones((64, 64)))[0])
    target = jnp.zeros((1, 64, 64, 3)).at[:, 30:32].set(1.0)
    assert float(error(target, target)) == 0
    near_lip, far_lip = jnp.roll(target, 1, axis=1), jnp.roll(target, 8, axis=1)
    assert error(near_lip, target) < error(far_lip, target)


def test_the_texture_error_wants_edges_and_not_their_place():
    """Teeth that are one pixel further are as good as the true ones; a grey band in their place is not."""
    error = jax.jit(lambda images, target, weight: functions.texture_error(images, target, weight)[0])
    teeth = jnp.broadcast_to((jnp.arange(64) % 4 < 2)[None, None, :, None], (1, 64, 64, 3)).astype(jnp.float32)
    band, everywhere = jnp.full_like(teeth, 0.5), jnp.ones((64, 64))
    assert float(error(teeth, teeth, everywhere)) == 0
    assert float(error(jnp.roll(teeth, 1, axis=2), teeth, everywhere)) < 0.01 * float(error(band, teeth, everywhere))
    rows = jnp.swapaxes(teeth, 1, 2)
    assert float(error(band, rows, everywhere)) == pytest.approx(float(error(band, teeth, everywhere)))
    band_above = teeth.at[:, :32].set(0.5)  # its first row is compared with the last, its last with the next below
    assert float(error(band_above, teeth, everywhere.at[:36].set(0))) < 1e-2 * float(error(band, teeth, everywhere))


def test_mouth_weights_have_mean_1_and_the_given_ratio():
    mouth = jnp.asarray(functions.pixel_weights(3.0))
    assert float(mouth.mean()) == pytest.approx(1) and float(mouth[45, 30] / mouth[5, 5]) == pytest.approx(3)
