"""Which images and triplets the terms of the warp decoder see."""

from dataclasses import replace
from functools import partial
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_triplets import batch_of
from tiny_warp import CONFIG

from facedisent_jax.config import ObjectiveConfig
from facedisent_jax.losses import warp_terms
from facedisent_jax.losses.functions import multiscale_charbonnier, pixel_weights
from facedisent_jax.models import Codes
from facedisent_jax.models.warp_decoder import WarpOutput


def copy_of_the_first_source(config, params, codes, first, second=None, alpha=None):
    zeros = jnp.zeros((1 if second is None else 2, len(first.images), 64, 64, 2))
    return WarpOutput(first.images, zeros, zeros[..., :1])


@pytest.mark.parametrize("place", [0, 3])
def test_two_sources_learn_from_a_middle_frame_wherever_it_is_in_the_batch(place):
    """The call for two sources has half of the triplets: one with a middle frame must not be left out."""
    has_middle = jnp.zeros(4).at[place].set(1.0)
    batch = batch_of(intensity=jnp.array([[0.0] * 4, [1.0] * 4, [0.0] * 4]))
    batch = batch._replace(has_middle=has_middle, alpha=jnp.full(4, 0.5))
    a = jnp.full((4, 64, 64, 3), 0.2)
    images = jnp.stack([a, a, a, a + 0.5 * has_middle[:, None, None, None]])
    codes = Codes(jnp.zeros((3, 4, 64)), jnp.zeros((3, 4, 64)))
    with (
        mock.patch.object(warp_terms, "decode_from_sources", copy_of_the_first_source),
        mock.patch.object(
            warp_terms, "encode", lambda config, params, images: Codes(codes.identity[0], codes.expression[0])
        ),
    ):
        terms = jax.jit(partial(warp_terms.warp_terms, CONFIG, {}))(
            images, batch, codes, jnp.swapaxes(images[:2], 0, 1)
        )
    pixel_weight = jnp.asarray(pixel_weights(CONFIG.objective.mouth_weight))
    error = jax.jit(multiscale_charbonnier)(a[:1], a[:1] + 0.5, pixel_weight)[0]
    assert terms["two_sources"] == pytest.approx(float(error), rel=1e-5)


def targets_of_one_source(**changes) -> tuple[np.ndarray, np.ndarray]:
    """Identity and expression codes asked for, from a and then from b, of codes 0.1, 0.2 and 0.3 of a, b and c."""
    config = replace(CONFIG, objective=ObjectiveConfig(label_dims=16, style_dims=8))
    code = jnp.broadcast_to(jnp.array([0.1, 0.2, 0.3])[:, None, None], (3, 4, 64))
    codes, targets = Codes(code, code), []

    def decode(config, params, codes, first, second=None, alpha=None):
        targets.append(codes)
        return copy_of_the_first_source(config, params, codes, first, second, alpha)

    with (
        mock.patch.object(warp_terms, "decode_from_sources", decode),
        mock.patch.object(
            warp_terms, "encode", lambda config, params, images: Codes(codes.identity[0], codes.expression[0])
        ),
    ):
        batch, images = batch_of()._replace(**changes), jnp.zeros((4, 4, 64, 64, 3))
        warp_terms.warp_terms(config, {}, images, batch, codes, jnp.zeros((4, 2, 64, 64, 3)))
    return np.asarray(targets[0].identity), np.asarray(targets[0].expression)


def test_the_change_to_another_intensity_is_learnt_without_the_details_of_the_target():
    """Label of c, style of a, details of b, which is the source: those of a are never there when a smile is made."""
    _, expression = targets_of_one_source()
    assert expression[4:] == pytest.approx(np.repeat([[0.3] * 16 + [0.1] * 8 + [0.2] * 40], 4, axis=0))


def test_a_smile_is_learnt_with_the_identity_code_of_the_source_unless_the_head_moves():
    """From the identity code of the smiling image the decoder would read whether teeth show."""
    still, _ = targets_of_one_source(has_middle=jnp.zeros(4))
    assert still[:4] == pytest.approx(0.1) and still[4:] == pytest.approx(0.2)
    moved, _ = targets_of_one_source(has_middle=jnp.ones(4), alpha=jnp.full(4, 0.5))
    assert moved[:4] == pytest.approx(0.15) and moved[4:] == pytest.approx(0.1)
