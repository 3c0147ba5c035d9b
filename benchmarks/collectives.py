"""What the devices of a step send each other: `python benchmarks/collectives.py [PRESET] [--devices N]`.

Compiles the step for N virtual devices of a CPU, and counts the collective operations in the compiled program and the
bytes of their results. The compiler splits the same program on GPUs and TPUs; it may join or divide operations there.
"""

import argparse
import math
import os
import re
from collections import defaultdict
from dataclasses import replace
from typing import Any

import timing

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
ITEM_BYTES = {"pred": 1, "u8": 1, "s8": 1, "bf16": 2, "f16": 2, "s32": 4, "u32": 4, "f32": 4, "s64": 8, "u64": 8}


def count_collectives(program: str) -> dict[str, tuple[int, int]]:
    """Number and bytes of each kind of collective in the text of a compiled program.

    An operation on several arrays counts once, its bytes are those of all its results.
    """
    counts: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for results, kind in re.findall(rf"= (\([^)]*\)|\S+) ({'|'.join(KINDS)})(?:-start)?\(", program):
        shapes = re.findall(r"([a-z]+\d*)\[([\d,]*)\]", results)
        counts[kind][0] += 1
        counts[kind][1] += sum(
            ITEM_BYTES[item] * math.prod(int(size) for size in shape.split(",") if size) for item, shape in shapes
        )
    return {kind: (number, size) for kind, (number, size) in counts.items()}


def compile_step(config: Any) -> tuple[str, int]:
    """The text of the compiled step on all devices, and the bytes of the weights."""
    import jax
    from floor import abstract_state, example_batch, size_in_bytes

    from facedisent_jax.training import distributed
    from facedisent_jax.training.step import train_step

    sharding = distributed.replicated_sharding()
    state = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), abstract_state(config)
    )
    batch = distributed.shard_batch(example_batch(config))
    return train_step.lower(config, state, batch, None).compile().as_text(), size_in_bytes(state.params)


def main() -> None:
    from facedisent_jax.presets import PRESETS

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("preset", nargs="?", choices=PRESETS, default="smile")
    parser.add_argument("--devices", type=int, default=8, help="virtual devices (default: 8)")
    parser.add_argument("--batch", type=int, default=256, help="triplets a step (default: 256)")
    parser.add_argument("--width", type=int, help="of the network (default: the preset's)")
    parser.add_argument("--json", default="", metavar="FILE", help="write the figures to FILE")
    options = parser.parse_args()
    flag = f"--xla_force_host_platform_device_count={options.devices}"
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flag}".strip()
    os.environ["JAX_PLATFORMS"] = "cpu"

    preset = PRESETS[options.preset].config
    width = options.width or preset.model.width
    config = replace(preset, batch=options.batch, model=replace(preset.model, width=width))
    program, weight_bytes = compile_step(config)
    collectives = count_collectives(program)
    rows = [("collective", "operations", "MB", "of the weights' bytes")]
    for kind, (number, size) in sorted(collectives.items()):
        rows.append((kind, str(number), f"{size / 1e6:.2f}", f"{size / weight_bytes:.3f}"))
    print(
        f"{options.preset}, {options.batch} triplets on {options.devices} devices, "
        f"{weight_bytes / 1e6:.1f} MB of weights."
    )
    print(timing.table(rows))
    timing.write_json(options.json, {"weights": weight_bytes, "collectives": collectives})


if __name__ == "__main__":
    main()
