"""What the devices of a step send each other: `python benchmarks/collectives.py [PRESET] [--devices N]`.

Compiles the step for N virtual devices of a CPU, and counts the collective operations in the compiled program and the
bytes of their results on each device. For GPUs and TPUs the compiler splits the same step, but for the operations of
models/cpu.py that differ there.
"""

import argparse
import math
import os
import re
from collections import Counter
from dataclasses import replace
from typing import Any, NamedTuple

import timing

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
LARGEST = 10  # operations that are listed
ITEM_BYTES = {"pred": 1, "u8": 1, "s8": 1, "bf16": 2, "f16": 2, "s32": 4, "u32": 4, "f32": 4, "s64": 8, "u64": 8}


class Collective(NamedTuple):
    """One operation of a compiled program. arrays: type and shape of its results, such as f32[512]. size: in bytes."""

    kind: str
    arrays: tuple[str, ...]
    size: int


def find_collectives(program: str) -> list[Collective]:
    """The collective operations in the text of a compiled program."""
    collectives = []
    for results, kind in re.findall(rf"= (\([^)]*\)|\S+) ({'|'.join(KINDS)})(?:-start)?\(", program):
        arrays = re.findall(r"([a-z]+\d*)\[([\d,]*)\]", results)
        sizes = [ITEM_BYTES[item] * math.prod(int(n) for n in shape.split(",") if n) for item, shape in arrays]
        collectives.append(Collective(kind, tuple(f"{item}[{shape}]" for item, shape in arrays), sum(sizes)))
    return collectives


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
    collectives = find_collectives(program)
    totals = {}
    rows = [("collective", "operations", "MB", "of the weights' bytes")]
    for kind in sorted({collective.kind for collective in collectives}):
        sizes = [collective.size for collective in collectives if collective.kind == kind]
        totals[kind] = {"operations": len(sizes), "bytes": sum(sizes)}
        rows.append((kind, str(len(sizes)), f"{sum(sizes) / 1e6:.2f}", f"{sum(sizes) / weight_bytes:.3f}"))
    print(
        f"{options.preset}, {options.batch} triplets on {options.devices} devices, "
        f"{weight_bytes / 1e6:.1f} MB of weights."
    )
    print(timing.table(rows) + "\n\nThe largest:")
    for collective in sorted(collectives, key=lambda collective: -collective.size)[:LARGEST]:
        arrays = Counter(collective.arrays).most_common(LARGEST)
        print(f"{collective.kind}, {collective.size / 1e6:.1f} MB:", ", ".join(f"{n} x {name}" for name, n in arrays))
    timing.write_json(options.json, {"weights": weight_bytes, "collectives": totals})


if __name__ == "__main__":
    main()
