"""Checkpoints: which one is the best, what is left of unfinished ones, and what is refused."""

import errno
import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import replace
from functools import cache
from pathlib import Path

import jax
import pytest
from killed import TINY
from tiny_run import ROOT, person

from facedisent_jax.config import Config, ModelConfig, to_dict
from facedisent_jax.data.record import Faces
from facedisent_jax.errors import UserError
from facedisent_jax.training import checkpoint
from facedisent_jax.training.step import TrainState, init_state


@cache
def initial_state() -> TrainState:
    return init_state(TINY, Faces.of(person(0)))


def slow(value):
    """A parameter that only the slow tests have."""
    return pytest.param(value, marks=pytest.mark.slow)


def save(tmp_path, *errors: float | None) -> tuple[Config, TrainState]:
    """A run with one checkpoint for each validation error; the weights of checkpoint k are all k."""
    config = replace(TINY, run=str(tmp_path / "run"))
    (tmp_path / "run").mkdir(parents=True)
    state = initial_state()
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


def test_what_this_program_has_not_made_is_neither_read_nor_deleted(tmp_path):
    config, _ = save(tmp_path, 0.3, 0.2)
    folder, copy_of_step = tmp_path / "run" / "checkpoints", tmp_path / "other"
    shutil.copytree(folder / "2", copy_of_step)
    copies = "6.best_so_far", "007", "\N{FULLWIDTH DIGIT SIX}", "2.deleted.mine", "3.orbax-checkpoint-tmp (copy)"
    for name in copies:
        shutil.copytree(copy_of_step, folder / name)
    archives = "6.tar.gz", "7", "8.deleted", "9.orbax-checkpoint-tmp"
    for name in archives:
        (folder / name).write_text("mine")
    for name in ("1", "4.deleted"):
        shutil.rmtree(folder / name, ignore_errors=True)
        (folder / name).symlink_to(copy_of_step)
    assert checkpoint.load(config.run, "last").step == 2
    checkpoint.Checkpoints(config.run).close()
    assert {path.name for path in folder.iterdir()} == {"2", *copies, *archives, "1", "4.deleted"}
    assert (copy_of_step / "meta").is_dir()


def test_a_checkpoint_names_the_data_folders_as_the_last_start_of_the_run_did(tmp_path):
    config, state = save(tmp_path)
    with checkpoint.Checkpoints(config.run) as checkpoints:
        checkpoints.save(state, config, {"data": ["before"]}, None)
    for settings, folders in (('{"data": ["moved"]}', ["moved"]), ('{"data": []}', ["before"]), ("{", ["before"])):
        (tmp_path / "run" / checkpoint.CONFIG).write_text(settings)
        assert checkpoint.load(config.run).info == {"data": folders}


@pytest.mark.parametrize("name", ["study [2026]/r", slow("a*[?]b"), slow("back\\slash"), slow("link/../beside")])
def test_a_run_may_lie_at_any_path(tmp_path, monkeypatch, name):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    for folder in ("temporary", "elsewhere/inner"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere" / "inner")
    config, state = save(tmp_path / name, 0.2, 0.1)
    assert checkpoint.load(config.run).step == 2
    restored, _ = checkpoint.restore(config.run, jax.tree.map(lambda a: a * 0, state), config)
    assert all((a == b).all() for a, b in zip(jax.tree.leaves(restored), jax.tree.leaves(state), strict=True))
    assert [path.name for path in (tmp_path / name / "run/checkpoints").iterdir()] == ["2"]
    assert not list((tmp_path / "temporary").iterdir())


def test_a_path_at_which_nothing_could_be_read_again_is_refused_before_anything_is_saved(tmp_path, monkeypatch):
    for folder in ("run [1]", "temporary [1]"):
        (tmp_path / folder).mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary [1]"))
    with pytest.raises(UserError, match=r"--run must be a path of letters.*, got .*run \[1\].* set TMPDIR"):
        checkpoint.Checkpoints(tmp_path / "run [1]")


@pytest.mark.parametrize("lost", ["params/manifest.ocdbt", slow("state/manifest.ocdbt"), slow("meta/metadata")])
def test_a_checkpoint_that_cannot_be_read_stops_the_run_and_the_older_one_stays(tmp_path, lost):
    config, state = save(tmp_path, 0.2)
    folder = tmp_path / "run" / "checkpoints"
    with checkpoint.Checkpoints(config.run) as checkpoints:
        write = checkpoints._orbax.wait_until_finished

        def write_and_lose() -> None:
            write()
            (folder / "2" / lost).unlink(missing_ok=True)  # the beginning of a save calls this too

        checkpoints._orbax.wait_until_finished = write_and_lose
        checkpoints.save(jax.tree.map(lambda a: a * 0 + 2, state), config, {}, {checkpoint.METRIC: 0.1})
        with pytest.raises(
            UserError, match=r"No checkpoint of step 2 could be .* read again .* good one is of step 1\."
        ):
            checkpoints.wait()
    assert checkpoint.load(config.run, 1).step == 1


def replace_while_reading(monkeypatch, folder: Path, item: str, times: int) -> None:
    """Whenever this item of a checkpoint is about to be read, a checkpoint of the next step takes its place."""
    left = [times]

    def replacing(read):
        def read_late(run, step, read_item, *arguments):
            if read_item == item and left[0]:
                left[0] -= 1
                (folder / str(step)).rename(folder / str(step + 1))
            return read(run, step, read_item, *arguments)

        return read_late

    for name in ("_read_json", "_read_arrays"):
        monkeypatch.setattr(checkpoint, name, replacing(getattr(checkpoint, name)))


@pytest.mark.parametrize("item", ["metrics", slow("meta"), slow("params")])
def test_a_checkpoint_that_is_replaced_while_it_is_read_gives_way_to_the_newer_one(tmp_path, monkeypatch, item):
    config, _ = save(tmp_path, 0.2)
    replace_while_reading(monkeypatch, tmp_path / "run" / "checkpoints", item, times=2)
    assert checkpoint.load(config.run).step == 3


def test_where_every_checkpoint_is_gone_before_it_is_read_none_is_called_damaged(tmp_path, monkeypatch):
    config, _ = save(tmp_path, 0.2)
    replace_while_reading(monkeypatch, tmp_path / "run" / "checkpoints", "meta", times=1000)
    with pytest.raises(UserError, match=r"checkpoints/\d+ was deleted while it was read: the run is being trained\.$"):
        checkpoint.load(config.run)


def test_a_damaged_checkpoint_is_named(tmp_path):
    config, state = save(tmp_path, 0.2)
    for path in (tmp_path / "run" / "checkpoints" / "1").rglob("d/*"):
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 255
        path.write_bytes(content)
    with pytest.raises(UserError, match=r"checkpoints/1 cannot be read .* It is damaged: delete that folder"):
        checkpoint.restore(config.run, state, config)


def test_a_checkpoint_that_the_system_does_not_let_read_is_not_called_damaged(tmp_path, monkeypatch):
    config, _ = save(tmp_path, 0.2)

    def refuse(path, *_):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_text", refuse)
    with pytest.raises(UserError, match=r"checkpoints/1 cannot be read \(Permission denied\)\.$"):
        checkpoint.load(config.run)


def test_a_checkpoint_of_another_network_says_what_differs(tmp_path):
    config, state = save(tmp_path, 0.2)
    wider_config = replace(config, model=ModelConfig(width=256, blocks=0))
    with pytest.raises(UserError, match="model.width 256 here, 128 in the checkpoint"):
        checkpoint.restore(config.run, state, wider_config)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": None}, "must be of facedisent-jax version 0.2, got one without a version"),
        ({"version": "0.0"}, "must be of facedisent-jax version 0.2, got one of 0.0"),
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
    ("name", "match"), [("", "no run folder"), ("empty", "no finished checkpoint: give a run folder")]
)
def test_loading_what_is_not_there_is_a_sentence(tmp_path, name, match):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=match):
        checkpoint.load(tmp_path / (name or "nothing"))


@pytest.mark.slow
def test_the_best_checkpoint_is_kept_beside_the_last(tmp_path):
    config, _ = save(tmp_path, 0.3, 0.1, 0.2, 0.4)
    assert checkpoint.steps(config.run) == [2, 4]
    for name, step in (("best", 2), ("last", 4), (2, 2)):
        loaded_checkpoint = checkpoint.load(config.run, name)
        assert loaded_checkpoint.step == step and float(jax.tree.leaves(loaded_checkpoint.params)[0].ravel()[0]) == step
    with pytest.raises(UserError, match=r"--step must be best, last or one of \[2, 4\]"):
        checkpoint.load(config.run, 3)
