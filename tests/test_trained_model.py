"""Encode, decode, swap and interpolate do what they promise; mistakes are explained in a sentence."""

import multiprocessing
import pickle
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial

import jax
import numpy as np
import pytest
from tiny_run import ROOT

import facedisent_jax as fd
from facedisent_jax import models, trained_model
from facedisent_jax.config import Config, ModelConfig, ObjectiveConfig
from facedisent_jax.data.labels import label_vector
from facedisent_jax.errors import UserError
from facedisent_jax.models.codes import lerp


@pytest.fixture(scope="module")
def model() -> trained_model.TrainedModel:
    """An untrained network whose weights are large enough that every code changes the image."""
    config = Config(model=ModelConfig(width=128, blocks=1))
    params = jax.jit(partial(models.init, config.model))(jax.random.key(0))
    rng = np.random.default_rng(1)
    params = jax.tree.map(lambda p: np.asarray(p) + 0.02 * rng.standard_normal(p.shape).astype(np.float32), params)
    return trained_model.TrainedModel(params, config, {"expressions": ["smile"]}, 0)


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(2).integers(0, 255, (5, 64, 64, 3), np.uint8)


def test_codes_and_images_have_the_promised_shape_range_and_type(model, images):
    codes = model.encode(images)
    assert isinstance(codes, fd.Codes)
    assert codes.identity.shape == codes.expression.shape == (5, 64)
    assert codes.expression.min() >= 0 and codes.expression.max() <= 1
    decoded = model.decode(codes)
    assert type(decoded) is np.ndarray and decoded.shape == (5, 64, 64, 3) and decoded.flags.writeable
    assert decoded.min() >= 0 and decoded.max() <= 1


def test_bytes_and_floats_are_the_same_image(model, images):
    for a, b in zip(model.encode(images), model.encode(images / 255), strict=True):
        assert a == pytest.approx(b, abs=1e-5)


def test_an_image_has_the_same_code_in_any_batch(model):
    largest = trained_model.BATCH_SIZES[-1]
    many_images = np.random.default_rng(0).integers(0, 255, (largest + 3, 64, 64, 3), np.uint8)
    codes = model.encode(many_images)
    for k in (0, largest - 1, largest, largest + 2):
        assert model.encode(many_images[k : k + 1]).identity[0] == pytest.approx(codes.identity[k], abs=1e-5)
    assert model.encode(many_images[:0]).identity.shape == (0, 64)
    assert model.decode(model.encode(many_images[:0])).shape == (0, 64, 64, 3)


def test_swapping_codes_twice_changes_nothing(model, images):
    a, b = model.encode(images[:1]), model.encode(images[1:2])
    swap = fd.Codes(a.identity, b.expression), fd.Codes(b.identity, a.expression)
    double_swap = fd.Codes(swap[0].identity, swap[1].expression), fd.Codes(swap[1].identity, swap[0].expression)
    for codes, swapped_back in zip((a, b), double_swap, strict=True):
        assert all((x == y).all() for x, y in zip(codes, swapped_back, strict=True))


def test_swap_has_the_identity_of_the_first_and_the_expression_of_the_second(model, images):
    a, b = model.encode(images[:2]), model.encode(images[2:4])
    swap = model.swap(images[:2], images[2:4])
    assert swap == pytest.approx(model.decode(fd.Codes(a.identity, b.expression)))
    assert abs(swap - model.decode(fd.Codes(b.identity, a.expression))).max() > 1e-3
    assert model.swap(images, images) == pytest.approx(model.decode(model.encode(images)))


def test_swap_grid_has_people_down_and_expressions_across(model, images):
    grid = model.swap_grid(images[:2], images[2:5])
    assert grid.shape == (2, 3, 64, 64, 3)
    for r in range(2):
        for c in range(3):
            swap = model.swap(images[r : r + 1], images[2 + c : 3 + c])[0]
            assert grid[r, c] == pytest.approx(swap, abs=1e-5)


def test_interpolation_ends_at_the_reconstruction_or_the_swap(model, images):
    a, b = images[0], images[1]
    reconstruction = model.decode(model.encode(images[:2]))
    expression, identity, joint = (model.interpolate(a, b, 5, move) for move in ("expression", "identity", "both"))
    for path in (expression, identity, joint):
        assert path.shape == (5, 64, 64, 3)
        assert path[0] == pytest.approx(reconstruction[0], abs=1e-5)
    assert expression[-1] == pytest.approx(model.swap(a[None], b[None])[0], abs=1e-5)
    assert identity[-1] == pytest.approx(model.swap(b[None], a[None])[0], abs=1e-5)
    assert joint[-1] == pytest.approx(reconstruction[1], abs=1e-5)


def test_interpolated_codes_lie_on_a_straight_line_in_equal_steps(model, images):
    a, b = (model.encode(images[k : k + 1]) for k in (0, 1))
    path = lerp(a, b, trained_model.interpolation_weights(11, "both", 1.0))
    for codes, start, end in zip(path, a, b, strict=True):
        assert np.diff(codes, axis=0) == pytest.approx(np.broadcast_to((end - start) / 10, (10, 64)), abs=1e-5)
        assert (codes[0] == start[0]).all() and (codes[-1] == end[0]).all()
    path = lerp(a, b, trained_model.interpolation_weights(11, "expression", 1.0))
    assert (path.identity == a.identity).all() and not (path.expression == a.expression).all()


@pytest.mark.parametrize(
    ("bad_images", "message"),
    [
        (np.zeros((64, 64, 3), np.uint8), "single image"),
        (np.zeros((2, 32, 32, 3), np.uint8), r"\[2, 32, 32, 3\]"),
        (np.zeros((2, 3, 64, 64), np.float32), r"\[2, 3, 64, 64\]"),
        (np.zeros((1, 64, 64, 3), np.int64), "int64"),
        (np.full((1, 64, 64, 3), 200.0), "200"),
        (np.full((1, 64, 64, 3), -0.1), "-0.1"),
        (np.full((1, 64, 64, 3), np.nan), "NaN"),
    ],
)
def test_images_that_cannot_be_encoded_are_explained(model, bad_images, message):
    with pytest.raises(UserError, match=message):
        model.encode(bad_images)


def test_other_mistakes_are_explained(model, images):
    codes = model.encode(images)
    with pytest.raises(UserError, match=r"\[n, 64\] each, got \[5, 64\] and \[5, 10\]"):
        model.decode((codes.identity, codes.expression[:, :10]))
    with pytest.raises(UserError, match=r"got \[64\] and \[64\]"):
        model.decode((codes.identity[0], codes.expression[0]))
    with pytest.raises(UserError, match=r"Expression codes must be of shape \[n, 64\], got \[5, 64, 64, 3\]"):
        model.intensity(images)
    with pytest.raises(UserError, match="got 5 and 2"):
        model.swap(images, images[:2])
    with pytest.raises(UserError, match=r"single image .* got \[5, 64, 64, 3\]"):
        model.interpolate(images, images[0])
    with pytest.raises(UserError, match="--steps must be .* got 1"):
        model.interpolate(images[0], images[1], 1)
    with pytest.raises(UserError, match='--move must be .* got "smile"'):
        model.interpolate(images[0], images[1], 3, "smile")  # pyright: ignore[reportArgumentType]


@pytest.mark.slow
def test_a_loaded_run_needs_neither_its_data_nor_tensorflow(tmp_path):
    from tiny_run import person, write_folder, write_run

    data = write_folder(tmp_path / "data", {"train": person(0) + person(1)})
    run = write_run(tmp_path / "run", data)
    data.rename(tmp_path / "moved")
    (run / "config.json").unlink(missing_ok=True)
    script = (
        "import sys, numpy as np\n"
        "sys.modules['tensorflow'] = None\n"  # importing it would fail
        "import facedisent_jax as fd\n"
        f"model = fd.load({str(run)!r})\n"
        "codes = model.encode(np.zeros((1, 64, 64, 3), np.uint8))\n"
        "print(model.config.seed, model.info['train_subjects'], model.step, model.decode(codes).shape)\n"
    )
    result = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert result.stdout.strip() == "3 ['p000', 'p001'] 0 (1, 64, 64, 3)", result.stderr


def test_importing_the_package_is_quick_and_imports_neither_jax_nor_tensorflow():
    script = (
        "import sys, facedisent_jax; print([m for m in ('jax', 'flax', 'tensorflow', 'numpy') if m in sys.modules])"
    )
    start = time.perf_counter()
    result = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert result.stdout.strip() == "[]", result.stderr
    assert time.perf_counter() - start < 5  # it takes 0.1 s; the bound is for a loaded machine
    assert set(fd.__all__) <= set(dir(fd))
    with pytest.raises(AttributeError, match="lode"):
        fd.lode  # noqa: B018


def test_without_a_name_the_only_trained_expression_is_meant(model, images):
    surprised = replace(model, info={"expressions": ["surprise"]})
    expression = surprised.with_intensity(surprised.encode(images[:1]).expression, 1)
    assert surprised.intensity(expression) == surprised.intensity(expression, "surprise") == pytest.approx(1)
    assert model.intensity(expression) == pytest.approx(label_vector("surprise").mean())
    towards = [m.interpolate(images[0], steps=2) for m in (surprised, model)]
    assert towards[0] == pytest.approx(surprised.interpolate(images[0], steps=2, action="surprise"))
    assert abs(towards[0] - towards[1]).max() > 0.01


def test_towards_a_full_expression_the_style_becomes_the_mean_of_those_who_show_it(model):
    rng = np.random.default_rng(3)
    neutral_mean, smile_mean, other_style = rng.uniform(0.2, 0.8, (3, 64)).astype(np.float32)
    means = {"neutral": neutral_mean.tolist(), "smile": smile_mean.tolist()}
    config = replace(model.config, objective=ObjectiveConfig(label_dims=16))
    model = replace(model, config=config, info={"expressions": ["smile"], "mean_expressions": means})
    neutral, smiling = rng.uniform(0.2, 0.8, (2, 1, 64)).astype(np.float32)
    neutral[:, :16], smiling[:, :16] = 0, 1

    assert model.with_intensity(neutral, 1)[0, 16:] == pytest.approx(smile_mean[16:], abs=1e-6)
    assert model.with_intensity(smiling, 0)[0, 16:] == pytest.approx(neutral_mean[16:], abs=1e-6)
    assert model.with_intensity(neutral, 1, like=other_style)[0, 16:] == pytest.approx(other_style[16:], abs=1e-6)
    for code, intensity in ((neutral, 0), (smiling, 1)):  # nothing changes: a code keeps its own style
        assert model.with_intensity(code, intensity) == pytest.approx(code, abs=1e-6)
    half, full = model.with_intensity(neutral, 0.5), model.with_intensity(neutral, 1)
    assert half == pytest.approx((neutral + full) / 2, abs=1e-6)

    # With 8 dimensions for the style, the means have 16 + 8, and the rest stays: details of the image.
    means = {"neutral": neutral_mean[:24].tolist(), "smile": smile_mean[:24].tolist()}
    model = replace(model, info=model.info | {"mean_expressions": means})
    for like, style in ((None, smile_mean), (other_style, other_style)):
        smile = model.with_intensity(neutral, 1, like=like)[0, 16:]
        assert smile == pytest.approx(np.concatenate([style[16:24], neutral[0, 24:]]), abs=1e-6)


def test_a_full_expression_is_the_code_whose_image_shows_one(model, images):
    """Here that of intensity 1.2."""
    calibrated = replace(model, info=model.info | {"full_intensity": {"smile": 1.2}})
    code = calibrated.encode(images[:1]).expression
    assert calibrated.with_intensity(code, 0.5) == pytest.approx(model.with_intensity(code, 0.6))
    path, plain = calibrated.interpolate(images[0], steps=3), model.interpolate(images[0], steps=7, to=1.2)
    assert path == pytest.approx(plain[[0, 3, 6]], abs=1e-5)


@pytest.mark.parametrize(
    "expressions, action, message",
    [
        (["anger", "smile"], None, "trained on anger, smile: say which"),
        (["anger", "smile"], "angre", r"trained on \(anger, smile\), got angre. Did you mean anger?"),
        (["anger"], "smile", r"trained on \(anger\), got smile"),
        ([], None, "must be trained on a labelled expression"),
    ],
)
def test_an_expression_that_was_not_trained_is_never_read(model, images, expressions, action, message):
    with pytest.raises(UserError, match=message):
        replace(model, info={"expressions": expressions}).interpolate(images[0], action=action)


def test_a_model_is_equal_to_itself_alone_and_is_named_in_one_line(model):
    copy = replace(model)
    assert len({model, copy, model}) == 2 and model != copy
    assert repr(model) == "TrainedModel('runs/smile', step 0, preset 'smile')"


def test_a_used_model_can_be_pickled_and_sent_to_a_process_that_was_spawned(model, images):
    codes = model.encode(images)
    decoded = pickle.loads(pickle.dumps(model)).decode(codes)
    assert decoded == pytest.approx(model.decode(codes))
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(model.decode, (codes,)) == pytest.approx(decoded, abs=1e-5)


def test_the_decoder_can_be_differentiated(model, images):
    codes = model.encode(images[:1])
    decode = jax.jit(partial(models.decode, model.config.model))
    brightness = jax.vmap(jax.grad(lambda e: decode(model.params, fd.Codes(codes.identity, e[None])).mean()))
    gradient = brightness(np.repeat(codes.expression, 2, axis=0))
    assert gradient.shape == (2, 64) and np.isfinite(gradient).all() and gradient.any()
