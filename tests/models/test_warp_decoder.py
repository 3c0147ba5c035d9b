"""The decoder that sees pictures: sampling, exact copies, ends of paths, what trains it, and the command."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from PIL import Image
from tiny_run import flat_face, person, write_folder, write_run

from facedisent_jax import models, trained_model
from facedisent_jax.config import AugmentConfig, ModelConfig
from facedisent_jax.data.record import Faces
from facedisent_jax.data.triplets import Triplets
from facedisent_jax.errors import UserError
from facedisent_jax.evaluation import clips, path_methods
from facedisent_jax.losses import functions
from facedisent_jax.models import sampling
from facedisent_jax.models.codes import Codes
from facedisent_jax.presets import PRESETS
from facedisent_jax.training.augment import augment
from facedisent_jax.training.step import init_state, train_step

MODEL = ModelConfig(kind="warp", width=128, blocks=1)
CONFIG = replace(PRESETS["warp"].config, model=MODEL, batch=4, augment=AugmentConfig(enabled=False))


@pytest.fixture(scope="module")
def face() -> trained_model.TrainedModel:
    """An untrained network with weights large enough that every code moves and paints something."""
    params = jax.jit(partial(models.init, MODEL))(jax.random.key(0))
    rng = np.random.default_rng(1)
    params = jax.tree.map(lambda p: np.asarray(p) + 0.05 * rng.standard_normal(p.shape).astype(np.float32), params)
    return trained_model.TrainedModel(params, CONFIG, {}, 0)


@pytest.fixture(scope="module")
def faces() -> np.ndarray:
    return np.random.default_rng(2).integers(0, 255, (5, 64, 64, 3), np.uint8)


@pytest.fixture(scope="module")
def takes() -> Faces:
    return Faces.of([r for k in range(4) for r in person(k, [y / 5 for y in range(6)], sequence=f"t{k}")])


def test_the_gradient_of_sampling_is_that_of_finite_differences():
    keys = jax.random.split(jax.random.key(0), 3)
    images = jax.random.uniform(keys[0], (2, 7, 9, 3))
    # Away from whole pixels, where the gradient of linear interpolation jumps, and from the edge.
    whole = jax.random.randint(keys[1], (2, 7, 9), 1, 5) + 0.0
    rows, columns = whole + jax.random.uniform(keys[2], (2, 7, 9), minval=0.1, maxval=0.9), whole + 0.5
    weight = jax.random.normal(keys[1], images.shape)

    def value(*arrays):  # the differences come as numpy
        return jnp.sum(weight * sampling.sample_bilinear(*map(jnp.asarray, arrays)))

    check_grads(value, (images, rows, columns), order=1, modes=("rev",), eps=1e-2, rtol=1e-2, atol=1e-2)


def test_cubic_reading_keeps_parabolas_which_bilinear_reading_flattens():
    """Keys 1981: exact to the second order away from the edge; at whole pixels the pixel itself."""
    at = jnp.arange(16.0)
    image = ((at[:, None] - 8) ** 2 + (at[None] - 6) ** 2)[None, :, :, None]
    rows, columns = jnp.full((1, 16, 16), 7.5), jnp.full((1, 16, 16), 5.25)
    truth = 0.5**2 + 0.75**2
    assert sampling.sample_cubic(image, rows, columns) == pytest.approx(np.full((1, 16, 16, 1), truth), abs=1e-4)
    assert (sampling.sample_bilinear(image, rows, columns) > truth + 0.2).all()
    still = jnp.zeros((1, 16, 16, 2))
    np.testing.assert_array_equal(sampling.warp_image(image, still, sharp=True), image)


def test_a_displacement_reads_from_where_it_points():
    image = jnp.arange(64.0).reshape(1, 8, 8, 1)
    assert (sampling.warp_image(image, jnp.zeros((1, 8, 8, 2))) == image).all()
    down = jnp.zeros((1, 8, 8, 2)).at[..., 0].set(1.5)
    np.testing.assert_allclose(sampling.warp_image(image, down)[0, 2, 3, 0], image[0, 3, 3, 0] + 4)


def test_no_change_of_expression_is_an_exact_copy(face, faces):
    codes = face.encode(faces)
    assert face.decode(codes, faces) == pytest.approx(faces / 255, abs=1e-5)
    changed = Codes(codes.identity, codes.expression[::-1])
    assert abs(face.decode(changed, faces) - faces / 255).max() > 0.05
    place = np.array([0, 0, 0, 1, 1])
    own = Codes(codes.identity, np.where(place[:, None] == 0, codes.expression, codes.expression[::-1]))
    ends = np.where(place[:, None, None, None] == 0, faces, faces[::-1]) / 255
    assert face.decode(own, faces, faces[::-1], place) == pytest.approx(ends, abs=1e-5)


def test_without_a_source_the_codes_give_a_face(face, faces):
    codes = face.encode(faces)
    alone = face.decode(codes)
    assert alone.shape == faces.shape and abs(alone - face.decode(codes, faces)).max() > 0.05
    hybrid = replace(MODEL, kind="hybrid")
    parts = {name: face.params[name] for name in ("encoder", "decoder")}
    np.testing.assert_allclose(alone, np.clip(models.decode(hybrid, parts, codes), 0, 1), atol=1e-5)


def test_interpolation_ends_at_the_pictures(face, faces):
    a, b = faces[:2]
    both = face.interpolate(a, b, 5, "both")
    assert both[0] == pytest.approx(a / 255, abs=1e-5) and both[-1] == pytest.approx(b / 255, abs=1e-5)
    further = face.interpolate(a, b, 5, "both", to=2.0)
    assert further[2] == pytest.approx(b / 255, abs=1e-5)
    assert abs(further[4] - b / 255).max() > 0.01


def test_another_persons_picture_gives_its_expression_alone(face, faces, monkeypatch):
    a, b = faces[:2]
    monkeypatch.setattr(trained_model, "is_same_subject", lambda *codes: True)
    assert face.interpolate(a, b, 3)[-1] == pytest.approx(b / 255, abs=1e-5)
    monkeypatch.setattr(trained_model, "is_same_subject", lambda *codes: False)
    assert face.interpolate(a, b, 3)[-1] == pytest.approx(face.swap(a[None], b[None])[0], abs=1e-4)


def test_from_one_picture_towards_a_strength(face, faces):
    path = face.interpolate(faces[0], steps=4, to=0.7)
    assert path[0] == pytest.approx(faces[0] / 255, abs=1e-5)
    codes = face.encode(faces[:1])
    asked = codes.expression.copy()
    asked[:, : CONFIG.objective.label_dims] = 0.7
    assert path[-1] == pytest.approx(face.decode(Codes(codes.identity, asked), faces[:1])[0], abs=1e-4)


def test_a_decoder_that_sees_no_pictures_says_so(face, faces):
    config = replace(CONFIG, model=replace(MODEL, kind="hybrid"))
    plain = trained_model.TrainedModel({name: face.params[name] for name in ("encoder", "decoder")}, config, {}, 0)
    with pytest.raises(UserError, match='got a model of kind "hybrid"'):
        plain.decode(plain.encode(faces), faces)
    with pytest.raises(UserError, match="5 codes but 2 source images"):
        face.decode(face.encode(faces), faces[:2])


def test_frames_between_are_of_the_take_and_lie_between(takes):
    triplets = Triplets(takes)
    index = triplets.index(0, 0, 64)
    batch = triplets.gather(index)
    low, high = (
        takes.intensity[np.stack([index.a, index.b])].min(0),
        takes.intensity[np.stack([index.a, index.b])].max(0),
    )
    has = index.has_middle
    assert (has == (high - low > 0.3)).all()
    assert (takes.subject[index.middle] == takes.subject[index.a]).all() and (index.middle[~has] == index.a[~has]).all()
    between = takes.intensity[index.middle]
    assert ((between > low) & (between < high))[has].all()
    at = (1 - batch.alpha) * takes.intensity[index.a] + batch.alpha * takes.intensity[index.b]
    assert at[has] == pytest.approx(between[has], abs=1e-6)


def test_a_motion_moves_each_picture_by_its_share():
    ramp = jnp.broadcast_to(jnp.linspace(0, 1, 64)[:, None, None], (4, 2, 64, 64, 3))
    quiet = AugmentConfig(face_mix_prob=0, flip=False, shift=0, light=0, colour=0, warp=1e-9, motion=2.0)
    moved = jnp.tile(jnp.array([[0.0], [1.0], [0.0], [0.5]]), (1, 2))
    out = augment(quiet, jax.random.key(0), ramp, jnp.zeros((4, 2, 64)), moved) - ramp
    inside = out[:, :, 16:48, 16:48]
    assert abs(inside[jnp.array([0, 2])]).max() < 1e-5 and abs(inside[1]).max() > 0.005
    np.testing.assert_allclose(inside[3], inside[1] / 2, atol=1e-5)


def test_the_error_of_two_half_lips_is_larger_than_their_squares_say():
    weight = jnp.ones((64, 64))
    target = jnp.zeros((1, 64, 64, 3)).at[:, 30:32].set(1.0)
    assert float(functions.structural(target, target, weight)[0]) == 0
    near = jnp.roll(target, 1, axis=1)
    far = jnp.roll(target, 8, axis=1)
    assert functions.structural(near, target, weight)[0] < functions.structural(far, target, weight)[0]
    mouth = jnp.asarray(functions.mouth_weights(3.0))
    assert float(mouth.mean()) == pytest.approx(1) and float(mouth[45, 30] / mouth[5, 5]) == pytest.approx(3)


def test_frames_between_are_shot_between():
    """Of a smile that comes and goes: frames of the way back are not between two of the way there."""
    faces = Faces.of(person(0, [0, 0.2, 0.4, 0.6, 0.8, 1, 0.9, 0.7, 0.5, 0.3, 0.1], sequence="t"))
    triplets = Triplets(faces)
    index = [triplets.index(0, step, 64) for step in range(4)]
    a, b, d, has = (
        np.concatenate([getattr(one, name) for one in index]) for name in ("a", "b", "middle", "has_middle")
    )
    start, end, frame = faces.frame[a], faces.frame[b], faces.frame[d]
    assert ((np.minimum(start, end) < frame) & (frame < np.maximum(start, end)))[has].all()
    assert has[(start == 0) & (end == 5)].all() and not has[(start == 1) & (end == 10)].any()


@pytest.mark.slow
def test_one_batch_can_be_overfitted_and_the_terms_fall(takes):
    config = replace(CONFIG, optim=replace(CONFIG.optim, lr=3e-3, warmup_steps=1, ema_decay=0.0))
    state = init_state(config, takes)
    batch = Triplets(takes).batch(0, 0, config.batch)
    first = last = {}
    for _ in range(60):
        state, last = train_step(config, state, batch)
        first = first or last
    assert float(last["one_source"]) < 0.3 * float(first["one_source"])
    assert float(last["two_sources"]) < 0.4 * float(first["two_sources"])


def test_ways_between_the_ends_of_a_clip_see_them(face):
    faces = Faces.of(person(5, [k / 10 for k in range(11)]))
    (clip,) = clips.find_clips(faces).clips
    known = path_methods.encode_clip(face, faces, clip)
    drawn = np.random.default_rng(0).random((8, 64), np.float32)
    ways = path_methods.interpolation_methods(
        face, known, path_methods.TrainingStatistics(None, None, {}, {}, [], drawn)
    )
    assert {"expression", "whole", "own_smile", *path_methods.ABLATIONS} <= set(ways)
    ends = np.array([0.0, 1.0])
    assert ways["expression"](ends) == pytest.approx(known.real[[0, -1]], abs=1e-5)
    assert ways["own_smile"](ends)[0] == pytest.approx(known.real[0], abs=1e-5)
    last = Codes(known.codes.identity[-1:], known.codes.expression[-1:])
    for name, asked in (("own_codes", last), ("own_smile", last._replace(identity=known.codes.identity[:1]))):
        assert ways[name](ends)[1] == pytest.approx(face.decode(asked, known.real[:1])[0], abs=1e-4)
    made = path_methods.per_frame_references(known, path_methods.TrainingStatistics(None, None, {}, {}, []))[
        "from_another"
    ]
    seen = known.real[path_methods.distant_frames(known.clip.intensity)[2]][None]
    assert made[2] == pytest.approx(face.decode(Codes(*(c[2:3] for c in known.codes)), seen)[0], abs=1e-4)


def test_another_frame_of_a_clip_is_far_away_or_the_end_further_away():
    full, faint = np.linspace(0, 1, 21), np.linspace(0, 0.4, 9)
    rows = path_methods.distant_frames(full)
    assert (np.abs(full[rows] - full) >= path_methods.MIN_INTENSITY_DISTANCE).all() and len(set(rows)) > 5
    rows = path_methods.distant_frames(faint)
    assert rows[3] == 8 and rows[5] == 0 and faint[rows[0]] >= path_methods.MIN_INTENSITY_DISTANCE


def test_the_command_goes_from_one_picture_towards_a_strength(tmp_path):
    from facedisent_jax.commands import evaluate

    data = write_folder(tmp_path / "data", {"train": person(0) + person(1)})
    run = write_run(tmp_path / "run", data, model=MODEL)
    for k in range(2):
        Image.fromarray(flat_face(30, float(k))).save(tmp_path / f"{k}.png")
    for rest in (["--to", "0.7"], [str(tmp_path / "1.png"), "--to", "1.3"]):
        evaluate.run(["interpolate", str(run), str(tmp_path / "0.png"), *rest, "--out", str(tmp_path / "out.png")])
        assert (tmp_path / "out.png").is_file()
        (tmp_path / "out.png").unlink()


def test_a_source_comes_with_its_codes_and_what_they_show():
    params = jax.jit(partial(models.init, MODEL))(jax.random.key(0))
    pictures = jax.random.uniform(jax.random.key(1), (2, 64, 64, 3))
    made = jax.jit(partial(models.encode_source, MODEL))(params, pictures)
    codes = jax.jit(partial(models.encode, MODEL))(params, pictures)
    np.testing.assert_allclose(made.expression, codes.expression, atol=1e-6)
    np.testing.assert_allclose(made.decoded, jax.jit(partial(models.decode, MODEL))(params, codes), atol=1e-6)


def test_what_a_part_is_without_the_other(face, faces):
    codes, other = (Codes(*map(jnp.asarray, face.encode(part))) for part in (faces[:2], faces[2:4]))

    def shown(parts):
        config = replace(MODEL, warp_ablation=parts)
        source = jax.jit(partial(models.encode_source, config))(face.params, jnp.asarray(faces[:2] / 255, jnp.float32))
        return jax.jit(partial(models.decode_from_sources, config))(
            face.params, Codes(codes.identity, other.expression), source
        )

    both, moved, painted = map(shown, ("both", "flow", "paint"))
    assert np.asarray(both.mask).any() and np.asarray(both.displacement).any()
    assert not np.asarray(moved.mask).any() and np.asarray(moved.displacement).any()
    assert np.asarray(painted.mask).any() and not np.asarray(painted.displacement).any()


def test_what_the_codes_alone_show_is_learnt_without_the_pictures(face, faces):
    source = jnp.asarray(faces[:2] / 255, jnp.float32)
    target = jnp.asarray(faces[2:4] / 255, jnp.float32)

    def loss(params):
        asked = models.encode(MODEL, params, target)
        return jnp.mean(
            (
                models.decode_from_sources(MODEL, params, asked, models.encode_source(MODEL, params, source)).pictures
                - target
            )
            ** 2
        )

    gradient = jax.jit(jax.grad(loss))(face.params)
    assert not any(np.asarray(leaf).any() for leaf in jax.tree.leaves(gradient["decoder"]))
    assert np.asarray(gradient["encoder"]["expression"]["kernel"]).any()
