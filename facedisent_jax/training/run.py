"""A run folder from its config to its last checkpoint. In a distributed run, process 0 alone writes to it."""

import errno
import json
import os
import signal
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax

from facedisent_jax import config as configs
from facedisent_jax.config import Config
from facedisent_jax.data import reading
from facedisent_jax.data.one_factor import OneFactor
from facedisent_jax.data.record import NEUTRAL, PREP_FILE, spelling_key
from facedisent_jax.data.triplets import Triplets
from facedisent_jax.environment import cache_folder
from facedisent_jax.errors import Stopped, UserError
from facedisent_jax.files import PARTIAL, write_atomically
from facedisent_jax.training import checkpoint, distributed
from facedisent_jax.training.checkpoint import CONFIG
from facedisent_jax.training.log import MetricsLog, NullLog
from facedisent_jax.training.loop import NonFiniteError, StepTerms, TrainingData, fit
from facedisent_jax.training.signals import StopRequest
from facedisent_jax.training.step import TrainState, init_state

LOCK, NON_FINITE = "lock", "not_finite.json"  # files in a run folder, beside CONFIG
DATA_CONTENT = "data_content"  # in CONFIG, beside the settings: what the data folders hold


def train(config: Config, folders: Sequence[Path]) -> int:
    """Train or continue the run in the folder config.run, up to config.steps, and return the step reached.

    folders: the data folders; config.data, or the built-in faces where that is empty.
    Raises UserError; Stopped after SIGTERM or Ctrl-C, once the step is finished and saved.
    """
    configs.validate(config)
    _use_compilation_cache()
    with StopRequest() as stop:
        distributed.check_batch(config.batch)
        check_config_unchanged(config, folders)  # before reading the data, which can take minutes
        data, params = read_data(config, folders)
        with open_run(config, folders) as (log, checkpoints):
            return train_until_done(config, data, params, log, checkpoints, stop)


def read_data(config: Config, folders: Sequence[Path]) -> tuple[TrainingData, Any]:
    """The data, checked, and the parameters of config.init_from. None: the run starts from new ones."""
    names = ", ".join(map(str, folders))
    print(f"Reading {names}")
    faces = reading.read_faces(folders, "train", config.memory, config.ends_only)
    sampler = OneFactor if config.method == "clamping" else Triplets
    triplets = sampler(faces, config.intensity_step, config.model.kind == "warp", config.full_changes)
    if not len(triplets):
        raise UserError(f"No training image in {names}: see `python -m data_prep inspect`.")
    held_out = Triplets(
        reading.read_faces(folders, "validation", config.memory), config.intensity_step, with_middle=False
    )
    if not len(held_out):
        print("No validation image: checkpoints are judged on training images.")
        held_out = triplets
    subjects = set(triplets.faces.subject.tolist()) - {""}
    expressions = set(triplets.faces.expression.tolist()) - {"", NEUTRAL}
    print(f"{len(triplets)} training images of {len(subjects)} subjects, {len(held_out)} for validation.")
    if len(folders) > 1:
        print("".join(f"  {sentence}\n" for sentence in triplets.describe_shares(folders)), end="")
    count = sum(reading.read_info(folder)["splits"].get("train", 0) for folder in folders)
    if len(faces) < count and not config.ends_only:
        print(f"Left out {count - len(faces)} images of people, or equal to images, held out in another folder.")
    print("".join(f"  {sentence}\n" for sentence in triplets.describe_missing_partners()), end="")
    crop, params = reading.crop_of(folders), None
    if config.init_from:
        initial = load_initial_params(config, crop, reading.held_out_people(folders))
        subjects, params = subjects | set(initial.info["train_subjects"]), initial.params
        expressions |= set(initial.info["expressions"])
    info = {
        "data": [str(folder) for folder in folders],
        "crop": crop,
        "train_subjects": sorted(subjects),
        "expressions": sorted(expressions),
    }
    return TrainingData(triplets, held_out, info), params


def load_initial_params(config: Config, crop: dict, held_out: set[str]) -> checkpoint.Checkpoint:
    """The checkpoint of config.init_from. Raises UserError where its network or crop differs, or where it was trained
    on people who are held out here (`reading.held_out_people`)."""
    initial = checkpoint.load(config.init_from)
    if config.model != initial.config.model:
        differences = configs.differences(config, replace(config, model=initial.config.model))
        raise UserError(f"--init-from must have the same network: {'; '.join(differences)} ({config.init_from}).")
    if crop["margin"] != initial.info["crop"]["margin"]:
        raise UserError(
            f"--init-from must be trained on images of the same margin: {crop['margin']:g} here, "
            f"{initial.info['crop']['margin']:g} in {config.init_from}. Prepare the data alike."
        )
    if leaked := sorted(name for name in initial.info["train_subjects"] if spelling_key(name) in held_out):
        raise UserError(
            f"{config.init_from} was trained on {len(leaked)} subjects who are held out here ({shorten(leaked)}). "
            f"Prepare the data with `--split-like {initial.info['data'][0]}`."
        )
    print(f"Starting from the weights of {config.init_from}, step {initial.step}.")
    return initial


@contextmanager
def open_run(config: Config, folders: Sequence[Path]) -> Iterator[tuple[MetricsLog | NullLog, checkpoint.Checkpoints]]:
    """Create or open the run folder, keep other runs out of it, and give its log and checkpoints."""
    run = Path(config.run)
    with ExitStack() as stack:
        if distributed.is_main_process():
            stack.enter_context(locked(run))
            check_config_unchanged(config, folders)  # again, now that no other process can write it
            saved = configs.to_dict(config) | {DATA_CONTENT: data_content(folders)}
            write_atomically(run / CONFIG, json.dumps(saved, indent=2))
        distributed.barrier("run folder created")
        checkpoints = stack.enter_context(checkpoint.Checkpoints(run))
        log = stack.enter_context(closing(MetricsLog(config) if distributed.is_main_process() else NullLog()))
        yield log, checkpoints


def train_until_done(
    config: Config,
    data: TrainingData,
    params: Any,
    log: MetricsLog | NullLog,
    checkpoints: checkpoint.Checkpoints,
    stop: StopRequest,
) -> int:
    """Train from the last checkpoint, or from `params`, to config.steps; returns that step, once it is saved.

    Raises Stopped where a signal stopped the run earlier.
    """
    state, unlogged = initial_or_restored_state(config, data.triplets, params)
    log.rewind(int(state.step))
    with stop.after_step():
        try:
            state = fit(config, data, state, unlogged, log, checkpoints, stop)
        except NonFiniteError as error:
            checkpoints.wait()
            raise _explain(error, config, record_ids(data.triplets, config, error.step)) from None
        checkpoints.wait()
    step = int(state.step)
    if stop.signal_number:
        if step < config.steps:
            todo = "the same command continues from there"
        else:
            todo = "only the report is missing" if config.report else "all steps are done"
        raise Stopped(
            stop.signal_number,
            f"stopped by {signal.Signals(stop.signal_number).name} after step {step}, "
            f"saved in {checkpoints.folder / str(step)}; {todo}.",
        )
    return step


def initial_or_restored_state(config: Config, triplets: Triplets, params: Any) -> tuple[TrainState, list[StepTerms]]:
    """The state to continue from, and the steps whose terms are not logged yet."""
    state = init_state(config, triplets.faces, params)
    if not checkpoint.steps(config.run):
        return state, []
    state, unlogged = checkpoint.restore(config.run, state, config)
    print(f"Continuing {config.run} from step {int(state.step)}.")
    return state, unlogged


@contextmanager
def locked(run: Path) -> Iterator[None]:
    """Create the run folder and keep other processes from training in it. Raises UserError where another one does.

    The lock ends with its process, however that ends. On a network file system it also holds between machines, if that
    file system has locks (most NFS). Without locks, a warning is printed and nothing is locked.
    """
    import fcntl

    try:
        run.mkdir(parents=True, exist_ok=True)
        file = (run / LOCK).open("a+")
    except OSError as error:
        raise UserError(f"--run must be a folder that can be written to, got {run} ({error.strerror}).") from error
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


def check_config_unchanged(config: Config, folders: Sequence[Path]) -> None:
    """Raises UserError where config.run was started with other settings or data, or is a folder that is no run.

    Data folders are compared by what they hold: they may be moved, and named in another way.
    """
    run = Path(config.run)
    if os.fsencode(config.run) != config.run.encode(errors="replace"):
        raise UserError(f"--run must be a name in UTF-8, which TensorFlow needs, got {config.run!a}.")
    if not (run / CONFIG).exists():
        names = {path.name for path in run.iterdir()} if run.is_dir() else set()
        # A kill in the first moment leaves a lock and an unfinished config.
        if any(name != LOCK and not name.startswith(PARTIAL) for name in names):
            raise UserError(f"--run must be a run folder or a new one, got {run} without a {CONFIG}.")
        return
    try:
        values = json.loads((run / CONFIG).read_text())
        saved_content = values.pop(DATA_CONTENT, None) if isinstance(values, dict) else None
        saved = configs.from_dict(values)
    except (OSError, ValueError) as error:
        raise UserError(f"{run / CONFIG} cannot be used. {error} Or choose another --run.") from error
    if saved_content != data_content(folders):
        raise UserError(
            f"{run} was started with other data (--data {' '.join(saved.data) or 'not given'}) than is now in "
            f"{', '.join(map(str, folders))}. The same folders in the same order continue it: compared are their "
            f"hashes, `content` in {PREP_FILE}, or their paths where there is no hash. Or choose another --run."
        )
    saved = replace(saved, data=config.data)
    if config.init_from and saved.init_from and Path(config.init_from).resolve() == Path(saved.init_from).resolve():
        saved = replace(saved, init_from=config.init_from)
    if differences := configs.differences(config, saved):
        raise UserError(f"{run} was started with other settings ({'; '.join(differences)}): choose another --run.")


def data_content(folders: Sequence[Path]) -> list[str]:
    """What tells data folders apart wherever they lie: their content hashes. The path of a folder that has none."""
    return [reading.read_info(folder).get("content") or str(Path(folder).resolve()) for folder in folders]


def record_ids(triplets: Triplets, config: Config, step: int) -> list[str]:
    """The images in the batch of a step (from 1), as subject/sequence/condition/frame without empty parts. Each once,
    in the order of the batch."""
    index, faces = triplets.index(config.seed, step - 1, config.batch), triplets.faces
    rows = [int(row) for triplet in zip(index.a, index.b, index.c, strict=True) for row in triplet]
    ids = ((faces.subject[k], faces.sequence[k], faces.condition[k], str(faces.frame[k])) for k in rows)
    return list(dict.fromkeys("/".join(part for part in parts if part) for parts in ids))


def shorten(names: Iterable[str], most: int = 6) -> str:
    """The first few of many names, for a sentence."""
    names = list(names)
    return ", ".join(names[:most]) + (f", ... ({len(names)} in all)" if len(names) > most else "")


def _explain(error: NonFiniteError, config: Config, records: list[str]) -> NonFiniteError:
    """The error with the images of its batch, all of them in a file, and with what to do."""
    path, saved_steps = Path(config.run) / NON_FINITE, checkpoint.steps(config.run)
    if distributed.is_main_process():
        write_atomically(path, json.dumps({"step": error.step, "terms": error.terms, "records": records}))
    last_good = f"the checkpoint of step {saved_steps[-1]}" if saved_steps else "the beginning"
    error.args = (
        f"Training stopped: {error} Images of its batch: {shorten(records)}; all in {path}. The last good state is "
        f"{last_good}. A lower --optim.lr may help.",
    )
    return error


def _use_compilation_cache() -> None:
    if jax.config.values["jax_compilation_cache_dir"] is None:  # set by JAX_COMPILATION_CACHE_DIR
        jax.config.update("jax_compilation_cache_dir", str(cache_folder() / "xla"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
