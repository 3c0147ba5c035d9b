"""TODO."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jaxtyping import Array

from facedisent_jax.config import Config
from facedisent_jax.data.triplets import Batch
from facedisent_jax.errors import UserError
from facedisent_jax.training import distributed
from facedisent_jax.training.step import TrainState, train_step, train_steps


class NonFiniteError(UserError):
    """A term of the loss is NaN or infinite; the message names the term and the step.

    terms: the names of all terms that are; step: the first step (from 1) where one is.
    """

    def __init__(self, terms: list[str], step: int):
        super().__init__(f"{', '.join(terms)} not finite at step {step}.")
        self.terms, self.step = terms, step


def check_finite(metrics: list[tuple[int, dict[str, Any]]]) -> None:
    """Raise NonFiniteError for the first step with a term that is not finite."""
    for step, values in metrics:
        if bad := [name for name, value in values.items() if not np.isfinite(value)]:
            raise NonFiniteError(bad, step)


def step_chunks(config: Config, start: int, skipped: frozenset[int] = frozenset()) -> Iterator[tuple[int, int]]:
    """First and last step (from 1) of each call to the devices, from step `start` + 1 to config.steps.

    `steps_per_call` of them; fewer where a validation comes or the end; each skipped one alone.
    """
    while start < config.steps:
        length = min(config.steps_per_call, config.steps - start, config.validate_every - start % config.validate_every)
        ahead = [step - start for step in skipped if start < step <= start + length]
        length = max(1, min(ahead) - 1) if ahead else length
        yield start + 1, start + length
        start += length


def fit(
    config: Config,
    state: TrainState,
    batches: Iterator[Batch],
    log: Callable[[int, dict[str, float], float], None],
    checkpoint: Callable[[TrainState, bool, list], None],
    unlogged: list[tuple[int, dict]] | None = None,
    skipped: frozenset[int] = frozenset(),
    stop: Callable[[], bool] = lambda: False,
    pictures: Array | None = None,
) -> TrainState:
    """Run the steps from state.step to config.steps, or until `stop`; returns the last state, which is saved.

    batches:    of each of these steps, the rows that are this process's.
    log:        called every `log_every` steps and before each validation with the means of the terms and the seconds in
                which the devices had nothing to do for want of a batch, since the last call.
    checkpoint: called as checkpoint(state, judge, unlogged) every `validate_every` steps and at the end (judge true),
                and where the run stops in between (judge false); never with weights from a step that is not finite.
    unlogged:   steps and terms since the last `log` before `state`, of a run that was stopped in between.
    skipped:    steps (from 1) that are counted but not trained on.
    stop:       asked after each call to the devices whether to save and return.
    pictures:   on the devices, where the batches have their rows alone.
    Raises NonFiniteError.
    """
    pending, queued, waited = list(unlogged or []), [], 0.0
    for begin, end in step_chunks(config, int(state.step), skipped):
        asked = time.perf_counter()
        drawn = [next(batches) for _ in range(begin, end + 1)]
        if not queued or jax.tree.leaves(queued[-1][1])[0].is_ready():  # while a call runs, nothing waits
            waited += time.perf_counter() - asked
        if begin in skipped:
            state = state._replace(step=state.step + 1)
        else:
            if len(queued) > 1:
                jax.block_until_ready(queued[-2])  # one call is queued behind the running one, or to stop takes long
            if len(drawn) == 1:
                state, metrics = train_step(config, state, distributed.shard_batch(drawn[0]), pictures)
            else:
                stacked = jax.tree.map(lambda *values: np.stack(values), *drawn)
                state, metrics = train_steps(config, state, distributed.shard_batch(stacked, leading_axes=1), pictures)
            queued.append((np.arange(begin, end + 1), metrics))
        due, stopping = end % config.validate_every == 0 or end == config.steps, stop()
        if due or stopping or end // config.log_every > (begin - 1) // config.log_every:
            fresh = [terms for steps, metrics in jax.device_get(queued) for terms in _by_step(steps, metrics)]
            check_finite(fresh)
            pending, queued = pending + fresh, []
            for step in range(begin, end + 1):
                if step % config.log_every == 0 or (due and step == end):
                    values = [terms for k, terms in pending if k <= step]
                    if values:
                        log(step, {name: float(np.mean([v[name] for v in values])) for name in values[0]}, waited)
                        waited = 0.0
                    pending = pending[len(values) :]
        if due or stopping:
            checkpoint(state, due, pending)
        if stopping:
            break
    return state


def _by_step(steps: np.ndarray, metrics: dict[str, Any]) -> list[tuple[int, dict[str, Any]]]:
    """The terms of one call, [k] each (or of a single step), for each of its steps."""
    return [
        (int(step), {name: np.reshape(value, -1)[k] for name, value in metrics.items()}) for k, step in enumerate(steps)
    ]
