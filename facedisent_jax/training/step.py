"""The training state, and the one jitted step that computes all losses of a batch of triplets in one pass."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, UInt8

from facedisent_jax import models
from facedisent_jax.config import Config, OptimConfig
from facedisent_jax.data.record import Faces
from facedisent_jax.data.triplets import Batch
from facedisent_jax.losses import objective
from facedisent_jax.losses.functions import pixel_weights
from facedisent_jax.models import Params
from facedisent_jax.models.cpu import computed_once
from facedisent_jax.models.pca_init import init_from_pca
from facedisent_jax.training import distributed
from facedisent_jax.training.augment import augment

PCA_IMAGES = 1000
"""Training images that the principal components are taken from. More change them little and cost a minute."""


class TrainState(NamedTuple):
    """What a step changes.

    step: number of steps done. ema_params: moving average of `params`, by which the run is judged and loaded.
    opt_state: of optax.
    """

    step: Int[Array, ""]
    params: Params
    ema_params: Params
    opt_state: Any


Metrics = dict[str, Array]
"""Every term of the loss, unweighted, with the weighted sum as "loss", and "gradient_norm"."""


@partial(jax.jit, static_argnums=0, donate_argnums=1)
def train_step(
    config: Config, state: TrainState, batch: Batch, dataset_images: UInt8[Array, "n 64 64 3"] | None = None
) -> tuple[TrainState, Metrics]:
    """One step on a batch of triplets.

    dataset_images: all training images, on the device, where the batch has only their rows.
    """
    return _step(config, state, batch, dataset_images)


@partial(jax.jit, static_argnums=0, donate_argnums=1)
def train_steps(
    config: Config, state: TrainState, batches: Batch, dataset_images: UInt8[Array, "n 64 64 3"] | None = None
) -> tuple[TrainState, Metrics]:
    """`train_step` on one batch after the other, in one call. batches and metrics have a leading axis of steps."""
    return jax.lax.scan(lambda state, batch: _step(config, state, batch, dataset_images), state, batches)


def _step(config: Config, state: TrainState, batch: Batch, dataset_images: Array | None) -> tuple[TrainState, Metrics]:
    key = jax.random.fold_in(jax.random.key(config.seed), state.step)
    images = computed_once(state.step, partial(augment_batch, config, key, batch, dataset_images))

    def loss(params):
        terms = objective.loss_terms(config, params, images, batch)
        return objective.weighted_sum(config, terms), terms

    (total, terms), gradient = jax.value_and_grad(loss, has_aux=True)(state.params)
    metrics = terms | {"loss": total, "gradient_norm": optax.tree.norm(gradient)}
    result = apply_gradient(config, state, gradient), metrics
    return jax.lax.with_sharding_constraint(result, distributed.replicated_sharding())


def apply_gradient(config: Config, state: TrainState, gradient: Params) -> TrainState:
    """The state after a step with this gradient of the loss."""
    with jax.numpy_dtype_promotion("standard"):  # optax computes with its integer count of steps
        updates, opt_state = optimizer(config.optim).update(gradient, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    # The average starts as the plain mean of all weights so far, or it would hold on to the first ones for long.
    step = state.step.astype(jnp.float32)
    decay = jnp.minimum(config.optim.ema_decay, step / (step + 10.0))
    ema_params = jax.tree.map(lambda m, p: decay * m + (1 - decay) * p, state.ema_params, params)
    return TrainState(state.step + 1, params, ema_params, opt_state)


def augment_batch(
    config: Config, key: Array, batch: Batch, dataset_images: UInt8[Array, "n 64 64 3"] | None = None
) -> Float[Array, "k batch 64 64 3"]:
    """What the network sees of a batch, in [0, 1]: a, b and c; of kind "warp" also the middle frame."""
    if dataset_images is not None:
        batch = batch._replace(images=dataset_images[batch.images], middle=dataset_images[batch.middle])
    images = jnp.asarray(batch.images, jnp.float32) / 255
    if config.method == "clamping":
        # All images of the batch change alike: augmentation must not vary what the batch does not vary.
        changed = augment(config.augment, key, images[0, :, None], batch.label[0, :, None])
        return jnp.repeat(jnp.moveaxis(changed, 1, 0), 3, axis=0)  # b = c = a, see OneFactor
    if not models.KINDS[config.model.kind].uses_source:
        return augment(config.augment, key, images, batch.label)
    images = jnp.concatenate([images, jnp.asarray(batch.middle, jnp.float32) / 255])
    alpha = jnp.asarray(batch.alpha)
    label_a, label_b, _ = batch.label
    label_steps = jnp.round((label_a + alpha[:, None] * (label_b - label_a)) / config.intensity_step)
    label = jnp.concatenate([batch.label, label_steps[None] * config.intensity_step])
    # The head moves from a to b; the middle frame is on the way, and c keeps a's pose. Without a middle frame it stays:
    # one source cannot tell where it went, and a decoder that has to guess blurs the mouth.
    still = jnp.zeros_like(alpha)
    motion_share = jnp.stack([still, jnp.asarray(batch.has_middle, jnp.float32), still, alpha])
    return augment(config.augment, key, images, label, motion_share)


def learning_rate(config: OptimConfig) -> optax.Schedule:
    """Linear warm-up, then a cosine down to a hundredth at step `decay_steps`, then constant."""
    return optax.warmup_cosine_decay_schedule(0.0, config.lr, config.warmup_steps, config.decay_steps, 0.01 * config.lr)


def optimizer(config: OptimConfig) -> optax.GradientTransformation:
    """AdamW behind a clip of the gradient's global norm. All matrices and kernels decay but the pixel kernels."""

    def has_decay(params):
        return jax.tree_util.tree_map_with_path(
            lambda path, p: p.ndim > 1 and not any("pixel_kernel" in str(key) for key in path), params
        )

    def clip(gradient, _):  # a product: XLA on CPU would write optax's quotient to memory first, which takes 10 ms
        return optax.tree.scale(jnp.minimum(1.0, config.grad_clip_norm / optax.tree.norm(gradient)), gradient)

    return optax.chain(
        optax.stateless(clip),
        optax.adamw(learning_rate(config), weight_decay=config.weight_decay, mask=has_decay),
    )


def init_state(config: Config, faces: Faces, params: Params | None = None) -> TrainState:
    """The state before the first step, on all devices.

    params: weights to start from; none: a function of the seed and the training images.
    """
    if params is None:
        params = jax.jit(partial(models.init, config.model))(jax.random.key(config.seed))
        if models.KINDS[config.model.kind].linear_path:
            rows = np.sort(np.random.default_rng(config.seed).permutation(len(faces))[:PCA_IMAGES])
            weights = pixel_weights(config.objective.mouth_weight)
            params = init_from_pca(params, faces.image[rows], faces.subject[rows], weights, config.objective.label_dims)
    params = jax.tree.map(jnp.asarray, distributed.broadcast_from_process_0(params))
    ema_params, opt_state = jax.jit(lambda p: (jax.tree.map(jnp.copy, p), optimizer(config.optim).init(p)))(params)
    return distributed.replicated(TrainState(jnp.int32(0), params, ema_params, opt_state))
