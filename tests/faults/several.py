"""Trains a tiny run in several processes on this machine: `perform(run, processes)`. As a command it is one of them."""

import hashlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from killed import TINY
from tiny_run import ROOT

from facedisent_jax.config import Config, from_dict, to_dict


@dataclass(frozen=True)
class Faults:
    """What is special about a run.

    sgd:  train by plain SGD. Adam divides by the gradient's size, and so amplifies rounding where that is near 0.
    kill, stop: (process, step) at which that process gets SIGKILL, once there is a checkpoint, or SIGTERM.
    """

    sgd: bool = False
    kill: tuple[int, int] | None = None
    stop: tuple[int, int] | None = None


class Result(NamedTuple):
    """How a process ended. row_hashes: for each step, a hash of every row of the batch that it read."""

    status: int
    output: str
    errors: str
    row_hashes: list[list[str]]


def start(
    run: Path, processes: int = 1, devices: int = 1, faults: Faults = Faults(), slurm: bool = False, **settings
) -> list[subprocess.Popen]:
    """Start the processes of a run, with so many devices each. slurm: they find each other by SLURM's variables."""
    with socket.socket() as free_socket:
        free_socket.bind(("localhost", 0))
        port = free_socket.getsockname()[1]
    config = replace(TINY, data=(str(run.parent / "data"),), run=str(run), validate_every=2, log_every=1, **settings)
    children = []
    for k in range(processes):
        environment = os.environ | {
            "XLA_FLAGS": f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={devices}",
            "XDG_CACHE_HOME": str(run.parent / "cache"),
            "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}",
        }
        if slurm:
            config = replace(config, distributed=True)
            environment |= {
                "SLURM_JOB_ID": str(port),
                "SLURM_STEP_NODELIST": "localhost",
                "SLURM_NTASKS": str(processes),
                "SLURM_PROCID": str(k),
                "SLURM_LOCALID": str(k),
                "JAX_COORDINATOR_PORT": str(port),
            }
        elif processes > 1:
            address = dict(coordinator=f"localhost:{port}", processes=processes, process=k)
            config = replace(config, distributed=True, **address)
        arguments = [json.dumps(to_dict(config)), json.dumps(vars(faults)), str(k)]
        pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        children.append(subprocess.Popen([sys.executable, __file__, *arguments], env=environment, **pipes))
    return children


def wait(children: list[subprocess.Popen], timeout: float = 240) -> list[Result]:
    """Wait for the processes."""
    results = []
    for process in children:
        output, errors = process.communicate(timeout=timeout)
        row_hashes = [json.loads(line) for line in re.findall(r"<rows (.*?)>", errors)]
        results.append(Result(process.returncode, output, errors, row_hashes))
    return results


def perform(run: Path, *arguments, **settings) -> list[Result]:
    """Train the run in its processes to the end."""
    results = wait(start(run, *arguments, **settings))
    assert not any(result.status for result in results), "\n".join(result.errors[-2000:] for result in results)
    return results


def main(config: Config, faults: Faults, process: int) -> None:
    """Train as one of the processes."""
    import jax
    import numpy as np
    import optax

    from facedisent_jax.commands import train
    from facedisent_jax.data.triplets import BATCH_AXIS
    from facedisent_jax.errors import Stopped, UserError
    from facedisent_jax.training import checkpoint, distributed, loop, step

    if faults.sgd:
        step.optimizer = lambda config: optax.sgd(0.5)
    shard_batch, validate, steps = distributed.shard_batch, loop.validate, [0]

    def shard_and_print(batch, leading_axes=0):
        axes = jax.tree.map(lambda axis: axis + leading_axes, BATCH_AXIS)
        rows = jax.tree.leaves(jax.tree.map(lambda a, axis: np.moveaxis(a, axis, 0), batch, axes))
        hashes = [hashlib.sha256(b"".join(a[k].tobytes() for a in rows)).hexdigest()[:16] for k in range(len(rows[0]))]
        print(f"<rows {json.dumps(hashes)}>", file=sys.stderr, flush=True)
        return shard_batch(batch, leading_axes)

    def train_step(*arguments, compiled_step=loop.train_step):
        steps[0] += 1
        if faults.kill and tuple(faults.kill) == (process, steps[0]):
            while not checkpoint.steps(config.run):
                time.sleep(0.01)  # it is written in the background
            os.kill(os.getpid(), signal.SIGKILL)
        if faults.stop and tuple(faults.stop) == (process, steps[0]):
            os.kill(os.getpid(), signal.SIGTERM)
        return compiled_step(*arguments)

    def validate_without_printing(*arguments):
        distributed.shard_batch = shard_batch
        try:
            return validate(*arguments)
        finally:
            distributed.shard_batch = shard_and_print

    distributed.shard_batch = shard_and_print
    loop.train_step, loop.validate = train_step, validate_without_printing
    try:
        train.main(config)
    except UserError as error:
        raise SystemExit(f"train.py: {error}") from None
    except Stopped as stopped:
        raise SystemExit(stopped.status) from None


if __name__ == "__main__":
    main(from_dict(json.loads(sys.argv[1])), Faults(**json.loads(sys.argv[2])), int(sys.argv[3]))
