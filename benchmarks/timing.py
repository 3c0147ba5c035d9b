"""What the benchmarks against PyTorch share: the environment, times taken in turn, the table, the JSON file."""

import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this checkout is what is measured

from train import settle_environment

__all__ = ["CORES", "in_turn", "machine", "medians", "settle_environment", "table", "write"]

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
