"""What the benchmarks against PyTorch share: the environment, times taken in turn, the table, the JSON file."""

import gc
import json
import logging
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this checkout is what is measured

from train import settle_environment as settle_environment  # noqa: E402

CORES = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
"""Threads of either side."""


def in_turn(sides: dict[str, Callable[[int], None]], rounds: int, calls: int) -> dict[str, list[float]]:
    """Seconds a call of each side, one number a round: A B C, A B C, ...

    sides: functions of a number of calls, which return when all are done. Each turn begins with one call that is not
    counted, so that neither side pays for what the other left in the caches.
    """
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, run in sides.items():
            run(1)
            start = time.perf_counter()
            run(calls)
            seconds[name].append((time.perf_counter() - start) / calls)
    return seconds


def medians(times: dict[str, list[float]]) -> dict[str, float]:
    """The median of each side."""
    return {name: statistics.median(values) for name, values in times.items()}


def fastest(candidates: dict[str, Callable], calls: int) -> tuple[dict[str, float], dict[str, str], str, Callable]:
    """Of ways to do the same with PyTorch: seconds a call of each; why one could not be measured; the fastest's name
    and itself.

    candidates: functions without arguments that make a side of `in_turn`. Only the compiled ones may fail: they need a
    C++ compiler, which not every machine has.
    """
    seconds, unmeasured, best, name = {}, {}, None, ""
    for label, make in candidates.items():
        try:
            run = make()
            run(1)  # compiles
        except Exception as error:
            if not label.startswith("compiled"):
                raise
            unmeasured[label] = f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"
            continue
        seconds[label] = medians(in_turn({label: run}, 3, calls))[label]
        if seconds[label] == min(seconds.values()):
            best, name = run, label
        del run
        gc.collect()  # the weights of the slower one
    assert best is not None
    return seconds, unmeasured, name, best


def settle_torch() -> None:
    """As many threads as JAX has, and no warning that there is no GPU."""
    import torch

    torch.set_num_threads(CORES)
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)


def machine() -> dict:
    """Processor, cores, versions and load, for the JSON file and the table's head."""
    import jax
    import torch

    cpu = platform.processor()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), cpu)
    return {
        "processor": cpu,
        "cores": CORES,
        "jax": jax.__version__,
        "torch": torch.__version__,
        "load_average": os.getloadavg()[0],
    }


def table(rows: list[tuple[str, ...]]) -> str:
    """Columns of equal width, the first to the left and the others to the right; the first row is the head."""
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    lines = [
        "  ".join(cell.rjust(w) if k else cell.ljust(w) for k, (cell, w) in enumerate(zip(row, widths, strict=True)))
        for row in rows
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def write(path: str, result: dict) -> None:
    """The result as JSON, where a file was asked for."""
    if path:
        Path(path).write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
