"""The training state, the one jitted train step, validation figures, and the loop that runs them."""

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, UInt8

from facedisent_jax import devices, losses, model, objective
from facedisent_jax.augment import augment
from facedisent_jax.config import Config, OptimConfig
from facedisent_jax.records import Faces
from facedisent_jax.triplets import Batch, Triplets

PRINCIPAL_PICTURES = 1000
"""Pictures that the linear path's principal components are taken from; more change them little and cost a minute."""


class NonFiniteError(ArithmeticError):
    """A term of the loss is NaN or infinite; the message names the term and the step.

    terms: the names of all terms that are; step: the first step (from 1) where one is.
    """

    def __init__(self, terms: list[str], step: int):
        super().__init__(f"{', '.join(terms)} not finite at step {step}.")
        self.terms, self.step = terms, step


class TrainState(NamedTuple):
    """Everything that a step changes.

    step:      [] int32, the number of steps done.
    params:    the weights.
    average:   their moving average, by which the run is judged and used.
    opt_state: optax's.
    """

    step: Array
    params: Any
    average: Any
    opt_state: Any


def learning_rate(config: OptimConfig) -> optax.Schedule:
    """Linear warm-up, then a cosine down to a hundredth at step `schedule`, and constant after it."""
    return optax.warmup_cosine_decay_schedule(0.0, config.lr, config.warmup, config.schedule, 0.01 * config.lr)


def optimiser(config: OptimConfig) -> optax.GradientTransformation:
    """AdamW behind a clip of the global gradient norm. Weight decay spares the linear path's matrices and all vectors.

    The clip is a product, not optax's quotient, which XLA would write to memory for all weights first (10 ms).
    """

    def decays(params):
        return jax.tree_util.tree_map_with_path(
            lambda path, p: p.ndim > 1 and not any("pixels" in str(key) for key in path), params
        )

    def clipped(gradient, _):
        return optax.tree.scale(jnp.minimum(1.0, config.clip / optax.tree.norm(gradient)), gradient)

    return optax.chain(
        optax.stateless(clipped),
        optax.adamw(learning_rate(config), weight_decay=config.weight_decay, mask=decays),
    )


def init_state(config: Config, faces: Faces, params: Any = None) -> TrainState:
    """The state before the first step, on all devices: a function of the seed and the training pictures, unless weights
    are given."""
    if params is None:
        params = jax.jit(partial(model.init, config.model))(jax.random.key(config.seed))
        if config.model.kind != "plain":
            rng = np.random.default_rng(config.seed)
            rows = np.sort(rng.permutation(len(faces))[:PRINCIPAL_PICTURES])
            mouth = losses.mouth_weights(config.loss.mouth)
            params = model.begin_at_principal_components(
                params, faces.image[rows], faces.subject[rows], mouth, config.loss.label_numbers
            )
    params = jax.tree.map(jnp.asarray, devices.agreed(params))
    average, opt_state = jax.jit(lambda p: (jax.tree.map(jnp.copy, p), optimiser(config.optim).init(p)))(params)
    return devices.replicated(TrainState(jnp.int32(0), params, average, opt_state))


def augmented(
    config: Config, key: Array, batch: Batch, pictures: UInt8[Array, "n 64 64 3"] | None = None
) -> Float[Array, "batch k 64 64 3"]:
    """What the network sees of a batch: its triplets [batch, 3, 64, 64, 3]; kind "warp" also the frames between.

    pictures: [n, 64, 64, 3] on the device, where the batch has their rows alone.
    """
    if pictures is not None:
        batch = batch._replace(images=pictures[batch.images], between=pictures[batch.between])
    images = jnp.asarray(batch.images, jnp.float32) / 255
    if config.loss.clamping:  # one change for all: what a batch does not vary in, augmentation must not vary either
        alike = augment(config.augment, key, images[None, :, 0], batch.label[None, :, 0])[0]
        return jnp.repeat(alike[:, None], 3, axis=1)
    if config.model.kind != "warp":
        return augment(config.augment, key, images, batch.label)
    images = jnp.concatenate([images, jnp.asarray(batch.between, jnp.float32)[:, None] / 255], axis=1)
    place = jnp.asarray(batch.place)
    start, end = batch.label[:, 0], batch.label[:, 1]
    middle = jnp.round((start + place[:, None] * (end - start)) / config.intensity_step) * config.intensity_step
    label = jnp.concatenate([batch.label, middle[:, None]], axis=1)
    still, moved = jnp.zeros_like(place), jnp.ones_like(place)
    return augment(config.augment, key, images, label, jnp.stack([still, moved, still, place], axis=1))


def _once(step: Array, make: Callable[[], Array]) -> Array:
    """make(), computed once. XLA on CPU joins to each reader of an array what is elementwise in making it, and so drew
    the augmented pictures a dozen times a step, a fifth of its time. It joins nothing across a branch; that this one is
    always taken, it cannot know. (Barriers it drops before it joins; accelerators would wait for a branch.)"""
    made = jax.eval_shape(make)

    def apart() -> Array:
        return jax.lax.cond(step >= 0, make, lambda: jnp.zeros(made.shape, made.dtype))

    return jax.lax.platform_dependent(cpu=apart, default=make)


def _step(config: Config, state: TrainState, batch: Batch, pictures=None) -> tuple[TrainState, dict[str, Array]]:
    key = jax.random.fold_in(jax.random.key(config.seed), state.step)
    images = _once(state.step, partial(augmented, config, key, batch, pictures))

    def loss(params):
        values = objective.terms(config, params, images, batch)
        return objective.total(config, values), values

    (total, values), gradient = jax.value_and_grad(loss, has_aux=True)(state.params)
    metrics = values | {"loss": total, "gradient_norm": optax.tree.norm(gradient)}
    return jax.lax.with_sharding_constraint((updated(config, state, gradient), metrics), devices.everywhere())


def updated(config: Config, state: TrainState, gradient: Any) -> TrainState:
    """The state after a step with this gradient of the loss, a pytree like state.params."""
    updates, opt_state = optimiser(config.optim).update(gradient, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    # The average starts as a plain mean of all weights so far, or it would hold on to the first ones for long.
    decay = jnp.minimum(config.optim.average, state.step / (state.step + 10.0))
    average = jax.tree.map(lambda m, p: decay * m + (1 - decay) * p, state.average, params)
    return TrainState(state.step + 1, params, average, opt_state)


@partial(jax.jit, static_argnums=0, donate_argnums=1)
def train_step(config: Config, state: TrainState, batch: Batch, pictures=None) -> tuple[TrainState, dict[str, Array]]:
    """One step on a batch of triplets: the new state, and every term unweighted with the total as "loss".

    pictures: [n, 64, 64, 3] uint8 on the device, where the batch has their rows alone.
    """
    return _step(config, state, batch, pictures)


@partial(jax.jit, static_argnums=0, donate_argnums=1)
def train_steps(
    config: Config, state: TrainState, batches: Batch, pictures=None
) -> tuple[TrainState, dict[str, Array]]:
    """`train_step` on one batch after the other, in one call: batches [k, batch, ...] -> the terms, [k] each."""
    return jax.lax.scan(lambda state, batch: _step(config, state, batch, pictures), state, batches)


@partial(jax.jit, static_argnums=0)
def _errors(config: Config, params, batch: Batch) -> dict[str, Array]:
    """Per-picture errors of a batch of triplets: reconstruction of a; swaps that should show a; their masks."""
    images = jnp.asarray(batch.images, jnp.float32) / 255
    a, b, c = (model.encode(config.model, params, images[:, k]) for k in range(3))

    def error(identity, expression, *sources):
        picture = jnp.clip(model.decode(config.model, params, model.Codes(identity, expression), *sources), 0, 1)
        return jnp.mean((picture - images[:, 0]) ** 2, axis=(1, 2, 3))

    out = {"reconstruction": error(a.identity, a.expression), "swap": error(b.identity, c.expression)}
    if config.model.kind == "warp":
        out["source"] = error(*a, model.source(config.model, params, images[:, 1]))
    return jax.lax.with_sharding_constraint(out, devices.everywhere())


def validate(config: Config, params, triplets: Triplets) -> dict[str, float]:
    """Figures on held-out pictures, each the anchor once (at most 1,024 of them): PSNR in dB of the reconstructions and
    of the swaps (identity code from the subject's other picture, expression code from another subject); of kind "warp"
    also of the pictures decoded from the subject's other picture ("source")."""
    size = 64 + -64 % jax.device_count()
    n = min(len(triplets), 1024)
    errors: dict[str, list] = {"reconstruction": [], "swap": []} | (
        {"source": []} if config.model.kind == "warp" else {}
    )
    for k in range(-(-n // size)):
        batch = triplets.batch(0, k, size)
        fresh = np.arange(size) + k * size < n  # the last batch is filled up with pictures that do not count
        here = devices.split(jax.tree.map(lambda values: values[devices.rows(size)], batch))
        found = _errors(config, params, here)
        errors["reconstruction"] += list(np.asarray(found["reconstruction"])[fresh])
        errors["swap"] += list(np.asarray(found["swap"])[fresh & (batch.has_pair * batch.has_peer > 0)])
        if "source" in found:
            errors["source"] += list(np.asarray(found["source"])[fresh & (batch.has_pair > 0)])
    figures = {f"validation/{k}_psnr": float(np.mean(-10 * np.log10(v))) for k, v in errors.items() if v}
    figures["validation/error"] = float(np.mean([np.mean(v) for v in errors.values() if v]))
    return figures


def check_finite(metrics: list[tuple[int, dict[str, Any]]]) -> None:
    """Raise NonFiniteError for the first step with a term that is not finite."""
    for step, values in metrics:
        if bad := [name for name, value in values.items() if not np.isfinite(value)]:
            raise NonFiniteError(bad, step)


def calls(config: Config, start: int, skipped: frozenset[int] = frozenset()) -> Iterator[tuple[int, int]]:
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
    for begin, end in calls(config, int(state.step), skipped):
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
                state, metrics = train_step(config, state, devices.split(drawn[0]), pictures)
            else:
                stacked = jax.tree.map(lambda *values: np.stack(values), *drawn)
                state, metrics = train_steps(config, state, devices.split(stacked, axis=1), pictures)
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
