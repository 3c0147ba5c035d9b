"""How fast triplets come: `python benchmarks/input_pipeline.py [--records N] [--json FILE]`.

Writes N records of noise as one shard, then measures in this order: the raw rate of TensorFlow's TFRecord reader; our
reading of the same file, in memory and mapped, with all its checks; images per second of the training stream from
memory and from disk; and of a PyTorch DataLoader that gathers the same triplets from memory (if torch is there).
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import timing

BATCH, STEPS = 32, 600
STEP_IMAGES = 3 * BATCH / 0.3
"""What the default model consumes on two cores: 96 pictures in about 0.3 s."""


def folder(place: Path, records: int) -> Path:
    """A data folder of people with eleven pictures each."""
    from facedisent_jax.records import Record

    # The tests' writer: prep's own would take minutes, as it shuffles.
    timing.add_to_path("tests")
    from tiny_run import write_folder

    rng = np.random.default_rng(0)
    made = [
        Record(rng.integers(0, 256, (64, 64, 3), np.uint8), f"p{k // 11:06}", "smile", "take", "", k % 11, k % 11 / 10)
        for k in range(records)
    ]
    return write_folder(place / "data", {"train": made})


def seconds(run) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def raw(path: Path) -> None:
    import tensorflow as tf

    for batch in tf.data.TFRecordDataset(str(path)).batch(128):
        batch.numpy()


def stream(triplets) -> float:
    """Images per second of the training stream."""
    from facedisent_jax import data

    batches = data.batches(triplets, 0, 0, STEPS, BATCH)
    for _ in range(20):
        next(batches)
    return 3 * BATCH * (STEPS - 20) / seconds(lambda: [None for _ in batches])


def loader(triplets) -> float | None:
    """The same of a PyTorch DataLoader with a process a core; None where torch is not installed."""
    try:
        import torch
    except ModuleNotFoundError:
        return None

    class Steps(torch.utils.data.Dataset):
        def __len__(self):
            return STEPS

        def __getitem__(self, step):
            return tuple(map(torch.from_numpy, triplets.batch(0, step, BATCH)))

    batches = iter(torch.utils.data.DataLoader(Steps(), batch_size=None, num_workers=timing.CORES))
    for _ in range(20):
        next(batches)
    return 3 * BATCH * (STEPS - 20) / seconds(lambda: [None for _ in batches])


def measure(records: int) -> dict:
    """Rates per second."""
    from facedisent_jax.records import read_split
    from facedisent_jax.triplets import Triplets

    with tempfile.TemporaryDirectory() as place:
        made = folder(Path(place), records)
        (shard,) = made.glob("*.tfrecord-*")
        raw(shard)  # into the page cache, and TensorFlow into memory
        rates = {"raw TFRecord read, records": records / seconds(lambda: raw(shard))}
        rates["read_split into memory, records"] = records / seconds(lambda: read_split(made, "train"))
        rates["read_split mapped, records"] = records / seconds(lambda: read_split(made, "train", False))
        memory, disk = (Triplets(read_split(made, "train", where), between=False) for where in (True, False))
        gather = seconds(lambda: [len(memory.batch(0, step, BATCH)) for step in range(STEPS)])
        rates["Triplets.batch from memory, images"] = 3 * BATCH * STEPS / gather
        rates["stream from memory, images"] = stream(memory)
        rates["stream from disk, images"] = stream(disk)
        if (torch_rate := loader(memory)) is not None:
            rates["PyTorch DataLoader from memory, images"] = torch_rate
    return rates


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", type=int, default=22_000)
    parser.add_argument("--json", default="", metavar="FILE")
    given = parser.parse_args()
    timing.settle_environment()  # as train.py does
    before = os.getloadavg()[0]
    rates = measure(given.records)
    print(timing.table([("what", "a second"), *((name, f"{rate:,.0f}") for name, rate in rates.items())]))
    print(f"{given.records} records, {timing.CORES} cores, load average {before:.1f} before.")
    if "PyTorch DataLoader from memory, images" not in rates:
        print("PyTorch's DataLoader was not measured: torch is not installed.")
    times = rates["stream from memory, images"] / STEP_IMAGES
    print(f"The stream gives {times:.0f} times what the default model's step consumes ({STEP_IMAGES:.0f} images/s).")
    timing.write(given.json, {"load_average": before, "records": given.records, "rates": rates})


if __name__ == "__main__":
    main()
