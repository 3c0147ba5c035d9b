"""Checkpoints of a run. The only file that knows Orbax; imports training's state type, model and config."""

import json
import os
import re
import shutil
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from facedisent_jax import config as configs
from facedisent_jax import models
from facedisent_jax.config import Config
from facedisent_jax.errors import UserError
from facedisent_jax.training.step import TrainState

FOLDER = "checkpoints"
METRIC = "validation/error"
"""Lower is better: mean of reconstruction and swap MSE on the validation split."""


class Checkpoint(NamedTuple):
    """What is needed to use a trained model.

    params: plain pytree of numpy arrays, the averaged weights.
    config: the run's configuration.
    info:   "data": folders trained on, "crop": {"detector", "margin"}, "train_subjects": sorted list.
    step:   the training step of the checkpoint.
    """

    params: Any
    config: Config
    info: dict
    step: int


class Checkpoints:
    """The writer of a run's checkpoints; the best by validation error and the last are kept. There must be but one.

    A checkpoint is written beside the training, under another name, and gets its own once it is whole; only then are
    older ones deleted, after they have lost their name. So a kill leaves nothing behind that looks like a checkpoint.
    """

    def __init__(self, run: str | Path):
        """run: its folder, which must be there. Raises CheckpointError where nothing can be written to it."""
        self.run, self.folder = Path(run), Path(run).absolute() / FOLDER
        self._thread = ThreadPoolExecutor(1, "checkpoints")
        self._writing: Future | None = None
        self._step = 0
        try:
            self.folder.mkdir(exist_ok=True)
            self._tidy()
        except OSError as error:
            raise UserError(f"{self.folder} cannot be written to ({_reason(error)}).") from error
        self._orbax = _writer()

    def save(
        self,
        state: TrainState,
        config: Config,
        info: dict,
        metrics: dict[str, float] | None,
        unlogged: Sequence[tuple[int, dict]] = (),
    ) -> None:
        """Save the training state; its averaged weights apart, with all that is needed to use them.

        metrics:  the validation figures; None: it was not judged, and is never the best.
        unlogged: step and terms of the steps since the last logged one, so that the next log line is the same.
        Returns while the files are still being written; the next `save` or `wait` raises CheckpointError if they
        could not be.
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
                raise FileNotFoundError(f"{self.folder} is gone")
            self._orbax.save(self.folder / str(step), args=ocp.args.Composite(**items))
        except Exception as error:
            raise self._failure(error) from error
        self._writing = self._thread.submit(self._finish)

    def wait(self) -> None:
        """Wait for the files of the last save. Raises CheckpointError if it failed; the ones before it are kept."""
        writing, self._writing = self._writing, None
        if writing:
            try:
                writing.result()
            except Exception as error:
                raise self._failure(error) from error

    def poll(self) -> None:
        """Raise CheckpointError if the last save is known to have failed, without waiting for it."""
        if self._writing and self._writing.done():
            self.wait()

    def close(self) -> None:
        """Wait for the files of the last save, whether or not they could be written."""
        self._thread.shutdown()
        self._orbax.close()

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def _finish(self) -> None:
        self._orbax.wait_until_finished()
        self._tidy()

    def _failure(self, error: Exception) -> UserError:
        self._orbax = _writer()  # the old one would repeat its error
        last = (steps(self.run) or [None])[-1]
        kept = "there is no earlier one" if last is None else f"the last good one is of step {last}"
        return UserError(f"No checkpoint of step {self._step} in {self.folder} ({_reason(error)}); {kept}.")

    def _tidy(self) -> None:
        """Delete what a kill or an error has left unfinished, and what is neither best nor last (process 0 does)."""
        if jax.process_index():
            return
        for unfinished in self.folder.glob("[0-9]*.*"):
            shutil.rmtree(unfinished)
        present = steps(self.run)
        for step in set(present) - {*present[-1:], best_step(self.run)}:
            unnamed = self.folder / f"{step}.deleted"
            (self.folder / str(step)).rename(unnamed)
            shutil.rmtree(unnamed)


def restore(run: str | Path, state: TrainState, config: Config) -> tuple[TrainState, list[tuple[int, dict]]]:
    """The last saved training state of a run, in the shapes and on the devices of `state`; and `unlogged` of `save`.

    Raises CheckpointError where there is none, where it is of another network, and where it is damaged.
    """
    import orbax.checkpoint as ocp

    last = resolve_step(run, "last")
    where = f"{run}, step {last}"
    meta = _read_json(run, last, "meta")
    there = _config_of(meta, where)
    if config.model != there.model:
        both = configs.differences(config, replace(config, model=there.model), "in the checkpoint")
        raise UserError(f"{where}, is of another network: {'; '.join(both)}.")
    abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, state)
    kept = {"step": abstract.step, "params": abstract.params, "opt_state": abstract.opt_state}
    restored = _read_arrays(run, last, "state", kept)
    average = _read_arrays(run, last, "params", abstract.ema_params)
    unlogged = [(k, {name: np.float32(v) for name, v in values.items()}) for k, values in meta.get("unlogged", [])]
    return TrainState(**restored, ema_params=average), unlogged


def best_step(run: str | Path) -> int | None:
    """The step of the finished checkpoint with the least validation error; None where none was judged."""
    folder = Path(run) / FOLDER
    judged = [step for step in steps(run) if (folder / str(step) / "metrics").is_dir()]
    return min(judged, key=lambda step: (_read_json(run, step, "metrics")[METRIC], -step), default=None)


def steps(run: str | Path) -> list[int]:
    """The steps of the finished checkpoints of a run, in order; empty where there are none."""
    folder = Path(run) / FOLDER
    return sorted(int(p.name) for p in folder.iterdir() if p.name.isdigit()) if folder.is_dir() else []


def _differing_shapes(here, there) -> str:
    """The first weight whose shape differs, as `encoder/pixels (12288, 384) here, (12288, 640) in the checkpoint`."""

    def shapes(tree) -> dict[str, tuple]:
        leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
        return {jax.tree_util.keystr(path, simple=True, separator="/"): tuple(leaf.shape) for path, leaf in leaves}

    a, b = shapes(here), shapes(there)
    wrong = [name for name in sorted(a | b) if a.get(name) != b.get(name)]
    return f"{wrong[0]} {a.get(wrong[0])} here, {b.get(wrong[0])} in the checkpoint" if wrong else ""


def load(run: str | Path, step: str | int = "best") -> Checkpoint:
    """Load the parameters of a run: its best checkpoint by validation error, its "last", or that of a step.

    Raises CheckpointError where there is no such run or step, and where it is damaged or of another version.
    """
    chosen = resolve_step(run, step)
    meta = _read_json(run, chosen, "meta")
    config = _config_of(meta, f"{run}, step {chosen}")
    abstract = jax.eval_shape(lambda: models.init(config.model, jax.random.key(0)))
    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    abstract = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=here), abstract)
    params = _read_arrays(run, chosen, "params", abstract)
    return Checkpoint(jax.tree.map(np.asarray, params), config, meta["info"], chosen)


def resolve_step(run: str | Path, step: str | int) -> int:
    if not Path(run).is_dir():
        raise UserError(f"There is no run folder {run}: train one with `python train.py --run {run}`.")
    present = steps(run)
    if not present:
        raise UserError(
            f"{run} holds no finished checkpoint: give the folder of a run, or train it on with "
            f"`python train.py --run {run}`."
        )
    if step == "best":
        best = best_step(run)
        return present[-1] if best is None else best
    chosen = present[-1] if step == "last" else step
    if chosen not in present:
        raise UserError(f"{run} has no checkpoint {step!r}; there are best, last and {present}.")
    return int(chosen)


def _config_of(meta: dict, where: str) -> Config:
    try:
        return configs.from_dict(meta["config"])
    except UserError as error:
        raise UserError(f"{where}, was made by another version: {error}") from error


def _handler():
    import orbax.checkpoint as ocp

    arrays, text = ocp.StandardCheckpointHandler, ocp.JsonCheckpointHandler
    return ocp.CompositeCheckpointHandler(
        state=arrays(), params=arrays(), meta=text(), metrics=text(filename="metrics")
    )  # fmt: skip


def _writer():
    import logging

    import orbax.checkpoint as ocp

    logging.getLogger("absl").setLevel(logging.CRITICAL)  # Orbax reports each of its steps, and errors at length
    # Where a folder cannot be made, that is known before anything waits for it.
    options = ocp.options.AsyncOptions(create_directories_asynchronously=False)
    return ocp.AsyncCheckpointer(_handler(), async_options=options)


def _read_arrays(run: str | Path, step: int, item: str, abstract) -> Any:
    """An item of a checkpoint, in the shapes and on the devices of `abstract`."""
    import orbax.checkpoint as ocp

    where = Path(run).absolute() / FOLDER / str(step)
    try:
        with ocp.Checkpointer(_handler()) as reader:
            saved = reader.metadata(where).item_metadata[item]
            if differing := _differing_shapes(abstract, saved):
                raise UserError(f"The weights of {run}, step {step}, do not fit this network: {differing}.")
            return reader.restore(where, args=ocp.args.Composite(**{item: ocp.args.StandardRestore(abstract)}))[item]
    except UserError:
        raise
    except Exception as error:
        raise _damaged(where, error) from error


def _read_json(run: str | Path, step: int, item: str) -> dict:
    where = Path(run).absolute() / FOLDER / str(step)
    try:
        return json.loads((where / item / {"meta": "metadata", "metrics": "metrics"}[item]).read_text())
    except (OSError, ValueError) as error:
        raise _damaged(where, error) from error


def _damaged(where: Path, error: Exception) -> UserError:
    return UserError(
        f"The checkpoint {where} cannot be read ({_reason(error)}): delete that folder to go back to the one before."
    )


def _reason(error: Exception) -> str:
    """What went wrong, in the system's words where an error of the system is behind it."""
    number = getattr(error, "errno", None) or re.search(r"os_error_code='(\d+)'", str(error))
    if number:
        return os.strerror(number if isinstance(number, int) else int(number[1]))
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__
