"""Runs train.main in processes of their own and ends them by force, for test_resume and test_preemption.

As a command this does the jobs of `perform`, one line of JSON after the other. The modules are imported once; each job
is a fork of that process, with backends, threads and files of its own. A job is killed by SIGKILL where it says, or
gets a signal there, or meets a fault:

    {"at": [TEXT, N]}        the Nth file operation (open to write, mkdir, rename, delete) on a path in the run's folder
                             with TEXT in it
    {"at": ["step", N]}      while the Nth step runs; in place of "step" also "compile" (the step's, with no cache),
                             "validate" and "read" (of data)
    {"at": ..., "signals": ["SIGTERM", ...]}     these signals, 0.3 s apart, in place of SIGKILL
    {"full": N}              from the Nth save on no file of more than 100 kB can be written (RLIMIT_FSIZE)
    {"room": N}              from the Nth save on it can again
    {"shell": [N, COMMAND]}  a command, before the Nth save
    {"poison": [N, ...]}     the batches of these steps have labels that are NaN
    {"config": {...}}        settings that differ from those of the spec

Prints a line of JSON a job: status as of waitpid (negative: the signal), digest of the last checkpoint and, where
there was one, the number of file operations.
"""

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from functools import cache
from pathlib import Path

from tiny_run import ROOT, terms

from facedisent_jax.config import AugmentConfig, Config, ModelConfig, OptimConfig, to_dict

TINY = Config(
    steps=6,
    batch=8,
    log_every=2,
    validate_every=3,  # so that a checkpoint falls between two lines of the log
    report=False,
    model=ModelConfig(width=128, blocks=0),
    augment=AugmentConfig(enabled=False),
    optim=OptimConfig(warmup_steps=2, decay_steps=8),
)


def perform(work: Path, run: str, *jobs: dict, environment=None, **settings) -> list[dict]:
    """Do jobs (see killed.py) one after the other in one run; what each printed, its status and its digest."""
    config = replace(TINY, data=(str(work / "data"),), run=str(work / run))
    server = _server(work, tuple((environment or {}).items()))
    assert server.stdin and server.stdout
    print(json.dumps({"config": to_dict(config) | settings, "jobs": list(jobs)}), file=server.stdin, flush=True)
    results, result = [], {"said": ""}
    while len(results) < len(jobs):
        line = server.stdout.readline()
        assert line, "the process of the jobs has ended; what it said is above"
        if line.startswith('{"job"'):
            results.append(result | json.loads(line))
            result = {"said": ""}
        elif line.startswith('{"digest"'):
            result |= json.loads(line)
        else:
            result["said"] += line
    return results


@cache
def _server(work: Path, environment: tuple[tuple[str, str], ...]) -> subprocess.Popen:
    """The process that does the jobs; it ends with this one, when its input does."""
    settings = {
        "XDG_CACHE_HOME": str(work / "cache"),
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "TF_ENABLE_ONEDNN_OPTS": "0",
        "PYTHONPATH": str(ROOT),
    }
    return subprocess.Popen(
        [sys.executable, __file__],
        env=os.environ | settings | dict(environment),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def check_equal(work: Path, run: str, result: dict) -> None:
    """The run ended as the one left alone: status, all numbers of the last checkpoint, log, checkpoints kept."""

    from facedisent_jax.training import checkpoint

    assert result["status"] == 0, result["said"]
    assert result["digest"] == (work / "digest").read_text()
    assert terms(work / run) == terms(work / "alone")
    assert checkpoint.steps(work / run) == checkpoint.steps(work / "alone")
    assert {p.name for p in (work / run / "checkpoints").iterdir()} <= {"3", "6"}


def main() -> None:
    import jax  # noqa: F401
    import orbax.checkpoint  # noqa: F401
    import tensorflow  # noqa: F401

    import facedisent_jax.reporting.report
    import facedisent_jax.training.run  # noqa: F401

    for line in iter(sys.stdin.readline, ""):
        spec = json.loads(line)
        for job in spec["jobs"]:
            sys.stdout.flush()
            if not (child := os.fork()):
                train_here(spec["config"] | job.get("config", {}), job)
            status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            print(json.dumps({"job": job, "status": status}), flush=True)


def train_here(values: dict, job: dict) -> None:
    """Train in this process and end it."""
    import jax
    import numpy as np

    from facedisent_jax import config
    from facedisent_jax.commands import train
    from facedisent_jax.data.triplets import Triplets
    from facedisent_jax.errors import UserError
    from facedisent_jax.training import checkpoint, run
    from facedisent_jax.training.signals import Stopped

    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    made = config.from_dict(values)
    arm(job, made.run)
    gather = Triplets.batches

    def poisoned(self, seed, steps, *more):
        made = gather(self, seed, steps, *more)
        wrong = np.isin(np.add(steps, 1), job.get("poison", []))[:, None, None, None]
        return made._replace(label=np.where(wrong, np.float32("nan"), made.label))

    Triplets.batches = poisoned
    begin, states = run.init_state, []
    run.init_state = lambda *a: states.append(begin(*a)) or states[-1]
    status = 0
    try:
        train.main(made)
    except Stopped as stopped:
        print(stopped, flush=True)
        status = stopped.status
    except UserError as error:
        print(error, flush=True)
        status = 1
    if checkpoint.steps(made.run):
        state = states[-1] if states else begin(made, None)
        shapes = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=a.sharding), state)
        state, unlogged = checkpoint.restore(made.run, shapes, made)
        leaves = [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(state)]
        print(json.dumps({"digest": hashlib.sha256(b"".join(leaves)).hexdigest(), "events": COUNT[0]}), flush=True)
    os._exit(status)


COUNT = [0]


def arm(job: dict, run: str) -> None:
    """Set what the job is to meet."""
    import resource

    from facedisent_jax.data import reading
    from facedisent_jax.training import checkpoint, loop, run

    text, n = job.get("at", ["", 0])
    left, lock = [n], threading.RLock()

    def strike():
        if "signals" not in job:
            os.kill(os.getpid(), signal.SIGKILL)
        first, *more = (getattr(signal, name) for name in job["signals"])
        os.kill(os.getpid(), first)
        for k, number in enumerate(more, 1):
            threading.Timer(0.3 * k, os.kill, (os.getpid(), number)).start()

    def hear(event, arguments):
        writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if not writes and event not in ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree"):
            return
        if text in ("step", "compile", "validate", "read"):
            return
        path = " ".join(os.fsdecode(a) for a in arguments if isinstance(a, str | bytes | os.PathLike))
        if run in path:
            with lock:
                COUNT[0] += 1
                left[0] -= text in path
                due = left[0] == 0 and text in path
            if due:
                strike()

    sys.addaudithook(hear)
    step, calls = loop.train_step, [0]

    def stepping(*arguments):
        calls[0] += 1
        if text == "compile" and calls[0] == n:
            import jax

            jax.config.update("jax_compilation_cache_dir", None)
            threading.Timer(0.5, strike).start()
        if text == "step" and calls[0] == n:
            strike() if "signals" in job else threading.Timer(0.01, strike).start()
        return step(*arguments)

    loop.train_step = stepping
    for module, name in ((run, "validate"), (reading, "read_faces")):
        setattr(module, name, striking(getattr(module, name), strike if text and text in name else None, left))
    save, saves = checkpoint.Checkpoints.save, [0]

    def saving(self, *arguments):
        saves[0] += 1
        if saves[0] == job.get("full"):
            self.wait()
            resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
        if saves[0] == job.get("room"):
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        if saves[0] == job.get("shell", [0])[0]:
            self.wait()
            os.system(job["shell"][1])
        return save(self, *arguments)

    checkpoint.Checkpoints.save = saving


def striking(function, strike, left):
    """The function, the Nth call of which is struck."""

    def call(*arguments):
        left[0] -= strike is not None
        if strike and left[0] == 0:
            strike()
        return function(*arguments)

    return call


if __name__ == "__main__":
    main()
