"""Piece "torch" of accelerator.py: our default step against the same function in PyTorch, on the same device.

256 triplets that lie on the device already, TF32, no augmentation (the random numbers of the two differ). PyTorch runs
eager, compiled, and compiled with CUDA graphs, each with both memory layouts. Each side is a process of its own, and
all are timed in turn. PyTorch's loss and gradient on the device are compared with ours on the CPU.
"""

import importlib.util
import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as TooLate
from itertools import cycle, islice
from typing import NamedTuple

import timing
from accelerator_figures import Piece, parse_piece, report

BATCH, BATCHES = 256, 8
TF32 = "tensorfloat32"
ROUNDS, ROUND_SECONDS = 7, 0.3
TIMING_SECONDS = 20  # kept for timing: a side that is not compiled by then is left out
OURS = {"ours": 1, "ours, K = 10": 10}
"""Steps a call of our sides."""
EQUAL = "equal"


class Way(NamedTuple):
    """A variant of PyTorch."""

    channels_last: bool
    compiled: bool
    cuda_graphs: bool


WAYS = {
    f"{name}, {layout}": Way(layout == "channels_last", *options)
    for name, options in (("eager", (False, False)), ("compiled", (True, False)), ("CUDA graphs", (True, True)))
    for layout in ("contiguous", "channels_last")
}
REHEARSAL = ("eager, channels_last",)


def measure(piece: Piece) -> None:
    ways = REHEARSAL if piece.rehearse else tuple(WAYS)
    if importlib.util.find_spec("torch") is None:
        for way in ways:
            report(f"PyTorch, {way}", None, note="not installed", device="-")
        return
    arguments = [__file__, *piece.arguments()]
    equal = subprocess.Popen([sys.executable, *arguments, "--side", EQUAL])  # reports by itself
    names = ("ours",) if piece.rehearse else tuple(OURS)
    sides = {name: timing.Side(name, arguments) for name in (*names, *ways)}  # all compile at once
    deadline = time.monotonic() + 600 if piece.rehearse else piece.end - TIMING_SECONDS
    ready = wait_for(sides, deadline)
    try:
        equal.wait(max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        equal.kill()
        report("PyTorch against our CPU", None, note="not done in time", device="-")
    if any(side.name == "ours" for side in ready):
        report_seconds(ready, piece.rehearse)


def wait_for(sides: dict[str, timing.Side], deadline: float) -> list[timing.Side]:
    """The sides that are compiled before the deadline. The others are closed, and reported with the reason."""
    ready = []
    with ThreadPoolExecutor(len(sides)) as pool:
        failures = {name: pool.submit(side.failure) for name, side in sides.items()}
        for name, failure in failures.items():
            try:
                reason = failure.result(max(0.0, deadline - time.monotonic()))
            except TooLate:
                reason = "not compiled in time"
            if reason:
                sides[name].close()
                report(title(name), None, note=reason, device="-")
            else:
                ready.append(sides[name])
    return ready


def title(name: str) -> str:
    return name if name in OURS else f"PyTorch, {name}"


def report_seconds(sides: list[timing.Side], rehearse: bool) -> None:
    tens = 1 if rehearse else max(1, int(ROUND_SECONDS / 10 / max(side.seconds(10) for side in sides)))
    rounds = timing.in_turn(sides, 2 if rehearse else ROUNDS, 10 * tens)  # a multiple of the steps of a call
    for side in sides:
        side.close()
    seconds = timing.medians(rounds)
    for name, value in seconds.items():
        note = f"{1e3 * min(rounds[name]):.2f} to {1e3 * max(rounds[name]):.2f} in {len(rounds[name])} rounds in turn"
        report(f"step without augmentation, {title(name)}", 1e3 * value, "ms", note)
    ways = {name: value for name, value in seconds.items() if name in WAYS}
    if ways:
        fastest = min(ways, key=lambda name: ways[name])
        report("PyTorch / ours", ways[fastest] / seconds["ours"], "times", f"PyTorch {fastest}", at_least=1.0)


def serve(piece: Piece, side: str) -> None:
    """Be one side: time it whenever the main process asks."""
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "4")  # of each of the variants, which compile at once
    if side not in OURS:
        os.environ["JAX_PLATFORMS"] = "cpu"  # the device is PyTorch's
    import accelerator_pictures as pictures
    from train_step import weights

    faces, _ = pictures.load(piece.pictures)
    config = pictures.preset_config("smile", piece.rehearse, batch=BATCH, steps_per_call=OURS.get(side, 1))
    config = pictures.without_augmentation(config)
    draw = pictures.draw_call(config, pictures.triplets_of(config, faces))
    batches = [draw(call) for call in range(BATCHES)]
    if side == EQUAL:
        compare(config, faces, batches)
    elif side in OURS:
        timing.serve(our_steps(config, faces, batches))
    else:
        timing.serve(torch_steps(config, weights(config, faces), batches, WAYS[side]))


def compare(config, faces, batches) -> None:
    """Report how far PyTorch's first steps on its device are from ours on the CPU."""
    import train_step as benchmark

    device = settle_torch("highest")
    try:
        result = benchmark.equality(config, benchmark.weights(config, faces), faces, batches, device)
    except SystemExit as error:
        report("PyTorch against our CPU", None, note=str(error), device=device_name(device))
        return
    for name, value in result["largest_relative_difference"].items():
        limit = benchmark.TOLERANCE[name]
        report(f"PyTorch against our CPU, {name}", value, "relative", at_most=limit, device=device_name(device))


def settle_torch(precision: str) -> str:
    """Set the precision of float32 products, as PyTorch names it. Returns the device to compute on."""
    import torch

    timing.settle_torch()
    torch.set_float32_matmul_precision(precision)
    torch.backends.cudnn.allow_tf32 = precision != "highest"
    return "cuda" if torch.cuda.is_available() else "cpu"


def device_name(device: str) -> str:
    import torch

    return torch.cuda.get_device_name() if device == "cuda" else device


def our_steps(config, faces, batches) -> Callable[[int], None]:
    """A function that makes calls of our step."""
    import jax

    from facedisent_jax.training import distributed
    from facedisent_jax.training.step import init_state, train_step, train_steps

    k = config.steps_per_call
    program = train_step if k == 1 else train_steps
    state = init_state(config, faces)
    stream = cycle([distributed.shard_batch(batch, leading_axes=int(k > 1)) for batch in batches])

    def run(steps: int) -> None:
        nonlocal state
        with jax.default_matmul_precision(TF32):
            for batch in islice(stream, max(1, steps // k)):
                state, metrics = program(config, state, batch)
        jax.block_until_ready((state, metrics))

    return run


def torch_steps(config, params, batches, way: Way) -> Callable[[int], None]:
    """The same with PyTorch."""
    import torch
    from torch_step import Training, on_device

    device = settle_torch("high")
    training = Training(config, params, *way, device=device)
    stream = cycle([on_device(batch, device) for batch in batches])

    def run(steps: int) -> None:
        for batch in islice(stream, steps):
            training.step(batch)
        if device == "cuda":
            torch.cuda.synchronize()

    return run


if __name__ == "__main__":
    serve(*parse_piece("--side"))
