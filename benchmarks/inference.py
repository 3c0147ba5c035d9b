"""Encoding and interpolation of ours against the same function in PyTorch: `python benchmarks/inference.py`.

Both have the same weights and take the same pictures: arrays of uint8 in, arrays of float out. "interpolation" is what
`Face.interpolate` does: it encodes two pictures and decodes 64 frames between them. Its dense layers' products are also
timed alone.
"""

import argparse
import os
from collections.abc import Callable
from typing import Any

import products
import timing
from train_step import drawn, settings, weights

FRAMES = 64
PARTS = ("products, XLA", "products, PyTorch")
TOLERANCE = 1e-4
"""Largest difference of a pixel, of 1."""


def main() -> None:
    parser = timing.arguments(__doc__, ("hybrid", "plain"), rounds=9, calls=20)
    parser.add_argument("--what", default="", help=argparse.SUPPRESS)
    options = parser.parse_args()
    timing.settle_environment()
    timing.settle_torch()
    config = settings(options.model)
    faces, _ = drawn(config)
    params = weights(config, faces)
    pair = faces.image[[0, len(faces) - 1]]
    ours = our_functions(config, params, pair)
    if options.side:
        return timing.serve(side(options.side, options.what, config, params, pair))
    print(f"Kind {options.model}, {FRAMES} frames between two pictures, {timing.CORES} threads.")
    result: dict[str, Any] = {
        "model": options.model,
        "frames": FRAMES,
        **timing.machine(),
        "what": {},
        "unmeasured": {},
    }
    rows = [("what", "ours, ms", "PyTorch, ms", "the fastest of it", "PyTorch / ours")]
    check(config, params, pair)
    for what in ours:
        found = compared(options.model, what, options.rounds, options.calls)
        result["what"][what] = found
        result["unmeasured"] |= found.pop("unmeasured")
        times = [f"{1e3 * found['seconds'][name]:.2f}" for name in ("ours", found["torch_fastest"])]
        rows.append((what, *times, found["torch_fastest"], f"{found['ratio']:.2f}"))
    result["products"] = alone(options.model, options.rounds, options.calls)
    xla, torch = result["products"].values()
    rows.append(("its products alone", f"{1e3 * xla:.2f}", f"{1e3 * torch:.2f}", "", f"{torch / xla:.2f}"))
    for label, reason in result["unmeasured"].items():
        print(f"PyTorch {label} could not be measured. {reason}")
    print(timing.table(rows))
    result["ratio"], result["load_average_after"] = result["what"]["interpolation"]["ratio"], os.getloadavg()[0]
    print(
        f"In turn, {options.rounds} rounds of {options.calls} calls, medians; load average "
        f"{result['load_average']:.1f} before, {result['load_average_after']:.1f} after."
    )
    timing.write(options.json, result)


def our_functions(config, params, pair) -> dict[str, Callable[[], Any]]:
    """What is timed of ours, by name."""
    from facedisent_jax.trained_model import TrainedModel

    face = TrainedModel(params, config, {}, 0)
    codes = face.encode(pair)
    line = [code[:1].repeat(FRAMES, axis=0) for code in codes]
    return {
        "encode 2 pictures": lambda: face.encode(pair),
        f"decode {FRAMES} frames": lambda: face.decode(line),
        "interpolation": lambda: face.interpolate(pair[0], pair[1], steps=FRAMES),
    }


def torch_functions(config, params, pair, channels_last: bool, compiled: bool) -> dict[str, Callable[[], Any]]:
    """The same of PyTorch."""
    import torch
    import torch_reference as net
    from torch_reference import Codes

    model, held = config.model, net.tensors(params, channels_last)

    def encode(pictures):
        x = net.to_layout(pictures.permute(0, 3, 1, 2).float() / 255, channels_last)
        return net.encode(model, held, x, channels_last)

    def decode(identity, expression):
        return net.decode(model, held, Codes(identity, expression), channels_last).clamp(0, 1).permute(0, 2, 3, 1)

    def interpolate(pictures):
        identity, expression = encode(pictures)
        alpha = torch.linspace(0, 1, FRAMES)[:, None]
        return decode(identity[:1].expand(FRAMES, -1), (1 - alpha) * expression[:1] + alpha * expression[1:])

    if compiled:
        encode_, decode_, interpolate_ = (torch.compile(function) for function in (encode, decode, interpolate))
    else:
        encode_, decode_, interpolate_ = encode, decode, interpolate
    pictures = torch.from_numpy(pair)
    line = [code[:1].repeat(FRAMES, 1) for code in encode(pictures)]
    return {
        "encode 2 pictures": lambda: [code.numpy() for code in encode_(pictures)],
        f"decode {FRAMES} frames": lambda: decode_(*line).numpy(),
        "interpolation": lambda: interpolate_(pictures).numpy(),
    }


def side(name: str, what: str, config, params, pair) -> Callable[[int], None]:
    """What is timed under a name, as `timing.serve` calls it."""
    import torch

    if name in PARTS:
        with torch.no_grad():  # in inference mode PyTorch does not tell of what its layers are made
            dense = products.of(torch_functions(config, params, pair, True, False)["interpolation"])
        return products.alone(dense, name.split(", ")[1])
    made = (
        our_functions(config, params, pair)
        if name == "ours"
        else torch_functions(config, params, pair, *timing.WAYS[name])
    )

    def run(calls: int) -> None:
        with torch.inference_mode():
            for _ in range(calls):
                made[what]()

    return run


def check(config, params, pair) -> None:
    """Ends the script where the two sides do not make the same."""
    import torch

    with torch.inference_mode():
        ours, theirs = our_functions(config, params, pair), torch_functions(config, params, pair, True, False)
        for what in ours:
            same(what, ours[what](), theirs[what]())


def compared(kind: str, what: str, rounds: int, calls: int) -> dict:
    """The times of ours and of the fastest way of PyTorch in turn."""
    arguments = [__file__, "--model", kind, "--what", what]
    seconds, unmeasured, torch = timing.fastest(arguments, calls)
    (ours,) = timing.started(["ours"], arguments)
    times = timing.in_turn([ours, torch], rounds, calls)
    ours.close()
    torch.close()
    medians = timing.medians(times)
    return {
        "ratio": medians[torch.name] / medians["ours"],
        "seconds": medians,
        "torch_fastest": torch.name,
        "torch_seconds": seconds,
        "unmeasured": unmeasured,
        "rounds": times,
    }


def alone(kind: str, rounds: int, calls: int) -> dict[str, float]:
    """Seconds of the interpolation's dense products alone, of either side."""
    sides = timing.started(PARTS, [__file__, "--model", kind])
    times = timing.in_turn(sides, rounds, calls)
    for one in sides:
        one.close()
    return timing.medians(times)


def same(what: str, ours: Any, theirs: Any) -> None:
    """Ends the script where the two sides do not make the same."""
    import numpy as np

    pairs = [(ours, theirs)] if isinstance(ours, np.ndarray) else zip(ours, theirs, strict=True)
    largest = max(float(np.abs(np.asarray(a) - b).max() / max(1.0, np.abs(b).max())) for a, b in pairs)
    if not largest <= TOLERANCE:
        raise SystemExit(
            f"inference.py: {what} differs by {largest:.1e}, more than {TOLERANCE:g}: the two sides are not the same "
            "function, so their times are not compared."
        )


if __name__ == "__main__":
    main()
