"""One training step of ours against the same function in PyTorch: `python benchmarks/train_step.py [--model KIND]`.

Both sides start from the same weights and see the same triplets of built-in faces. First the losses of some steps must
be equal. Then both are timed in turn, each in its own process. Augmentation is off on both sides, because their random
numbers differ; our step with augmentation is a row of its own. The products of the dense layers and the optimizer are
also timed alone, to show what is left to gain.
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
"""Relative. The gradient of kind warp jumps when a sample passes from one pixel to the next."""
GEMM = 2048
AUGMENTED = "float32, augmented"
PARTS = tuple(f"{part}, {library}" for part in ("products", "optimiser") for library in ("XLA", "PyTorch"))
"""Parts of a step that are timed alone: the products of its dense layers, and the update of the weights."""


def main() -> None:
    options = timing.option_parser(__doc__, PRESETS, rounds=7, calls=4).parse_args()
    timing.settle_environment()
    timing.settle_torch()

    config = preset_config(options.model)
    faces, batches = draw_batches(config)
    params = weights(config, faces)
    if options.side:
        return timing.serve(timed_function(options.side, config, params, faces, batches))
    result = {"model": options.model, "batch": config.batch, "augmentation": False, **timing.machine()}
    print(
        f"Kind {options.model}, {config.batch} triplets a step, augmentation off on both sides, {timing.CORES} threads."
    )
    result["equal"] = equality(config, params, faces, batches)
    step_flops = count_flops(config, params, batches[0])
    dense_flops = products.count_flops(dense_products(config, params, batches[0]))
    result |= measure(options.model, step_flops, dense_flops, options.rounds, options.calls)
    timing.write_json(options.json, result)


def preset_config(kind: str, augmented: bool = False):
    """The config of the preset with this kind of network, with or without augmentation."""
    from facedisent_jax.presets import PRESETS as CONFIGS

    config = CONFIGS[PRESETS[kind]].config
    return config if augmented else replace(config, augment=replace(config.augment, enabled=False))


def draw_batches(config, subjects: int = 40):
    """Built-in faces (kind warp: also a clip of each person) and eight batches of their triplets."""
    from data_prep.synthetic.faces import records
    from facedisent_jax.data.record import Faces
    from facedisent_jax.data.triplets import Triplets

    is_warp = config.model.kind == "warp"
    faces = Faces.of(record for _, record in records(subjects, clips=is_warp))
    triplets = Triplets(faces, config.intensity_step, with_middle=is_warp)
    return faces, [triplets.batch(config.seed, k, config.batch) for k in range(8)]


def weights(config, faces) -> Any:
    """Our initial weights as numpy arrays, with small random numbers in place of zeros.

    Behind a layer of zeros, a difference between the sides would not show in the losses.
    """
    import jax
    import numpy as np

    from facedisent_jax.training.step import init_state

    rng = np.random.default_rng(config.seed)

    def replace_zeros(value):
        value = np.array(value)
        return np.where(value == 0, rng.normal(0, 0.01, value.shape), value).astype(np.float32)

    return jax.tree.map(replace_zeros, init_state(config, faces).params)


def equality(config, params, faces, batches, torch_device: str = "cpu") -> dict:
    """Compare loss and gradient norm of the first steps. Ends the script if the two sides differ."""
    from torch_step import Training

    from facedisent_jax.training.step import init_state, train_step

    # A tenth of the learning rate, without warm-up: during the warm-up the weights would hardly move, and at the full
    # rate rounding errors grow from step to step (kind warp, whose samples jump between pixels).
    config = replace(config, optim=replace(config.optim, warmup_steps=1, lr=config.optim.lr / 10))
    state = init_state(config, faces, params)
    torch_training = Training(config, params, True, False, device=torch_device)
    rows = [("step", "loss", "torch", "difference", "gradient norm", "torch", "difference")]
    largest_difference = dict.fromkeys(TOLERANCE, 0.0)
    for step, batch in enumerate(batches[:EQUAL_STEPS], 1):
        state, metrics = train_step(config, state, batch)
        torch_metrics = torch_training.step(batch)
        row = [str(step)]
        for name in TOLERANCE:
            value, torch_value = float(metrics[name]), float(torch_metrics[name])
            difference = abs(value - torch_value) / abs(torch_value)
            largest_difference[name] = max(largest_difference[name], difference)
            row += [f"{value:.6f}", f"{torch_value:.6f}", f"{difference:.1e}"]
        rows.append(tuple(row))
    print(timing.table(rows))
    for name, tolerance in TOLERANCE.items():
        if not largest_difference[name] <= tolerance:
            raise SystemExit(
                f"train_step.py: {name} differs by {largest_difference[name]:.1e} of its size, more than "
                f"{tolerance:g}: the two sides are not the same function, so their times are not compared."
            )
    return {"steps": EQUAL_STEPS, "largest_relative_difference": largest_difference}


def jax_steps(config, params, faces, batches) -> Callable[[int], None]:
    """A function that makes a number of our steps. Each call continues from the state of the last one."""
    import jax

    from facedisent_jax.training.step import init_state, train_step

    state, stream = init_state(config, faces, params), cycle(batches)

    def run(calls: int) -> None:
        nonlocal state
        for batch in islice(stream, calls):
            state, metrics = train_step(config, state, batch)
        jax.block_until_ready((state, metrics))

    return run


def torch_steps(config, params, batches, channels_last: bool, compiled: bool) -> Callable[[int], None]:
    """The same with PyTorch."""
    from torch_step import Training

    training, stream = Training(config, params, channels_last, compiled), cycle(batches)

    def run(calls: int) -> None:
        for batch in islice(stream, calls):
            training.step(batch)

    return run


def timed_function(side: str, config, params, faces, batches) -> Callable[[int], None]:
    """The function of a number of calls that a side serves."""
    if side == "gemm":
        return multiply_large()
    if side in PARTS:
        part, library = side.split(", ")
        if part == "optimiser":
            return update_weights(config, params, faces, library)
        return products.multiply(dense_products(config, params, batches[0]), library)
    if side in timing.WAYS:
        return torch_steps(config, params, batches, *timing.WAYS[side])
    if side == AUGMENTED:
        return jax_steps(preset_config(config.model.kind, augmented=True), params, faces, batches)
    return jax_steps(replace(config, model=replace(config.model, dtype=side)), params, faces, batches)


def multiply_large() -> Callable[[int], None]:
    """A function that multiplies two 2048x2048 float32 matrices with XLA: what the machine can do."""
    import jax

    matrix = jax.random.normal(jax.random.key(0), (GEMM, GEMM))
    multiply = jax.jit(lambda a, b: a @ b)

    def run(calls: int) -> None:
        for _ in range(calls):
            product = multiply(matrix, matrix)
        product.block_until_ready()

    return run


def update_weights(config, params, faces, library: str) -> Callable[[int], None]:
    """A function that does what follows the gradient in a step: its norm, the new weights, their moving average."""
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

    def run_jax(calls: int) -> None:
        nonlocal state
        for _ in range(calls):
            state = jax.block_until_ready(update(config, state, gradient))

    return run_jax


def count_flops(config, params, batch) -> int:
    """Floating-point operations of a step's matrix products and convolutions, forwards and backwards.

    Counted by PyTorch in the same function; a multiplication and an addition are two.
    """
    from torch.utils.flop_counter import FlopCounterMode
    from torch_step import Training

    with FlopCounterMode(display=False) as counter:
        Training(config, params, True, False).step(batch)
    return counter.get_total_flops()


def dense_products(config, params, batch) -> Counter[products.Shape]:
    """The matrix products of a step's dense layers, counted in the same function."""
    from torch_step import Training

    training = Training(config, params, True, False)
    return products.count_products(lambda: training.step(batch))


def measure(kind: str, step_flops: int, dense_flops: int, rounds: int, calls: int) -> dict:
    """Time all sides in turn and print the table. Returns seconds, ratios and rates for the JSON file."""
    arguments = [__file__, "--model", kind]
    variant_seconds, unmeasured, torch_side = timing.fastest(arguments, 2)
    for variant, reason in unmeasured.items():
        print(f"PyTorch {variant} could not be measured. {reason}")
    load_before = os.getloadavg()[0]
    round_seconds: dict[str, list[float]] = {}
    steps = ("float32", "bfloat16", AUGMENTED)
    for torch_sides, names in (([torch_side], (*steps, "gemm")), ([], PARTS)):  # all at once would not fit 24 GiB
        sides = torch_sides + timing.start_sides(names, arguments)
        round_seconds |= timing.in_turn(sides, rounds, calls)
        for side in sides:
            side.close()
    seconds = timing.medians(round_seconds)
    gemm_rate, step_rate = 2 * GEMM**3 / seconds["gemm"], step_flops / seconds["float32"]
    ratio = seconds[torch_side.name] / seconds["float32"]

    def milliseconds(name: str) -> list[str]:
        values = round_seconds[name]
        return [f"{1e3 * value:.1f}" for value in (seconds[name], min(values), max(values))]

    rows = [("side", "ms a step", "least", "most", "ratio to ours")]
    for variant, value in variant_seconds.items():
        rows.append((f"PyTorch {variant} (6 steps)", f"{1e3 * value:.1f}", "", "", ""))
    titles = {torch_side.name: f"PyTorch {torch_side.name}"} | {name: f"ours, {name}" for name in steps}
    for name, title in titles.items():
        rows.append((title, *milliseconds(name), f"{seconds[name] / seconds['float32']:.2f}"))
    rows += [(name, *milliseconds(name), "") for name in PARTS]
    print(timing.table(rows))
    convolution_seconds = (step_flops - dense_flops) / gemm_rate
    least_seconds = seconds["products, XLA"] + seconds["optimiser, XLA"] + convolution_seconds
    print(
        f"Ratio, PyTorch / ours: {ratio:.2f}. In turn, {rounds} rounds of {calls} steps, medians; load average "
        f"{load_before:.1f} before, {os.getloadavg()[0]:.1f} after.\n"
        f"XLA product of {GEMM}x{GEMM} matrices: {gemm_rate / 1e9:.0f} GFLOP/s; our step: {step_flops / 1e9:.1f} "
        f"GFLOP, {step_rate / 1e9:.0f} GFLOP/s, {step_rate / gemm_rate:.0%} of it.\n"
        f"With XLA's products and optimizer as fast as alone, convolutions at the rate of the large product "
        f"({1e3 * convolution_seconds:.1f} ms) and nothing else: {1e3 * least_seconds:.1f} ms, a ratio of "
        f"{seconds[torch_side.name] / least_seconds:.2f}."
    )
    return {
        "ratio": ratio,
        "seconds": seconds,
        "torch_fastest": torch_side.name,
        "torch_seconds": variant_seconds,
        "unmeasured": unmeasured,
        "bfloat16_ratio": seconds["float32"] / seconds["bfloat16"],
        "step_flops": step_flops,
        "gemm_flops_per_second": gemm_rate,
        "share_of_gemm": step_rate / gemm_rate,
        "least_seconds": least_seconds,
        "rounds": round_seconds,
        "load_average_after": os.getloadavg()[0],
    }


if __name__ == "__main__":
    main()
