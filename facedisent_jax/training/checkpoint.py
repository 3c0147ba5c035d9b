"""Checkpoints of a run. The only file that imports Orbax."""

import errno
import json
import re
import shutil
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from facedisent_jax import config as configs
from facedisent_jax import models
from facedisent_jax.config import Config
from facedisent_jax.errors import UserError, errno_of, reason
from facedisent_jax.training import distributed
from facedisent_jax.training.literal_path import literal_path
from facedisent_jax.training.step import TrainState

FOLDER, CONFIG = "checkpoints", "config.json"  # in a run folder
METRIC = "validation/error"  # decides the best checkpoint: mean of reconstruction and swap MSE, lower is better
NAME = "0|[1-9][0-9]*"  # of a finished checkpoint: its step
LEFTOVER = re.compile(rf"({NAME})\.(orbax-checkpoint-tmp(-[0-9]+)?|deleted)")  # half written, or half deleted
MAX_READS = 10  # of a run that is being trained: so often another checkpoint is chosen where one has gone


class Checkpoint(NamedTuple):
    """What is needed to use a trained model.

    params: plain pytree of numpy arrays, the moving average of the weights (`ema_params`).
    info:   "data": folders trained on, "crop": {"detector", "margin"}, "train_subjects" and "expressions" (without
            neutral): sorted lists; "mean_expressions": mean expression codes of the training images, by expression and
            "neutral"; "full_intensity": from `calibration.calibrate`.
    """

    params: Any
    config: Config
    info: dict
    step: int


class CheckpointGone(UserError):
    """The checkpoint was deleted while it was read: the run is being trained."""


class Checkpoints:
    """Writes the checkpoints of a run and keeps the best, by validation error, and the last. One writer at a time.

    A checkpoint is written in the background under a temporary name and renamed when it is whole. Only then, and once
    it can be read, are older ones renamed and deleted. So whatever a crash leaves behind, it never looks like a
    checkpoint. Files and folders of other names are left alone.
    """

    def __init__(self, run: str | Path):
        """run: an existing run folder. Raises UserError where it cannot be written to."""
        self.run, self.folder = Path(run), Path(run).absolute() / FOLDER
        self._thread = ThreadPoolExecutor(1, "checkpoints")
        self._writing: Future | None = None
        self._step = 0
        self._link = ExitStack()
        try:
            self.folder.mkdir(exist_ok=True)
            self._prune()
            self._literal_folder = self._link.enter_context(literal_path(self.folder))
        except OSError as error:
            raise UserError(f"{self.folder} cannot be written to ({reason(error)}).") from error
        self._orbax = _writer()

    def save(
        self,
        state: TrainState,
        config: Config,
        info: dict,
        metrics: dict[str, float] | None,
        unlogged: Sequence[tuple[int, dict]] = (),
    ) -> None:
        """Save the training state, and beside it all that is needed to use the model.

        metrics:  validation metrics. None: the checkpoint was not validated and is never the best.
        unlogged: steps since the last line of the log, and their terms; the next line is then the same after a restart.

        Returns while files are still being written. If that fails, the next `save` or `wait` raises UserError.
        """
        import orbax.checkpoint as ocp

        self.wait()
        step = int(state.step)
        terms = [[int(k), {name: float(value) for name, value in values.items()}] for k, values in unlogged]
        items = {
            "state": ocp.args.StandardSave({"step": state.step, "params": state.params, "opt_state": state.opt_state}),
            "params": ocp.args.StandardSave(state.ema_params),
            "meta": ocp.args.JsonSave({"config": configs.to_dict(config), "info": info, "unlogged": terms}),
        }
        if metrics is not None:
            items["metrics"] = ocp.args.JsonSave({METRIC: float(metrics[METRIC])})
        self._step = step
        try:
            if not self.folder.is_dir():  # Orbax would make a new one
                raise FileNotFoundError(f"{self.folder} no longer exists")
            self._orbax.save(self._literal_folder / str(step), args=ocp.args.Composite(**items))
        except Exception as error:
            raise self._failure(error) from error
        self._writing = self._thread.submit(self._finish)

    def wait(self) -> None:
        """Wait for the files of the last save. Raises UserError if it failed; earlier checkpoints are kept."""
        writing, self._writing = self._writing, None
        if writing:
            try:
                writing.result()
            except Exception as error:
                raise self._failure(error) from error

    def close(self) -> None:
        """Wait for the files of the last save, even if it fails."""
        self._thread.shutdown()
        self._orbax.close()
        self._link.close()

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def _finish(self) -> None:
        self._orbax.wait_until_finished()
        self._check_readable()
        self._prune()

    def _failure(self, error: Exception) -> UserError:
        self._orbax = _writer()  # the old one would repeat its error
        saved_steps = [step for step in steps(self.run) if step != self._step]
        last_good = f"the last good one is of step {saved_steps[-1]}" if saved_steps else "there is no earlier one"
        return UserError(
            f"No checkpoint of step {self._step} could be written to {self.folder} and read again "
            f"({reason(error)}); {last_good}."
        )

    def _check_readable(self) -> None:
        """Find all that the last save has written, as `load` and `restore` do. Only process 0 does so."""
        import orbax.checkpoint as ocp

        if jax.process_index():
            return
        _read_meta(self.run, self._step)
        with ocp.Checkpointer(_handler()) as reader:
            for item in ("state", "params"):
                _saved_arrays(reader, self._literal_folder / str(self._step), item)

    def _prune(self) -> None:
        """Delete unfinished checkpoints, and those that are neither best nor last. Only process 0 does so."""
        if jax.process_index():
            return
        for path in self.folder.iterdir():
            if LEFTOVER.fullmatch(path.name) and path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
        saved_steps = steps(self.run)
        for step in set(saved_steps) - {*saved_steps[-1:], best_step(self.run)}:
            path, renamed = self.folder / str(step), self.folder / f"{step}.deleted"
            if not path.is_symlink():  # this program makes no links
                path.rename(renamed)
                shutil.rmtree(renamed)


def restore(run: str | Path, state: TrainState, config: Config) -> tuple[TrainState, list[tuple[int, dict]]]:
    """The last saved training state of a run, on the devices of `state`, and `unlogged` as passed to `save`.

    Raises UserError where there is none, where it has another network or version, and where it is damaged.
    """
    import orbax.checkpoint as ocp

    last = resolve_step(run, "last")
    meta, saved_config = _read_meta(run, last)
    if config.model != saved_config.model:
        differing = configs.differences(config, replace(config, model=saved_config.model), "in the checkpoint")
        raise UserError(f"{run}, step {last}, has another network: {'; '.join(differing)}.")
    abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, state)
    items = {"step": abstract.step, "params": abstract.params, "opt_state": abstract.opt_state}
    restored = _read_arrays(run, last, "state", items)
    ema_params = _read_arrays(run, last, "params", abstract.ema_params)
    unlogged = [(k, {name: np.float32(v) for name, v in values.items()}) for k, values in meta["unlogged"]]
    return TrainState(**restored, ema_params=ema_params), unlogged


def best_step(run: str | Path) -> int | None:
    """The step of the finished checkpoint with the lowest validation error. None where none was validated."""
    folder = Path(run) / FOLDER
    validated = [step for step in steps(run) if (folder / str(step) / "metrics").is_dir()]
    return min(validated, key=lambda step: (_read_json(run, step, "metrics")[METRIC], -step), default=None)


def steps(run: str | Path) -> list[int]:
    """The steps of the finished checkpoints of a run, in order."""
    folder = Path(run) / FOLDER
    if not folder.is_dir():
        return []
    return sorted(int(path.name) for path in folder.iterdir() if re.fullmatch(NAME, path.name) and path.is_dir())


def load(run: str | Path, step: str | int = "best") -> Checkpoint:
    """Load a checkpoint of a run: the "best" by validation error, the "last", or that of a step.

    While the run is trained, the chosen checkpoint may be replaced by a newer one, which is then read instead.

    Raises UserError where there is no such run or step, and where it is damaged or of another version.
    """
    for _ in range(MAX_READS - 1):
        try:
            return _load(run, resolve_step(run, step))
        except CheckpointGone:
            pass
    return _load(run, resolve_step(run, step))


def _load(run: str | Path, step: int) -> Checkpoint:
    distributed.check_devices()
    meta, config = _read_meta(run, step)
    abstract = jax.eval_shape(lambda: models.init(config.model, jax.random.key(0)))
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    abstract = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=device), abstract)
    params = _read_arrays(run, step, "params", abstract)
    return Checkpoint(jax.tree.map(np.asarray, params), config, meta["info"] | _moved_data(run), step)


def resolve_step(run: str | Path, step: str | int) -> int:
    """The step that "best", "last" or a number stands for. Raises UserError where there is none."""
    if not Path(run).is_dir():
        raise UserError(f"There is no run folder {run}: train one with `python train.py --run {run}`.")
    saved_steps = steps(run)
    if not saved_steps:
        raise UserError(
            f"{run} has no finished checkpoint: give a run folder, or continue it with `python train.py --run {run}`."
        )
    if step == "best":
        best = best_step(run)
        return saved_steps[-1] if best is None else best
    number = saved_steps[-1] if step == "last" else step
    if number not in saved_steps:
        raise UserError(f"--step must be best, last or one of {saved_steps} for {run}, got {step!r}.")
    return int(number)


def _handler():
    import orbax.checkpoint as ocp

    arrays, text = ocp.StandardCheckpointHandler, ocp.JsonCheckpointHandler
    return ocp.CompositeCheckpointHandler(
        state=arrays(), params=arrays(), meta=text(), metrics=text(filename="metrics")
    )  # fmt: skip


def _writer():
    import logging

    import orbax.checkpoint as ocp

    logging.getLogger("absl").setLevel(logging.CRITICAL)  # Orbax logs every step, and errors at length
    # A folder that cannot be created is then an error at once.
    options = ocp.options.AsyncOptions(create_directories_asynchronously=False)
    return ocp.AsyncCheckpointer(_handler(), async_options=options)


def _read_arrays(run: str | Path, step: int, item: str, abstract) -> Any:
    """An item of a checkpoint, in the shapes and on the devices of `abstract`."""
    import orbax.checkpoint as ocp

    folder = Path(run).absolute() / FOLDER / str(step)
    try:
        with literal_path(folder) as path, ocp.Checkpointer(_handler()) as reader:
            if difference := _first_different_shape(abstract, _saved_arrays(reader, path, item)):
                raise UserError(f"The weights of {run}, step {step}, do not fit this network: {difference}.")
            return reader.restore(path, args=ocp.args.Composite(**{item: ocp.args.StandardRestore(abstract)}))[item]
    except UserError:
        raise
    except Exception as error:
        raise _unreadable(folder, error) from error


def _saved_arrays(reader, folder: Path, item: str) -> Any:
    """Shapes and types of the arrays of an item. Raises where one of them is not found."""
    saved = reader.metadata(folder).item_metadata[item]
    if saved is None:
        raise FileNotFoundError(f"{folder / item} has no arrays")
    return saved


def _first_different_shape(expected, saved) -> str:
    """The first weight whose shape differs, as `encoder/pixel_kernel (12288, 384) here, (12288, 640) there`."""

    def shapes(tree) -> dict[str, tuple]:
        leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
        return {jax.tree_util.keystr(path, simple=True, separator="/"): tuple(leaf.shape) for path, leaf in leaves}

    a, b = shapes(expected), shapes(saved)
    names = [name for name in sorted(a | b) if a.get(name) != b.get(name)]
    return f"{names[0]} {a.get(names[0])} here, {b.get(names[0])} in the checkpoint" if names else ""


def _read_meta(run: str | Path, step: int) -> tuple[dict, Config]:
    """What the checkpoint tells about itself, and its config. Raises UserError where it is of another version."""
    meta = _read_json(run, step, "meta")
    try:
        return meta, configs.from_dict(meta["config"])
    except UserError as error:
        raise UserError(f"{run}, step {step}, cannot be used. {error}") from error


def _read_json(run: str | Path, step: int, item: str) -> dict:
    folder = Path(run).absolute() / FOLDER / str(step)
    try:
        return json.loads((folder / item / {"meta": "metadata", "metrics": "metrics"}[item]).read_text())
    except (OSError, ValueError) as error:
        raise _unreadable(folder, error) from error


def _moved_data(run: str | Path) -> dict[str, list[str]]:
    """The entry "data" of a checkpoint's `info`, as the last start of the run named the folders: they may have been
    moved since the checkpoint was written. Empty where that is not known."""
    try:
        data = json.loads((Path(run) / CONFIG).read_text())["data"]
    except (OSError, ValueError, TypeError, KeyError):
        return {}
    return {"data": data} if isinstance(data, list) and data else {}


def _unreadable(folder: Path, error: Exception) -> UserError:
    """The error for a checkpoint that cannot be read. It is damaged only where it is there, and the system reads it."""
    if not folder.is_dir():
        return CheckpointGone(f"The checkpoint {folder} was deleted while it was read: the run is being trained.")
    is_damaged = errno_of(error) in (0, errno.ENOENT, errno.ENOTDIR, errno.EISDIR) and not isinstance(
        error, MemoryError
    )
    todo = " It is damaged: delete that folder to return to the one before." if is_damaged else ""
    return UserError(f"The checkpoint {folder} cannot be read ({reason(error)}).{todo}")
