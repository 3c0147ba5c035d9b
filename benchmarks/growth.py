"""How cost grows: `python benchmarks/growth.py [--json FILE]`.

Time and memory of a training step against the batch and the width of the network, and of the triplets' index against
the number of records, from a thousand to a million. (All records share one image, because the index reads none.) The
exponent is the slope on a log-log plot: 1 means that twice as much takes twice as long.
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


def measure_step(batch: int, width: int) -> tuple[float, float]:
    """Median seconds of a step of the default model with augmentation, and the MB of its arguments and temporaries."""
    import jax

    from data_prep.synthetic.faces import records
    from facedisent_jax.data.record import Faces
    from facedisent_jax.data.triplets import Triplets
    from facedisent_jax.presets import PRESETS
    from facedisent_jax.training.step import init_state, train_step

    preset = PRESETS["smile"].config
    config = replace(preset, batch=batch, model=replace(preset.model, width=width))
    faces = Faces.of(record for _, record in records(20))
    triplet_batch = Triplets(faces, with_middle=False).batch(0, 0, batch)
    state = init_state(config, faces)
    memory = train_step.lower(config, state, triplet_batch).compile().memory_analysis()
    assert memory is not None
    megabytes = (memory.temp_size_in_bytes + memory.argument_size_in_bytes) / 1e6
    seconds = []
    for _ in range(7):
        start = time.perf_counter()
        state, metrics = train_step(config, state, triplet_batch)
        jax.block_until_ready((state, metrics))
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds[1:])), megabytes


def measure_index(records: int) -> tuple[float, float, float]:
    """Seconds to set up, seconds for the index of a batch, and bytes of a record without its image."""
    from facedisent_jax.data.record import Faces
    from facedisent_jax.data.triplets import Triplets

    row = np.arange(records)
    faces = Faces(
        np.broadcast_to(np.zeros((64, 64, 3), np.uint8), (records, 64, 64, 3)),
        np.char.add("p", (row // 20).astype(str)),
        np.full(records, "smile"),
        np.char.add("take", (row // 10 % 2).astype(str)),
        np.full(records, ""),
        row % 10,
        (row % 10 / 9).astype(np.float32),
        np.zeros(records, np.int64),
    )
    start = time.perf_counter()
    triplets = Triplets(faces, with_middle=False)
    setup_seconds = time.perf_counter() - start
    triplets.index(0, 0, 32)  # draws the order of the epoch
    start = time.perf_counter()
    for step in range(1, 21):
        triplets.index(0, step, 32)
    index_seconds = (time.perf_counter() - start) / 20
    return setup_seconds, index_seconds, sum(array.nbytes for array in _arrays(triplets)) / records


def _arrays(triplets):
    for value in [*vars(triplets).values(), *triplets.candidates_b, *triplets.candidates_c]:
        if isinstance(value, np.ndarray):
            yield value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", default="", metavar="FILE")
    options = parser.parse_args()
    timing.settle_environment()
    load_before = os.getloadavg()[0]
    result = {}
    for name, sizes, measure, columns in (
        ("batch", BATCHES, lambda n: measure_step(n, 512), ("seconds a step", "MB")),
        ("width", WIDTHS, lambda n: measure_step(32, n), ("seconds a step", "MB")),
        ("records", RECORDS, measure_index, ("seconds to set up", "seconds a batch's index", "bytes a record")),
    ):
        measurements = [measure(size) for size in sizes]
        exponents = [exponent(sizes, values) for values in zip(*measurements, strict=True)]
        rows = [
            (f"{size:,}", *(f"{value:.3g}" for value in values))
            for size, values in zip(sizes, measurements, strict=True)
        ]
        print(
            timing.table([(name, *columns), *rows, ("exponent", *(f"{e:.2f}" for e in exponents))]) + "\n", flush=True
        )
        result[name] = {"sizes": sizes, "columns": columns, "values": measurements, "exponents": exponents}
    print(f"{timing.CORES} cores, load average {load_before:.1f} before.")
    timing.write_json(options.json, result)


if __name__ == "__main__":
    main()
