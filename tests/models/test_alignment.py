"""What a head has done between two pictures: found where it moved, and nothing where only the face or the light did."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from data_prep.synthetic.faces import draw
from data_prep.synthetic.identity import random_identity
from facedisent_jax import models
from facedisent_jax.config import ModelConfig
from facedisent_jax.models import Source, alignment, sampling
from facedisent_jax.models.codes import Codes

motion = jax.jit(alignment.head_motion)


def drawn(subject: int, intensity: float) -> np.ndarray:
    return np.asarray(draw(random_identity(subject, 1), intensity), np.float32)[None] / 255


@pytest.mark.parametrize("coefficients", [(1.5, -2.0, 0, 0), (0, 0, 1.0, 0), (0, 0, 0, -1.5), (-1.0, 1.0, 0.5, 1.0)])
def test_a_motion_of_the_head_is_found_while_it_begins_to_smile_in_another_light(coefficients):
    truth = alignment.similarity_basis(64) @ jnp.asarray(coefficients)
    end = 0.9 * sampling.warp_image(jnp.asarray(drawn(3, 1.0)), truth[None], sharp=True) + 0.05

    found = motion(drawn(3, 0.0), end)[0]

    assert float(jnp.mean(jnp.linalg.norm(found - truth, axis=-1))) < 0.25


@pytest.mark.parametrize(("factor", "more"), [(1.0, 0.3), (0.5, 0.0), (0.5, 0.4)])
def test_light_changes_nothing_of_what_is_found(factor, more):
    truth = alignment.similarity_basis(64) @ jnp.asarray((0.5, -0.7, 0.3, 0))
    first = jnp.asarray(drawn(3, 0.0))
    end = sampling.warp_image(first, truth[None], sharp=True)

    found = motion(first, factor * end + more)[0]

    assert float(jnp.mean(jnp.linalg.norm(found - truth, axis=-1))) < 0.1


def test_a_picture_has_not_moved_from_itself():
    assert not np.asarray(motion(drawn(2, 0.5), drawn(2, 0.5))).any()


def test_of_one_picture_what_the_codes_decode_to_says_where_the_head_is():
    face, code = jnp.asarray(drawn(3, 0.0)), jnp.zeros((1, 64))
    right = sampling.warp_image(face, jnp.zeros((1, 64, 64, 2)).at[..., 1].set(2.0), sharp=True)

    def head(begin, asked):
        return np.asarray(models._pose_flow(asked, (Source(face, code, code, begin),), None))[0, 0]

    assert head(face, right).mean((0, 1)) == pytest.approx([0, 2], abs=0.1)
    assert head(right, face).mean((0, 1)) == pytest.approx([0, -2], abs=0.1)


def test_a_smile_is_no_motion_of_the_head():
    assert np.linalg.norm(motion(drawn(3, 0.0), drawn(3, 1.0)), axis=-1).mean() < 0.25


def test_a_picture_of_one_colour_does_not_move_and_harms_nothing():
    grey = np.full((1, 64, 64, 3), 0.5, np.float32)
    assert not np.asarray(motion(grey, drawn(1, 0))).any()
    assert np.isfinite(motion(drawn(1, 0), grey)).all()


def test_halfway_between_two_pictures_the_head_is_halfway():
    """Of an untrained network that may not paint: it moves nothing of its own."""
    config = ModelConfig(kind="warp", width=128, blocks=1, warp_ablation="flow")
    params = jax.jit(models.init, static_argnums=0)(config, jax.random.key(0))
    truth = alignment.similarity_basis(64) @ jnp.asarray((2.0, 3.0, 0, 0))
    first = jnp.asarray(drawn(3, 0.0))
    middle, last = (sampling.warp_image(first, share * truth[None], sharp=True) for share in (0.5, 1.0))
    code = jnp.zeros((1, 64))
    decode = jax.jit(partial(models.decode, config))
    ends = [Source(picture, code, code, picture) for picture in (first, last)]
    made = decode(params, Codes(code, code), *ends, place=jnp.asarray([0.5]))

    faded = (first + last) / 2
    assert float(jnp.mean((made - middle) ** 2)) < 0.05 * float(jnp.mean((faded - middle) ** 2))
