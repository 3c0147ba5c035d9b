"""What the benchmarks share: the environment, sides timed in turn, the table, the JSON file."""

import argparse
import json
import logging
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # measure this checkout

from facedisent_jax.environment import settle_environment as settle_environment  # noqa: E402

CORES = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
"""Threads of each side."""


def option_parser(description: str, models: Iterable[str], rounds: int, calls: int) -> argparse.ArgumentParser:
    """The options of a comparison with PyTorch."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--model", choices=models, default="hybrid", help="kind of network (default: hybrid)")
    parser.add_argument("--rounds", type=int, default=rounds, help=f"turns of each side (default: {rounds})")
    parser.add_argument("--calls", type=int, default=calls, help=f"calls a turn (default: {calls})")
    parser.add_argument("--json", default="", metavar="FILE", help="write the figures to FILE")
    parser.add_argument("--side", default="", help=argparse.SUPPRESS)
    return parser


def add_to_path(folder: str) -> None:
    """Make the modules of a folder of this checkout importable."""
    sys.path.append(str(ROOT / folder))


class Side:
    """One side of a comparison, in its own process: the threads of two libraries in one process disturb each other.

    The process runs the script with `--side NAME`, which calls `serve`. Between its turns it sleeps.
    """

    def __init__(self, name: str, arguments: list[str]):
        self.name = name
        self._stderr = tempfile.TemporaryFile("w+")
        command = [sys.executable, *arguments, "--side", name]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=self._stderr, text=True)

    def failure(self) -> str:
        """Wait until the side is compiled. Returns "", or why it could not be."""
        assert self._process.stdout
        for line in self._process.stdout:
            if line == "ready\n":
                return ""
        self._stderr.seek(0)
        lines = self._stderr.read().strip().splitlines() or ["it ended without a word"]
        return ([line for line in lines if "Error: " in line] or lines)[-1]  # PyTorch ends with advice on debugging

    def seconds(self, calls: int) -> float:
        """Mean seconds of a call."""
        assert self._process.stdin and self._process.stdout
        print(calls, file=self._process.stdin, flush=True)
        return float(self._process.stdout.readline())

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


def start_sides(names: Iterable[str], arguments: list[str]) -> list[Side]:
    """Sides with these names, compiled one after the other. Ends the script if one cannot be compiled."""
    sides = []
    for name in names:
        sides.append(Side(name, arguments))
        if reason := sides[-1].failure():
            raise SystemExit(f"{Path(arguments[0]).name}: {name} failed: {reason}")
    return sides


def serve(run: Callable[[int], None]) -> None:
    """Time `run` whenever the main process asks for a number of calls.

    run: makes a number of calls, and returns when all are done. Each turn begins with one call that is not counted,
    because the other sides have filled the caches.
    """
    run(1)  # compiles
    print("ready", flush=True)
    for line in sys.stdin:
        run(1)
        start = time.perf_counter()
        run(int(line))
        print((time.perf_counter() - start) / int(line), flush=True)


def in_turn(sides: list[Side], rounds: int, calls: int) -> dict[str, list[float]]:
    """Seconds per call of each side, one number per round, in the order A B C, A B C, ..."""
    seconds: dict[str, list[float]] = {side.name: [] for side in sides}
    for _ in range(rounds):
        for side in sides:
            seconds[side.name].append(side.seconds(calls))
    return seconds


def medians(rounds: dict[str, list[float]]) -> dict[str, float]:
    """The median over the rounds, by name."""
    return {name: statistics.median(values) for name, values in rounds.items()}


WAYS = {
    f"{'compiled' if compiled else 'eager'}, {layout}": (layout == "channels_last", compiled)
    for compiled in (False, True)
    for layout in ("contiguous", "channels_last")
}
"""Variants of PyTorch: whether channels come last, and whether it is compiled."""


def fastest(arguments: list[str], calls: int) -> tuple[dict[str, float], dict[str, str], Side]:
    """Seconds per call of each of `WAYS`, the reasons why some could not be measured, and the fastest, still running.

    Only compiled variants may fail: they need a C++ compiler, which not every machine has.
    """
    sides, unmeasured = [], {}
    for name in WAYS:
        side = Side(name, arguments)  # one after the other: compiling takes all cores
        if reason := side.failure():
            if not WAYS[name][1]:
                raise SystemExit(f"PyTorch {name} failed: {reason}")
            unmeasured[name] = reason
        else:
            sides.append(side)
    seconds = medians(in_turn(sides, 3, calls))
    fastest_side = min(sides, key=lambda side: seconds[side.name])
    for side in sides:
        if side is not fastest_side:
            side.close()
    return seconds, unmeasured, fastest_side


def settle_torch() -> None:
    """Give PyTorch as many threads as JAX, and switch off its warning that there is no GPU."""
    import torch

    torch.set_num_threads(CORES)
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)


def processor() -> str:
    """The name of the CPU."""
    cpu = platform.processor()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), cpu)
    return cpu


def machine() -> dict:
    """Processor, cores, versions and load, for the JSON file."""
    import jax
    import torch

    return {
        "processor": processor(),
        "cores": CORES,
        "jax": jax.__version__,
        "torch": torch.__version__,
        "load_average": os.getloadavg()[0],
    }


def table(rows: list[tuple[str, ...]]) -> str:
    """A table as text. The first row is the head; the first column is aligned left, the others right."""
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    lines = [
        "  ".join(row[k].rjust(width) if k else row[k].ljust(width) for k, width in enumerate(widths)) for row in rows
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def write_json(path: str, result: dict) -> None:
    """Write the result to the file of --json, if that was given."""
    if path:
        Path(path).write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
