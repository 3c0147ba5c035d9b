"""How fast triplets come: `python benchmarks/input_pipeline.py [--records N] [--json FILE]`.

Writes N records of noise as one shard, then measures in rounds, in turn:

- the raw rate of TensorFlow's TFRecord reader;
- our reader on the same file, in memory and mapped, with all its checks;
- images per second of the training stream from memory and from disk;
- images per second of a PyTorch DataLoader that gathers the same triplets from memory, if torch is installed.

At the end it compares the stream with what a step of the default model consumes.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import growth
import numpy as np
import timing

BATCH, STEPS = 32, 600
RAW, MEMORY, DISK = "raw TFRecord read, records", "stream from memory, images", "stream from disk, images"


def write_noise(parent: Path, records: int) -> Path:
    """Write a data folder of noise: subjects with eleven images each. Returns the folder."""
    from facedisent_jax.data.record import Record

    # The writer of the tests, because that of data_prep shuffles, which would take minutes.
    timing.add_to_path("tests")
    from tiny_run import write_folder

    rng = np.random.default_rng(0)
    noise_records = [
        Record(rng.integers(0, 256, (64, 64, 3), np.uint8), f"p{k // 11:06}", "smile", "take", "", k % 11, k % 11 / 10)
        for k in range(records)
    ]
    return write_folder(parent / "data", {"train": noise_records})


def per_second(count: int, run: Callable[[], Any]) -> float:
    start = time.perf_counter()
    run()
    return count / (time.perf_counter() - start)


def read_raw(path: Path) -> None:
    import tensorflow as tf

    from facedisent_jax.data.stream import without_autotune

    for batch in without_autotune(tf.data.TFRecordDataset(str(path)).batch(128)):
        batch.numpy()


def images_per_second(batches: Iterator) -> float:
    """Rate of an iterator over the batches of `STEPS` steps. The first 20 batches are not counted."""
    for _ in range(20):
        next(batches)
    return per_second(3 * BATCH * (STEPS - 20), lambda: [None for _ in batches])


def stream_rate(triplets) -> float:
    """Images per second of the training stream."""
    from facedisent_jax.data.stream import batches

    return images_per_second(batches(triplets, 0, 0, STEPS, BATCH))


def gather_all(triplets) -> None:
    """Gather the batches of `STEPS` steps as the training stream does."""
    from facedisent_jax.data.stream import GATHER_TRIPLETS

    steps = GATHER_TRIPLETS // BATCH
    for step in range(0, STEPS, steps):
        triplets.batches(0, range(step, step + steps), BATCH)


def loader_rate(triplets) -> float:
    """Images per second of a PyTorch DataLoader with one process for each core."""
    import torch

    class Steps(torch.utils.data.Dataset):
        def __len__(self):
            return STEPS

        def __getitem__(self, step):
            return tuple(map(torch.from_numpy, triplets.batch(0, step, BATCH)))

    return images_per_second(iter(torch.utils.data.DataLoader(Steps(), batch_size=None, num_workers=timing.CORES)))


def measure(records: int, rounds: int) -> dict[str, list[float]]:
    """Rates per second in each round, by name."""
    from facedisent_jax.data.reading import read_split
    from facedisent_jax.data.triplets import Triplets

    with tempfile.TemporaryDirectory() as parent:
        data = write_noise(Path(parent), records)
        (shard,) = data.glob("*.tfrecord-*")
        read_raw(shard)  # loads TensorFlow, and the file into the page cache
        first_rate = per_second(records, lambda: read_split(data, "train"))
        memory_triplets, disk_triplets = (
            Triplets(read_split(data, "train", in_memory), with_middle=False) for in_memory in (True, False)
        )
        measurements: dict[str, Callable[[], float]] = {
            RAW: lambda: per_second(records, lambda: read_raw(shard)),
            "read_split into memory, records": lambda: per_second(records, lambda: read_split(data, "train")),
            "read_split mapped, records": lambda: per_second(records, lambda: read_split(data, "train", False)),
            "Triplets.batches from memory, images": lambda: per_second(
                3 * BATCH * STEPS, lambda: gather_all(memory_triplets)
            ),
            MEMORY: lambda: stream_rate(memory_triplets),
            DISK: lambda: stream_rate(disk_triplets),
        }
        if find_spec("torch"):
            measurements["PyTorch DataLoader from memory, images"] = lambda: loader_rate(memory_triplets)
        rates: dict[str, list[float]] = {name: [] for name in measurements}
        for _ in range(rounds):
            for name, measure_rate in measurements.items():
                rates[name].append(measure_rate())
    return {"read_split into memory, the first time, records": [first_rate], **rates}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", type=int, default=22_000)
    parser.add_argument("--rounds", type=int, default=5, help="number of rounds (default: 5)")
    parser.add_argument("--json", default="", metavar="FILE")
    options = parser.parse_args()
    timing.settle_environment()  # as train.py does
    load_before = os.getloadavg()[0]
    round_rates = measure(options.records, options.rounds)
    rates = timing.medians(round_rates)
    rows = [
        (name, f"{rates[name]:,.0f}", f"{min(values):,.0f}", f"{max(values):,.0f}")
        for name, values in round_rates.items()
    ]
    print(timing.table([("what", "a second", "least", "most"), *rows]))
    print(
        f"{options.records} records, {timing.CORES} cores, medians of {options.rounds} rounds in turn, load average "
        f"{load_before:.1f} before. The first read into memory also waits for the system to provide that memory."
    )
    if not find_spec("torch"):
        print("PyTorch's DataLoader was not measured: torch is not installed.")
    seconds, _ = growth.measure_step(BATCH, width=512)
    step_rate = 3 * BATCH / seconds
    print(
        f"The stream gives {rates[MEMORY] / step_rate:.0f} times what the default model's step consumes "
        f"({step_rate:.0f} images/s); from disk {rates[DISK] / rates[RAW]:.0%} of the raw rate."
    )
    result = {
        "load_average": load_before,
        "records": options.records,
        "consumed": step_rate,
        "rates": rates,
        "rounds": round_rates,
    }
    timing.write_json(options.json, result)


if __name__ == "__main__":
    main()
