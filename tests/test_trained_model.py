"""Encode, decode, swap and interpolate mean what they say; what cannot be done is a sentence."""

import subprocess
import sys
import time
from functools import partial

import jax
import numpy as np
import pytest
from tiny_run import ROOT

import facedisent_jax as fd
from facedisent_jax import models, trained_model
from facedisent_jax.config import Config, ModelConfig
from facedisent_jax.errors import UserError

RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def face() -> trained_model.TrainedModel:
    """An untrained network whose weights are large enough that every code changes the picture."""
    config = Config(model=ModelConfig(width=128, blocks=1))
    params = jax.jit(partial(models.init, config.model))(jax.random.key(0))
    rng = np.random.default_rng(1)
    params = jax.tree.map(lambda p: np.asarray(p) + 0.02 * rng.standard_normal(p.shape).astype(np.float32), params)
    return trained_model.TrainedModel(params, config, {}, 0)


@pytest.fixture(scope="module")
def faces() -> np.ndarray:
    return np.random.default_rng(2).integers(0, 255, (5, 64, 64, 3), np.uint8)


def test_codes_have_the_promised_shape_range_and_type(face, faces):
    codes = face.encode(faces)
    assert isinstance(codes, fd.Codes)
    assert codes.identity.shape == codes.expression.shape == (5, 64)
    assert codes.expression.min() >= 0 and codes.expression.max() <= 1
    pictures = face.decode(codes)
    assert type(pictures) is np.ndarray and pictures.shape == (5, 64, 64, 3) and pictures.flags.writeable
    assert pictures.min() >= 0 and pictures.max() <= 1


def test_bytes_and_floats_are_the_same_picture(face, faces):
    for a, b in zip(face.encode(faces), face.encode(faces / 255), strict=True):
        assert a == pytest.approx(b, abs=1e-5)


def test_a_picture_has_the_same_code_in_any_batch(face):
    many = RNG.integers(0, 255, (trained_model.BATCHES[-1] + 3, 64, 64, 3), np.uint8)
    codes = face.encode(many)
    for k in (0, trained_model.BATCHES[-1] - 1, trained_model.BATCHES[-1], trained_model.BATCHES[-1] + 2):
        assert face.encode(many[k : k + 1]).identity[0] == pytest.approx(codes.identity[k], abs=1e-5)
    assert face.encode(many[:0]).identity.shape == (0, 64)
    assert face.decode(face.encode(many[:0])).shape == (0, 64, 64, 3)


def test_swapping_twice_is_the_identity_on_codes(face, faces):
    a, b = face.encode(faces[:1]), face.encode(faces[1:2])
    once = fd.Codes(a.identity, b.expression), fd.Codes(b.identity, a.expression)
    twice = fd.Codes(once[0].identity, once[1].expression), fd.Codes(once[1].identity, once[0].expression)
    for before, after in zip((a, b), twice, strict=True):
        assert all((x == y).all() for x, y in zip(before, after, strict=True))


def test_swap_is_the_identity_of_the_first_with_the_expression_of_the_second(face, faces):
    a, b = face.encode(faces[:2]), face.encode(faces[2:4])
    made = face.swap(faces[:2], faces[2:4])
    assert made == pytest.approx(face.decode(fd.Codes(a.identity, b.expression)))
    assert abs(made - face.decode(fd.Codes(b.identity, a.expression))).max() > 1e-3
    assert face.swap(faces, faces) == pytest.approx(face.decode(face.encode(faces)))


def test_swap_grid_has_people_down_and_expressions_across(face, faces):
    grid = face.swap_grid(faces[:2], faces[2:5])
    assert grid.shape == (2, 3, 64, 64, 3)
    for r in range(2):
        for c in range(3):
            assert grid[r, c] == pytest.approx(face.swap(faces[r : r + 1], faces[2 + c : 3 + c])[0], abs=1e-5)


def test_interpolation_ends_where_reconstruction_and_swap_are(face, faces):
    a, b = faces[0], faces[1]
    rebuilt = face.decode(face.encode(faces[:2]))
    expression, identity, both = (face.interpolate(a, b, 5, move) for move in ("expression", "identity", "both"))
    for path in (expression, identity, both):
        assert path.shape == (5, 64, 64, 3)
        assert path[0] == pytest.approx(rebuilt[0], abs=1e-5)
    assert expression[-1] == pytest.approx(face.swap(a[None], b[None])[0], abs=1e-5)
    assert identity[-1] == pytest.approx(face.swap(b[None], a[None])[0], abs=1e-5)
    assert both[-1] == pytest.approx(rebuilt[1], abs=1e-5)


def test_the_path_is_a_straight_line_of_equal_steps_in_the_code(face, faces):
    a, b = (face.encode(faces[k : k + 1]) for k in (0, 1))
    path = trained_model.line(a, b, 11, "both")
    for codes, start, end in zip(path, a, b, strict=True):
        assert np.diff(codes, axis=0) == pytest.approx(np.broadcast_to((end - start) / 10, (10, 64)), abs=1e-5)
        assert (codes[0] == start[0]).all() and (codes[-1] == end[0]).all()
    still = trained_model.line(a, b, 11, "expression")
    assert (still.identity == a.identity).all() and not (still.expression == a.expression).all()


@pytest.mark.parametrize(
    ("images", "said"),
    [
        (np.zeros((64, 64, 3), np.uint8), "single picture"),
        (np.zeros((2, 32, 32, 3), np.uint8), r"\[2, 32, 32, 3\]"),
        (np.zeros((2, 3, 64, 64), np.float32), r"\[2, 3, 64, 64\]"),
        (np.zeros((1, 64, 64, 3), np.int64), "int64"),
        (np.full((1, 64, 64, 3), 200.0), "200"),
        (np.full((1, 64, 64, 3), -0.1), "-0.1"),
        (np.full((1, 64, 64, 3), np.nan), "NaN"),
    ],
)
def test_pictures_that_cannot_be_encoded_are_explained(face, images, said):
    with pytest.raises(UserError, match=said):
        face.encode(images)


def test_other_mistakes_are_explained(face, faces):
    codes = face.encode(faces)
    with pytest.raises(UserError, match="64"):
        face.decode((codes.identity, codes.expression[:, :10]))
    with pytest.raises(UserError, match="64"):
        face.decode((codes.identity[0], codes.expression[0]))
    with pytest.raises(UserError, match="5 and 2"):
        face.swap(faces, faces[:2])
    with pytest.raises(UserError, match="one picture"):
        face.interpolate(faces, faces[0])
    with pytest.raises(UserError, match="1 steps"):
        face.interpolate(faces[0], faces[1], 1)
    with pytest.raises(UserError, match='"smile"'):
        face.interpolate(faces[0], faces[1], 3, "smile")  # pyright: ignore[reportArgumentType]


def test_a_loaded_run_needs_neither_its_data_nor_tensorflow(tmp_path):
    from tiny_run import person, write_folder, write_run

    data = write_folder(tmp_path / "data", {"train": person(0) + person(1)})
    run = write_run(tmp_path / "run", data)
    data.rename(tmp_path / "moved")
    (run / "config.json").unlink(missing_ok=True)
    script = (
        "import sys, numpy as np\n"
        "sys.modules['tensorflow'] = None\n"  # an import of it would fail
        "import facedisent_jax as fd\n"
        f"face = fd.load({str(run)!r})\n"
        "codes = face.encode(np.zeros((1, 64, 64, 3), np.uint8))\n"
        "print(face.config.seed, face.info['train_subjects'], face.step, face.decode(codes).shape)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "3 ['p000', 'p001'] 0 (1, 64, 64, 3)", done.stderr


def test_importing_the_package_is_quick_and_imports_neither_jax_nor_tensorflow():
    script = (
        "import sys, facedisent_jax; print([m for m in ('jax', 'flax', 'tensorflow', 'numpy') if m in sys.modules])"
    )
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
    assert time.perf_counter() - start < 5  # it takes 0.1 s; the bound is for a loaded machine
    assert set(fd.__all__) <= set(dir(fd))
    with pytest.raises(AttributeError, match="lode"):
        fd.lode  # noqa: B018
