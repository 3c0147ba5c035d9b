"""One training step of ours against the same function in PyTorch: `python benchmarks/train_step.py [--model KIND]`.

Both begin with the same weights and see the same triplets of built-in faces, drawn in memory. First the losses of some
steps must be equal; then both are timed in turn, each in a process of its own. Augmentation is off on both sides, as
their random numbers differ; what it adds to ours is a row of its own. The dense layers' products and the optimiser are
also timed alone: what is left to gain.
"""

import os
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import cycle, islice
from typing import Any

import products
import timing

PRESETS = {"hybrid": "smile", "plain": "poster", "warp": "warp"}
EQUAL_STEPS = 5
TOLERANCE = {"loss": 1e-3, "gradient_norm": 5e-3}
"""Relative. The gradient of kind warp jumps where a sample passes from one pixel to the next."""
GEMM = 2048
AUGMENTED = "float32, augmented"
PARTS = tuple(f"{part}, {library}" for part in ("products", "optimiser") for library in ("XLA", "PyTorch"))
"""Of a step, timed alone: the products of its dense layers and what follows on the gradient."""


def main() -> None:
    options = timing.arguments(__doc__, PRESETS, rounds=7, calls=4).parse_args()
    timing.settle_environment()
    timing.settle_torch()

    config = settings(options.model)
    faces, batches = drawn(config)
    params = weights(config, faces)
    if options.side:
        return timing.serve(side(options.side, config, params, faces, batches))
    result = {"model": options.model, "batch": config.batch, "augmentation": False, **timing.machine()}
    print(
        f"Kind {options.model}, {config.batch} triplets a step, augmentation off on both sides, {timing.CORES} threads."
    )
    result["equal"] = equality(config, params, faces, batches)
    flops = operations(config, params, batches[0])
    of_dense = products.operations(dense(config, params, batches[0]))
    result |= measured(options.model, flops, of_dense, options.rounds, options.calls)
    timing.write(options.json, result)


def settings(kind: str, augmented: bool = False):
    """The config of the kind's preset, without augmentation unless asked for."""
    from facedisent_jax.presets import PRESETS as CONFIGS

    config = CONFIGS[PRESETS[kind]].config
    return config if augmented else replace(config, augment=replace(config.augment, enabled=False))


def drawn(config, people: int = 40):
    """Built-in faces (kind warp: also a clip of each person) and eight batches of their triplets."""
    from data_prep.synthetic.faces import records
    from facedisent_jax.data.record import Faces
    from facedisent_jax.data.triplets import Triplets

    faces = Faces.of(record for _, record in records(people, clips=config.model.kind == "warp"))
    triplets = Triplets(faces, config.intensity_step, with_middle=config.model.kind == "warp")
    return faces, [triplets.batch(config.seed, k, config.batch) for k in range(8)]


def weights(config, faces) -> Any:
    """Our initial weights as arrays of numpy. What begins at zero, layers or a part of one, begins at small random
    numbers instead, or the losses would not tell what is behind it."""
    import jax
    import numpy as np

    from facedisent_jax.training.step import init_state

    rng = np.random.default_rng(config.seed)

    def some(value):
        value = np.array(value)
        return np.where(value == 0, rng.normal(0, 0.01, value.shape), value).astype(np.float32)

    return jax.tree.map(some, init_state(config, faces).params)


def equality(config, params, faces, batches) -> dict:
    """Loss and gradient norm of the first steps of both, side by side; ends the script where they differ."""
    from torch_step import Training

    from facedisent_jax.training.step import init_state, train_step

    # A tenth of its rate, but at once: with the warm-up the weights would hardly move, and at the full rate rounding is
    # enlarged from step to step (kind warp, whose samples jump between pixels).
    config = replace(config, optim=replace(config.optim, warmup_steps=1, lr=config.optim.lr / 10))
    state, reference = init_state(config, faces, params), Training(config, params, True, False)
    rows, largest = (
        [("step", "loss", "torch", "difference", "gradient norm", "torch", "difference")],
        dict.fromkeys(TOLERANCE, 0.0),
    )
    for step, batch in enumerate(batches[:EQUAL_STEPS], 1):
        state, ours = train_step(config, state, batch)
        theirs = reference.step(batch)
        row = [str(step)]
        for name in TOLERANCE:
            a, b = float(ours[name]), float(theirs[name])
            largest[name] = max(largest[name], abs(a - b) / abs(b))
            row += [f"{a:.6f}", f"{b:.6f}", f"{abs(a - b) / abs(b):.1e}"]
        rows.append(tuple(row))
    print(timing.table(rows))
    for name, most in TOLERANCE.items():
        if not largest[name] <= most:
            raise SystemExit(
                f"train_step.py: {name} differs by {largest[name]:.1e} of its size, more than {most:g}: the two sides "
                "are not the same function, so their times are not compared."
            )
    return {"steps": EQUAL_STEPS, "largest_relative_difference": largest}


def ours(config, params, faces, batches) -> Callable[[int], None]:
    """Our steps, as `timing.serve` calls them; the state goes on from call to call."""
    import jax

    from facedisent_jax.training.step import init_state, train_step

    state, stream = init_state(config, faces, params), cycle(batches)

    def run(calls: int) -> None:
        nonlocal state
        for batch in islice(stream, calls):
            state, metrics = train_step(config, state, batch)
        jax.block_until_ready((state, metrics))

    return run


def theirs(config, params, batches, channels_last: bool, compiled: bool) -> Callable[[int], None]:
    """PyTorch's steps, likewise."""
    from torch_step import Training

    training, stream = Training(config, params, channels_last, compiled), cycle(batches)

    def run(calls: int) -> None:
        for batch in islice(stream, calls):
            training.step(batch)

    return run


def side(name: str, config, params, faces, batches) -> Callable[[int], None]:
    """What is timed under a name."""
    if name == "gemm":
        return gemm()
    if name in PARTS:
        part, library = name.split(", ")
        if part == "optimiser":
            return optimiser(config, params, faces, library)
        return products.alone(dense(config, params, batches[0]), library)
    if name in timing.WAYS:
        return theirs(config, params, batches, *timing.WAYS[name])
    if name == AUGMENTED:
        return ours(settings(config.model.kind, augmented=True), params, faces, batches)
    return ours(replace(config, model=replace(config.model, dtype=name)), params, faces, batches)


def gemm() -> Callable[[int], None]:
    """Products of two 2048x2048 float32 matrices with XLA: what the machine can do."""
    import jax

    a = jax.random.normal(jax.random.key(0), (GEMM, GEMM))
    product = jax.jit(lambda a, b: a @ b)

    def run(calls: int) -> None:
        for _ in range(calls):
            out = product(a, a)
        out.block_until_ready()

    return run


def optimiser(config, params, faces, library: str) -> Callable[[int], None]:
    """What follows on the gradient in a step: its norm, the weights, their average."""
    import jax
    import torch
    from torch_step import Training

    from facedisent_jax.training.step import apply_gradient, init_state

    if library == "PyTorch":
        torch_training = Training(config, params, True, False)
        for weight in torch_training.weights:
            weight.grad = torch.ones_like(weight)

        def run(calls: int) -> None:
            for _ in range(calls):
                torch_training.update()

        return run

    state, gradient = init_state(config, faces, params), jax.device_put(params)
    update = jax.jit(apply_gradient, static_argnums=0, donate_argnums=1)

    def run_ours(calls: int) -> None:
        nonlocal state
        for _ in range(calls):
            state = jax.block_until_ready(update(config, state, gradient))

    return run_ours


def operations(config, params, batch) -> int:
    """Floating-point operations of a step's matrix products and convolutions, forwards and backwards, as PyTorch's
    counter finds them in the same function; a multiplication and an addition are two."""
    from torch.utils.flop_counter import FlopCounterMode
    from torch_step import Training

    with FlopCounterMode(display=False) as counter:
        Training(config, params, True, False).step(batch)
    return counter.get_total_flops()


def dense(config, params, batch) -> Counter[products.Shape]:
    """The products of a step's dense layers, of the same function."""
    from torch_step import Training

    training = Training(config, params, True, False)
    return products.of(lambda: training.step(batch))


def measured(kind: str, flops: int, of_dense: int, rounds: int, calls: int) -> dict:
    """Times taken in turn, printed as a table; seconds, ratios and rates for the JSON file."""
    arguments = [__file__, "--model", kind]
    chosen_from, unmeasured, torch = timing.fastest(arguments, 2)
    for label, reason in unmeasured.items():
        print(f"PyTorch {label} could not be measured. {reason}")
    before = os.getloadavg()[0]
    times = {}
    for more, names in (([torch], ("float32", "bfloat16", AUGMENTED, "gemm")), ([], PARTS)):  # all would not fit 24 GiB
        sides = more + timing.started(names, arguments)
        times |= timing.in_turn(sides, rounds, calls)
        for one in sides:
            one.close()
    seconds = timing.medians(times)
    rate, step_rate = 2 * GEMM**3 / seconds["gemm"], flops / seconds["float32"]
    ratio = seconds[torch.name] / seconds["float32"]
    rows = [("side", "ms a step", "least", "most", "ratio to ours")]
    for label, second in chosen_from.items():
        rows.append((f"PyTorch {label} (6 steps)", f"{1e3 * second:.1f}", "", "", ""))
    for label, title in (
        (torch.name, f"PyTorch {torch.name}"),
        *((name, f"ours, {name}") for name in ("float32", "bfloat16", AUGMENTED)),
    ):
        shown = (seconds[label], min(times[label]), max(times[label]))
        rows.append((title, *(f"{1e3 * t:.1f}" for t in shown), f"{seconds[label] / seconds['float32']:.2f}"))
    rows += [
        (name, *(f"{1e3 * t:.1f}" for t in (seconds[name], min(times[name]), max(times[name]))), "") for name in PARTS
    ]
    print(timing.table(rows))
    convolutions = (flops - of_dense) / rate
    least = seconds["products, XLA"] + seconds["optimiser, XLA"] + convolutions
    print(
        f"Ratio, PyTorch / ours: {ratio:.2f}. In turn, {rounds} rounds of {calls} steps, medians; load average "
        f"{before:.1f} before, {os.getloadavg()[0]:.1f} after.\n"
        f"XLA product of {GEMM}x{GEMM} matrices: {rate / 1e9:.0f} GFLOP/s; our step: {flops / 1e9:.1f} GFLOP, "
        f"{step_rate / 1e9:.0f} GFLOP/s, {step_rate / rate:.0%} of it.\n"
        f"With XLA's products and optimiser as they are alone, convolutions at the large product's rate "
        f"({1e3 * convolutions:.1f} ms) and nothing else: {1e3 * least:.1f} ms, a ratio of "
        f"{seconds[torch.name] / least:.2f}."
    )
    return {
        "ratio": ratio,
        "seconds": seconds,
        "torch_fastest": torch.name,
        "torch_seconds": chosen_from,
        "unmeasured": unmeasured,
        "bfloat16_ratio": seconds["float32"] / seconds["bfloat16"],
        "step_flops": flops,
        "gemm_flops_per_second": rate,
        "share_of_gemm": step_rate / rate,
        "least_seconds": least,
        "rounds": times,
        "load_average_after": os.getloadavg()[0],
    }


if __name__ == "__main__":
    main()
