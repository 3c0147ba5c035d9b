"""The training step learns, has the right gradient, and compiles to what is fast on CPU."""

import re
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from tiny_run import person

from facedisent_jax import models
from facedisent_jax.config import AugmentConfig, Config, ModelConfig, OptimConfig
from facedisent_jax.data.one_factor import OneFactor
from facedisent_jax.data.record import Faces
from facedisent_jax.data.triplets import Batch, Triplets
from facedisent_jax.presets import POSTER_LOSS, PRESETS
from facedisent_jax.training.step import TrainState, init_state, learning_rate, optimizer, train_step, train_steps
from facedisent_jax.training.validation import _validation_mse

TINY = ModelConfig(width=128, blocks=1)


@pytest.mark.slow
def test_one_batch_can_be_overfitted():
    config = Config(
        model=ModelConfig(width=128, blocks=1),
        loss=POSTER_LOSS,
        augment=AugmentConfig(enabled=False),
        optim=OptimConfig(lr=3e-3, warmup_steps=5, decay_steps=10**6, ema_decay=0.0),
    )
    rng = np.random.default_rng(0)

    def random_image() -> np.ndarray:
        """Smooth, as faces are: the decoder displaces its image, and noise changes wholly within a pixel."""
        noise = Image.fromarray(rng.integers(0, 255, (8, 8, 3), np.uint8))
        return np.asarray(noise.resize((64, 64), Image.Resampling.BICUBIC))

    faces = Faces.of([r._replace(image=random_image()) for k in range(2) for r in person(k)])
    triplets = Triplets(faces)
    batch = triplets.batch(0, 0, 4)
    state = init_state(config, faces)
    first_metrics = None
    for _ in range(80):
        state, metrics = train_step(config, state, batch)
        first_metrics = first_metrics or {k: float(v) for k, v in metrics.items()}
    assert (
        metrics["reconstruction"] < 0.1 * first_metrics["reconstruction"] < 1e-3
    )  # so few images are nearly known from the start, by PCA
    assert metrics["swap"] < 0.01 * first_metrics["swap"]
    assert metrics["label"] < 0.6 * first_metrics["label"]


def test_the_learning_rate_does_not_depend_on_steps():
    rate = learning_rate(OptimConfig(lr=1.0, warmup_steps=10, decay_steps=100))
    np.testing.assert_allclose([rate(5), rate(10), rate(100), rate(1000)], [0.5, 1.0, 0.01, 0.01], rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["intensity", pytest.param("warp", marks=pytest.mark.long)])
def test_the_gradient_is_the_same_without_the_compilers_fusion(preset):
    """A compiler that overwrites what it has yet to read does no harm to the losses, and spoils the gradient."""
    faces = Faces.of([record for k in range(4) for record in person(k, np.linspace(0, 1, 5), sequence="take")])
    config = PRESETS[preset].config
    config = replace(
        config,
        batch=4,
        model=replace(config.model, width=128, blocks=1),
        augment=AugmentConfig(enabled=False),
        optim=replace(config.optim, warmup_steps=1, decay_steps=8),
    )
    rng = np.random.default_rng(0)
    # Layers that start at zero would hide what lies behind them.
    params = jax.tree.map(
        lambda p: np.where(p == 0, rng.normal(0, 0.01, p.shape), p).astype(np.float32),
        jax.device_get(init_state(config, faces).params),
    )
    batch = Triplets(faces, config.intensity_step, with_middle=config.model.kind == "warp").batch(0, 0, config.batch)
    moments = []
    for options in ({}, {"xla_disable_hlo_passes": "fusion"}):
        state = init_state(config, faces, params)
        step = train_step.lower(config, state, batch).compile(compiler_options=options)
        moments.append(jax.tree.leaves(step(state, batch)[0].opt_state[1][0].mu))
    error = sum(float(jnp.sum((a - b) ** 2)) for a, b in zip(*moments, strict=True))
    assert error < 1e-6 * sum(float(jnp.sum(b**2)) for b in moments[1])


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.skipif(jax.default_backend() != "cpu", reason="what XLA does on CPU")
def test_the_augmented_images_are_computed_once_a_step():
    faces = Faces.of([record for k in range(4) for record in person(k)])
    config = replace(PRESETS["smile"].config, model=TINY, batch=4)
    assert config.augment.enabled and config.augment.flip
    batch = Triplets(faces, config.intensity_step).batch(0, 0, config.batch)
    program = train_step.lower(config, init_state(config, faces), batch).compile().as_text()
    triplets = r" f32\[4,64,64,9\]"  # four, of three images of three colours
    assert len(re.findall(triplets + r"\S* reverse\(", program)) == 1


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("kind", ["hybrid", "plain"])
@pytest.mark.skipif(jax.default_backend() != "cpu", reason="what XLA does on CPU")
def test_convolutions_of_several_steps_a_call_have_the_layout_that_is_fast(kind):
    faces = Faces.of([record for k in range(4) for record in person(k)])
    config = replace(
        PRESETS["smile"].config, model=replace(TINY, kind=kind, width=128 if kind == "hybrid" else 8), batch=4
    )
    batch = Triplets(faces, config.intensity_step).batch(0, 0, config.batch)
    batches = jax.tree.map(lambda value: np.stack([value, value]), batch)
    program = train_steps.lower(config, init_state(config, faces), batches).compile().as_text()
    assert "while(" in program
    layouts = re.findall(r"dim_labels=(\S+?),? ", program)
    assert len(layouts) > 10 and set(layouts) == {"b01f_01io->b01f"}


def small(preset: str) -> tuple[Config, Faces, Batch]:
    """A preset with a small network, clips of four people, and a batch of them."""
    config = replace(PRESETS[preset].config, batch=4)
    config = replace(config, model=replace(config.model, width=32 if config.model.kind == "plain" else 128))
    faces = Faces.of([record for k in range(4) for record in person(k, np.linspace(0, 1, 5), sequence="take")])
    sampler = OneFactor if config.method == "clamping" else Triplets
    triplets = sampler(faces, config.intensity_step, with_middle=config.model.kind == "warp")
    return config, faces, triplets.batch(0, 0, config.batch)


def new_state(config: Config) -> TrainState:
    """The state before the first step, without what `init_state` takes from the images."""
    params = models.init(config.model, jax.random.key(0))
    return TrainState(jnp.int32(0), params, params, optimizer(config.optim).init(params))


@pytest.mark.parametrize(
    "preset",
    ["intensity", "rotation", *(pytest.param(name, marks=pytest.mark.slow) for name in ("poster", "clamping", "warp"))],
)
def test_no_dtype_is_promoted_silently(preset):
    """As JAX_NUMPY_DTYPE_PROMOTION=strict asks. The other presets differ from these in weights alone."""
    config, _, batch = small(preset)

    def trained() -> TrainState:
        state = new_state(config)
        _validation_mse(config, state.params, batch)
        return train_step(config, state, batch)[0]

    with jax.numpy_dtype_promotion("strict"):
        assert jax.eval_shape(trained).step.dtype == jnp.int32


@pytest.mark.slow
@pytest.mark.parametrize("preset", PRESETS)
def test_the_step_can_be_compiled_for_gpus_and_tpus(preset):
    """Without a GPU: it is lowered for one, and has no call of a library and no float64."""
    config, _, batch = small(preset)
    traced = train_step.trace(config, jax.eval_shape(partial(new_state, config)), batch, None)
    for platform in ("cuda", "tpu"):
        program = traced.lower(lowering_platforms=(platform,)).as_text()
        assert "stablehlo.dot_general" in program
        assert "custom_call" not in program and "f64" not in program


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("preset", ["warp", "rotation"])
def test_no_value_on_the_way_is_nan(preset):
    """As JAX_DEBUG_NANS=1 asks, which stops at a NaN even where a mask would hide it."""
    config, faces, batch = small(preset)
    with jax.debug_nans(True):
        state, terms = train_step(config, init_state(config, faces), batch)
        assert int(state.step) == 1 and np.isfinite(float(terms["loss"]))
