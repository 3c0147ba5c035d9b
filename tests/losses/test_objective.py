"""Each swap has the right target, identity terms leave the expression head alone and the reverse, masks mask."""

from dataclasses import replace
from unittest import mock

import compiled
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_triplets import batch_of, floats

from facedisent_jax.config import Config, ModelConfig, ObjectiveConfig
from facedisent_jax.losses import objective
from facedisent_jax.models import EncoderOutput
from facedisent_jax.presets import POSTER_LOSS

CONFIG = Config(model=ModelConfig(width=128, blocks=1), loss=POSTER_LOSS)
IDENTITY = [name for name in vars(POSTER_LOSS) if name.startswith("identity_")]
EXPRESSION = ["expression_cosine", "expression_triplet", "expression_l1", "label", "ranking"]


def exact_encode(config, params, images):
    """A perfect encoder of the images of `batch_of`: subject and intensity, apart."""
    red, green = images[:, 0, 0, 0], images[:, 0, 0, 1]
    logit = jnp.where(green > 0.5, 30.0, -30.0)
    return EncoderOutput(jnp.tile(red[:, None], (1, 64)), jnp.tile(logit[:, None], (1, 64)))


def exact_decode(config, params, codes):
    image = jnp.zeros((len(codes.identity), 64, 64, 3))
    red, green = codes.identity[:, 0], codes.expression[:, 0] * 200 / 255
    return image.at[..., 0].set(red[:, None, None]).at[..., 1].set(green[:, None, None])


def test_swaps_of_a_perfect_network_hit_their_targets():
    batch = batch_of()
    with mock.patch.multiple(objective, encode_logits=exact_encode, decode=exact_decode):
        terms = jax.jit(lambda batch: objective.loss_terms(CONFIG, {}, floats(batch), batch))(batch)
    for name in ("reconstruction", "swap", "identity_l1", "expression_l1", "label"):
        assert float(terms[name]) == pytest.approx(0, abs=1e-6), name


def test_there_are_five_swaps_and_each_names_its_target_by_subject_and_intensity():
    subject, intensity = {0: "s", 1: "s", 2: "t"}, {0: "y", 1: "z", 2: "y"}
    expected = {
        (i, e): t
        for i in range(3)
        for e in range(3)
        for t in range(3)
        if i != e and subject[t] == subject[i] and intensity[t] == intensity[e]
    }
    assert {(s.identity, s.expression): s.target for s in objective.SWAPS} == expected and len(objective.SWAPS) == 5


@pytest.fixture(scope="module")
def params():
    params = compiled.init(CONFIG.model, jax.random.key(0))
    # Biases begin at zero: give every path a signal.
    return jax.tree.map(lambda p: p + 0.01 * jax.random.normal(jax.random.key(1), p.shape), params)


@pytest.fixture(scope="module")
def head_gradients(params):
    """Largest gradient of each term into the encoder's identity head and into its expression head."""
    batch = batch_of(intensity=jnp.array([[0.0] * 4, [1.0] * 4, [0.0] * 4]))
    config = replace(CONFIG, objective=ObjectiveConfig(expression_margin=100.0))  # so large that no triplet is met

    def terms(kernels):
        encoder = {name: params["encoder"][name] | {"kernel": kernel} for name, kernel in kernels.items()}
        return objective.loss_terms(config, params | {"encoder": params["encoder"] | encoder}, floats(batch), batch)

    kernels = {name: params["encoder"][name]["kernel"] for name in ("identity", "expression")}
    return jax.tree.map(lambda gradient: float(jnp.abs(gradient).max()), jax.jit(jax.jacrev(terms))(kernels))


@pytest.mark.slow
def test_identity_terms_send_no_gradient_into_the_expression_head_and_the_reverse(head_gradients):
    for name in IDENTITY:
        assert head_gradients[name]["identity"] > 0 and head_gradients[name]["expression"] == 0, name
    for name in EXPRESSION:
        assert head_gradients[name]["identity"] == 0 and head_gradients[name]["expression"] > 0, name


@pytest.mark.slow
def test_swap_and_reconstruction_teach_both_heads(head_gradients):
    for name in ("swap", "reconstruction"):
        assert min(head_gradients[name].values()) > 0, name


@pytest.mark.slow
def test_only_image_terms_constrain_the_expression_dimensions_beyond_the_label(params):
    batch = batch_of()

    config = replace(CONFIG, objective=ObjectiveConfig(label_dims=16))
    names = ["label", "ranking", "expression_l1", "swap"]

    def values(bias):
        encoder = params["encoder"] | {"expression": params["encoder"]["expression"] | {"bias": bias}}
        terms = objective.loss_terms(config, params | {"encoder": encoder}, floats(batch), batch)
        return jnp.stack([terms[name] for name in names])

    # [term, dimension of the code]
    gradients = np.asarray(jax.jit(jax.jacrev(values))(params["encoder"]["expression"]["bias"]))
    for name, gradient in zip(names[:3], gradients, strict=False):
        assert abs(gradient[:16]).min() > 0 and not gradient[16:].any(), name
    assert abs(gradients[3]).min() > 0


def test_a_missing_pair_or_peer_changes_nothing_but_its_own_terms(params):
    batch = batch_of()
    no_rows = jnp.zeros(4)
    garbage = batch.images.at[2].set(jax.random.randint(jax.random.key(2), (4, 64, 64, 3), 0, 255, jnp.uint8))
    for changed_batch in (batch, batch._replace(images=garbage)):
        changed_batch = changed_batch._replace(has_c=no_rows)
        values = compiled.loss_terms(CONFIG, params, floats(changed_batch), changed_batch)
        if changed_batch.images is batch.images:
            expected = values
    for name, value in values.items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-5, err_msg=name)
    assert values["expression_l1"] == 0 and values["expression_triplet"] == 0 and values["identity_l1"] > 0


def test_unlabelled_images_train_reconstruction_only(params):
    no_rows = jnp.zeros(4)
    batch = batch_of(is_labelled=jnp.zeros((3, 4)), has_b=no_rows, has_c=no_rows, order=no_rows)
    values = compiled.loss_terms(CONFIG, params, floats(batch), batch)
    assert values["reconstruction"] > 0
    assert all(value == 0 for name, value in values.items() if name != "reconstruction")


def terms_of(batch, code, loss=POSTER_LOSS, **settings) -> dict:
    """Terms of a network whose expression codes are `code`, [3, 4], in all their dimensions."""
    by_triplet = code.T  # the order in which images are encoded
    logit = jnp.repeat(jnp.log(by_triplet / (1 - by_triplet)).reshape(-1, 1), 64, axis=1)
    encode = lambda config, params, images: EncoderOutput(jnp.ones_like(logit), logit)  # noqa: E731
    config = replace(CONFIG, loss=loss, objective=ObjectiveConfig(**settings))
    with mock.patch.multiple(objective, encode_logits=encode, decode=exact_decode):
        return jax.jit(lambda batch: objective.loss_terms(config, {}, floats(batch), batch))(batch)


def test_ranking_wants_the_code_to_rise_with_the_intensity_by_a_margin_in_proportion():
    batch = batch_of(
        intensity=jnp.tile(jnp.array([[0.2], [0.7], [0.2]]), (1, 4)), order=jnp.array([1.0, 1.0, -1.0, 0.0])
    )
    code = jnp.array([[0.2, 0.2, 0.2, 0.9], [0.7, 0.9, 0.7, 0.1], [0.5, 0.5, 0.5, 0.5]])
    rises = np.array([0.5, 0.7, -0.5])  # of the first three; the fourth has no order
    expected = np.mean(0.1 * np.log1p(np.exp((0.8 * 0.5 - rises) / 0.1)))
    assert float(terms_of(batch, code, ranking_margin=0.8)["ranking"]) == pytest.approx(expected, rel=1e-4)


def test_ranking_by_order_alone_has_no_margin():
    b_is_unlabelled = jnp.tile(jnp.array([[1.0], [0.0], [1.0]]), (1, 4))
    batch = batch_of(is_labelled=b_is_unlabelled, order=jnp.ones(4), intensity=jnp.zeros((3, 4)))
    code = jnp.tile(jnp.array([[0.4], [0.5], [0.4]]), (1, 4))
    assert float(terms_of(batch, code)["ranking"]) == pytest.approx(0.1 * np.log1p(np.exp(-1)), rel=1e-4)


def test_ranking_moves_the_dimensions_of_its_own_expression_alone():
    label = jnp.tile((jnp.arange(64) < 10).astype(jnp.float32), (4, 1))
    batch = batch_of(order=jnp.ones(4), action_label=label)

    def loss(logits):
        encode = lambda config, params, images: EncoderOutput(jnp.ones_like(logits), logits)  # noqa: E731
        with mock.patch.multiple(objective, encode_logits=encode, decode=exact_decode):
            return objective.loss_terms(CONFIG, {}, floats(batch), batch)["ranking"]

    gradient = jax.jit(jax.grad(loss))(jnp.zeros((12, 64)))
    a, b, c = jnp.moveaxis(gradient.reshape(4, 3, 64), 1, 0)
    assert (a[:, :10] > 0).all() and (b[:, :10] < 0).all() and not gradient[:, 10:].any() and not c.any()


def test_the_label_can_constrain_neutral_and_apex_alone():
    intensity = jnp.tile(jnp.array([[0.0], [0.5], [1.0]]), (1, 4))
    batch = batch_of(intensity=intensity, label=jnp.repeat(intensity[..., None], 64, -1))
    right_code, wrong_code = (jnp.tile(jnp.array([[0.01], [middle], [0.99]]), (1, 4)) for middle in (0.5, 0.9))
    right_loss, wrong_loss = (
        float(terms_of(batch, c, label_intermediate=False)["label"]) for c in (right_code, wrong_code)
    )
    assert right_loss == pytest.approx(wrong_loss) == pytest.approx(-np.log(0.99), rel=1e-3)
    assert float(terms_of(batch, wrong_code)["label"]) > float(terms_of(batch, right_code)["label"]) + 0.1


def test_cosine_terms_leave_out_codes_without_direction(params):
    batch = batch_of(intensity=jnp.full((3, 4), 0.45))
    assert compiled.loss_terms(CONFIG, params, floats(batch), batch)["expression_cosine"] == 0


def test_the_loss_is_the_weighted_sum_of_its_terms():
    values = {name: jnp.float32(k) for k, name in enumerate(["reconstruction", "label"], 1)}
    expected = POSTER_LOSS.reconstruction + 2 * POSTER_LOSS.label
    assert float(objective.weighted_sum(CONFIG, values)) == pytest.approx(expected)


def test_every_term_has_its_weight(params):
    batch = batch_of()
    names = set(jax.eval_shape(lambda: objective.loss_terms(CONFIG, params, floats(batch), batch)))
    other_names = {"one_source", "texture", "two_sources", "flow_tv", "mask_area", "cycle"}  # kind "warp"
    other_names |= {"rotation", "clamping"}  # of their own methods
    assert names | other_names == set(vars(POSTER_LOSS)) and not names & other_names
