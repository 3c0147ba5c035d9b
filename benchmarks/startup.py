"""Seconds from the command to the first step, and for imports: `python benchmarks/startup.py [--json FILE]`.

Runs `train.py` on 60 built-in people twice: with an empty compilation cache, then with the cache of the first run.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import timing


def first_step_seconds(data: Path, run: Path, cache: Path) -> float:
    """Seconds until the first line of the log, which is written after step 1."""
    environment = os.environ | {"XDG_CACHE_HOME": str(cache)}
    arguments = ["--data", str(data), "--run", str(run), "--log-every", "1", "--steps", "500", "--no-report"]
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "train.py", *arguments],
        cwd=timing.ROOT,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    log = run / "metrics.jsonl"
    while not (log.exists() and log.stat().st_size):
        if process.poll() is not None:
            raise SystemExit("startup.py: train.py ended before its first step.")
        time.sleep(0.02)
    seconds = time.perf_counter() - start
    process.kill()
    process.wait()
    return seconds


def import_seconds(module: str) -> float:
    """Seconds to import a module in a new process, less those of a process that does nothing."""

    def run(code: str) -> float:
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], cwd=timing.ROOT, check=True)
        return time.perf_counter() - start

    return min(run(f"import {module}") for _ in range(3)) - min(run("") for _ in range(3))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", default="", metavar="FILE")
    options = parser.parse_args()
    load_before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as parent:
        data, cache = Path(parent) / "data", Path(parent) / "cache"
        command = [sys.executable, "-m", "data_prep", "synthetic", str(data), "--subjects", "60"]
        subprocess.run(command, cwd=timing.ROOT, check=True, capture_output=True)
        seconds = {
            "first step, nothing compiled yet": first_step_seconds(data, Path(parent) / "a", cache),
            "first step, second start": first_step_seconds(data, Path(parent) / "b", cache),
            "import facedisent_jax": import_seconds("facedisent_jax"),
            "import facedisent_jax.trained_model": import_seconds("facedisent_jax.trained_model"),
        }
    print(timing.table([("what", "seconds"), *((name, f"{value:.2f}") for name, value in seconds.items())]))
    print(f"{timing.CORES} cores, load average {load_before:.1f} before.")
    timing.write_json(options.json, {"load_average": load_before, "seconds": seconds})


if __name__ == "__main__":
    main()
