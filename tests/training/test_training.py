"""The main path: learning, continuing a run exactly, its folder, its refusals."""

import json
import re
import time
from dataclasses import replace
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_run import person, terms, write_folder

from facedisent_jax.commands import train
from facedisent_jax.config import VERSION, AugmentConfig, Config, ModelConfig, OptimConfig, from_dict, to_dict
from facedisent_jax.data.record import Faces
from facedisent_jax.data.triplets import Triplets
from facedisent_jax.errors import UserError
from facedisent_jax.presets import POSTER_LOSS, PRESETS
from facedisent_jax.training import checkpoint, loop
from facedisent_jax.training.loop import NonFiniteError, TrainingData, check_finite, fit
from facedisent_jax.training.signals import StopRequest
from facedisent_jax.training.step import TrainState, init_state, learning_rate, train_step, train_steps
from facedisent_jax.training.validation import _validation_mse, validate

TINY = ModelConfig(width=128, blocks=1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "faces"
    splits = {"train": [r for k in range(5) for r in person(k)], "validation": person(8) + person(9), "test": person(7)}
    return write_folder(path, splits)


def config(folder, run, steps, **changes) -> Config:
    base = Config(data=(str(folder),), run=str(run), steps=steps, batch=4, log_every=1, validate_every=2, report=False)
    return replace(
        base, **{"model": TINY, "loss": POSTER_LOSS, "optim": OptimConfig(warmup_steps=2, decay_steps=8)} | changes
    )


def test_the_run_folder(folder, tmp_path, capsys):
    run = train.main(config(folder, tmp_path / "run", 3))
    assert {p.name for p in run.iterdir() if not p.name.startswith("events")} == {
        "config.json",
        "metrics.jsonl",
        "checkpoints",
        "lock",
    }
    assert any(p.name.startswith("events") for p in run.iterdir())
    steps = [line["step"] for line in terms(run)]
    assert steps == [1, 2, 2, 3, 3]  # validation has lines of its own, here at steps 2 and 3
    assert {"loss", "swap", "label", "identity_triplet"} <= terms(run)[0].keys()
    assert {"validation/reconstruction_psnr", "validation/swap_psnr"} <= terms(run)[2].keys()
    loaded = checkpoint.load(run, "last")
    assert loaded.step == 3 and loaded.config == config(folder, run, 3)
    assert loaded.info["train_subjects"] == [f"p{k:03d}" for k in range(5)]
    assert loaded.info["crop"] == {"detector": "none", "margin": 0.0}
    assert checkpoint.load(run).step in (2, 3)


def test_the_best_checkpoint_is_kept_beside_the_last(folder, tmp_path):
    made = config(folder, tmp_path / "run", 6)
    state = init_state(made, Faces.of(person(0)))
    (tmp_path / "run").mkdir()
    with checkpoint.Checkpoints(made.run) as checkpoints:
        for step, error in ((1, 0.3), (2, 0.1), (3, 0.2), (4, 0.4)):
            state = state._replace(
                step=jnp.int32(step), ema_params=jax.tree.map(lambda p, s=step: p * 0 + s, state.ema_params)
            )
            checkpoints.save(state, made, {}, {"validation/error": error})
        checkpoints.wait()
    assert checkpoint.steps(made.run) == [2, 4]
    for which, step in (("best", 2), ("last", 4), (2, 2)):
        loaded = checkpoint.load(made.run, which)
        assert loaded.step == step and float(jax.tree.leaves(loaded.params)[0].ravel()[0]) == step
    with pytest.raises(UserError, match=r"--step must be best, last or one of \[2, 4\]"):
        checkpoint.load(made.run, 3)


def test_a_run_of_other_settings_is_not_continued(folder, tmp_path):
    run = train.main(config(folder, tmp_path / "run", 2))
    before = (run / "metrics.jsonl").read_text()
    with pytest.raises(UserError, match=r"batch 8 here, 4 there"):
        train.main(config(folder, run, 4, batch=8))
    assert (run / "metrics.jsonl").read_text() == before


@pytest.mark.slow
def test_a_run_can_begin_with_the_weights_of_another(folder, tmp_path):
    first = train.main(config(folder, tmp_path / "first", 2))
    still = OptimConfig(lr=0.0, warmup_steps=2, decay_steps=8)
    second = train.main(config(folder, tmp_path / "second", 2, init_from=str(first), optim=still))
    one, two = checkpoint.load(first), checkpoint.load(second)
    for a, b in zip(jax.tree.leaves(one.params), jax.tree.leaves(two.params), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)
    assert train.main(config(folder, second, 4, init_from=str(first), optim=still)) == second  # and be continued


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"model": replace(TINY, blocks=2)}, "blocks 2 here, 1 there"),
        ({"data": "other"}, "trained on 1 .*p003"),
    ],
)
def test_weights_that_do_not_fit_or_know_the_held_out_are_refused(folder, tmp_path, changes, match):
    first = train.main(config(folder, tmp_path / "first", 2))
    if "data" in changes:
        other = write_folder(tmp_path / "other", {"train": person(1), "validation": person(3), "test": person(9)})
        changes = {"data": (str(other),)}
    with pytest.raises(UserError, match=match):
        train.main(config(folder, tmp_path / "second", 2, init_from=str(first), **changes))
    assert not (tmp_path / "second").exists()


@pytest.mark.parametrize(
    "options",
    [
        "--steps 0",
        "--batch 0",
        "--model.width 100",
        "--optim.decay-steps 100",
        "--intensity-step 0",
        "--seed -1",
        "--objective.mouth-weight 0",
    ],
)
def test_settings_that_no_run_can_have_are_named(folder, tmp_path, options):
    option, value = options.split()
    made = train.parse(["smile", "--data", str(folder), "--run", str(tmp_path / "run"), option, value])
    with pytest.raises(UserError, match=f"{option} must be .*, got {value}"):
        train.main(made)
    assert not (tmp_path / "run").exists()


def test_ends_only_trains_on_neutral_and_apex_of_clips(tmp_path, capsys):
    levels = (0.0, 0.04, 0.3, 0.6, 0.97, 1.0)
    splits = {"train": person(1, levels) + person(2, levels), "validation": person(3), "test": person(4)}
    folder = write_folder(tmp_path / "clips", splits)
    train.main(config(folder, tmp_path / "run", 1, ends_only=True))
    assert "8 training images of 2 subjects" in capsys.readouterr().out


def test_a_folder_that_is_no_run_is_left_alone(folder, tmp_path):
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(UserError, match="--run must be a run folder"):
        train.main(config(folder, tmp_path, 2))
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_without_test_people_the_run_ends_well_and_says_why_there_is_no_report(tmp_path, capsys):
    data = write_folder(tmp_path / "data", {"train": person(1) + person(2), "validation": person(3)})
    run = train.main(config(data, tmp_path / "run", 2, report=True))
    assert "No report: the data has no test images" in capsys.readouterr().out and not (run / "report").exists()
    train.main(config(data, tmp_path / "run", 1))
    assert "2 steps done before, --steps asks for 1" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("where", "match"), [("", "no run folder"), ("empty", "no finished checkpoint: give a run folder")]
)
def test_loading_what_is_not_there_is_a_sentence(tmp_path, where, match):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=match):
        checkpoint.load(tmp_path / (where or "nothing"))


@pytest.mark.slow
def test_one_batch_can_be_overfitted():
    made = Config(
        model=ModelConfig(width=128, blocks=1),
        loss=POSTER_LOSS,
        augment=AugmentConfig(enabled=False),
        optim=OptimConfig(lr=3e-3, warmup_steps=5, decay_steps=10**6, ema_decay=0.0),
    )
    rng = np.random.default_rng(0)
    faces = Faces.of(
        [r._replace(image=rng.integers(0, 255, (64, 64, 3), np.uint8)) for k in range(2) for r in person(k)]
    )
    triplets = Triplets(faces)
    batch = triplets.batch(0, 0, 4)
    state = init_state(made, faces)
    first = None
    for _ in range(150):
        state, metrics = train_step(made, state, batch)
        first = first or {k: float(v) for k, v in metrics.items()}
    assert metrics["reconstruction"] < 0.1 * first["reconstruction"] < 1e-3  # so few begin all but known, by components
    assert metrics["swap"] < 0.01 * first["swap"]
    assert metrics["label"] < 0.4 * first["label"]


def test_a_term_that_is_not_finite_stops_training_with_its_name_and_step():
    values = [(7, {"swap": np.asarray(1.0)}), (8, {"swap": np.asarray(np.nan)})]
    with pytest.raises(NonFiniteError, match="swap not finite at step 8"):
        check_finite(values)


def test_weights_of_a_step_that_is_not_finite_are_never_saved(folder, tmp_path):
    broken = config(folder, tmp_path / "run", 4, optim=OptimConfig(lr=float("nan"), warmup_steps=0, decay_steps=8))
    with pytest.raises(NonFiniteError, match="at step 2"):
        train.main(broken)
    assert checkpoint.steps(tmp_path / "run") == []


def test_the_learning_rate_does_not_depend_on_steps():
    rate = learning_rate(OptimConfig(lr=1.0, warmup_steps=10, decay_steps=100))
    np.testing.assert_allclose([rate(5), rate(10), rate(100), rate(1000)], [0.5, 1.0, 0.01, 0.01], rtol=1e-5)


def test_validation_counts_each_picture_once_whatever_the_batch(folder):
    made = config(folder, "", 1)
    faces = Faces.of([r for k in range(5) for r in person(k)])
    params = init_state(made, faces).params
    figures = validate(made, params, Triplets(faces))
    batch = Triplets(faces).batch(0, 0, 10)
    errors = _validation_mse(made, params, batch)
    expected = np.mean(-10 * np.log10(np.asarray(errors["reconstruction"])))
    assert figures["validation/reconstruction_psnr"] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("name", PRESETS)
def test_a_config_written_is_a_config_read(name):
    made = PRESETS[name].config
    assert from_dict(json.loads(json.dumps(to_dict(made)))) == made and made.preset == name


def test_a_config_of_another_version_names_what_it_does_not_know():
    with pytest.raises(UserError, match="model.depth"):
        from_dict({"version": VERSION, "model": {"depth": 3}})


@pytest.mark.parametrize(("running", "batches_waited_for"), [(False, 4), (True, 1)])
def test_a_batch_that_is_fetched_while_a_step_runs_keeps_nothing_waiting(monkeypatch, running, batches_waited_for):
    class Loss:
        def is_ready(self):
            return not running

        def __array__(self, *_, **__):
            return np.array(0, np.float32)

    def step(config, state, batch, pictures):
        return state._replace(step=state.step + 1), {"loss": Loss()}

    def stream():
        for step in range(4):
            time.sleep(0.2)
            yield triplets.batch(0, step, 8)

    monkeypatch.setattr(loop, "train_step", step)
    triplets, seconds = Triplets(Faces.of([r for k in range(4) for r in person(k)])), []
    made = replace(PRESETS["smile"].config, batch=8, steps=4, log_every=4)
    state = TrainState(np.int32(0), {}, {}, ())
    monkeypatch.setattr(loop, "batches", lambda *_: stream())
    monkeypatch.setattr(loop, "validate", lambda *_: {})
    log = SimpleNamespace(training=lambda step, terms, waited: seconds.append(waited), validation=lambda *_: None)
    checkpoints = SimpleNamespace(save=lambda *_: None)
    fit(made, TrainingData(triplets, triplets, {}), state, [], log, checkpoints, StopRequest())
    (waited,) = seconds
    assert 0.2 * batches_waited_for <= waited < 0.2 * batches_waited_for + 0.4


@pytest.mark.parametrize("preset", ["intensity", pytest.param("warp", marks=pytest.mark.slow)])
def test_the_gradient_is_the_same_without_the_compilers_fusion(preset):
    """A compiler that writes a result over what it has yet to read goes unseen in the losses and wrong in the step."""
    faces = Faces.of([record for k in range(4) for record in person(k, np.linspace(0, 1, 5), sequence="take")])
    made = PRESETS[preset].config
    made = replace(
        made,
        batch=4,
        model=replace(made.model, width=128, blocks=1),
        augment=AugmentConfig(enabled=False),
        optim=replace(made.optim, warmup_steps=1, decay_steps=8),
    )
    rng = np.random.default_rng(0)
    # Layers that begin at zero would hide what is behind them.
    params = jax.tree.map(
        lambda p: np.where(p == 0, rng.normal(0, 0.01, p.shape), p).astype(np.float32),
        jax.device_get(init_state(made, faces).params),
    )
    batch = Triplets(faces, made.intensity_step, with_middle=made.model.kind == "warp").batch(0, 0, made.batch)
    moments = []
    for options in ({}, {"xla_disable_hlo_passes": "fusion"}):
        state = init_state(made, faces, params)
        step = train_step.lower(made, state, batch).compile(compiler_options=options)
        moments.append(jax.tree.leaves(step(state, batch)[0].opt_state[1][0].mu))
    apart = sum(float(jnp.sum((a - b) ** 2)) for a, b in zip(*moments, strict=True))
    assert apart < 1e-6 * sum(float(jnp.sum(b**2)) for b in moments[1])


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="what XLA does on CPU")
def test_the_augmented_pictures_are_computed_once_a_step():
    faces = Faces.of([record for k in range(4) for record in person(k)])
    made = replace(PRESETS["smile"].config, model=TINY, batch=4)
    assert made.augment.enabled and made.augment.flip
    batch = Triplets(faces, made.intensity_step).batch(0, 0, made.batch)
    program = train_step.lower(made, init_state(made, faces), batch).compile().as_text()
    triplets = r" f32\[4,64,64,9\]"  # four, of three pictures of three colours
    assert len(re.findall(triplets + r"\S* reverse\(", program)) == 1


@pytest.mark.parametrize("kind", ["hybrid", "plain"])
@pytest.mark.skipif(jax.default_backend() != "cpu", reason="what XLA does on CPU")
def test_convolutions_of_several_steps_a_call_have_the_layout_that_is_fast(kind):
    faces = Faces.of([record for k in range(4) for record in person(k)])
    made = replace(
        PRESETS["smile"].config, model=replace(TINY, kind=kind, width=128 if kind == "hybrid" else 8), batch=4
    )
    batch = Triplets(faces, made.intensity_step).batch(0, 0, made.batch)
    batches = jax.tree.map(lambda value: np.stack([value, value]), batch)
    program = train_steps.lower(made, init_state(made, faces), batches).compile().as_text()
    assert "while(" in program
    layouts = re.findall(r"dim_labels=(\S+?),? ", program)
    assert len(layouts) > 10 and set(layouts) == {"b01f_01io->b01f"}
