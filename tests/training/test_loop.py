"""The loop waits for no batch while a step runs, and stops at a loss that is not finite."""

import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from tiny_run import person

from facedisent_jax.data.record import Faces
from facedisent_jax.data.triplets import Triplets
from facedisent_jax.presets import PRESETS
from facedisent_jax.training import loop
from facedisent_jax.training.loop import NonFiniteError, TrainingData, check_finite, fit
from facedisent_jax.training.signals import StopRequest
from facedisent_jax.training.step import TrainState


def test_a_term_that_is_not_finite_stops_training_with_its_name_and_step():
    values = [(7, {"swap": np.asarray(1.0)}), (8, {"swap": np.asarray(np.nan)})]
    with pytest.raises(NonFiniteError, match="swap not finite at step 8"):
        check_finite(values)


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
    config = replace(PRESETS["smile"].config, batch=8, steps=4, log_every=4)
    state = TrainState(np.int32(0), {}, {}, ())
    monkeypatch.setattr(loop, "batches", lambda *_: stream())
    monkeypatch.setattr(loop, "validate", lambda *_: {})
    monkeypatch.setattr(loop, "expression_statistics", lambda *_: ({}, {}))
    monkeypatch.setattr(loop, "calibrate", lambda *_: {})
    log = SimpleNamespace(training=lambda step, terms, wait: seconds.append(wait), validation=lambda *_: None)
    checkpoints = SimpleNamespace(save=lambda *_: None)
    fit(config, TrainingData(triplets, triplets, {}), state, [], log, checkpoints, StopRequest())
    (wait,) = seconds
    assert 0.2 * batches_waited_for <= wait < 0.2 * batches_waited_for + 0.4
