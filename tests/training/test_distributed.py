"""One run on one device, on eight, and in several processes is the same run. Where one process ends, all end."""

import os
import time
from dataclasses import replace
from types import SimpleNamespace

import jax
import numpy as np
import optax
import pytest
from killed import TINY
from several import Faults, perform, start, wait
from tiny_run import person, terms, write_folder

from facedisent_jax import config, presets
from facedisent_jax.commands import train
from facedisent_jax.data.record import Faces
from facedisent_jax.data.triplets import Triplets
from facedisent_jax.errors import UserError
from facedisent_jax.training import checkpoint, loop, step
from facedisent_jax.training.loop import TrainingData, fit, step_chunks
from facedisent_jax.training.signals import StopRequest
from facedisent_jax.training.step import init_state


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder for runs, with their data."""
    folder = tmp_path_factory.mktemp("several")
    people = [r for k in range(6) for r in person(k)]
    write_folder(folder / "data", {"train": people, "validation": person(8) + person(9), "test": person(7)})
    return folder


@pytest.fixture
def fit_and_log(monkeypatch):
    """A function of a config: the state after its steps, and the logged terms."""
    monkeypatch.setattr(loop, "validate", lambda *_: {})
    monkeypatch.setattr(loop, "calibrate", lambda *_: {})
    triplets = Triplets(Faces.of([r for k in range(6) for r in person(k)]))

    def fit_and_log(config: config.Config):
        lines = []
        log = SimpleNamespace(training=lambda step, values, _: lines.append((step, values)), validation=lambda *_: None)
        checkpoints = SimpleNamespace(save=lambda *_: None)
        state = init_state(config, triplets.faces)
        return fit(config, TrainingData(triplets, triplets, {}), state, [], log, checkpoints, StopRequest()), lines

    return fit_and_log


def flatten(tree) -> np.ndarray:
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])


def test_calls_to_the_devices_end_at_validations():
    config = replace(TINY, steps=10, validate_every=4, steps_per_call=3)
    assert list(step_chunks(config, 0)) == [(1, 3), (4, 4), (5, 7), (8, 8), (9, 10)]
    assert list(step_chunks(config, 5)) == [(6, 8), (9, 10)]
    assert list(step_chunks(replace(config, steps_per_call=1), 7)) == [(8, 8), (9, 9), (10, 10)]


@pytest.mark.slow
def test_several_steps_per_call_are_the_same_steps(monkeypatch, fit_and_log):
    monkeypatch.setattr(step, "optimizer", lambda config: optax.sgd(0.5))
    config = replace(TINY, seed=1, steps=4, validate_every=4, log_every=2, loss=presets.POSTER_LOSS)
    state_of_one, lines_of_one = fit_and_log(config)
    state_of_three, lines_of_three = fit_and_log(replace(config, steps_per_call=3))
    np.testing.assert_allclose(flatten(state_of_three.params), flatten(state_of_one.params), rtol=1e-6, atol=1e-8)
    assert [step for step, _ in lines_of_one] == [step for step, _ in lines_of_three] == [2, 4]
    for (_, a), (_, b) in zip(lines_of_one, lines_of_three, strict=True):
        assert a == pytest.approx(b, rel=1e-5, abs=1e-7)


@pytest.mark.slow
@pytest.mark.long
def test_images_that_stay_on_the_device_are_the_same_images(fit_and_log):
    host_state, host_lines = fit_and_log(TINY)
    device_state, device_lines = fit_and_log(replace(TINY, dataset_on_device=True))
    assert flatten(host_state).tobytes() == flatten(device_state).tobytes() and host_lines == device_lines


@pytest.fixture(scope="module")
def single_process(folder):
    """The run in one process with one device."""
    (result,) = perform(folder / "alone", faults=Faults(sgd=True))
    assert len(result.row_hashes) == TINY.steps and all(len(rows) == TINY.batch for rows in result.row_hashes)
    return result


@pytest.mark.slow
@pytest.mark.parametrize(
    ("processes", "devices"),
    [pytest.param(1, 8, marks=pytest.mark.long), (2, 1), pytest.param(4, 2, marks=pytest.mark.long)],
)
def test_several_devices_and_processes_are_one_run(folder, single_process, processes, devices):
    run = folder / f"{processes}x{devices}"
    results = perform(run, processes, devices, faults=Faults(sgd=True))
    rows_by_step = [sum(rows, []) for rows in zip(*(result.row_hashes for result in results), strict=True)]
    assert rows_by_step == single_process.row_hashes  # the data bit for bit
    params, single_params = (flatten(checkpoint.load(path, "last").params) for path in (run, folder / "alone"))
    np.testing.assert_allclose(params, single_params, rtol=1e-4, atol=2e-6)
    assert [line["step"] for line in terms(run)] == [line["step"] for line in terms(folder / "alone")]
    for a, b in zip(terms(run), terms(folder / "alone"), strict=True):
        assert a == pytest.approx(b, rel=1e-4, abs=1e-6)
    assert ["Reading" in result.output for result in results] == [True] + (processes - 1) * [False]


@pytest.mark.slow
@pytest.mark.long
def test_a_run_moves_from_four_processes_to_one_and_to_two(folder):
    straight_run, moved_run = folder / "straight", folder / "moved"
    perform(straight_run)
    perform(moved_run, 4, steps=2)
    perform(moved_run, 1, steps=4)
    main_process, second_process = perform(moved_run, 2, steps=6, slurm=True, report=True)
    assert (moved_run / "report/index.html").stat().st_size > 1000
    assert "Report:" in main_process.output and "Report:" not in second_process.output
    assert checkpoint.steps(moved_run)[-1] == checkpoint.steps(straight_run)[-1] == 6
    assert [line["step"] for line in terms(moved_run)] == [line["step"] for line in terms(straight_run)]
    for a, b in zip(terms(moved_run), terms(straight_run), strict=True):
        assert a == pytest.approx(b, rel=1e-3)


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("victim", [0, 1])
def test_when_one_process_is_killed_the_other_ends_and_the_run_can_continue(folder, victim):
    run = folder / f"killed-{victim}"
    children = start(run, 2, faults=Faults(kill=(victim, 4)))
    children[victim].wait(240)
    since = time.monotonic()
    results = wait(children, 90)
    assert time.monotonic() - since < 75
    assert results[victim].status == -9 and results[1 - victim].status != 0
    assert checkpoint.steps(run)[-1] == 2
    perform(run, 1)
    assert checkpoint.steps(run)[-1] == TINY.steps


@pytest.mark.slow
@pytest.mark.long
def test_all_processes_stop_after_the_same_step_when_one_is_told_to(folder):
    run = folder / "stopped"
    results = wait(start(run, 2, faults=Faults(stop=(1, 3))))
    assert [result.status for result in results] == [143, 143]
    assert 3 <= checkpoint.steps(run)[-1] < TINY.steps
    perform(run, 2)
    assert checkpoint.steps(run)[-1] == TINY.steps


@pytest.mark.slow
def test_a_process_that_fails_says_why_and_the_other_ends(folder):
    run = folder / "refused"
    run.mkdir()
    (run / "something").write_text("not a run")
    since = time.monotonic()
    results = wait(start(run, 2))
    assert time.monotonic() - since < 120
    assert all(result.status for result in results)
    assert any("--run must be a run folder" in result.errors for result in results)


def test_a_batch_that_the_devices_cannot_share_is_refused(folder, monkeypatch):
    monkeypatch.setattr(jax, "device_count", lambda: 3)
    with pytest.raises(UserError, match="--batch must be a multiple of the number of devices, 3, got 8"):
        train.main(replace(TINY, data=(str(folder / "data"),), run=str(folder / "uneven")))


@pytest.mark.parametrize(
    "settings",
    [{"coordinator": "here:1"}, {"distributed": True, "processes": 2}, {"processes": 2, "process": 0},
     {"distributed": True, "coordinator": "here:1", "processes": 2, "process": 2}],
)  # fmt: skip
def test_half_an_address_is_refused(settings):
    with pytest.raises(UserError, match="--coordinator HOST:PORT, --processes N and --process K"):
        config.validate(replace(TINY, **settings))


def test_processes_without_an_address_or_a_scheduler_are_a_sentence(folder):
    (result,) = wait(start(folder / "nobody", distributed=True))
    assert "Waiting for the other processes named by the scheduler" in result.errors
    assert result.status == 1 and "did not find each other" in result.errors and "Traceback" not in result.errors


@pytest.mark.slow
@pytest.mark.long
def test_a_profile_of_two_steps_is_written(folder):
    perform(folder / "profiled", profile=2)
    traces = list((folder / "profiled/profile").rglob("*.xplane.pb"))
    assert len(traces) == 1 and os.path.getsize(traces[0]) > 1000
    assert list((folder / "profiled/profile").rglob("perfetto_trace.json.gz"))
