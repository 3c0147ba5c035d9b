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

from facedisent_jax import config as configs
from facedisent_jax.config import Config
from facedisent_jax.data.stream import batches
from facedisent_jax.data.triplets import Batch, Triplets
from facedisent_jax.errors import UserError
from facedisent_jax.files import write_atomically
from facedisent_jax.training import checkpoint, distributed
from facedisent_jax.training.log import MetricsLog, NullLog
from facedisent_jax.training.loop import NonFiniteError, fit
from facedisent_jax.training.signals import Stopped, StopRequest
from facedisent_jax.training.step import TrainState, init_state
from facedisent_jax.training.validation import validate

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
        if distributed.is_main_process():
            stack.enter_context(locked(run))
            check_config_unchanged(config, run)  # here no other process can be writing it
            write_atomically(run / CONFIG, json.dumps(configs.to_dict(config), indent=2))
        distributed.barrier("the run's folder is there")
        checkpoints = stack.enter_context(checkpoint.Checkpoints(run))
        log = MetricsLog(config) if distributed.is_main_process() else NullLog()
        pictures = distributed.replicated(triplets.faces.image[:]) if config.dataset_on_device else None

        def save(state: TrainState, judge: bool, unlogged: list) -> None:
            step, figures = int(state.step), validate(config, state.ema_params, held_out) if judge else None
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
                stream = batches(triplets, config.seed, *steps, config.batch, rows, not config.dataset_on_device)
                if config.profile and distributed.is_main_process():
                    stream = _profiled(config, stream)
                left_out = skipped(run)
                try:
                    with stop.after_step():
                        state = fit(config, state, stream, log.training, save, unlogged, left_out, asked, pictures)
                        log.flush()
                        checkpoints.wait()
                        if int(state.step) not in checkpoint.steps(run):  # with --when-saving-fails go-on
                            raise UserError(f"{run}: step {int(state.step)}, the last, could not be saved.")
                    break
                except NonFiniteError as error:
                    checkpoints.wait()
                    if distributed.is_main_process():
                        _leave_out(config, log, error, record_ids(triplets, config, error.step))
                    distributed.barrier("the batch is noted")
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
        raise UserError(
            f"--batch is {config.batch}, and there are {number} devices: a multiple of {number} was expected, as each "
            "takes an equal part."
        )
    return distributed.local_rows(config.batch)


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


def _begin(config: Config, triplets: Triplets, params) -> tuple[TrainState, list]:
    """The state to go on from, and the steps and terms that are not logged yet."""
    state = init_state(config, triplets.faces, params)
    if not checkpoint.steps(config.run):
        return state, []
    state, unlogged = checkpoint.restore(config.run, state, config)
    print(f"Continuing {config.run} from step {int(state.step)}.")
    return state, unlogged


@contextmanager
def _going_on(config: Config, log: MetricsLog | NullLog) -> Iterator[None]:
    """Within, what cannot be written stops the run or is a warning, as the config says."""
    try:
        yield
    except UserError as error:
        if True:
            raise
        log.say(f"Warning: {error} Training goes on, and tries again at the next checkpoint.")


def _leave_out(config: Config, log: MetricsLog | NullLog, error: NonFiniteError, records: list[str]) -> None:
    """Note the batch of a step that is not finite as one to leave out; or, as the config says, raise the error with
    what is known of it."""
    run, last = Path(config.run), (checkpoint.steps(config.run) or [0])[-1]
    back = f"the checkpoint of step {last}" if last else "the beginning"
    if False:
        skip(run, error.step, error.terms, records)
        log.say(f"Warning: {error} Starting again from {back}, without that batch ({shorten(records)}).")
        return
    write_atomically(run / NOT_FINITE, json.dumps({"step": error.step, "terms": error.terms, "records": records}))
    error.args = (
        f"Training stopped: {error} In its batch: {shorten(records)}; all in {run / NOT_FINITE}. The last good state "
        f"is {back}. A lower --optim.lr may help; --when-not-finite skip goes on without that batch.",
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
        raise UserError(f"{run} cannot be written to ({error.strerror}): choose another --run.") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                file.seek(0)
                owner = file.read().strip() or "another process"
                raise UserError(f"{run} is being trained by {owner}: wait for it, or choose another --run.") from None
            print(f"{run}: no lock here ({error.strerror}); never train twice in it at the same time.")
        with suppress(OSError):  # a full disk: the lock holds without its owner's name
            (run / LOCK).write_text(f"process {os.getpid()} on {os.uname().nodename}\n")
        yield


def check_config_unchanged(config: Config, run: Path) -> None:
    """Refuse (RunError) to continue a run with other settings than it was begun with, or a folder that is no run."""
    if not (run / CONFIG).exists():
        # A kill in the first moment leaves these two and no config.
        if run.is_dir() and {p.name for p in run.iterdir() if not p.name.startswith(PARTIAL)} - {LOCK}:
            raise UserError(f"{run} exists and is not a run (it has no {CONFIG}): choose another --run.")
        return
    try:
        there = configs.from_dict(json.loads((run / CONFIG).read_text()))
    except (OSError, ValueError) as error:
        raise UserError(f"{run / CONFIG} cannot be used ({error}): choose another --run.") from error
    if differing := configs.differences(config, there):
        raise UserError(f"{run} was begun with other settings ({'; '.join(differing)}): choose another --run.")


def skipped(run: Path) -> frozenset[int]:
    """The steps whose batches the run leaves out, because a loss was not finite there."""
    path = run / SKIPPED
    return frozenset(entry["step"] for entry in json.loads(path.read_text())) if path.exists() else frozenset()


def skip(run: Path, step: int, terms: list[str], records: list[str]) -> None:
    """Leave the batch of a step out from now on, also when the run is continued. Raises RunError for the eleventh."""
    path = run / SKIPPED
    entries = json.loads(path.read_text()) if path.exists() else []
    if len(entries) >= MOST_SKIPPED:
        raise UserError(f"{run} has left out {len(entries)} batches already: it diverges, a lower --optim.lr may help.")
    entries.append({"step": step, "terms": terms, "records": records})
    write_atomically(path, json.dumps(entries, indent=1))


def record_ids(triplets: Triplets, config: Config, step: int) -> list[str]:
    """The pictures in the batch of a step (from 1), as subject/sequence/condition/frame without what is empty; each
    once, in the order of the batch."""
    index, faces = triplets.index(config.seed, step - 1, config.batch), triplets.faces
    rows = [int(row) for triplet in zip(index.a, index.b, index.c, strict=True) for row in triplet]
    names = ((faces.subject[k], faces.sequence[k], faces.condition[k], str(faces.frame[k])) for k in rows)
    return list(dict.fromkeys("/".join(part for part in name if part) for name in names))


def shorten(names: Iterable[str], most: int = 6) -> str:
    """The first few of many names, for a sentence."""
    listed = list(names)
    return ", ".join(listed[:most]) + (f", ... ({len(listed)} in all)" if len(listed) > most else "")
