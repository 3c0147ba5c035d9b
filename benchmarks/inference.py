"""Encoding and interpolation of ours against the same functions in PyTorch: `python benchmarks/inference.py`.

Both sides have the same weights and take the same images: arrays of uint8 in, arrays of float out. "interpolation" is
`TrainedModel.interpolate`: it encodes two images and decodes 64 frames between them. The matrix products of its dense
layers are also timed alone.
"""

import argparse
import os
from collections.abc import Callable
from typing import Any

import products
import timing
from train_step import draw_batches, preset_config, weights

FRAMES = 64
TASKS = ("encode 2 pictures", f"decode {FRAMES} frames", "interpolation")
PRODUCTS = ("products, XLA", "products, PyTorch")
TOLERANCE = 1e-4
"""Largest difference of a pixel, of 1."""


def main() -> None:
    parser = timing.option_parser(__doc__, ("hybrid", "plain"), rounds=9, calls=20)
    parser.add_argument("--task", default="", help=argparse.SUPPRESS)
    options = parser.parse_args()
    timing.settle_environment()
    timing.settle_torch()
    config = preset_config(options.model)
    faces, _ = draw_batches(config)
    params = weights(config, faces)
    images = faces.image[[0, len(faces) - 1]]
    if options.side:
        return timing.serve(timed_function(options.side, options.task, config, params, images))
    print(f"Kind {options.model}, {FRAMES} frames between two images, {timing.CORES} threads.")
    result: dict[str, Any] = {
        "model": options.model,
        "frames": FRAMES,
        **timing.machine(),
        "what": {},
        "unmeasured": {},
    }
    rows = [("what", "ours, ms", "PyTorch, ms", "the fastest of it", "PyTorch / ours")]
    check_equality(config, params, images)
    for task in TASKS:
        task_result = time_task(options.model, task, options.rounds, options.calls)
        result["what"][task] = task_result
        result["unmeasured"] |= task_result.pop("unmeasured")
        variant = task_result["torch_fastest"]
        milliseconds = [f"{1e3 * task_result['seconds'][name]:.2f}" for name in ("ours", variant)]
        rows.append((task, *milliseconds, variant, f"{task_result['ratio']:.2f}"))
    result["products"] = time_products(options.model, options.rounds, options.calls)
    xla_seconds, torch_seconds = result["products"].values()
    milliseconds = [f"{1e3 * seconds:.2f}" for seconds in (xla_seconds, torch_seconds)]
    rows.append(("its products alone", *milliseconds, "", f"{torch_seconds / xla_seconds:.2f}"))
    for variant, reason in result["unmeasured"].items():
        print(f"PyTorch {variant} could not be measured. {reason}")
    print(timing.table(rows))
    result["ratio"], result["load_average_after"] = result["what"]["interpolation"]["ratio"], os.getloadavg()[0]
    print(
        f"In turn, {options.rounds} rounds of {options.calls} calls, medians; load average "
        f"{result['load_average']:.1f} before, {result['load_average_after']:.1f} after."
    )
    timing.write_json(options.json, result)


def jax_functions(config, params, images) -> dict[str, Callable[[], Any]]:
    """The function of each task, with our package."""
    from facedisent_jax.trained_model import TrainedModel

    model = TrainedModel(params, config, {}, 0)
    codes = [code[:1].repeat(FRAMES, axis=0) for code in model.encode(images)]
    functions = (
        lambda: model.encode(images),
        lambda: model.decode(codes),
        lambda: model.interpolate(images[0], images[1], steps=FRAMES),
    )
    return dict(zip(TASKS, functions, strict=True))


def torch_functions(config, params, images, channels_last: bool, compiled: bool) -> dict[str, Callable[[], Any]]:
    """The same with PyTorch."""
    import torch
    import torch_reference as net
    from torch_reference import Codes

    model, torch_params = config.model, net.tensors(params, channels_last)

    def encode(images):
        x = net.to_layout(images.permute(0, 3, 1, 2).float() / 255, channels_last)
        return net.encode(model, torch_params, x, channels_last)

    def decode(identity, expression):
        decoded = net.decode(model, torch_params, Codes(identity, expression), channels_last)
        return decoded.clamp(0, 1).permute(0, 2, 3, 1)

    def interpolate(images):
        identity, expression = encode(images)
        alpha = torch.linspace(0, 1, FRAMES)[:, None]
        return decode(identity[:1].expand(FRAMES, -1), (1 - alpha) * expression[:1] + alpha * expression[1:])

    functions = (encode, decode, interpolate)
    run_encode, run_decode, run_interpolate = map(torch.compile, functions) if compiled else functions
    torch_images = torch.from_numpy(images)
    codes = [code[:1].repeat(FRAMES, 1) for code in encode(torch_images)]
    functions = (
        lambda: [code.numpy() for code in run_encode(torch_images)],
        lambda: run_decode(*codes).numpy(),
        lambda: run_interpolate(torch_images).numpy(),
    )
    return dict(zip(TASKS, functions, strict=True))


def timed_function(side: str, task: str, config, params, images) -> Callable[[int], None]:
    """The function of a number of calls that a side serves."""
    import torch

    if side in PRODUCTS:
        with torch.no_grad():  # in inference mode PyTorch does not show the products inside its layers
            counts = products.count_products(torch_functions(config, params, images, True, False)["interpolation"])
        return products.multiply(counts, side.split(", ")[1])
    functions = (
        jax_functions(config, params, images)
        if side == "ours"
        else torch_functions(config, params, images, *timing.WAYS[side])
    )

    def run(calls: int) -> None:
        with torch.inference_mode():
            for _ in range(calls):
                functions[task]()

    return run


def check_equality(config, params, images) -> None:
    """Ends the script if the two sides compute different things."""
    import numpy as np
    import torch

    with torch.inference_mode():
        functions = jax_functions(config, params, images), torch_functions(config, params, images, True, False)
        for task in TASKS:
            output, torch_output = (side[task]() for side in functions)
            is_array = isinstance(output, np.ndarray)
            pairs = [(output, torch_output)] if is_array else zip(output, torch_output, strict=True)
            difference = max(float(np.abs(np.asarray(a) - b).max() / max(1.0, np.abs(b).max())) for a, b in pairs)
            if not difference <= TOLERANCE:
                raise SystemExit(
                    f"inference.py: {task} differs by {difference:.1e}, more than {TOLERANCE:g}: the two sides are not "
                    "the same function, so their times are not compared."
                )


def time_task(kind: str, task: str, rounds: int, calls: int) -> dict:
    """Seconds of our side and of the fastest variant of PyTorch, timed in turn."""
    arguments = [__file__, "--model", kind, "--task", task]
    variant_seconds, unmeasured, torch_side = timing.fastest(arguments, calls)
    sides = [*timing.start_sides(["ours"], arguments), torch_side]
    round_seconds = timing.in_turn(sides, rounds, calls)
    for side in sides:
        side.close()
    seconds = timing.medians(round_seconds)
    return {
        "ratio": seconds[torch_side.name] / seconds["ours"],
        "seconds": seconds,
        "torch_fastest": torch_side.name,
        "torch_seconds": variant_seconds,
        "unmeasured": unmeasured,
        "rounds": round_seconds,
    }


def time_products(kind: str, rounds: int, calls: int) -> dict[str, float]:
    """Seconds of the interpolation's dense products alone, with each library."""
    sides = timing.start_sides(PRODUCTS, [__file__, "--model", kind])
    round_seconds = timing.in_turn(sides, rounds, calls)
    for side in sides:
        side.close()
    return timing.medians(round_seconds)


if __name__ == "__main__":
    main()
