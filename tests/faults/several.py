"""Trains a tiny run in several processes on this machine, for test_devices: `perform`, or as a command one of them."""

import hashlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from killed import ROOT, TINY

from facedisent_jax import config as configs


class Ended(NamedTuple):
    """How a process ended. rows: of each step, a hash of each row of the batch that it read."""

    status: int
    said: str
    errors: str
    rows: list[list[str]]


def begin(run: Path, processes: int = 1, devices: int = 1, job: dict | None = None, **settings) -> list:
    """Start the processes of a run, each with so many devices.

    job: "sgd": plain SGD in place of the optimiser; "kill" or "stop": [process, step], where that one gets SIGKILL
    (once the run has a checkpoint) or SIGTERM; "slurm": the processes are told of each other by its variables.
    """
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    base = replace(TINY, data=(str(run.parent / "data"),), run=str(run), validate_every=2, log_every=1)
    started = []
    for k in range(processes):
        several = dict(distributed=True, coordinator=address, processes=processes, process=k) if processes > 1 else {}
        spec = {"config": configs.to_dict(replace(base, **several)) | settings, "job": job or {}}
        slurm = {
            "SLURM_JOB_ID": address.split(":")[1],
            "SLURM_STEP_NODELIST": "localhost",
            "SLURM_NTASKS": str(processes),
            "SLURM_PROCID": str(k),
            "SLURM_LOCALID": str(k),
            "JAX_COORDINATOR_PORT": address.split(":")[1],
        }
        if (job or {}).get("slurm"):
            several = dict(distributed=True)
        environment = (
            os.environ
            | (slurm if (job or {}).get("slurm") else {})
            | {
                "XLA_FLAGS": f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={devices}",
                "XDG_CACHE_HOME": str(run.parent / "cache"),
                "PYTHONPATH": str(ROOT),
                "TF_CPP_MIN_LOG_LEVEL": "3",
                "TF_ENABLE_ONEDNN_OPTS": "0",
            }
        )
        command = [sys.executable, __file__, json.dumps(spec)]
        pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        started.append(subprocess.Popen(command, env=environment, **pipes))
    return started


def ended(started: list, timeout: float = 240) -> list[Ended]:
    """Wait for the processes."""
    out = []
    for process in started:
        said, errors = process.communicate(timeout=timeout)
        rows = [json.loads(found) for found in re.findall(r"<rows (.*?)>", errors)]
        out.append(Ended(process.returncode, said, errors, rows))
    return out


def perform(run: Path, *arguments, **settings) -> list[Ended]:
    """Train the run in its processes to the end."""
    done = ended(begin(run, *arguments, **settings))
    assert not any(one.status for one in done), "\n".join(one.errors[-2000:] for one in done)
    return done


def main(spec: dict) -> None:
    import jax
    import numpy as np
    import optax

    from facedisent_jax.commands import train
    from facedisent_jax.data.triplets import BATCH_AXIS
    from facedisent_jax.errors import UserError
    from facedisent_jax.training import checkpoint, distributed, loop, run, step
    from facedisent_jax.training.signals import Stopped

    job = spec["job"]
    if job.get("sgd"):
        step.optimizer = lambda config: optax.sgd(0.5)
    split, steps = distributed.shard_batch, [0]

    def seen(batch, leading_axes=0):
        axes = jax.tree.map(lambda axis: axis + leading_axes, BATCH_AXIS)
        rows = jax.tree.leaves(jax.tree.map(lambda a, axis: np.moveaxis(a, axis, 0), batch, axes))
        hashes = [hashlib.sha256(b"".join(a[k].tobytes() for a in rows)).hexdigest()[:16] for k in range(len(rows[0]))]
        print(f"<rows {json.dumps(hashes)}>", file=sys.stderr, flush=True)
        return split(batch, leading_axes)

    def stepping(config, state, batch, pictures=None, step=loop.train_step):
        steps[0] += 1
        for what, number in (("kill", signal.SIGKILL), ("stop", signal.SIGTERM)):
            if job.get(what) == [max(config.process, 0), steps[0]]:
                while what == "kill" and not checkpoint.steps(Path(config.run)):
                    time.sleep(0.01)  # it is written beside the steps that follow
                os.kill(os.getpid(), number)
        return step(config, state, batch, pictures)

    validate = run.validate
    distributed.shard_batch, loop.train_step = seen, stepping

    def judged(*arguments):
        distributed.shard_batch = split  # the batches of training alone
        try:
            return validate(*arguments)
        finally:
            distributed.shard_batch = seen

    run.validate = judged
    try:
        train.main(configs.from_dict(spec["config"]))
    except UserError as error:
        raise SystemExit(f"train.py: {error}") from None
    except Stopped as stopped:
        raise SystemExit(stopped.status) from None


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
