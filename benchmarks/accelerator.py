"""What a GPU or TPU makes of this project, in two runs of at most six minutes, without TensorFlow, tfds or tyro.

    python benchmarks/accelerator.py --pack DATA --out pictures.npz     # once, where TensorFlow is
    python benchmarks/accelerator.py pictures.npz --part speed --json accelerator.json
    python benchmarks/accelerator.py pictures.npz --part quality --json accelerator.json

Part speed: first whether the accelerator computes what the machine's CPU computes, then how fast. Part quality: what a
minute of training gives. `--rehearse` makes a few steps of each with small networks, on a CPU too.

Each piece runs in a process of its own, with a limit of time, and reports figure by figure. The JSON file is written
after each, so a run that is cut off keeps what it had.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from threading import Timer

import accelerator_figures
import timing
from accelerator_figures import MARK, Piece

from facedisent_jax.errors import UserError
from facedisent_jax.files import write_atomically

PIECES = {
    "speed": {"right": 110, "steps": 125, "torch": 75, "repeat": 30},
    "quality": {"training": 340},
}
"""The pieces of each part, most important first, with their limits in seconds. What one leaves, the next may take."""
NO_TIME = 10  # seconds: with less left, a piece is not started
PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy", "torch")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pictures", nargs="?", type=Path, help="file written with --pack")
    parser.add_argument("--pack", type=Path, metavar="DATA", help="write the pictures of this data folder to --out")
    parser.add_argument("--out", type=Path, default=Path("."), help="file for --pack; else folder for trained weights")
    parser.add_argument("--part", choices=PIECES, help="what to measure (default: all)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to FILE; other parts in it stay")
    parser.add_argument("--rehearse", action="store_true", help="a few steps of each, with small networks")
    parser.add_argument("--piece", help=argparse.SUPPRESS)
    parser.add_argument("--end", type=float, default=0.0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.pack is None and options.pictures is None:
        parser.error("give the pictures, or --pack DATA --out FILE to write them")
    timing.settle_environment()
    try:
        if options.pack is not None:
            from accelerator_pictures import pack

            pack(options.pack, options.out)
        elif options.piece:
            piece = Piece(options.pictures, options.rehearse, options.end, options.out)
            import_module(f"accelerator_{options.piece}").measure(piece)
        else:
            run_parts(options)
    except UserError as error:
        sys.exit(f"accelerator.py: {error}")


def run_parts(options: argparse.Namespace) -> None:
    """Run all pieces of the parts, and print the table of their figures."""
    from accelerator_pictures import load

    load(options.pictures)  # so that a wrong file ends in a sentence
    if not options.out.is_dir():
        raise UserError(f"--out must be an existing folder for the trained weights, got {options.out}.")
    parts = [options.part] if options.part else list(PIECES)
    result = read_result(options.json, parts) | {"rehearsal": options.rehearse}
    for part in parts:
        end = time.monotonic()
        for name, limit in PIECES[part].items():
            end += limit
            for figure in figures_of(name, options, end):
                result["figures"].append({"part": part, "piece": name} | figure)
                print(f"{name}: {figure['what']}: {figure['value']} {figure['unit']} {figure['note']}", file=sys.stderr)
                if options.json:
                    write_atomically(options.json, json.dumps(result, indent=1) + "\n")
    part_figures = [figure for figure in result["figures"] if figure["part"] in parts]
    print(timing.table(accelerator_figures.rows(part_figures)))


def read_result(path: Path | None, parts: list[str]) -> dict:
    """What is to be written to the file of --json: the machine, and the figures of other parts that are in it."""
    figures = []
    if path and path.exists():
        try:
            figures = [figure for figure in json.loads(path.read_text())["figures"] if figure["part"] not in parts]
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"--json must be a new file or one of this script, got {path}.") from error
    return {"machine": machine(), "figures": figures}


def machine() -> dict:
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    return {"processor": timing.processor(), "cores": timing.CORES, "python": sys.version.split()[0], **versions}


def figures_of(name: str, options: argparse.Namespace, end: float):
    """Yield the figures of a piece as it reports them. At `end` it is stopped."""

    def rest(reason: str) -> dict:
        return {"what": f"{name}, the rest", "value": None, "unit": "", "note": reason, "device_kind": ""}

    seconds = end - time.monotonic()
    if seconds < NO_TIME and not options.rehearse:
        yield rest("no time left")
        return
    # A margin, in which the piece can say what it leaves out.
    piece = Piece(options.pictures, options.rehearse, end - NO_TIME / 2, options.out)
    process = subprocess.Popen(
        [sys.executable, __file__, *piece.arguments(), "--piece", name],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"},  # several processes share the device
        start_new_session=True,
    )
    timer = Timer(24 * 3600 if options.rehearse else seconds, stop, [process])
    timer.start()
    try:
        assert process.stdout
        for line in process.stdout:
            if line.startswith(MARK):
                yield json.loads(line.removeprefix(MARK))
            else:
                print(line, end="", file=sys.stderr)
        if process.wait():
            reason = "out of time" if time.monotonic() >= end else f"it ended with status {process.returncode}"
            yield rest(reason)
    finally:
        timer.cancel()
        stop(process)


def stop(process: subprocess.Popen) -> None:
    """End a process and all that it has started."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()


if __name__ == "__main__":
    main()
