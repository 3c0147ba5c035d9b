"""Checkpoints of a run. The only file that knows Orbax; imports training's state type, model and config."""

from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from facedisent_jax import config as configs
from facedisent_jax import model
from facedisent_jax.config import Config
from facedisent_jax.training import TrainState

FOLDER = "checkpoints"
METRIC = "validation/error"
"""Lower is better: mean of reconstruction and swap MSE on the validation split."""


class CheckpointError(ValueError):
    """A run or checkpoint that cannot be used; the message is a sentence for the person at the keyboard."""


class Loaded(NamedTuple):
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


def manager(run: str | Path, read_only: bool = False):
    """Orbax's manager of the run's checkpoints: the best by validation error and the last are kept."""
    import logging

    import orbax.checkpoint as ocp
    from orbax.checkpoint.checkpoint_managers import preservation_policy as keep

    logging.getLogger("absl").setLevel(logging.ERROR)  # Orbax reports each of its steps
    best = keep.BestN(get_metric_fn=lambda metrics: -metrics[METRIC], n=1)
    options = ocp.CheckpointManagerOptions(
        best_fn=lambda metrics: metrics[METRIC],
        best_mode="min",
        preservation_policy=keep.AnyPreservationPolicy([keep.LatestN(1), best]),
        read_only=read_only,
    )
    handlers = {
        "state": ocp.StandardCheckpointHandler(),
        "params": ocp.StandardCheckpointHandler(),
        "meta": ocp.JsonCheckpointHandler(),
    }
    folder = (Path(run) / FOLDER).absolute()
    return ocp.CheckpointManager(folder, options=options, item_handlers=handlers)


def save(checkpoints, state: TrainState, config: Config, info: dict, metrics: dict[str, float]) -> None:
    """Save the training state; its averaged weights apart, with all that is needed to use them.

    Returns while the files are still being written; `checkpoints.wait_until_finished()` waits for them.
    """
    import orbax.checkpoint as ocp

    step = int(state.step)
    if step in checkpoints.all_steps():
        return
    items = ocp.args.Composite(
        state=ocp.args.StandardSave({"step": state.step, "params": state.params, "opt_state": state.opt_state}),
        params=ocp.args.StandardSave(state.average),
        meta=ocp.args.JsonSave({"config": configs.to_dict(config), "info": info}),
    )
    checkpoints.save(step, args=items, metrics={METRIC: float(metrics[METRIC])})


def restore(checkpoints, state: TrainState) -> TrainState:
    """The last saved training state, in the shapes of `state`."""
    import orbax.checkpoint as ocp

    abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, state)
    kept = {"step": abstract.step, "params": abstract.params, "opt_state": abstract.opt_state}
    items = ocp.args.Composite(state=ocp.args.StandardRestore(kept), params=ocp.args.StandardRestore(abstract.average))
    restored = checkpoints.restore(checkpoints.latest_step(), args=items)
    return TrainState(**restored["state"], average=restored["params"])


def steps(run: str | Path) -> list[int]:
    """The steps of the finished checkpoints of a run, in order; empty where there are none."""
    folder = Path(run) / FOLDER
    return sorted(int(p.name) for p in folder.iterdir() if p.name.isdigit()) if folder.is_dir() else []


def _differing_shapes(here, there) -> str:
    """The first weight whose shape differs, as `encoder/linear (12288, 64) here, (12288, 128) in the checkpoint`."""

    def shapes(tree) -> dict[str, tuple]:
        leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
        return {jax.tree_util.keystr(path, simple=True, separator="/"): tuple(leaf.shape) for path, leaf in leaves}

    a, b = shapes(here), shapes(there)
    wrong = [name for name in sorted(a | b) if a.get(name) != b.get(name)]
    return f"{wrong[0]} {a.get(wrong[0])} here, {b.get(wrong[0])} in the checkpoint" if wrong else ""


def load(run: str | Path, step: str | int = "best") -> Loaded:
    """Load the parameters of a run: its best checkpoint by validation error, its "last", or that of a step.

    Raises CheckpointError where there is no such run or step.
    """
    import orbax.checkpoint as ocp

    run = Path(run)
    if not run.is_dir():
        raise CheckpointError(f"There is no run folder {run}: train one with `python train.py --run {run}`.")
    present = steps(run)
    if not present:
        raise CheckpointError(f"{run} holds no finished checkpoint yet: train on with `python train.py --run {run}`.")
    with manager(run, read_only=True) as checkpoints:
        chosen = {"best": checkpoints.best_step(), "last": checkpoints.latest_step()}.get(step, step)  # type: ignore
        if chosen not in present:
            raise CheckpointError(f"{run} has no checkpoint {step!r}; there are best, last and {present}.")
        meta = checkpoints.restore(chosen, args=ocp.args.Composite(meta=ocp.args.JsonRestore()))["meta"]
        config = configs.from_dict(meta["config"])
        abstract = jax.eval_shape(lambda: model.init(config.model, jax.random.key(0)))
        here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
        abstract = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=here), abstract)
        saved = checkpoints.item_metadata(chosen)["params"]
        if differing := _differing_shapes(abstract, saved):
            raise CheckpointError(
                f"The weights of {run}, step {chosen}, do not fit this version's network: {differing}."
            )
        params = checkpoints.restore(chosen, args=ocp.args.Composite(params=ocp.args.StandardRestore(abstract)))
    return Loaded(jax.tree.map(np.asarray, params["params"]), config, meta["info"], int(chosen))
