"""Piece "training" of accelerator.py: what a minute of training gives, on the device and on the machine's CPU.

The default model and `warp` are trained for 90 seconds each, and judged after 30 and 90 on the people held out: PSNR
of reconstructions, of swaps and, of `warp`, of images decoded from another image of the person. Seconds are those of
the steps, without compilation and judging. Device and CPU train at the same time, each with what is fast there. The
learning rate decays over the steps that fit the time. The averaged weights of the device's runs are written.
"""

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import accelerator_pictures as pictures
import jax
import numpy as np
from accelerator_figures import Piece, parse_piece, report
from flax.traverse_util import flatten_dict, unflatten_dict

from facedisent_jax.config import Config, from_dict, to_dict
from facedisent_jax.data.record import Faces
from facedisent_jax.data.triplets import Triplets
from facedisent_jax.files import replacing
from facedisent_jax.models import Params
from facedisent_jax.training import distributed
from facedisent_jax.training.step import TrainState, init_state, train_step, train_steps
from facedisent_jax.training.validation import validate

PRESETS = ("smile", "warp")
JUDGED_AFTER = {False: (30.0, 90.0), True: (0.5, 1.0)}
"""Seconds of training, by whether it is a rehearsal."""
HOST_CORES = 4  # kept from the CPU's training, for the thread that feeds the device
SECONDS = 40  # beyond those of the steps: what compilation and judging may take


class Way(NamedTuple):
    """How a device trains: batch by preset, steps a call, whether the images lie on the device."""

    batch: dict[str, int]
    steps_per_call: int
    resident: bool


WAYS = {
    "accelerator": Way({"smile": 256, "warp": 64}, 50, True),
    "cpu": Way({"smile": 32, "warp": 8}, 1, False),  # as in the presets
}


def measure(piece: Piece) -> None:
    """Both sides report by themselves."""
    platforms = {"accelerator": os.environ.get("JAX_PLATFORMS", ""), "cpu": "cpu"}
    processes = [
        subprocess.Popen(
            [sys.executable, __file__, *piece.arguments(), "--side", side],
            env=os.environ | {"JAX_PLATFORMS": platform},
        )
        for side, platform in platforms.items()
    ]
    for side, process in zip(platforms, processes, strict=True):
        if process.wait():
            report(f"training, {side}", None, note=f"it ended with status {process.returncode}", device="-")


def train_side(piece: Piece, side: str) -> None:
    if side == "cpu" and (cores := sorted(os.sched_getaffinity(0)))[2 * HOST_CORES :]:
        os.sched_setaffinity(0, cores[HOST_CORES:])
    faces, held_out = pictures.load(piece.pictures)
    for preset in PRESETS:
        if piece.has(JUDGED_AFTER[False][-1] + SECONDS):
            train(piece, side, preset, faces, held_out)
        else:
            report(f"{preset} trained, {side}", None, note="no time left")


def train(piece: Piece, side: str, preset: str, faces: Faces, held_out_faces: Faces) -> None:
    """Train a preset, report its PSNR after each of the times, and write its weights."""
    way, judged_after = WAYS[side], JUDGED_AFTER[piece.rehearse]
    config = pictures.preset_config(
        preset,
        piece.rehearse,
        batch=way.batch[preset],
        steps_per_call=way.steps_per_call,
        dataset_on_device=way.resident,
    )
    held_out = Triplets(held_out_faces, config.intensity_step, with_middle=False)
    first_state = jax.device_get(init_state(config, faces))
    pilot = Trainer(config, faces, first_state)
    pilot.run(1)  # compiles
    seconds_per_call = pilot.run(3) / 3
    if not piece.rehearse:  # there the same program serves twice
        steps = int(judged_after[-1] / seconds_per_call) * config.steps_per_call
        optim = replace(config.optim, decay_steps=max(steps, config.optim.warmup_steps + 1))
        config = replace(config, optim=optim)
    trainer = Trainer(config, faces, first_state)
    trainer.run(1)
    training_seconds = 0.0
    for seconds in judged_after:
        while training_seconds < seconds:
            calls = int((seconds - training_seconds) / seconds_per_call)
            training_seconds += trainer.run(max(1, min(20, calls)))
        metrics = validate(config, trainer.state.ema_params, held_out)
        note = f"{int(trainer.state.step):,} steps of {config.batch} triplets in {training_seconds:.1f} s"
        for name, value in metrics.items():
            if name.endswith("_psnr"):
                kind = name.removeprefix("validation/").removesuffix("_psnr")
                report(f"{preset} on the {side} for {seconds:g} s: {kind}", value, "dB", note)
    if side == "accelerator":
        save_weights(piece.out / f"accelerator-{preset}.npz", config, trainer.state.ema_params)


class Trainer:
    """The state of a training and its stream of batches."""

    def __init__(self, config: Config, faces: Faces, state: TrainState):
        self.config, self.state = config, distributed.replicated(state)
        self.batches = pictures.stream(config, pictures.triplets_of(config, faces))
        self.images = distributed.replicated(faces.image) if config.dataset_on_device else None

    def run(self, calls: int) -> float:
        """Make calls. Returns their seconds."""
        several = self.config.steps_per_call > 1
        program = train_steps if several else train_step
        start = time.perf_counter()
        for _ in range(calls):
            batch = distributed.shard_batch(next(self.batches), leading_axes=int(several))
            self.state, metrics = program(self.config, self.state, batch, self.images)
        jax.block_until_ready((self.state, metrics))
        return time.perf_counter() - start


def save_weights(path: Path, config: Config, params: Params) -> None:
    """Write the weights and their config; float16 is exact to 1 in 2,000, and half as large."""
    flat = flatten_dict(jax.device_get(params), sep="/")
    with replacing(path) as partial:
        arrays = {name: value.astype(np.float16) for name, value in flat.items()}
        np.savez(partial, config=json.dumps(to_dict(config)), **arrays)


def load_weights(path: Path) -> tuple[Config, Params]:
    """What `save_weights` wrote, for `TrainedModel` or `validate`."""
    with np.load(path, allow_pickle=False) as arrays:
        config = from_dict(json.loads(str(arrays["config"])))
        flat = {name: arrays[name].astype(np.float32) for name in arrays.files if name != "config"}
    return config, unflatten_dict(flat, sep="/")


if __name__ == "__main__":
    train_side(*parse_piece("--side"))
