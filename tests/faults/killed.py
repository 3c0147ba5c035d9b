"""Trains a tiny run in processes of their own, in which something goes wrong: `perform(work, run, Job(...), Job())`.

As a command this carries out the jobs that `perform` sends it, one line of JSON after the other. The modules are
imported once; each job is a fork of that process, with backends, threads and files of its own.
"""

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import NamedTuple

from tiny_run import ROOT, terms

from facedisent_jax.config import AugmentConfig, Config, ModelConfig, OptimConfig, from_dict, to_dict

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
CALLS = ("step", "compile", "validate", "read_faces")


@dataclass(frozen=True)
class Job:
    """One start of the run, and what goes wrong in it.

    at:       (event, n): when the signals are sent. The event is the nth call of one of CALLS ("compile": of the first
              step, with no compilation cache) or the nth file operation (open to write, mkdir, rename, delete) on a
              path in the run folder that contains this text.
    signals:  their names; they are sent 0.3 s apart.
    disk_full_at_save: from the nth save on, no file of more than 100 kB can be written.
    command_at_save: (n, a shell command before the nth save).
    nan_at_step: the labels of this step's batch are NaN.
    """

    at: tuple[str, int] | None = None
    signals: tuple[str, ...] = ("SIGKILL",)
    disk_full_at_save: int = 0
    command_at_save: tuple[int, str] = (0, "")
    nan_at_step: int = 0


class Result(NamedTuple):
    """How a job ended. status: the exit status, or minus the signal. digest: of the last checkpoint, "" without one."""

    status: int
    output: str
    digest: str
    file_operations: int


def perform(work: Path, run: str, *jobs: Job, environment: dict | None = None, **settings) -> list[Result]:
    """Carry out jobs one after the other in the run folder work/run, with data from work/data."""
    config = replace(TINY, data=(str(work / "data"),), run=str(work / run), **settings)
    server = _server(work, tuple((environment or {}).items()))
    assert server.stdin and server.stdout
    request = {"config": to_dict(config), "jobs": [asdict(job) for job in jobs]}
    print(json.dumps(request), file=server.stdin, flush=True)
    results, output, state = [], "", {"digest": "", "file_operations": 0}
    while len(results) < len(jobs):
        line = server.stdout.readline()
        assert line, "the process that carries out jobs has ended; what it printed is above"
        if line.startswith('{"status"'):
            results.append(Result(json.loads(line)["status"], output, **state))
            output, state = "", {"digest": "", "file_operations": 0}
        elif line.startswith('{"digest"'):
            state = json.loads(line)
        else:
            output += line
    return results


def check_equal(work: Path, run: str, result: Result) -> None:
    """The run ended as the undisturbed one: status, all numbers of the last checkpoint, log, checkpoints."""
    from facedisent_jax.training import checkpoint

    assert result.status == 0, result.output
    assert result.digest == (work / "digest").read_text()
    assert terms(work / run) == terms(work / "alone")
    assert checkpoint.steps(work / run) == checkpoint.steps(work / "alone")
    assert {p.name for p in (work / run / "checkpoints").iterdir()} <= {"3", "6"}


@cache
def _server(work: Path, environment: tuple[tuple[str, str], ...]) -> subprocess.Popen:
    """The process that carries out jobs. It ends when its input does, so with this process."""
    settings = {"XDG_CACHE_HOME": str(work / "cache"), "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
    return subprocess.Popen(
        [sys.executable, __file__],
        env=os.environ | settings | dict(environment),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def main() -> None:
    import facedisent_jax.reporting.report
    import facedisent_jax.training.run  # noqa: F401
    from facedisent_jax.environment import quiet_tensorflow

    quiet_tensorflow()
    import orbax.checkpoint  # noqa: F401
    import tensorflow  # noqa: F401

    for line in iter(sys.stdin.readline, ""):
        request = json.loads(line)
        for job in request["jobs"]:
            sys.stdout.flush()
            if not (child := os.fork()):
                train_here(from_dict(request["config"]), Job(**job))
            status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            print(json.dumps({"status": status}), flush=True)


def train_here(config: Config, job: Job) -> None:
    """Train in this process, with what the job lets go wrong, and end the process."""
    import jax
    import numpy as np

    from facedisent_jax.commands import train
    from facedisent_jax.errors import Stopped, UserError
    from facedisent_jax.training import checkpoint, run

    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    counter = send_signals(job, config.run)
    break_saves(job)
    break_batch(job)
    init_state, states = run.init_state, []
    run.init_state = lambda *arguments: states.append(init_state(*arguments)) or states[-1]
    status = 0
    try:
        train.main(config)
    except Stopped as stopped:
        print(stopped, flush=True)
        status = stopped.status
    except UserError as error:
        print(error, flush=True)
        status = 1
    if states and checkpoint.steps(config.run):
        shapes = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=a.sharding), states[-1])
        state, _ = checkpoint.restore(config.run, shapes, config)
        digest = hashlib.sha256(b"".join(np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(state))).hexdigest()
        print(json.dumps({"digest": digest, "file_operations": counter[0]}), flush=True)
    os._exit(status)


def send_signals(job: Job, run_folder: str) -> list[int]:
    """Send the job's signals at its event. Returns a list whose item counts the file operations in the run folder."""
    from facedisent_jax.data import reading
    from facedisent_jax.training import loop

    event, n = job.at or ("", 0)
    lock, operations, matches = threading.RLock(), [0], [0]

    def send() -> None:
        for k, name in enumerate(job.signals):
            if k:
                threading.Timer(0.3 * k, os.kill, (os.getpid(), getattr(signal, name))).start()
            else:
                os.kill(os.getpid(), getattr(signal, name))

    def audit(operation: str, arguments: tuple) -> None:
        writes = operation == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if not writes and operation not in ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree"):
            return
        path = " ".join(os.fsdecode(a) for a in arguments if isinstance(a, str | bytes | os.PathLike))
        if run_folder in path:
            with lock:
                operations[0] += 1
                is_match = event not in CALLS and event in path
                matches[0] += is_match
                due = is_match and matches[0] == n
            if due:
                send()

    def train_step(*arguments, compiled_step: Callable = loop.train_step):
        if event in ("step", "compile"):
            matches[0] += 1
            if matches[0] == n and event == "compile":
                import jax

                jax.config.update("jax_compilation_cache_dir", None)
                threading.Timer(0.5, send).start()
            elif matches[0] == n and "SIGKILL" in job.signals:
                threading.Timer(0.01, send).start()  # while the step runs
            elif matches[0] == n:
                send()
        return compiled_step(*arguments)

    def sending(function: Callable) -> Callable:
        def call(*arguments):
            matches[0] += 1
            if matches[0] == n:
                send()
            return function(*arguments)

        return call if function.__name__ == event else function

    sys.addaudithook(audit)
    loop.train_step = train_step
    loop.validate, reading.read_faces = sending(loop.validate), sending(reading.read_faces)
    return operations


def break_saves(job: Job) -> None:
    """Fill the disk, or run the job's command, before the nth save."""
    import resource

    from facedisent_jax.training.checkpoint import Checkpoints

    save, saves = Checkpoints.save, [0]

    def break_and_save(self, *arguments):
        saves[0] += 1
        if saves[0] == job.disk_full_at_save:
            self.wait()
            resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
        if saves[0] == job.command_at_save[0]:
            self.wait()
            os.system(job.command_at_save[1])
        return save(self, *arguments)

    Checkpoints.save = break_and_save


def break_batch(job: Job) -> None:
    """Labels that are NaN in the batch of one step."""
    import numpy as np

    from facedisent_jax.data.triplets import Triplets

    gather = Triplets.batches

    def with_nan(self, seed, steps, *arguments):
        batch = gather(self, seed, steps, *arguments)
        is_faulty = (np.add(steps, 1) == job.nan_at_step).reshape(-1, *[1] * (batch.label.ndim - 1))
        return batch._replace(label=np.where(is_faulty, np.float32("nan"), batch.label))

    if job.nan_at_step:
        Triplets.batches = with_nan


if __name__ == "__main__":
    main()
