"""The warp decoder: exact copies, ends of paths, what the ablations leave, and what trains it."""

from dataclasses import replace
from functools import partial

import compiled
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_run import person
from tiny_warp import CONFIG, MODEL, warp_model

from facedisent_jax import models, trained_model
from facedisent_jax.data.record import Faces
from facedisent_jax.data.triplets import Triplets
from facedisent_jax.errors import UserError
from facedisent_jax.models import Codes, warp_decoder
from facedisent_jax.training.step import init_state, train_step


@pytest.fixture(scope="module")
def model() -> trained_model.TrainedModel:
    return warp_model()


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(2).integers(0, 255, (5, 64, 64, 3), np.uint8)


def test_no_change_of_expression_is_an_exact_copy(model, images):
    codes = model.encode(images)
    assert model.decode(codes, images) == pytest.approx(images / 255, abs=1e-5)
    changed_codes = Codes(codes.identity, codes.expression[::-1])
    assert abs(model.decode(changed_codes, images) - images / 255).max() > 0.05


@pytest.mark.slow
def test_at_either_end_between_two_sources_is_an_exact_copy(model, images):
    codes, alpha = model.encode(images), np.array([0, 0, 0, 1, 1])
    expression = np.where(alpha[:, None] == 0, codes.expression, codes.expression[::-1])
    ends = np.where(alpha[:, None, None, None] == 0, images, images[::-1]) / 255
    decoded = model.decode(Codes(codes.identity, expression), images, images[::-1], alpha)
    assert decoded == pytest.approx(ends, abs=1e-5)


def test_alpha_is_given_with_two_sources_and_only_then(model, images):
    x = jnp.asarray(images / 255, jnp.float32)
    source = compiled.encode_source(MODEL, model.params, x)
    codes = Codes(source.identity, source.expression)
    for second_source, alpha in ((source, None), (None, jnp.zeros(5))):
        with pytest.raises(ValueError, match="alpha"):
            models.decode_from_sources(MODEL, model.params, codes, source, second_source, alpha)


def test_without_a_source_the_codes_alone_give_the_face_of_a_hybrid_network(model, images):
    codes = model.encode(images)
    decoded = model.decode(codes)
    assert decoded.shape == images.shape and abs(decoded - model.decode(codes, images)).max() > 0.05
    hybrid_config = replace(MODEL, kind="hybrid")
    params = {name: model.params[name] for name in ("encoder", "decoder")}
    np.testing.assert_allclose(decoded, np.clip(compiled.decode(hybrid_config, params, codes), 0, 1), atol=1e-5)


@pytest.mark.parametrize("share", [0.25, 0.5, 0.75])
def test_points_go_their_share_of_the_way(share):
    growth, radius = 0.3, np.arange(64.0) - 31.5  # a full change moves all points away from the middle column
    flow = np.zeros((1, 64, 64, 2), np.float32)
    flow[..., 1] = radius / (1 + growth) - radius
    even = share * warp_decoder.move_evenly(jnp.asarray(flow), jnp.full((1, 1, 1, 1), share))
    true = radius / (1 + share * growth) - radius
    inside = slice(8, -8)
    np.testing.assert_allclose(even[0, :, inside, 1], np.tile(true[inside], (64, 1)), atol=0.06)
    assert abs(share * flow[0, 0, inside, 1] - true[inside]).max() > 0.2  # the flow scaled by itself
    np.testing.assert_array_equal(even[..., 0], 0)


def test_a_full_change_moves_new_people_a_tenth_farther_than_training_does(model, images):
    source = compiled.encode_source(MODEL, model.params, jnp.asarray(images / 255, jnp.float32))
    codes = Codes(source.identity, source.expression + 1)
    decode = jax.jit(partial(models.decode_from_sources, MODEL), static_argnames="refined")
    trained, refined = (decode(model.params, codes, source, refined=refined).flow for refined in (False, True))
    assert abs(trained).max() > 0.1
    np.testing.assert_allclose(refined, 1.1 * trained, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_interpolation_ends_at_the_images(model, images):
    a, b = images[:2]
    path = model.interpolate(a, b, 5, "both")
    assert path[0] == pytest.approx(a / 255, abs=1e-5) and path[-1] == pytest.approx(b / 255, abs=1e-5)
    extrapolation = model.interpolate(a, b, 5, "both", to=2.0)
    assert extrapolation[2] == pytest.approx(b / 255, abs=1e-5)
    assert abs(extrapolation[4] - b / 255).max() > 0.01


@pytest.mark.slow
@pytest.mark.long
def test_another_persons_image_gives_its_expression_alone(model, images, monkeypatch):
    a, b = images[:2]
    monkeypatch.setattr(trained_model, "is_same_subject", lambda *codes: True)
    assert model.interpolate(a, b, 3)[-1] == pytest.approx(b / 255, abs=1e-5)
    monkeypatch.setattr(trained_model, "is_same_subject", lambda *codes: False)
    assert model.interpolate(a, b, 3)[-1] == pytest.approx(model.swap(a[None], b[None])[0], abs=1e-4)


@pytest.mark.slow
def test_interpolation_from_one_image_ends_at_the_given_intensity(model, images):
    path = model.interpolate(images[0], steps=4, to=0.7)
    assert path[0] == pytest.approx(images[0] / 255, abs=1e-5)
    codes = model.encode(images[:1])
    expression = codes.expression.copy()
    expression[:, : CONFIG.objective.label_dims] = 0.7
    assert path[-1] == pytest.approx(model.decode(Codes(codes.identity, expression), images[:1])[0], abs=1e-4)


def test_a_source_must_fit_the_kind_of_network_and_the_codes(model, images):
    config = replace(CONFIG, model=replace(MODEL, kind="hybrid"))
    params = {name: model.params[name] for name in ("encoder", "decoder")}
    hybrid_model = trained_model.TrainedModel(params, config, {"expressions": ["smile"]}, 0)
    with pytest.raises(UserError, match='got a model of kind "hybrid"'):
        hybrid_model.decode(hybrid_model.encode(images), images)
    with pytest.raises(UserError, match="5 codes but 2 source images"):
        model.decode(model.encode(images), images[:2])


@pytest.mark.slow
@pytest.mark.long
def test_one_batch_can_be_overfitted_and_the_terms_fall():
    takes = Faces.of([r for k in range(4) for r in person(k, [y / 5 for y in range(6)], sequence=f"t{k}")])
    config = replace(CONFIG, optim=replace(CONFIG.optim, lr=3e-3, warmup_steps=1, ema_decay=0.0))
    state = init_state(config, takes)
    batch = Triplets(takes).batch(0, 0, config.batch)
    first_terms = last_terms = {}
    for _ in range(60):
        state, last_terms = train_step(config, state, batch)
        first_terms = first_terms or last_terms
    assert float(last_terms["one_source"]) < 0.3 * float(first_terms["one_source"])
    assert float(last_terms["two_sources"]) < 0.4 * float(first_terms["two_sources"])


def test_a_source_has_its_codes_and_their_reconstruction(model, images):
    x = jnp.asarray(images[:2] / 255, jnp.float32)
    source = compiled.encode_source(MODEL, model.params, x)
    codes = compiled.encode(MODEL, model.params, x)
    np.testing.assert_allclose(source.expression, codes.expression, atol=1e-6)
    np.testing.assert_allclose(source.decoded, compiled.decode(MODEL, model.params, codes), atol=1e-5)


@pytest.mark.slow
@pytest.mark.long
def test_an_ablation_leaves_the_flow_or_the_mask_out(model, images):
    codes, target = (Codes(*map(jnp.asarray, model.encode(part))) for part in (images[:2], images[2:4]))

    def flow_and_mask(warp_ablation):
        config = replace(MODEL, warp_ablation=warp_ablation)
        x = jnp.asarray(images[:2] / 255, jnp.float32)
        source = compiled.encode_source(config, model.params, x)
        decode = jax.jit(partial(models.decode_from_sources, config))
        output = decode(model.params, Codes(codes.identity, target.expression), source)
        return bool(output.flow.any()), bool(output.mask.any())

    assert flow_and_mask("both") == (True, True)
    assert flow_and_mask("flow") == (True, False)
    assert flow_and_mask("paint") == (False, True)


@pytest.mark.slow
def test_an_error_with_a_source_does_not_train_the_decoder_of_the_codes_alone(model, images):
    x, target = jnp.asarray(images[:4] / 255, jnp.float32).reshape(2, 2, 64, 64, 3)

    def loss(params):
        source = models.encode_source(MODEL, params, x)
        output = models.decode_from_sources(MODEL, params, models.encode(MODEL, params, target), source)
        return jnp.mean((output.images - target) ** 2)

    gradient = jax.jit(jax.grad(loss))(model.params)
    assert not any(np.asarray(leaf).any() for leaf in jax.tree.leaves(gradient["decoder"]))
    assert np.asarray(gradient["encoder"]["expression"]["kernel"]).any()
