"""What a training step must cost at least, counted on paper: `python benchmarks/floor.py [PRESET] [--batch N]`.

Operations: all matrix products and convolutions of the step, counted in its jaxpr. Bytes: each argument is read once,
each result is written once; what a program writes and reads again in between is left out. Divided by the published
rates of a card, these are times that no program can beat.
"""

import argparse
import math
from dataclasses import replace
from typing import Any, NamedTuple

import timing


class Card(NamedTuple):
    """Published rates of a card: dense TF32 and bfloat16 products in FLOP/s, memory in bytes/s."""

    tf32: float
    bfloat16: float
    memory: float


CARDS = {  # NVIDIA's data sheets of H100 SXM and H200 SXM; the rates there "with sparsity" are twice these
    "H100 SXM": Card(494.7e12, 989.4e12, 3.35e12),
    "H200 SXM": Card(494.7e12, 989.4e12, 4.8e12),
}


def count_flops(jaxpr: Any) -> int:
    """Floating-point operations of the matrix products and convolutions of a jaxpr; a multiply-add is two.

    Of branches the most expensive is counted, of a loop with a known number of turns all turns.
    """
    total = 0
    for equation in jaxpr.eqns:
        name, parameters = equation.primitive.name, equation.params
        inner = [count_flops(sub) for sub in sub_jaxprs(parameters)]
        if name == "dot_general":
            (contracted, _), _ = parameters["dimension_numbers"]
            left = equation.invars[0].aval.shape
            total += 2 * math.prod(equation.outvars[0].aval.shape) * math.prod(left[axis] for axis in contracted)
        elif name == "conv_general_dilated":
            kernel = equation.invars[1].aval.shape
            outputs = kernel[parameters["dimension_numbers"].rhs_spec[0]]
            total += 2 * math.prod(equation.outvars[0].aval.shape) * math.prod(kernel) // outputs
        elif name == "cond":
            total += max(inner)
        else:
            total += parameters.get("length", 1) * sum(inner) if name == "scan" else sum(inner)
    return total


def sub_jaxprs(parameters: dict) -> list[Any]:
    """The jaxprs among the parameters of an equation."""
    values = [v for value in parameters.values() for v in (value if isinstance(value, tuple | list) else [value])]
    return [getattr(value, "jaxpr", value) for value in values if hasattr(getattr(value, "jaxpr", value), "eqns")]


def size_in_bytes(tree: Any) -> int:
    import jax

    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


class Floor(NamedTuple):
    """flops: of a step. arguments, results: its bytes. parameters: bytes of the weights."""

    flops: int
    arguments: int
    results: int
    parameters: int


def abstract_state(config: Any) -> Any:
    """The shapes of the state of a training."""
    import jax

    from facedisent_jax import models
    from facedisent_jax.training.step import TrainState, optimizer

    def new_state():
        params = models.init(config.model, jax.random.key(0))
        return TrainState(jax.numpy.int32(0), params, params, optimizer(config.optim).init(params))

    return jax.eval_shape(new_state)


def example_batch(config: Any) -> Any:
    """A batch of the config's size, of a few drawn faces."""
    from data_prep.synthetic.faces import records
    from facedisent_jax.data.record import Faces
    from facedisent_jax.data.triplets import Triplets

    faces = Faces.of(record for _, record in records(4, levels=2))
    return Triplets(faces, with_middle=config.model.kind == "warp").batch(config.seed, 0, config.batch)


def floor_of(config: Any) -> Floor:
    """The floor of one step of a config, without compiling it."""
    from facedisent_jax.training.step import train_step

    state, batch = abstract_state(config), example_batch(config)
    traced = train_step.trace(config, state, batch, None)
    return Floor(
        count_flops(traced.jaxpr.jaxpr),
        size_in_bytes((state, batch)),
        size_in_bytes(traced.out_info),
        size_in_bytes(state.params),
    )


def main() -> None:
    from facedisent_jax.presets import PRESETS

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("preset", nargs="?", choices=PRESETS, default="smile")
    parser.add_argument("--batch", type=int, default=256, help="triplets a step (default: 256)")
    parser.add_argument("--json", default="", metavar="FILE", help="write the figures to FILE")
    options = parser.parse_args()
    timing.settle_environment()

    config = replace(PRESETS[options.preset].config, batch=options.batch)
    floor = floor_of(config)
    total_bytes = floor.arguments + floor.results
    print(
        f"{options.preset}, {options.batch} triplets: {floor.flops / 1e9:.1f} GFLOP in matrix products and "
        f"convolutions; {total_bytes / 1e6:.0f} MB of arguments and results "
        f"({floor.parameters / 1e6:.0f} MB of weights)."
    )
    rows = [("card", "products TF32, ms", "bfloat16, ms", "bytes, ms", "at least, TF32, ms")]
    for name, card in CARDS.items():
        tf32, bfloat16, memory = floor.flops / card.tf32, floor.flops / card.bfloat16, total_bytes / card.memory
        rows.append((name, *(f"{1e3 * seconds:.3f}" for seconds in (tf32, bfloat16, memory, max(tf32, memory)))))
    print(timing.table(rows))
    timing.write_json(options.json, {"preset": options.preset, "batch": options.batch, **floor._asdict()})


if __name__ == "__main__":
    main()
