"""The training of a run in its folder: checkpoints, log, stops, batches left out. Of several processes one writes.

Imports training, checkpoint, devices, preemption, processes, runlog and data.
"""

import errno
import json
import os
import signal
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import jax

from facedisent_jax import checkpoint, data, devices, processes, training
from facedisent_jax import config as configs
from facedisent_jax.config import Config
from facedisent_jax.preemption import Stopped, StopRequest
from facedisent_jax.runlog import MetricsLog, NoLog, RunError, write_atomically
from facedisent_jax.triplets import Batch, Triplets

FREE_TO_CHANGE = {
    "steps",
    "log_every",
    "validate_every",
    "report",
    "memory",
    "run",
    "when_saving_fails",
    "when_not_finite",
    "steps_per_call",
    "resident",
    "profile",
    "distributed",
    "coordinator",
    "processes",
    "process",
}
"""Settings that may differ when a run is continued; any other would make it another run."""
LOCK, CONFIG, SKIPPED, NOT_FINITE = "lock", "config.json", "skipped.json", "not_finite.json"
MOST_SKIPPED = 10
"""Batches that a run may leave out. More is no bad batch but a run that diverges."""


def train(config: Config, triplets: Triplets, held_out: Triplets, info: dict, params, stop: StopRequest) -> int:
    """Train from the last checkpoint, or from the beginning, to config.steps; returns the step reached.

    info:   what each checkpoint says of the run, as in checkpoint.Loaded.
    params: the weights to begin with; None: new ones.
    Raises RunError, CheckpointError, NonFiniteError, and Stopped where `stop` was asked for and all is saved.
    """
    run = Path(config.run)
    rows = _share(config)
    with ExitStack() as stack:
        if processes.first():
            stack.enter_context(locked(run))
            check_same(config, run)  # here no other process can be writing it
            write_atomically(run / CONFIG, json.dumps(configs.to_dict(config), indent=2))
        processes.together("the run's folder is there")
        checkpoints = stack.enter_context(checkpoint.Checkpoints(run))
        log = MetricsLog(config) if processes.first() else NoLog()
        pictures = devices.replicated(triplets.faces.image[:]) if config.resident else None

        def save(state: training.TrainState, judge: bool, unlogged: list) -> None:
            step, figures = int(state.step), training.validate(config, state.average, held_out) if judge else None
            if figures:
                log.validation(step, figures)
            with _going_on(config, log):
                checkpoints.wait()
            with _going_on(config, log):
                log.flush()  # a checkpoint is never ahead of the log
                checkpoints.save(state, config, info, figures, unlogged)

        def asked() -> bool:
            with _going_on(config, log):
                checkpoints.poll()
            return stop.asked()

        try:
            while True:
                state, unlogged = _begin(config, triplets, params)
                log.rewind(int(state.step))
                steps = (int(state.step), config.steps)
                stream = data.batches(triplets, config.seed, *steps, config.batch, rows, not config.resident)
                if config.profile and processes.first():
                    stream = _profiled(config, stream)
                left_out = skipped(run)
                try:
                    with stop.after_step():
                        state = training.fit(
                            config, state, stream, log.training, save, unlogged, left_out, asked, pictures
                        )
                        log.flush()
                        checkpoints.wait()
                        if int(state.step) not in checkpoint.steps(run):  # with --when-saving-fails go-on
                            raise RunError(f"{run}: step {int(state.step)}, the last, could not be saved.")
                    break
                except training.NonFiniteError as error:
                    checkpoints.wait()
                    if processes.first():
                        _leave_out(config, log, error, record_ids(triplets, config, error.step))
                    processes.together("the batch is noted")
        finally:
            log.close()
    if stop.number:
        saved = f"after step {int(state.step)}, saved in {checkpoints.folder / str(int(state.step))}"
        rest = "the same command goes on from there" if int(state.step) < config.steps else "only the report is left"
        raise Stopped(stop.number, f"stopped by {signal.Signals(stop.number).name} {saved}; {rest}.")
    return int(state.step)


def _share(config: Config) -> slice:
    """The rows of each batch that this process reads. Raises RunError where a batch cannot be split alike."""
    number = jax.device_count()
    if config.batch % number:
        raise RunError(
            f"--batch is {config.batch}, and there are {number} devices: a multiple of {number} was expected, as each "
            "takes an equal part."
        )
    return devices.rows(config.batch)


def _profiled(config: Config, stream: Iterator[Batch]) -> Iterator[Batch]:
    """The stream; what is done with the batches from the second call to the devices on is traced, for `profile` steps
    and the call that is then still running."""
    begin = config.steps_per_call
    end = begin + config.profile + config.steps_per_call
    tracing = False
    try:
        for k, batch in enumerate(stream):
            if k == begin:
                jax.profiler.start_trace(Path(config.run) / "profile", create_perfetto_trace=True)
                tracing = True
            if k == end:
                jax.profiler.stop_trace()
                tracing = False
            yield batch
    finally:
        if tracing:
            jax.profiler.stop_trace()


def _begin(config: Config, triplets: Triplets, params) -> tuple[training.TrainState, list]:
    """The state to go on from, and the steps and terms that are not logged yet."""
    state = training.init_state(config, triplets.faces, params)
    if not checkpoint.steps(config.run):
        return state, []
    state, unlogged = checkpoint.restore(config.run, state, config)
    print(f"Continuing {config.run} from step {int(state.step)}.")
    return state, unlogged


@contextmanager
def _going_on(config: Config, log: MetricsLog | NoLog) -> Iterator[None]:
    """Within, what cannot be written stops the run or is a warning, as the config says."""
    try:
        yield
    except (checkpoint.CheckpointError, RunError) as error:
        if config.when_saving_fails == "stop":
            raise
        log.say(f"Warning: {error} Training goes on, and tries again at the next checkpoint.")


def _leave_out(config: Config, log: MetricsLog | NoLog, error: training.NonFiniteError, records: list[str]) -> None:
    """Note the batch of a step that is not finite as one to leave out; or, as the config says, raise the error with
    what is known of it."""
    run, last = Path(config.run), (checkpoint.steps(config.run) or [0])[-1]
    back = f"the checkpoint of step {last}" if last else "the beginning"
    if config.when_not_finite == "skip":
        skip(run, error.step, error.terms, records)
        log.say(f"Warning: {error} Starting again from {back}, without that batch ({some(records)}).")
        return
    write_atomically(run / NOT_FINITE, json.dumps({"step": error.step, "terms": error.terms, "records": records}))
    error.args = (
        f"Training stopped: {error} In its batch: {some(records)}; all in {run / NOT_FINITE}. The last good state is "
        f"{back}. A lower --optim.lr may help; --when-not-finite skip goes on without that batch.",
    )
    raise error


@contextmanager
def locked(run: Path) -> Iterator[None]:
    """Make the folder of a run and keep other processes from training in it. Raises RunError where another does.

    The lock goes with its process, however that ends. On a network file system it holds between machines where that
    file system has locks (NFS, mostly); where it has none, a warning is printed and nothing is locked.
    """
    import fcntl

    try:
        run.mkdir(parents=True, exist_ok=True)
        file = (run / LOCK).open("a+")
    except OSError as error:
        raise RunError(f"{run} cannot be written to ({error.strerror}): choose another --run.") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                file.seek(0)
                owner = file.read().strip() or "another process"
                raise RunError(f"{run} is being trained by {owner}: wait for it, or choose another --run.") from None
            print(f"{run}: no lock here ({error.strerror}); never train twice in it at the same time.")
        with suppress(OSError):  # a full disk: the lock holds without its owner's name
            (run / LOCK).write_text(f"process {os.getpid()} on {os.uname().nodename}\n")
        yield


def check_same(config: Config, run: Path) -> None:
    """Refuse (RunError) to continue a run with other settings than it was begun with, or a folder that is no run."""
    if not (run / CONFIG).exists():
        # A kill in the first moment leaves these two and no config.
        if run.is_dir() and {path.name for path in run.iterdir()} - {LOCK, f"{CONFIG}.partial"}:
            raise RunError(f"{run} exists and is not a run (it has no {CONFIG}): choose another --run.")
        return
    try:
        there = configs.from_dict(json.loads((run / CONFIG).read_text()))
    except (OSError, ValueError) as error:
        raise RunError(f"{run / CONFIG} cannot be used ({error}): choose another --run.") from error
    differing = [d for d in configs.differences(config, there) if d.split()[0] not in FREE_TO_CHANGE]
    if differing:
        raise RunError(f"{run} was begun with other settings ({'; '.join(differing)}): choose another --run.")


def skipped(run: Path) -> frozenset[int]:
    """The steps whose batches the run leaves out, because a loss was not finite there."""
    path = run / SKIPPED
    return frozenset(entry["step"] for entry in json.loads(path.read_text())) if path.exists() else frozenset()


def skip(run: Path, step: int, terms: list[str], records: list[str]) -> None:
    """Leave the batch of a step out from now on, also when the run is continued. Raises RunError for the eleventh."""
    path = run / SKIPPED
    entries = json.loads(path.read_text()) if path.exists() else []
    if len(entries) >= MOST_SKIPPED:
        raise RunError(f"{run} has left out {len(entries)} batches already: it diverges, a lower --optim.lr may help.")
    entries.append({"step": step, "terms": terms, "records": records})
    write_atomically(path, json.dumps(entries, indent=1))


def record_ids(triplets: Triplets, config: Config, step: int) -> list[str]:
    """The pictures in the batch of a step (from 1), as subject/sequence/condition/frame without what is empty; each
    once, in the order of the batch."""
    index, faces = triplets.index(config.seed, step - 1, config.batch), triplets.faces
    rows = [int(row) for triplet in zip(index.a, index.b, index.c, strict=True) for row in triplet]
    names = ((faces.subject[k], faces.sequence[k], faces.condition[k], str(faces.frame[k])) for k in rows)
    return list(dict.fromkeys("/".join(part for part in name if part) for name in names))


def some(names: Iterable[str], most: int = 6) -> str:
    """The first few of many names, for a sentence."""
    listed = list(names)
    return ", ".join(listed[:most]) + (f", ... ({len(listed)} in all)" if len(listed) > most else "")
