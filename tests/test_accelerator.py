"""The benchmark for accelerators: packed pictures, its rehearsal on a CPU, and what it counts on paper."""

import json
import os
import subprocess
import sys
import time
from argparse import Namespace
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_run import ROOT, person, write_folder

from facedisent_jax.data.reading import read_split
from facedisent_jax.errors import UserError
from facedisent_jax.presets import PRESETS

sys.path.append(str(ROOT / "benchmarks"))

import accelerator  # noqa: E402
import accelerator_pictures as pictures  # noqa: E402
import accelerator_right  # noqa: E402
import accelerator_steps  # noqa: E402
import collectives  # noqa: E402
import floor  # noqa: E402
from accelerator_training import load_weights  # noqa: E402

LEVELS = np.linspace(0, 1, 5)
HIDDEN = ("tensorflow", "tensorflow_datasets", "tyro", "cv2", "matplotlib", "PIL", "tqdm", "beartype")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    people = [person(k, LEVELS, sequence="take") for k in range(7)]
    splits = {"train": sum(people[:4], []), "validation": sum(people[4:6], []), "test": people[6]}
    return write_folder(tmp_path_factory.mktemp("packed") / "data", splits)


@pytest.fixture(scope="module")
def npz(folder):
    path = folder.parent / "pictures.npz"
    pictures.pack(folder, path)
    return path


@pytest.fixture(scope="module")
def bare_environment(tmp_path_factory):
    """The environment of a process that has nothing but JAX, Flax, Optax, Orbax, numpy, jaxtyping and PyTorch."""
    stubs = tmp_path_factory.mktemp("hidden")
    for name in HIDDEN:
        (stubs / f"{name}.py").write_text(f"raise ImportError('{name} is hidden')")
    return os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (stubs, ROOT, ROOT / "benchmarks")))}


def run_bare(environment: dict, *arguments: object) -> str:
    command = [sys.executable, *map(str, arguments)]
    result = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-4000:]
    return result.stdout


def test_packed_pictures_are_the_records_of_the_folder(folder, npz):
    train, held_out = pictures.load(npz)
    for faces, splits in ((train, ["train"]), (held_out, ["validation", "test"])):
        parts = [read_split(folder, split) for split in splits]
        for name, column in vars(faces).items():
            np.testing.assert_array_equal(column, np.concatenate([getattr(part, name) for part in parts]), err_msg=name)


def test_a_file_that_is_not_packed_pictures_is_answered_in_a_sentence(tmp_path, folder):
    with pytest.raises(UserError, match="must be a file written with --pack, got .*missing.npz"):
        pictures.load(tmp_path / "missing.npz")
    for name, write in (("text.npz", lambda p: p.write_text("no")), ("other.npz", lambda p: np.savez(p, a=[1]))):
        write(tmp_path / name)
        with pytest.raises(UserError, match="must be a file written with --pack"):
            pictures.load(tmp_path / name)
    with pytest.raises(UserError, match=".npz"):
        pictures.pack(folder, tmp_path / "pictures.zip")


def test_every_row_and_preset_finds_its_batches_in_packed_pictures(npz):
    train, _ = pictures.load(npz)
    rows = [(row.preset, {"batch": row.batch, "steps_per_call": row.steps_per_call}) for row in accelerator_steps.ROWS]
    for preset, changes in [*rows, *((name, {}) for name in accelerator_right.PRESETS)]:
        for resident in (False, True):
            config = pictures.preset_config(preset, True, dataset_on_device=resident, **changes)
            triplets = pictures.triplets_of(config, train)
            first, second = pictures.draw_call(config, triplets)(0), pictures.draw_call(config, triplets)(1)
            steps = () if config.steps_per_call == 1 else (config.steps_per_call,)
            assert first.images.shape == (*steps, 3, config.batch, *(() if resident else (64, 64, 3)))
            assert not np.array_equal(first.images, second.images)
            np.testing.assert_array_equal(next(pictures.stream(config, triplets)).images, first.images)
    assert set(accelerator_right.PRESETS) == set(PRESETS)


def test_a_difference_of_two_devices_is_relative_to_loss_and_gradient():
    def result(gradient: float, loss: float) -> tuple:
        """Of a step from the moment 2, whose gradient has the norm 5 * `gradient`."""
        moment = {"a": np.array([0.9 * 2 + 0.1 * 3 * gradient]), "b": np.array([0.9 * 2 + 0.1 * 4 * gradient])}
        return state(moment), {"loss": loss}

    def state(moment: dict) -> SimpleNamespace:
        return SimpleNamespace(opt_state=((), (SimpleNamespace(mu=moment),)))

    before = state({"a": np.array([2.0]), "b": np.array([2.0])})
    differences = accelerator_right.relative_differences(before, result(1.01, 2.02), result(1.0, 2.0))
    assert differences == pytest.approx({"loss": 0.01, "gradient": 0.01})


STEP_AND_EVALUATION = """
import sys
from pathlib import Path
import accelerator_pictures as pictures
from facedisent_jax.data.triplets import Triplets
from facedisent_jax.evaluation.stills import evaluate_stills
from facedisent_jax.trained_model import TrainedModel
from facedisent_jax.training.step import init_state, train_step
from facedisent_jax.training.validation import validate

train, held_out = pictures.load(Path(sys.argv[1]))
config = pictures.preset_config("smile", rehearse=True)
triplets = pictures.triplets_of(config, train)
state, metrics = train_step(config, init_state(config, train), next(pictures.stream(config, triplets)))
assert 0 < float(metrics["loss"]) < 10
validate(config, state.ema_params, Triplets(held_out, with_middle=False))
model = TrainedModel(state.ema_params, config, {"expressions": ["smile"], "data": ["not here"]}, 1)
print("PSNR", evaluate_stills(model, held_out).metrics["reconstruction"]["psnr"])
print("hidden", sorted(set(sys.argv[2:]) & set(sys.modules)))
"""


@pytest.mark.slow
def test_training_and_evaluation_need_no_tensorflow(npz, bare_environment):
    """A promise: model, losses, step, augmentation, triplets and the evaluation of stills run without these."""
    output = run_bare(bare_environment, "-c", STEP_AND_EVALUATION, npz, *HIDDEN)
    assert "PSNR" in output and "hidden []" in output


@pytest.mark.slow
@pytest.mark.long
def test_all_of_it_can_be_rehearsed_on_a_cpu(npz, bare_environment, tmp_path):
    out = tmp_path / "accelerator.json"
    options = [npz, "--rehearse", "--json", out, "--out", tmp_path]
    output = run_bare(bare_environment, "benchmarks/accelerator.py", *options)
    result = json.loads(out.read_text())
    figures = {(figure["piece"], figure["what"]): figure for figure in result["figures"]}
    pieces = [name for part in accelerator.PIECES.values() for name in part]
    assert {piece for piece, _ in figures} == set(pieces)
    unmeasured = [figure for figure in result["figures"] if figure["value"] is None]
    assert all(figure["note"] in ("not installed", "this device does not say") for figure in unmeasured), unmeasured
    assert all(figure["device_kind"] == "cpu" for figure in result["figures"] if figure["value"] is not None)
    assert all(figure["what"] in output for figure in result["figures"])
    right = [figure for (piece, _), figure in figures.items() if piece == "right"]
    assert all(figure["met"] for figure in right if "bfloat16" not in figure["what"]), right
    assert result["rehearsal"]
    config, params = load_weights(tmp_path / "accelerator-smile.npz")
    assert config.preset == "smile" and np.isfinite(params["decoder"]["pixel_kernel"]).all()


@pytest.fixture
def figures_of(tmp_path, monkeypatch, npz):
    """A function of what a piece does after its first figure, and of its limit in seconds: all that is reported."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(ROOT)]))
    monkeypatch.setattr(accelerator, "NO_TIME", 0.1)

    def figures_of(code: str, seconds: float) -> list[tuple[str, str]]:
        (tmp_path / "accelerator_example.py").write_text(
            "import os, time\nfrom accelerator_figures import report\n"
            f"def measure(piece):\n    report('first', 1.0, device='none')\n    {code}\n"
        )
        options = Namespace(pictures=npz, rehearse=False, out=tmp_path)
        figures = accelerator.figures_of("example", options, time.monotonic() + seconds)
        return [(figure["what"], figure["note"]) for figure in figures]

    return figures_of


def test_a_piece_that_fails_keeps_its_figures(figures_of):
    assert figures_of("os._exit(3)", 600) == [("first", ""), ("example, the rest", "it ended with status 3")]


def test_a_piece_that_takes_too_long_is_stopped(figures_of):
    start = time.monotonic()
    assert figures_of("time.sleep(600)", 1)[-1] == ("example, the rest", "out of time")
    assert time.monotonic() - start < 300


def test_figures_of_another_part_stay_in_the_file(tmp_path):
    path = tmp_path / "result.json"
    path.write_text(json.dumps({"figures": [{"part": "speed", "what": "a"}, {"part": "quality", "what": "b"}]}))
    assert [figure["what"] for figure in accelerator.read_result(path, ["quality"])["figures"]] == ["a"]
    path.write_text("[1]")
    with pytest.raises(UserError, match="--json must be"):
        accelerator.read_result(path, ["quality"])


def test_operations_are_counted_in_products_convolutions_loops_and_branches():
    a, b = jnp.zeros((3, 4)), jnp.zeros((4, 5))
    image, kernel = jnp.zeros((2, 8, 8, 3)), jnp.zeros((3, 3, 3, 6))

    def count(function, *arguments):
        return floor.count_flops(jax.make_jaxpr(function)(*arguments).jaxpr)

    def convolve(x, k):
        return jax.lax.conv_general_dilated(x, k, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))

    product, convolution = 2 * 3 * 4 * 5, 2 * (2 * 8 * 8 * 6) * (3 * 3 * 3)
    assert count(jnp.dot, a, b) == product
    assert count(convolve, image, kernel) == convolution
    assert count(jax.jit(lambda a, b: jnp.sin(a @ b)), a, b) == product
    assert count(lambda a, b: jax.lax.scan(lambda c, _: (c, a @ b), 0, length=7), a, b) == 7 * product
    branches = (lambda a, b: a @ b, lambda a, b: a @ (b @ jnp.zeros((5, 5))))
    assert count(lambda k, a, b: jax.lax.switch(k, branches, a, b), 0, a, b) == product + 2 * 4 * 5 * 5


def test_collectives_are_counted_with_the_bytes_of_their_results():
    program = """
  %a = f32[4,2]{1,0} all-reduce(%x), channel_id=1
  %b = (f32[3]{0}, u8[5]{0}) all-reduce(%x, %y), to_apply=%sum
  %c = bf16[8,2]{1,0} all-gather(%z), dimensions={0}
  %d = f32[9]{0} add(%x, %y)
"""
    operations = collectives.find_collectives(program)
    assert [(operation.kind, operation.size) for operation in operations] == [
        ("all-reduce", 32),
        ("all-reduce", 17),
        ("all-gather", 32),
    ]
    assert operations[1].arrays == ("f32[3]", "u8[5]")


@pytest.mark.slow
def test_devices_exchange_the_gradient_and_little_else(tmp_path):
    """On eight devices a step reduces about as many bytes as there are weights, and sends little else."""
    out = tmp_path / "collectives.json"
    subprocess.run([sys.executable, "benchmarks/collectives.py", "--json", str(out)], cwd=ROOT, check=True)
    result = json.loads(out.read_text())
    sizes = {kind: operations["bytes"] / result["weights"] for kind, operations in result["collectives"].items()}
    assert 0.9 < sizes.pop("all-reduce") < 1.1
    assert sum(sizes.values()) < 0.1
