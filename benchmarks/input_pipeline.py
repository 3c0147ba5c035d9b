"""How fast triplets come: `python benchmarks/input_pipeline.py [--records N] [--json FILE]`.

Writes N records of noise as one shard, then measures in rounds, in turn: the raw rate of TensorFlow's TFRecord reader;
our reading of the same file, in memory and mapped, with all its checks; images per second of the training stream from
memory and from disk; and of a PyTorch DataLoader that gathers the same triplets from memory (if torch is there). Then
the default model's step, for what it consumes.
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


def folder(place: Path, records: int) -> Path:
    """A data folder of people with eleven pictures each."""
    from facedisent_jax.data.record import Record

    # The tests' writer: prep's own would take minutes, as it shuffles.
    timing.add_to_path("tests")
    from tiny_run import write_folder

    rng = np.random.default_rng(0)
    made = [
        Record(rng.integers(0, 256, (64, 64, 3), np.uint8), f"p{k // 11:06}", "smile", "take", "", k % 11, k % 11 / 10)
        for k in range(records)
    ]
    return write_folder(place / "data", {"train": made})


def per_second(number: int, run: Callable[[], Any]) -> float:
    start = time.perf_counter()
    run()
    return number / (time.perf_counter() - start)


def raw(path: Path) -> None:
    import tensorflow as tf

    from facedisent_jax.data.stream import without_autotune

    for batch in without_autotune(tf.data.TFRecordDataset(str(path)).batch(128)):
        batch.numpy()


def images_per_second(batches: Iterator) -> float:
    """Of an iterator over the batches of `STEPS` steps, the first ones not counted."""
    for _ in range(20):
        next(batches)
    return per_second(3 * BATCH * (STEPS - 20), lambda: [None for _ in batches])


def stream(triplets) -> float:
    """Images per second of the training stream."""
    from facedisent_jax.data.stream import batches

    return images_per_second(batches(triplets, 0, 0, STEPS, BATCH))


def gathered(triplets) -> None:
    """What the training stream calls."""
    from facedisent_jax.data.stream import GATHER_TRIPLETS

    together = GATHER_TRIPLETS // BATCH
    for step in range(0, STEPS, together):
        triplets.batches(0, range(step, step + together), BATCH)


def loader(triplets) -> float:
    """The same of a PyTorch DataLoader with a process a core."""
    import torch

    class Steps(torch.utils.data.Dataset):
        def __len__(self):
            return STEPS

        def __getitem__(self, step):
            return tuple(map(torch.from_numpy, triplets.batch(0, step, BATCH)))

    return images_per_second(iter(torch.utils.data.DataLoader(Steps(), batch_size=None, num_workers=timing.CORES)))


def measured(records: int, rounds: int) -> dict[str, list[float]]:
    """Rates per second, of each round."""
    from facedisent_jax.data.reading import read_split
    from facedisent_jax.data.triplets import Triplets

    with tempfile.TemporaryDirectory() as place:
        made = folder(Path(place), records)
        (shard,) = made.glob("*.tfrecord-*")
        raw(shard)  # into the page cache, and TensorFlow into memory
        first = per_second(records, lambda: read_split(made, "train"))
        memory, disk = (Triplets(read_split(made, "train", where), with_middle=False) for where in (True, False))
        ways: dict[str, Callable[[], float]] = {
            RAW: lambda: per_second(records, lambda: raw(shard)),
            "read_split into memory, records": lambda: per_second(records, lambda: read_split(made, "train")),
            "read_split mapped, records": lambda: per_second(records, lambda: read_split(made, "train", False)),
            "Triplets.batches from memory, images": lambda: per_second(3 * BATCH * STEPS, lambda: gathered(memory)),
            MEMORY: lambda: stream(memory),
            DISK: lambda: stream(disk),
        }
        if find_spec("torch"):
            ways["PyTorch DataLoader from memory, images"] = lambda: loader(memory)
        times: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(rounds):
            for name, way in ways.items():
                times[name].append(way())
    return {"read_split into memory, the first time, records": [first], **times}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", type=int, default=22_000)
    parser.add_argument("--rounds", type=int, default=5, help="turns of each way (default: 5)")
    parser.add_argument("--json", default="", metavar="FILE")
    given = parser.parse_args()
    timing.settle_environment()  # as train.py does
    before = os.getloadavg()[0]
    rounds = measured(given.records, given.rounds)
    rates = timing.medians(rounds)
    rows = [(name, f"{rates[name]:,.0f}", f"{min(of):,.0f}", f"{max(of):,.0f}") for name, of in rounds.items()]
    print(timing.table([("what", "a second", "least", "most"), *rows]))
    print(
        f"{given.records} records, {timing.CORES} cores, medians of {given.rounds} rounds in turn, load average "
        f"{before:.1f} before. The first reading into memory also waits for the system to give it."
    )
    if not find_spec("torch"):
        print("PyTorch's DataLoader was not measured: torch is not installed.")
    seconds, _ = growth.step(BATCH, width=512)
    consumed = 3 * BATCH / seconds
    times, share = rates[MEMORY] / consumed, rates[DISK] / rates[RAW]
    print(
        f"The stream gives {times:.0f} times what the default model's step consumes ({consumed:.0f} images/s); from "
        f"disk {share:.0%} of the raw rate."
    )
    result = {"load_average": before, "records": given.records, "consumed": consumed, "rates": rates, "rounds": rounds}
    timing.write(given.json, result)


if __name__ == "__main__":
    main()
