"""One run on one device, on eight, and in several processes is the same run; where one process is gone, all end."""

import os
import time
from dataclasses import replace

import jax
import numpy as np
import optax
import pytest
from killed import TINY
from several import begin, ended, perform
from tiny_run import person, terms, write_folder

from facedisent_jax import config, presets
from facedisent_jax.commands import train
from facedisent_jax.data.record import Faces
from facedisent_jax.data.triplets import Triplets
from facedisent_jax.errors import UserError
from facedisent_jax.training import checkpoint, distributed, step
from facedisent_jax.training.loop import fit, step_chunks
from facedisent_jax.training.step import init_state

SGD = {"sgd": True}
"""Adam divides by the size of the gradient, and so makes much of a rounding where that is near 0."""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    made = tmp_path_factory.mktemp("several")
    people = [r for k in range(6) for r in person(k)]
    write_folder(made / "data", {"train": people, "validation": person(8) + person(9), "test": person(7)})
    return made


def faces():
    return Faces.of([r for k in range(6) for r in person(k)])


def fitted(made: config.Config, skipped=frozenset(), resident=False):
    """The state after the steps, and what was logged."""
    triplets, lines = Triplets(faces()), []
    batches = (triplets.batch(0, step, made.batch, pictures=not resident) for step in range(made.steps))
    state = init_state(made, triplets.faces)
    pictures = distributed.replicated(triplets.faces.image) if resident else None
    log, keep = (lambda step, values, _: lines.append((step, values))), (lambda *_: None)
    return fit(made, state, batches, log, keep, skipped=skipped, pictures=pictures), lines


def numbers(tree) -> np.ndarray:
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])


def test_calls_end_at_validations_and_leave_skipped_steps_alone():
    made = replace(TINY, steps=10, validate_every=4, steps_per_call=3)
    assert list(step_chunks(made, 0)) == [(1, 3), (4, 4), (5, 7), (8, 8), (9, 10)]
    assert list(step_chunks(made, 5)) == [(6, 8), (9, 10)]
    assert list(step_chunks(made, 0, frozenset({2, 4, 5}))) == [
        (1, 1), (2, 2), (3, 3), (4, 4), (5, 5), (6, 8), (9, 10)
    ]  # fmt: skip
    assert list(step_chunks(replace(made, steps_per_call=1), 7)) == [(8, 8), (9, 9), (10, 10)]


@pytest.mark.slow
def test_several_steps_a_call_are_the_same_steps(monkeypatch):
    monkeypatch.setattr(step, "optimizer", lambda config: optax.sgd(0.5))
    made = replace(TINY, seed=1, steps=7, validate_every=7, log_every=2, loss=presets.POSTER_LOSS)
    one, lines = fitted(made, frozenset({4}))
    many, other = fitted(replace(made, steps_per_call=3), frozenset({4}))
    again, _ = fitted(replace(made, steps_per_call=3), frozenset({4}))
    assert numbers(many).tobytes() == numbers(again).tobytes()
    np.testing.assert_allclose(numbers(many.params), numbers(one.params), rtol=1e-6, atol=1e-8)
    assert [step for step, _ in lines] == [step for step, _ in other] == [2, 4, 6, 7]
    for (_, a), (_, b) in zip(lines, other, strict=True):
        assert a == pytest.approx(b, rel=1e-5, abs=1e-7)


@pytest.mark.slow
def test_pictures_that_stay_on_the_device_are_the_same_pictures():
    sent, lines = fitted(TINY)
    kept, other = fitted(TINY, resident=True)
    assert numbers(sent).tobytes() == numbers(kept).tobytes() and lines == other


@pytest.fixture(scope="module")
def alone(place):
    (alone,) = perform(place / "alone", job=SGD)
    assert len(alone.rows) == TINY.steps and all(len(rows) == TINY.batch for rows in alone.rows)
    return alone


@pytest.mark.slow
@pytest.mark.parametrize(("processes", "local"), [pytest.param(1, 8, marks=pytest.mark.long), (2, 1), (4, 2)])
def test_several_devices_and_processes_are_one_run(place, alone, processes, local):
    run = place / f"{processes}x{local}"
    parts = perform(run, processes, local, job=SGD)
    together = [sum(rows, []) for rows in zip(*(part.rows for part in parts), strict=True)]
    assert together == alone.rows  # the data bit for bit
    here, there = (numbers(checkpoint.load(one, "last").params) for one in (run, place / "alone"))
    np.testing.assert_allclose(here, there, rtol=1e-4, atol=2e-6)
    assert [line["step"] for line in terms(run)] == [line["step"] for line in terms(place / "alone")]
    for a, b in zip(terms(run), terms(place / "alone"), strict=True):
        assert a == pytest.approx(b, rel=1e-4, abs=1e-6)
    assert ["Reading" in part.said for part in parts] == [True] + (processes - 1) * [False]


@pytest.mark.slow
def test_a_checkpoint_goes_from_four_processes_to_one_and_back(place):
    straight, moved = place / "straight", place / "moved"
    perform(straight)
    perform(moved, 4, steps=2)
    perform(moved, 1, steps=4)
    first, second = perform(moved, 2, steps=6, job={"slurm": True}, report=True)
    assert (moved / "report/index.html").stat().st_size > 1000
    assert "Report:" in first.said and "Report:" not in second.said
    assert checkpoint.steps(moved)[-1] == checkpoint.steps(straight)[-1] == 6
    assert [line["step"] for line in terms(moved)] == [line["step"] for line in terms(straight)]
    for a, b in zip(terms(moved), terms(straight), strict=True):
        assert a == pytest.approx(b, rel=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("gone", [0, pytest.param(1, marks=pytest.mark.long)])
def test_where_one_process_is_killed_the_other_says_so_and_the_run_can_go_on(place, gone):
    run = place / f"killed-{gone}"
    started = begin(run, 2, job={"kill": [gone, 4]})
    started[gone].wait(240)
    before = time.monotonic()
    done = ended(started, 60)
    assert time.monotonic() - before < 60
    left = done[1 - gone]
    assert done[gone].status == -9 and left.status == 1
    assert f"process {gone} of 2 is gone" in left.errors and "Traceback" not in left.errors
    assert checkpoint.steps(run)[-1] == 2
    perform(run, 1)
    assert checkpoint.steps(run)[-1] == TINY.steps


@pytest.mark.slow
@pytest.mark.long
def test_all_stop_after_the_same_step_where_one_is_told_to(place):
    run = place / "stopped"
    done = ended(begin(run, 2, job={"stop": [1, 3]}))
    assert [one.status for one in done] == [143, 143]
    last = checkpoint.steps(run)[-1]
    assert 3 <= last < TINY.steps
    perform(run, 2)
    assert checkpoint.steps(run)[-1] == TINY.steps


@pytest.mark.slow
def test_a_process_that_fails_says_why_and_the_other_ends(place):
    run = place / "refused"
    run.mkdir()
    (run / "something").write_text("not a run")
    done = ended(begin(run, 2))
    assert [one.status for one in done] == [1, 1]
    assert any("is not a run" in one.errors for one in done)
    assert not any("Traceback" in one.errors for one in done)


def test_a_batch_that_the_devices_cannot_share_is_refused(place, monkeypatch):
    monkeypatch.setattr(jax, "device_count", lambda: 3)
    with pytest.raises(UserError, match="--batch is 8, and there are 3 devices: a multiple of 3"):
        train.main(replace(TINY, data=(str(place / "data"),), run=str(place / "uneven")))


@pytest.mark.parametrize(
    "settings",
    [{"coordinator": "here:1"}, {"distributed": True, "processes": 2}, {"processes": 2, "process": 0},
     {"distributed": True, "coordinator": "here:1", "processes": 2, "process": 2}],
)  # fmt: skip
def test_processes_that_are_half_described_are_refused(settings):
    with pytest.raises(UserError, match="--coordinator HOST:PORT --processes N --process K"):
        config.validate(replace(TINY, **settings))


def test_processes_that_nobody_tells_of_each_other_are_a_sentence(place):
    (alone,) = ended(begin(place / "nobody", distributed=True))
    assert "Waiting for the other processes whom the scheduler names" in alone.errors
    assert alone.status == 1 and "did not find each other" in alone.errors and "Traceback" not in alone.errors


@pytest.mark.slow
def test_a_profile_holds_the_steps_that_were_asked_for(place):
    perform(place / "profiled", profile=2)
    traces = list((place / "profiled/profile").rglob("*.xplane.pb"))
    assert len(traces) == 1 and os.path.getsize(traces[0]) > 1000
    assert list((place / "profiled/profile").rglob("perfetto_trace.json.gz"))
