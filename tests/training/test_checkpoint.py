"""Checkpoints: which one is the best, what is left of unfinished ones, and what is refused."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace

import jax
import pytest
from killed import TINY
from tiny_run import ROOT, person

from facedisent_jax.config import Config, ModelConfig, to_dict
from facedisent_jax.data.record import Faces
from facedisent_jax.errors import UserError
from facedisent_jax.training import checkpoint
from facedisent_jax.training.step import TrainState, init_state


def save(tmp_path, *errors: float | None) -> tuple[Config, TrainState]:
    """A run with one checkpoint for each validation error; the weights of checkpoint k are all k."""
    config = replace(TINY, run=str(tmp_path / "run"))
    (tmp_path / "run").mkdir()
    state = init_state(config, Faces.of(person(0)))
    with checkpoint.Checkpoints(config.run) as checkpoints:
        for k, error in enumerate(errors, 1):
            state = jax.tree.map(lambda a, k=k: a * 0 + k, state)
            checkpoints.save(state, config, {}, None if error is None else {checkpoint.METRIC: error})
        checkpoints.wait()
    return config, state


def test_a_checkpoint_that_was_not_validated_is_never_the_best(tmp_path):
    config, _ = save(tmp_path, 0.2, None)
    assert checkpoint.steps(config.run) == [1, 2]
    assert checkpoint.load(config.run).step == 1 and checkpoint.load(config.run, "last").step == 2


def test_half_written_and_half_deleted_checkpoints_are_ignored_and_cleared_away(tmp_path):
    config, _ = save(tmp_path, 0.2)
    folder = tmp_path / "run" / "checkpoints"
    shutil.copytree(folder / "1", folder / "2.orbax-checkpoint-tmp")
    shutil.copytree(folder / "1", folder / "3.deleted")
    assert checkpoint.load(config.run, "last").step == 1
    checkpoint.Checkpoints(config.run).close()
    assert [p.name for p in folder.iterdir()] == ["1"]


def test_a_damaged_checkpoint_is_named(tmp_path):
    config, state = save(tmp_path, 0.2)
    for path in (tmp_path / "run" / "checkpoints" / "1").rglob("d/*"):
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 255
        path.write_bytes(content)
    with pytest.raises(UserError, match="checkpoints/1 cannot be read"):
        checkpoint.restore(config.run, state, config)


def test_a_checkpoint_of_another_network_says_what_differs(tmp_path):
    config, state = save(tmp_path, 0.2)
    wider = replace(config, model=ModelConfig(width=256, blocks=0))
    with pytest.raises(UserError, match="model.width 256 here, 128 in the checkpoint"):
        checkpoint.restore(config.run, state, wider)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": None}, "must be of facedisent-jax version 0.1, got one from before 0.1"),
        ({"version": "0.0"}, "must be of facedisent-jax version 0.1, got one of 0.0"),
        ({"model": {"depth": 3}}, "Unknown setting model.depth"),
        ({"model": {"width": "8"}}, "model.width .* must be like 512, got '8'"),
    ],
)
def test_a_checkpoint_of_another_version_is_refused(tmp_path, change, message):
    config, state = save(tmp_path, 0.2)
    meta = tmp_path / "run/checkpoints/1/meta/metadata"
    values = {name: value for name, value in (to_dict(config) | change).items() if value is not None}
    meta.write_text(json.dumps(json.loads(meta.read_text()) | {"config": values}))
    with pytest.raises(UserError, match=message):
        checkpoint.load(config.run)
    with pytest.raises(UserError, match=message):
        checkpoint.restore(config.run, state, config)


@pytest.mark.slow
def test_a_checkpoint_is_restored_onto_the_devices_of_the_given_state(tmp_path):
    save(tmp_path, 0.2)
    code = """if True:
        import sys, jax, numpy as np
        from jax.sharding import NamedSharding, PartitionSpec
        from facedisent_jax.data.record import Faces
        from facedisent_jax.training import checkpoint, step
        from tests.tiny_run import person
        replicated = NamedSharding(jax.make_mesh((8,), ("batch",)), PartitionSpec())
        config = checkpoint.load(sys.argv[1]).config
        state = jax.device_put(step.init_state(config, Faces.of(person(0))), replicated)
        state, _ = checkpoint.restore(sys.argv[1], state, config)
        assert all(len(leaf.sharding.device_set) == 8 for leaf in jax.tree.leaves(state))
        assert all((np.asarray(leaf) == 1).all() for leaf in jax.tree.leaves(state))
    """
    environment = os.environ | {"XLA_FLAGS": f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=8"}
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "run")], cwd=ROOT, env=environment, check=True)


@pytest.mark.parametrize(
    ("where", "match"), [("", "no run folder"), ("empty", "no finished checkpoint: give a run folder")]
)
def test_loading_what_is_not_there_is_a_sentence(tmp_path, where, match):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=match):
        checkpoint.load(tmp_path / (where or "nothing"))


def test_the_best_checkpoint_is_kept_beside_the_last(tmp_path):
    config, _ = save(tmp_path, 0.3, 0.1, 0.2, 0.4)
    assert checkpoint.steps(config.run) == [2, 4]
    for name, step in (("best", 2), ("last", 4), (2, 2)):
        loaded = checkpoint.load(config.run, name)
        assert loaded.step == step and float(jax.tree.leaves(loaded.params)[0].ravel()[0]) == step
    with pytest.raises(UserError, match=r"--step must be best, last or one of \[2, 4\]"):
        checkpoint.load(config.run, 3)
