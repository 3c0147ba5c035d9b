"""Piece "right" of accelerator.py: whether the device computes what the machine's own CPU computes.

Five steps of every preset, in float32 with matrix products in full precision. Each step starts on both sides from the
CPU's state, so that rounding does not grow from step to step. The gradient is the one that the optimizer gets, clipped,
read from the change of its first moment.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NamedTuple
from unittest import mock

import accelerator_pictures as pictures
import jax
import numpy as np
import train_step as benchmark
from accelerator_figures import Piece, report
from jax.sharding import Mesh

from facedisent_jax.config import Config
from facedisent_jax.data.record import Faces
from facedisent_jax.data.triplets import Batch
from facedisent_jax.training import distributed
from facedisent_jax.training.step import TrainState, init_state, train_step, train_steps

STEPS = 5
PRESETS = ("smile", "warp", "poster", "intensity", "binary", "rotation", "clamping", "ranking", "autoencoder")
REHEARSAL = ("smile", "warp")
FLOAT32, BFLOAT16 = 1e-4, 1e-2
"""Largest relative difference that is right."""
PRECISION = "highest"
"""Of float32 matrix products: no TF32."""
ADAM_B1 = 0.9  # optax's default
AHEAD = 4  # comparisons that are compiled before the first is made
SECONDS = 10  # with less time left, the next preset is left out

Program = Callable[..., tuple[TrainState, dict]]


class Setting(NamedTuple):
    """What all comparisons share. pool: compiles. params: weights to start from, by what they depend on."""

    piece: Piece
    faces: Faces
    accelerator: jax.Device
    cpu: jax.Device
    pool: ThreadPoolExecutor
    params: dict[tuple, Any]


def measure(piece: Piece) -> None:
    faces, _ = pictures.load(piece.pictures)
    cpu = jax.local_devices(backend="cpu")[0]
    setting = Setting(piece, faces, jax.devices()[0], cpu, ThreadPoolExecutor(8), {})
    queue: list[Comparison | CallComparison] = []  # compiled while earlier ones are compared
    for preset in REHEARSAL if piece.rehearse else PRESETS:
        if not piece.has(SECONDS):
            report(f"{preset}: device against CPU", None, note="no time left")
            continue
        queue.append(Comparison(setting, preset))
        if preset == PRESETS[0]:
            queue.append(CallComparison(queue[0], setting.pool))
        if len(queue) > AHEAD:
            queue.pop(0).report()
    for comparison in queue:
        comparison.report()
    setting.pool.shutdown(wait=False, cancel_futures=True)


@contextmanager
def on(device: jax.Device) -> Iterator[None]:
    """Within, training takes place on this device alone."""
    one_device = Mesh(np.array([device]), (distributed.AXIS,))
    with mock.patch.object(distributed, "mesh", lambda: one_device), jax.default_device(device):
        yield


def submit_step(
    pool: ThreadPoolExecutor, device: jax.Device, config: Config, state: TrainState, batch: Batch, images: Any = None
) -> Future:
    """A program on this device for one step, or for as many as the config has in a call, compiled by the pool."""
    step = train_step if config.steps_per_call == 1 else train_steps

    def run(state, batch, images):  # a function of its own for each device: traced for it, and the state is not donated
        return step.__wrapped__(config, state, batch, images)

    with on(device), jax.default_matmul_precision(PRECISION):
        lowered = jax.jit(run).lower(*map(distributed.replicated, (state, batch, images)))
    return pool.submit(lowered.compile)


def run(program: Program, device: jax.Device, *arguments: Any) -> tuple[TrainState, dict]:
    """The results of a program. arguments: numpy arrays, or arrays on any device."""
    with on(device):
        return program(*map(distributed.replicated, arguments))


def first_state(setting: Setting, config: Config) -> TrainState:
    """The state before the first step, as numpy arrays. No layer of zeros hides what lies behind it."""
    key = (config.model, config.objective.label_dims, config.objective.mouth_weight)
    with on(setting.cpu):
        if key not in setting.params:
            setting.params[key] = benchmark.weights(config, setting.faces)
        return jax.device_get(init_state(config, setting.faces, setting.params[key]))


class Comparison:
    """Five steps of a preset on the CPU and on the device, there also in bfloat16. Compilation begins at once."""

    def __init__(self, setting: Setting, preset: str):
        self.preset, self.faces = preset, setting.faces
        self.accelerator, self.cpu = setting.accelerator, setting.cpu
        self.config = pictures.preset_config(preset, setting.piece.rehearse)
        self.triplets = pictures.triplets_of(self.config, self.faces)
        self.first_state = first_state(setting, self.config)
        draw = pictures.draw_call(self.config, self.triplets)
        self.batches = [draw(step) for step in range(STEPS)]
        bfloat16 = replace(self.config, model=replace(self.config.model, dtype="bfloat16"))
        self.programs = {
            name: submit_step(setting.pool, device, config, self.first_state, self.batches[0])
            for name, device, config in (
                ("cpu", self.cpu, self.config),
                ("float32", self.accelerator, self.config),
                ("bfloat16", self.accelerator, bfloat16),
            )
        }

    def report(self) -> None:
        """Report the largest differences of the five steps."""
        largest: dict[tuple[str, str], float] = {}
        state = self.first_state
        for batch in self.batches:
            results = {
                name: run(program.result(), self.cpu if name == "cpu" else self.accelerator, state, batch, None)
                for name, program in self.programs.items()
            }
            for name, reference in (("float32", "cpu"), ("bfloat16", "float32")):
                differences = relative_differences(state, results[name], results[reference])
                for what, value in differences.items():
                    largest[name, what] = max(largest.get((name, what), 0.0), value)
            state = jax.device_get(results["cpu"][0])
        for (name, what), value in largest.items():
            title = "float32 against the CPU" if name == "float32" else "bfloat16 against float32"
            limit = FLOAT32 if name == "float32" else BFLOAT16
            report(f"{self.preset}: {what}, {title}", value, "relative", f"{STEPS} steps", at_most=limit)


def relative_differences(before: TrainState, result: tuple, reference: tuple) -> dict[str, float]:
    """Of the loss and of the gradient (the norm of the difference) of one step, with its reference."""
    (state, metrics), (reference_state, reference_metrics) = result, reference
    momentum, start = (first_moment(s) for s in (reference_state, before))
    error = norm(jax.tree.map(np.subtract, first_moment(state), momentum))
    gradient = norm(jax.tree.map(lambda new, old: new - ADAM_B1 * old, momentum, start))
    loss = float(reference_metrics["loss"])
    # The moment takes up a share 1 - b1 of the gradient, and so of an error in it: both norms are of that share.
    return {"loss": abs(float(metrics["loss"]) - loss) / abs(loss), "gradient": error / gradient}


def first_moment(state: TrainState) -> Any:
    return jax.device_get(state.opt_state[1][0].mu)


def norm(tree: Any) -> float:
    return float(np.sqrt(sum(float(np.vdot(leaf, leaf)) for leaf in jax.tree.leaves(tree))))


class CallComparison:
    """The same five steps in one call, and with the training images on the device, against one call for each step."""

    def __init__(self, single: Comparison, pool: ThreadPoolExecutor):
        self.single, config, device = single, single.config, single.accelerator
        self.images = single.faces.image
        self.stacked = jax.tree.map(lambda *values: np.stack(values), *single.batches)
        together = replace(config, steps_per_call=STEPS)
        resident = replace(config, dataset_on_device=True)
        draw = pictures.draw_call(resident, single.triplets)
        self.rows = [draw(step) for step in range(STEPS)]
        self.together = submit_step(pool, device, together, single.first_state, self.stacked)
        self.resident = submit_step(pool, device, resident, single.first_state, self.rows[0], self.images)

    def report(self) -> None:
        device, first = self.single.accelerator, self.single.first_state
        expected = steps_alone(self.single.programs["float32"].result(), device, first, self.single.batches, None)
        state, metrics = run(self.together.result(), device, first, self.stacked, None)
        self._report_difference(f"{STEPS} steps a call against one", (state, metrics["loss"]), expected)
        actual = steps_alone(self.resident.result(), device, first, self.rows, self.images)
        self._report_difference("images on the device against streamed", actual, expected)

    def _report_difference(self, what: str, actual: tuple, expected: tuple) -> None:
        (state, losses), (expected_state, expected_losses) = actual, expected
        equal = jax.tree.all(jax.tree.map(np.array_equal, state.params, expected_state.params))
        difference = float(np.max(np.abs(np.asarray(losses) / expected_losses - 1)))
        note = f"largest of {STEPS} losses; weights {'equal bit for bit' if equal else 'not equal bit for bit'}"
        report(f"{self.single.preset}: {what}", difference, "relative", note, at_most=FLOAT32, bit_for_bit=equal)


def steps_alone(
    program: Program, device: jax.Device, state: TrainState, batches: list[Batch], images: Any
) -> tuple[TrainState, np.ndarray]:
    """The state after a step on each batch, and the losses."""
    losses = []
    for batch in batches:
        state, metrics = run(program, device, state, batch, images)
        losses.append(float(metrics["loss"]))
    return state, np.array(losses)
