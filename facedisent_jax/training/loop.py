"""The training loop: step, log, validate, save."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array

from facedisent_jax.config import Config
from facedisent_jax.data.stream import batches
from facedisent_jax.data.triplets import Batch, Triplets
from facedisent_jax.errors import UserError
from facedisent_jax.training import distributed
from facedisent_jax.training.calibration import calibrate
from facedisent_jax.training.checkpoint import Checkpoints
from facedisent_jax.training.log import MetricsLog, NullLog
from facedisent_jax.training.signals import StopRequest
from facedisent_jax.training.step import TrainState, train_step, train_steps
from facedisent_jax.training.validation import expression_statistics, validate

StepTerms = tuple[int, dict[str, Any]]  # a step (from 1) and its loss terms


class TrainingData(NamedTuple):
    """What a run is trained and validated on.

    info: stored in each checkpoint, see checkpoint.Checkpoint.
    """

    triplets: Triplets
    held_out: Triplets
    info: dict


class NonFiniteError(UserError):
    """A loss term is NaN or infinite. terms: the names of all that are. step: the first step (from 1) where one is."""

    def __init__(self, terms: list[str], step: int):
        super().__init__(f"{', '.join(terms)} not finite at step {step}.")
        self.terms, self.step = terms, step


def fit(
    config: Config,
    data: TrainingData,
    state: TrainState,
    unlogged: list[StepTerms],
    log: MetricsLog | NullLog,
    checkpoints: Checkpoints,
    stop: StopRequest,
) -> TrainState:
    """Train from state.step to config.steps, or until a stop is requested. Returns the last state, which is saved.

    unlogged: the steps before state.step that are in no line of the log yet, as restored from the checkpoint.
    Raises NonFiniteError; a state after a step that is not finite is never saved.
    """
    stream = _batches(config, data.triplets, int(state.step))
    dataset_images = distributed.replicated(data.triplets.faces.image[:]) if config.dataset_on_device else None
    in_flight: list[
        StepTerms
    ] = []  # here: the first step, and the terms of all steps, of a call since the last log line
    full_intensity: dict[str, float] = {}  # of the last validation: a stop must not wait for another
    wait_seconds = 0.0  # in which the devices had nothing to do for want of a batch
    for first, last in step_chunks(config, int(state.step)):
        wait_start = time.perf_counter()
        chunk = [next(stream) for _ in range(first, last + 1)]
        if not in_flight or in_flight[-1][1]["loss"].is_ready():
            wait_seconds += time.perf_counter() - wait_start
        if len(in_flight) > 1:  # so that a stop request waits for at most two calls
            jax.block_until_ready(in_flight[-2])
        state, terms = _run_steps(config, state, chunk, dataset_images)
        in_flight.append((first, terms))

        is_validation = last % config.validate_every == 0 or last == config.steps
        stopping = stop.requested()
        log_steps = [step for step in range(first, last + 1) if step % config.log_every == 0]
        if is_validation and last not in log_steps:
            log_steps.append(last)
        if log_steps or stopping:
            new_terms = [step_terms for call in jax.device_get(in_flight) for step_terms in _split_steps(*call)]
            check_finite(new_terms)
            in_flight, unlogged = [], unlogged + new_terms
        for step in log_steps:
            values = [terms for k, terms in unlogged if k <= step]
            log.training(step, {name: float(np.mean([v[name] for v in values])) for name in values[0]}, wait_seconds)
            unlogged, wait_seconds = unlogged[len(values) :], 0.0
        metrics = None
        if is_validation or stopping:
            means, deviation = expression_statistics(config, state.ema_params, data.triplets)
        if is_validation:
            metrics = validate(config, state.ema_params, data.held_out)
            log.validation(last, metrics | deviation)
            full_intensity = calibrate(config, state.ema_params, data.triplets, means)
        if is_validation or stopping:
            info = data.info | {"mean_expressions": means, "full_intensity": full_intensity}
            checkpoints.save(state, config, info, metrics, unlogged)
        if stopping:
            break
    return state


def step_chunks(config: Config, start: int) -> Iterator[tuple[int, int]]:
    """First and last step (from 1) of each call to the devices, from step `start` + 1 to config.steps.

    A call has `steps_per_call` steps, or fewer before a validation and at the end.
    """
    while start < config.steps:
        n = min(config.steps_per_call, config.steps - start, config.validate_every - start % config.validate_every)
        yield start + 1, start + n
        start += n


def check_finite(step_terms: list[StepTerms]) -> None:
    """Raises NonFiniteError for the first step with a term that is not finite."""
    for step, terms in step_terms:
        if names := [name for name, value in terms.items() if not np.isfinite(value)]:
            raise NonFiniteError(names, step)


def _batches(config: Config, triplets: Triplets, start: int) -> Iterator[Batch]:
    """This process's rows of the batches after step `start`."""
    rows = distributed.local_rows(config.batch)
    stream = batches(triplets, config.seed, start, config.steps, config.batch, rows, not config.dataset_on_device)
    return _profiled(config, stream) if config.profile and distributed.is_main_process() else stream


def _profiled(config: Config, stream: Iterator[Batch]) -> Iterator[Batch]:
    """The same batches, while `profile` steps are traced, from the second call to the devices on."""
    begin = config.steps_per_call
    end = begin + config.profile + config.steps_per_call  # the last call is still running when the next batch is drawn
    tracing = False
    try:
        for k, batch in enumerate(stream):
            if k == begin:
                jax.profiler.start_trace(Path(config.run) / "profile", create_perfetto_trace=True)
                tracing = True
            if k == end:
                jax.profiler.stop_trace()
                tracing = False
            yield batch
    finally:
        if tracing:
            jax.profiler.stop_trace()


def _run_steps(config: Config, state: TrainState, chunk: list[Batch], dataset_images: Array | None):
    """Start one call to the devices, with one step for each batch."""
    if len(chunk) == 1:
        return train_step(config, state, distributed.shard_batch(chunk[0]), dataset_images)
    stacked = jax.tree.map(lambda *values: np.stack(values), *chunk)
    return train_steps(config, state, distributed.shard_batch(stacked, leading_axes=1), dataset_images)


def _split_steps(first: int, terms: dict[str, np.ndarray]) -> list[StepTerms]:
    """The terms of one call, of shape [k], or [] for a single step, as those of each step."""
    columns = {name: np.reshape(values, -1) for name, values in terms.items()}
    return [(first + k, {name: values[k] for name, values in columns.items()}) for k in range(len(columns["loss"]))]
