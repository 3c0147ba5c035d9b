"""The training state, the one jitted train step, validation figures, and the loop that runs them."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, UInt8

from facedisent_jax import models
from facedisent_jax.config import Config, OptimConfig
from facedisent_jax.data.record import Faces
from facedisent_jax.data.triplets import Batch
from facedisent_jax.losses import functions, objective
from facedisent_jax.models.cpu import computed_once
from facedisent_jax.models.pca_init import init_from_pca
from facedisent_jax.training import distributed
from facedisent_jax.training.augment import augment

PRINCIPAL_PICTURES = 1000
"""Pictures that the linear path's principal components are taken from; more change them little and cost a minute."""


class TrainState(NamedTuple):
    """Everything that a step changes.

    step:      [] int32, the number of steps done.
    params:    the weights.
    ema_params: their moving average, by which the run is judged and used.
    opt_state: optax's.
    """

    step: Array
    params: Any
    ema_params: Any
    opt_state: Any


def learning_rate(config: OptimConfig) -> optax.Schedule:
    """Linear warm-up, then a cosine down to a hundredth at step `schedule`, and constant after it."""
    return optax.warmup_cosine_decay_schedule(0.0, config.lr, config.warmup_steps, config.decay_steps, 0.01 * config.lr)


def optimizer(config: OptimConfig) -> optax.GradientTransformation:
    """AdamW behind a clip of the global gradient norm. Weight decay spares the linear path's matrices and all vectors.

    The clip is a product, not optax's quotient, which XLA would write to memory for all weights first (10 ms).
    """

    def decays(params):
        return jax.tree_util.tree_map_with_path(
            lambda path, p: p.ndim > 1 and not any("pixels" in str(key) for key in path), params
        )

    def clipped(gradient, _):
        return optax.tree.scale(jnp.minimum(1.0, config.grad_clip_norm / optax.tree.norm(gradient)), gradient)

    return optax.chain(
        optax.stateless(clipped),
        optax.adamw(learning_rate(config), weight_decay=config.weight_decay, mask=decays),
    )


def init_state(config: Config, faces: Faces, params: Any = None) -> TrainState:
    """The state before the first step, on all devices: a function of the seed and the training pictures, unless weights
    are given."""
    if params is None:
        params = jax.jit(partial(models.init, config.model))(jax.random.key(config.seed))
        if config.model.kind != "plain":
            rng = np.random.default_rng(config.seed)
            rows = np.sort(rng.permutation(len(faces))[:PRINCIPAL_PICTURES])
            mouth = functions.mouth_weights(config.objective.mouth_weight)
            params = init_from_pca(params, faces.image[rows], faces.subject[rows], mouth, config.objective.label_dims)
    params = jax.tree.map(jnp.asarray, distributed.broadcast_from_process_0(params))
    average, opt_state = jax.jit(lambda p: (jax.tree.map(jnp.copy, p), optimizer(config.optim).init(p)))(params)
    return distributed.replicated(TrainState(jnp.int32(0), params, average, opt_state))


def augment_batch(
    config: Config, key: Array, batch: Batch, pictures: UInt8[Array, "n 64 64 3"] | None = None
) -> Float[Array, "batch k 64 64 3"]:
    """What the network sees of a batch: its triplets [batch, 3, 64, 64, 3]; kind "warp" also the frames between.

    pictures: [n, 64, 64, 3] on the device, where the batch has their rows alone.
    """
    if pictures is not None:
        batch = batch._replace(images=pictures[batch.images], middle=pictures[batch.middle])
    images = jnp.asarray(batch.images, jnp.float32) / 255
    if (
        config.method == "clamping"
    ):  # one change for all: what a batch does not vary in, augmentation must not vary either
        alike = augment(config.augment, key, images[None, :, 0], batch.label[None, :, 0])[0]
        return jnp.repeat(alike[:, None], 3, axis=1)
    if config.model.kind != "warp":
        return augment(config.augment, key, images, batch.label)
    images = jnp.concatenate([images, jnp.asarray(batch.middle, jnp.float32)[:, None] / 255], axis=1)
    place = jnp.asarray(batch.alpha)
    start, end = batch.label[:, 0], batch.label[:, 1]
    middle = jnp.round((start + place[:, None] * (end - start)) / config.intensity_step) * config.intensity_step
    label = jnp.concatenate([batch.label, middle[:, None]], axis=1)
    still, moved = jnp.zeros_like(place), jnp.ones_like(place)
    return augment(config.augment, key, images, label, jnp.stack([still, moved, still, place], axis=1))


def _step(config: Config, state: TrainState, batch: Batch, pictures=None) -> tuple[TrainState, dict[str, Array]]:
    key = jax.random.fold_in(jax.random.key(config.seed), state.step)
    images = computed_once(state.step, partial(augment_batch, config, key, batch, pictures))

    def loss(params):
        values = objective.loss_terms(config, params, images, batch)
        return objective.weighted_sum(config, values), values

    (total, values), gradient = jax.value_and_grad(loss, has_aux=True)(state.params)
    metrics = values | {"loss": total, "gradient_norm": optax.tree.norm(gradient)}
    return jax.lax.with_sharding_constraint(
        (apply_gradient(config, state, gradient), metrics), distributed.replicated_sharding()
    )


def apply_gradient(config: Config, state: TrainState, gradient: Any) -> TrainState:
    """The state after a step with this gradient of the loss, a pytree like state.params."""
    updates, opt_state = optimizer(config.optim).update(gradient, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    # The average starts as a plain mean of all weights so far, or it would hold on to the first ones for long.
    decay = jnp.minimum(config.optim.ema_decay, state.step / (state.step + 10.0))
    average = jax.tree.map(lambda m, p: decay * m + (1 - decay) * p, state.ema_params, params)
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
