"""Seconds from the command to the first step, cold and with the compilation cache, and of imports:
`python benchmarks/startup.py [--json FILE]`. Runs `train.py` on 60 built-in people, twice with one new cache.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import timing

ROOT = Path(__file__).resolve().parents[1]


def first_step(data: Path, run: Path, cache: Path) -> float:
    """Seconds until the log has its first line, after step 1."""
    environment = os.environ | {"XDG_CACHE_HOME": str(cache)}
    options = ["--data", str(data), "--run", str(run), "--log-every", "1", "--steps", "500", "--no-report"]
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "train.py", *options],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    log = run / "metrics.jsonl"
    while not (log.exists() and log.stat().st_size):
        if process.poll() is not None:
            raise SystemExit("startup.py: train.py has ended before its first step.")
        time.sleep(0.02)
    taken = time.perf_counter() - start
    process.kill()
    process.wait()
    return taken


def importing(module: str) -> float:
    """Seconds of a process that imports a module and nothing else, without those of an empty one."""

    def run(code: str) -> float:
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
        return time.perf_counter() - start

    return min(run(f"import {module}") for _ in range(3)) - min(run("") for _ in range(3))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", default="", metavar="FILE")
    given = parser.parse_args()
    before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as place:
        data, cache = Path(place) / "data", Path(place) / "cache"
        make = [sys.executable, "-m", "data_prep", "synthetic", str(data), "--subjects", "60"]
        subprocess.run(make, cwd=ROOT, check=True, capture_output=True)
        found = {
            "first step, nothing compiled yet": first_step(data, Path(place) / "a", cache),
            "first step, second start": first_step(data, Path(place) / "b", cache),
            "import facedisent_jax": importing("facedisent_jax"),
            "import facedisent_jax.study": importing("facedisent_jax.study"),
        }
    print(timing.table([("what", "seconds"), *((name, f"{value:.2f}") for name, value in found.items())]))
    print(f"{timing.CORES} cores, load average {before:.1f} before.")
    timing.write(given.json, {"load_average": before, "seconds": found})


if __name__ == "__main__":
    main()
