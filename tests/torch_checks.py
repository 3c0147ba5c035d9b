"""Benchmarks against PyTorch: both sides are the same function, for every kind of network and memory layout.

Run by test_benchmarks in a process of its own: PyTorch's compiler and TensorFlow in one process crash.
"""

import sys
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_run import person

from facedisent_jax.config import AugmentConfig, ModelConfig
from facedisent_jax.data.record import Faces
from facedisent_jax.data.triplets import Triplets
from facedisent_jax.models import alignment, decode, encode, sampling
from facedisent_jax.presets import PRESETS
from facedisent_jax.training.step import init_state, train_step

torch = pytest.importorskip("torch", reason="needs PyTorch: pip install 'facedisent-jax[bench]'")
sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))

import timing  # noqa: E402
import torch_reference as net  # noqa: E402
import torch_step  # noqa: E402
import train_step as benchmark  # noqa: E402

KINDS = {
    "hybrid": ModelConfig(width=128, blocks=1),
    "plain": ModelConfig("plain", 8),
    "warp": ModelConfig("warp", 128, 1),
}


def tiny(kind: str):
    """The preset of the kind with a small network and the peak learning rate from the first step."""
    preset = PRESETS[benchmark.PRESETS[kind]].config
    optim = replace(preset.optim, warmup_steps=1, decay_steps=8)
    return replace(preset, batch=4, model=KINDS[kind], optim=optim, augment=AugmentConfig(enabled=False))


@pytest.fixture(scope="module")
def faces():
    levels = np.linspace(0, 1, 5)
    return Faces.of([record for k in range(4) for record in person(k, levels, sequence="take")])


def test_the_twin_finds_the_same_head_motion():
    start = np.random.default_rng(0).random((3, 8, 8, 3))
    image_a = jax.image.resize(jnp.asarray(start, jnp.float32), (3, 64, 64, 3), "cubic")
    coefficients = jnp.asarray([(1.0, -2, 0, 0), (0, 0, 1.5, 0), (0.5, 0, 0, -1.5)])
    flow = jnp.einsum("hwdk,nk->nhwd", alignment.similarity_basis(64), coefficients)
    image_b = 0.8 * sampling.warp_image(image_a, flow) + 0.1
    jax_motion = alignment.head_motion(image_a, image_b)
    torch_motion = net.head_motion(*(torch.from_numpy(np.asarray(x)).permute(0, 3, 1, 2) for x in (image_a, image_b)))
    assert np.abs(jax_motion).mean() > 0.5
    np.testing.assert_allclose(torch_motion, jax_motion, atol=2e-3)


@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_the_twin_trains_as_we_do(kind, channels_last, faces):
    config = tiny(kind)
    triplets = Triplets(faces)
    params = benchmark.weights(config, faces)
    state, twin = init_state(config, faces, params), torch_step.Training(config, params, channels_last, False)
    for step in range(6):
        batch = triplets.batch(0, step, config.batch)
        state, terms = train_step(config, state, batch)
        torch_terms = twin.step(batch)
        assert terms.keys() == torch_terms.keys()
        # Later the two drift apart by rounding: Adam turns a gradient of nearly nothing into a full step.
        for name in terms if step == 0 else ("loss",):
            np.testing.assert_allclose(float(torch_terms[name]), float(terms[name]), rtol=2e-3, atol=1e-6, err_msg=name)
    ema_params = torch_step.leaves(net.tensors(jax.device_get(state.ema_params), channels_last))
    start = torch_step.leaves(net.tensors(params, channels_last))
    change = sum(float(((ema_params[path] - start[path]) ** 2).sum()) for path in ema_params)
    difference = sum(
        float(((value - ema_params[path]) ** 2).sum()) for path, value in zip(ema_params, twin.ema_params, strict=True)
    )
    assert difference < 1e-2 * change


@pytest.mark.parametrize("kind", ["hybrid", "plain"])
def test_the_twin_encodes_and_decodes_as_we_do(kind, faces):
    model = KINDS[kind]
    params = jax.tree.map(jnp.asarray, benchmark.weights(tiny(kind), faces))
    images = np.random.default_rng(0).random((3, 64, 64, 3), np.float32)
    codes = encode(model, params, jnp.asarray(images))
    for channels_last in (True, False):
        torch_params = net.tensors(params, channels_last)
        x = net.to_layout(torch.from_numpy(images).permute(0, 3, 1, 2), channels_last)
        torch_codes = net.encode(model, torch_params, x, channels_last)
        for a, b in zip(codes, torch_codes, strict=True):
            np.testing.assert_allclose(b.numpy(), a, atol=2e-5)
        image = net.decode(model, torch_params, torch_codes, channels_last).permute(0, 2, 3, 1)
        np.testing.assert_allclose(image.numpy(), decode(model, params, codes), atol=2e-5)


def test_times_are_not_compared_if_the_functions_differ(faces, monkeypatch):
    config = tiny("plain")
    params = benchmark.weights(config, faces)
    batches = [Triplets(faces).batch(0, k, config.batch) for k in range(2)]
    mse = torch_step.mse
    monkeypatch.setattr(torch_step, "mse", lambda *arguments: 1.01 * mse(*arguments))
    with pytest.raises(SystemExit, match="not the same function"):
        benchmark.equality(config, params, faces, batches)


SCRIPT = """
import sys
import timing
if sys.argv[-1] == "broken":
    raise RuntimeError("no C++ compiler")
timing.serve(lambda calls: print("called", calls, file=open(sys.argv[1], "a")))
"""


@pytest.fixture
def script(tmp_path):
    (tmp_path / "script.py").write_text(
        f"import sys; sys.path.append({timing.__file__!r}.rpartition('/')[0])\n" + SCRIPT
    )
    return [str(tmp_path / "script.py"), str(tmp_path / "called")]


def test_sides_are_timed_in_turn(script, tmp_path):
    sides = [timing.Side(name, script) for name in "ab"]
    assert [side.failure() for side in sides] == ["", ""]
    seconds = timing.in_turn(sides, 2, 5)
    for side in sides:
        side.close()
    assert (tmp_path / "called").read_text().split("\n")[2:-1] == ["called 1", "called 5"] * 4
    assert {name: len(values) for name, values in seconds.items()} == {"a": 2, "b": 2}
    assert timing.medians({"a": [3.0, 1.0, 2.0]}) == {"a": 2.0}


def test_a_side_that_cannot_be_compiled_is_reported(script, monkeypatch):
    monkeypatch.setattr(timing, "WAYS", {"eager": (False, False), "broken": (False, True)})
    seconds, errors, best = timing.fastest(script, 1)
    best.close()
    assert list(seconds) == [best.name] == ["eager"] and errors == {"broken": "RuntimeError: no C++ compiler"}
    monkeypatch.setattr(timing, "WAYS", {"broken": (False, False)})
    with pytest.raises(SystemExit, match="no C.. compiler"):
        timing.fastest(script, 1)
