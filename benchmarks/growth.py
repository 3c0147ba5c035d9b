"""How cost grows: `python benchmarks/growth.py [--json FILE]`.

Time and memory of a training step against the batch and the width of the network, and of the triplets' index against
the number of records (a thousand to a million, whose pictures are one, seen so many times: no picture is read for an
index). The exponent is the slope of the logarithms: 1 where twice as much takes twice as long.
"""

import argparse
import os
import time
from dataclasses import replace

import numpy as np
import timing

BATCHES, WIDTHS, RECORDS = (8, 16, 32, 64, 128), (128, 256, 512, 1024), (1_000, 10_000, 100_000, 1_000_000)


def exponent(sizes, values) -> float:
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])


def step(batch: int, width: int) -> tuple[float, float]:
    """Median seconds of a step of the default model, with augmentation, and MB that it needs beside its arguments and
    results, as XLA has planned them, plus these."""
    import jax

    from data_prep.synthetic.faces import records
    from facedisent_jax.data.record import Faces
    from facedisent_jax.data.triplets import Triplets
    from facedisent_jax.presets import PRESETS
    from facedisent_jax.training.step import init_state, train_step

    preset = PRESETS["smile"].config
    config = replace(preset, batch=batch, model=replace(preset.model, width=width))
    faces = Faces.of(record for _, record in records(20))
    one = Triplets(faces, with_middle=False).batch(0, 0, batch)
    state = init_state(config, faces)
    planned = train_step.lower(config, state, one).compile().memory_analysis()
    assert planned is not None
    memory = (planned.temp_size_in_bytes + planned.argument_size_in_bytes) / 1e6
    times = []
    for _ in range(7):
        start = time.perf_counter()
        state, metrics = train_step(config, state, one)
        jax.block_until_ready((state, metrics))
        times.append(time.perf_counter() - start)
    return float(np.median(times[1:])), memory


def index(records: int) -> tuple[float, float, float]:
    """Seconds to begin, seconds of a batch's index within an epoch, and bytes a record beside its picture."""
    from facedisent_jax.data.record import Faces
    from facedisent_jax.data.triplets import Triplets

    k = np.arange(records)
    faces = Faces(
        np.broadcast_to(np.zeros((64, 64, 3), np.uint8), (records, 64, 64, 3)),
        np.char.add("p", (k // 20).astype(str)),
        np.full(records, "smile"),
        np.char.add("take", (k // 10 % 2).astype(str)),
        np.full(records, ""),
        k % 10,
        (k % 10 / 9).astype(np.float32),
    )
    start = time.perf_counter()
    triplets = Triplets(faces, with_middle=False)
    begun = time.perf_counter() - start
    triplets.index(0, 0, 32)  # draws the epoch's order
    start = time.perf_counter()
    for number in range(1, 21):
        triplets.index(0, number, 32)
    held = sum(array.nbytes for array in _arrays(triplets)) / records
    return begun, (time.perf_counter() - start) / 20, held


def _arrays(triplets):
    for value in [*vars(triplets).values(), *triplets.pairs, *triplets.peers, *triplets.by_intensity]:
        if isinstance(value, np.ndarray):
            yield value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", default="", metavar="FILE")
    given = parser.parse_args()
    timing.settle_environment()
    before = os.getloadavg()[0]
    result = {}
    for name, sizes, run, columns in (
        ("batch", BATCHES, lambda n: step(n, 512), ("seconds a step", "MB")),
        ("width", WIDTHS, lambda n: step(32, n), ("seconds a step", "MB")),
        ("records", RECORDS, index, ("seconds to begin", "seconds a batch's index", "bytes a record")),
    ):
        found = [run(size) for size in sizes]
        exponents = [exponent(sizes, values) for values in zip(*found, strict=True)]
        rows = [(f"{size:,}", *(f"{v:.3g}" for v in values)) for size, values in zip(sizes, found, strict=True)]
        print(
            timing.table([(name, *columns), *rows, ("exponent", *(f"{e:.2f}" for e in exponents))]) + "\n", flush=True
        )
        result[name] = {"sizes": sizes, "columns": columns, "values": found, "exponents": exponents}
    print(f"{timing.CORES} cores, load average {before:.1f} before.")
    timing.write(given.json, result)


if __name__ == "__main__":
    main()
