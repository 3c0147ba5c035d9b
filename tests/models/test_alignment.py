"""Head motion is found where the head has moved, and not where only the face or the light has changed."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from data_prep.synthetic.faces import draw
from data_prep.synthetic.identity import random_identity
from facedisent_jax import models
from facedisent_jax.config import ModelConfig
from facedisent_jax.models import Codes, Source, alignment, sampling, warp_decoder

head_motion = jax.jit(alignment.head_motion)
warp_image = jax.jit(sampling.warp_image, static_argnums=2)


def face(subject: int, intensity: float) -> np.ndarray:
    """A built-in face, [1, 64, 64, 3] in [0, 1]."""
    return np.asarray(draw(random_identity(subject, 1), intensity), np.float32)[None] / 255


@pytest.mark.parametrize("coefficients", [(1.5, -2.0, 0, 0), (0, 0, 1.0, 0), (0, 0, 0, -1.5), (-1.0, 1.0, 0.5, 1.0)])
def test_a_motion_is_found_although_the_face_starts_to_smile_in_another_light(coefficients):
    flow = alignment.similarity_basis(64) @ jnp.asarray(coefficients)
    end = 0.9 * warp_image(jnp.asarray(face(3, 1.0)), flow[None], True) + 0.05

    motion = head_motion(face(3, 0.0), end)[0]

    assert float(jnp.mean(jnp.linalg.norm(motion - flow, axis=-1))) < 0.25


@pytest.mark.parametrize(("contrast", "brightness"), [(1.0, 0.3), (0.5, 0.0), (0.5, 0.4)])
def test_light_does_not_change_the_motion(contrast, brightness):
    flow = alignment.similarity_basis(64) @ jnp.asarray((0.5, -0.7, 0.3, 0))
    start = jnp.asarray(face(3, 0.0))
    end = warp_image(start, flow[None], True)

    motion = head_motion(start, contrast * end + brightness)[0]

    assert float(jnp.mean(jnp.linalg.norm(motion - flow, axis=-1))) < 0.12  # pixels


def test_between_an_image_and_itself_there_is_no_motion():
    assert not np.asarray(head_motion(face(2, 0.5), face(2, 0.5))).any()


@pytest.mark.slow
def test_with_one_source_the_pose_is_that_of_the_image_decoded_from_the_target_codes():
    centred_image, code = jnp.asarray(face(3, 0.0)), jnp.zeros((1, 64))
    shifted_image = warp_image(centred_image, jnp.zeros((1, 64, 64, 2)).at[..., 1].set(2.0), True)

    align = jax.jit(warp_decoder.align)

    def pose_flow(source_decoded, target_decoded):
        source = Source(centred_image, code, code, source_decoded)
        return np.asarray(align((source,), target_decoded, None))[0, 0]

    assert pose_flow(centred_image, shifted_image).mean((0, 1)) == pytest.approx([0, 2], abs=0.1)
    assert pose_flow(shifted_image, centred_image).mean((0, 1)) == pytest.approx([0, -2], abs=0.1)


def test_a_smile_is_no_head_motion():
    assert np.linalg.norm(head_motion(face(3, 0.0), face(3, 1.0)), axis=-1).mean() < 0.25


def test_an_image_of_one_colour_has_no_motion_and_gives_no_nan():
    grey = np.full((1, 64, 64, 3), 0.5, np.float32)
    assert not np.asarray(head_motion(grey, face(1, 0))).any()
    assert np.isfinite(head_motion(face(1, 0), grey)).all()


@pytest.mark.slow
@pytest.mark.long
def test_halfway_between_two_sources_the_head_is_halfway():
    """With an untrained network that may not paint: it moves nothing by itself."""
    config = ModelConfig(kind="warp", width=128, blocks=1, warp_ablation="flow")
    params = jax.jit(models.init, static_argnums=0)(config, jax.random.key(0))
    flow = alignment.similarity_basis(64) @ jnp.asarray((2.0, 3.0, 0, 0))
    start_image = jnp.asarray(face(3, 0.0))
    middle_image, end_image = (warp_image(start_image, alpha * flow[None], True) for alpha in (0.5, 1.0))
    code = jnp.zeros((1, 64))
    decode = jax.jit(partial(models.decode_from_sources, config, refined=True))
    ends = [Source(image, code, code, image) for image in (start_image, end_image)]
    decoded = decode(params, Codes(code, code), *ends, alpha=jnp.asarray([0.5])).images

    cross_fade = (start_image + end_image) / 2
    assert float(jnp.mean((decoded - middle_image) ** 2)) < 0.05 * float(jnp.mean((cross_fade - middle_image) ** 2))
