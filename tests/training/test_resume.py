"""A run that is killed at any moment and started again ends bit for bit where a run left alone ends; its checkpoints
are whole or not there; a batch that breaks it is named, and left out where that is wished.

The runs are processes of their own (killed.py), ended by SIGKILL.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace

import jax
import numpy as np
import pytest
from killed import ROOT, TINY, check_equal, perform
from tiny_run import person, terms

from facedisent_jax.config import Config, ModelConfig
from facedisent_jax.data.record import Faces
from facedisent_jax.errors import UserError
from facedisent_jax.training import checkpoint
from facedisent_jax.training.log import MetricsLog
from facedisent_jax.training.run import NOT_FINITE, locked, skip, skipped
from facedisent_jax.training.step import TrainState, init_state


def test_the_run_left_alone(work):
    assert [line["step"] for line in terms(work / "alone")] == [2, 3, 3, 4, 6, 6]


@pytest.mark.slow
def test_killed_in_the_last_save(work):
    killed, again = perform(work, "in-save", {"at": ["checkpoints/6", 6]}, {})
    assert killed["status"] == -9
    check_equal(work, "in-save", again)


@pytest.mark.slow
def test_killed_in_a_save_and_then_in_a_step(work):
    killed, again, last = perform(work, "twice", {"at": ["checkpoints/3", 6]}, {"at": ["step", 5]}, {})
    assert killed["status"] == again["status"] == -9
    check_equal(work, "twice", last)


POINTS = [
    ("config.json.partial", 1),
    ("metrics.jsonl", 5),
    ("compile", 1),
    ("step", 4),
    ("checkpoints/3", 20),
    ("checkpoints/3.orbax-checkpoint-tmp /", 1),  # the rename that makes it a checkpoint
    ("checkpoints/6", 1),
    (".deleted", 1),
]
"""What is being done when the run is killed."""
MORE = [
    ("lock", 1),
    ("config.json.partial", 2),
    ("metrics.jsonl", 1),
    ("step", 1),
    ("step", 6),
    ("checkpoints/3", 1),
    ("checkpoints/6", 20),
    (".deleted", 2),
]


@pytest.mark.slow
@pytest.mark.parametrize(
    "point",
    [*POINTS, *(pytest.param(point, marks=pytest.mark.long) for point in MORE)],
    ids=lambda point: f"{point[0]}-{point[1]}".replace("/", "_"),
)
def test_killed_at(work, point):
    run = f"point-{[*POINTS, *MORE].index(point)}"
    killed, again = perform(work, run, {"at": point}, {})
    assert killed["status"] == -9
    check_equal(work, run, again)


@pytest.mark.slow
@pytest.mark.parametrize("number", [5, pytest.param(20, marks=pytest.mark.long)])
def test_killed_at_file_operations_all_over_the_run(work, number):
    (alone,) = perform(work, f"counted-{number}", {})
    moments = np.linspace(1, alone["events"], number).astype(int)
    for moment in moments.tolist():
        killed, again = perform(work, f"file-{moment}", {"at": ["", moment]}, {})
        assert killed["status"] == -9
        check_equal(work, f"file-{moment}", again)
        shutil.rmtree(work / f"file-{moment}")


@pytest.mark.slow
def test_killed_in_the_report(work):
    killed, again = perform(work, "shown", {"at": ["report/", 3]}, {}, report=True)
    assert killed["status"] == -9
    check_equal(work, "shown", again)
    assert (work / "shown/report/index.html").stat().st_size > 1000


@pytest.mark.slow
def test_a_half_written_compilation_cache_does_no_harm(work):
    for k, path in enumerate(sorted((work / "cache").rglob("*-cache"))):
        path.write_bytes(path.read_bytes()[: 1000 * (k % 2)])
    (result,) = perform(work, "half-cached", {})
    check_equal(work, "half-cached", result)


SAVES = [("full", "stop"), ("gone", "go-on")]
MORE_SAVES = [("full", "go-on"), ("read-only", "go-on"), ("read-only", "stop"), ("gone", "stop")]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("where", "then"), [*SAVES, *(pytest.param(*given, marks=pytest.mark.long) for given in MORE_SAVES)]
)
def test_what_cannot_be_saved_is_a_sentence_and_costs_no_checkpoint(work, where, then):
    run, folder = f"{where}-{then}", work / f"{where}-{then}" / "checkpoints"
    if where == "read-only" and os.geteuid():
        pytest.skip("only root can make a file system read-only")
    commands = {
        "read-only": f"mount --bind {folder} {folder} && mount -o remount,ro,bind {folder}",
        "gone": f"mv {work / run} {work / run}-away",
    }
    fault = {"full": 2} if where == "full" else {"shell": [2, commands[where]]}
    said = {"full": "File too large", "read-only": "Read-only file system", "gone": "is gone|No such file"}[where]
    try:
        failed = perform(work, run, fault, when_saving_fails=then)[0]
        assert failed["status"] == 1 and "last good one is of step 3" in failed["said"] or where == "gone"
        assert re.search(said, failed["said"])
    finally:
        if where == "read-only":
            subprocess.run(["umount", str(folder)])
    if where == "gone":
        (work / f"{run}-away").rename(work / run)
    check_equal(work, run, perform(work, run, {})[0])


@pytest.mark.slow
@pytest.mark.long
def test_a_full_disk_that_has_room_again_leaves_no_trace(work):
    result = perform(work, "room", {"full": 1, "room": 2}, when_saving_fails="go-on")[0]
    assert "File too large" in result["said"]
    check_equal(work, "room", result)
    (stopped,) = perform(work, "no-room", {"full": 1, "room": 2})
    assert stopped["status"] == 1 and "there is no earlier one" in stopped["said"]


@pytest.mark.slow
def test_a_batch_that_is_not_finite_is_left_out_and_the_run_stays_exact(work):
    poison = {"poison": [5]}
    (stopped,) = perform(work, "stopped", poison)
    assert stopped["status"] == 1 and "not finite at step 5" in stopped["said"] and "step 3" in stopped["said"]
    named = json.loads((work / "stopped" / NOT_FINITE).read_text())
    assert named["records"][0] in stopped["said"] and "label" in named["terms"]
    (alone,) = perform(work, "skipping", poison, when_not_finite="skip")
    assert alone["status"] == 0 and skipped(work / "skipping") == {5}
    assert np.isfinite([list(line.values()) for line in terms(work / "skipping") if "loss" in line]).all()
    killed, again = perform(
        work, "skipkill", poison | {"at": ["skipped.json.partial", 2]}, poison, when_not_finite="skip"
    )
    assert killed["status"] == -9 and again["digest"] == alone["digest"]
    assert terms(work / "skipkill") == terms(work / "skipping")


@pytest.mark.slow
@pytest.mark.long
def test_on_more_devices_the_run_goes_on(work):
    killed, again = perform(work, "devices", {"at": ["step", 5]}, {})
    check_equal(work, "devices", again)
    _, again = perform(
        work,
        "eight",
        {"at": ["step", 5]},
        {},
        environment={"XLA_FLAGS": f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=8"},
    )
    assert again["status"] == 0
    for a, b in zip(terms(work / "eight"), terms(work / "alone"), strict=True):
        assert a == pytest.approx(b, rel=1e-4, abs=1e-6)


def saved(tmp_path, *errors: float | None) -> tuple[Config, TrainState]:
    """A run with one checkpoint for each validation error; the weights of checkpoint k are all k."""
    made = replace(TINY, run=str(tmp_path / "run"))
    (tmp_path / "run").mkdir()
    state = init_state(made, Faces.of(person(0)))
    with checkpoint.Checkpoints(made.run) as checkpoints:
        for k, error in enumerate(errors, 1):
            state = jax.tree.map(lambda a, k=k: a * 0 + k, state)
            checkpoints.save(state, made, {}, None if error is None else {checkpoint.METRIC: error})
        checkpoints.wait()
    return made, state


def test_a_checkpoint_that_was_not_judged_is_never_the_best(tmp_path):
    made, _ = saved(tmp_path, 0.2, None)
    assert checkpoint.steps(made.run) == [1, 2]
    assert checkpoint.load(made.run).step == 1 and checkpoint.load(made.run, "last").step == 2


def test_half_written_and_half_deleted_checkpoints_are_not_there(tmp_path):
    made, _ = saved(tmp_path, 0.2)
    folder = tmp_path / "run" / "checkpoints"
    shutil.copytree(folder / "1", folder / "2.orbax-checkpoint-tmp")
    shutil.copytree(folder / "1", folder / "3.deleted")
    assert checkpoint.load(made.run, "last").step == 1
    checkpoint.Checkpoints(made.run).close()
    assert [p.name for p in folder.iterdir()] == ["1"]


def test_a_damaged_checkpoint_is_named(tmp_path):
    made, state = saved(tmp_path, 0.2)
    for path in (tmp_path / "run" / "checkpoints" / "1").rglob("d/*"):
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 255
        path.write_bytes(content)
    with pytest.raises(UserError, match="checkpoints/1 cannot be read"):
        checkpoint.restore(made.run, state, made)


def test_a_checkpoint_of_another_network_says_what_differs(tmp_path):
    made, state = saved(tmp_path, 0.2)
    other = replace(made, model=ModelConfig(width=256, blocks=0))
    with pytest.raises(UserError, match="model.width 256 here, 128 in the checkpoint"):
        checkpoint.restore(made.run, state, other)
    meta = tmp_path / "run/checkpoints/1/meta/metadata"
    for there, match in (({"depth": 3}, "another version.*model.depth"), ({"width": "8"}, "model.width is '8'")):
        meta.write_text(json.dumps({"config": {"model": there}, "info": {}}))
        with pytest.raises(UserError, match=match):
            checkpoint.load(made.run)


def test_a_checkpoint_is_restored_onto_the_devices_that_are_asked_for(tmp_path):
    saved(tmp_path, 0.2)
    code = """if True:
        import sys, jax, numpy as np
        from facedisent_jax import checkpoint, training
        from jax.sharding import NamedSharding, PartitionSpec
        mesh = jax.make_mesh((8,), ("batch",))
        everywhere = NamedSharding(mesh, PartitionSpec())
        config = checkpoint.load(sys.argv[1]).config
        from facedisent_jax.records import Faces
        from tests.tiny_run import person
        state = jax.device_put(training.init_state(config, Faces.of(person(0))), everywhere)
        state, _ = checkpoint.restore(sys.argv[1], state, config)
        assert all(len(leaf.sharding.device_set) == 8 for leaf in jax.tree.leaves(state))
        assert all((np.asarray(leaf) == 1).all() for leaf in jax.tree.leaves(state))
    """
    environment = os.environ | {"XLA_FLAGS": f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=8"}
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "run")], cwd=ROOT, env=environment, check=True)


def test_two_processes_do_not_train_in_one_folder(tmp_path):
    code = "import pathlib, sys; from facedisent_jax import runs\nwith runs.locked(pathlib.Path(sys.argv[1])): "
    run = tmp_path / "run"
    first = subprocess.Popen(
        [sys.executable, "-c", code + "print('have it', flush=True); input()", str(run)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert first.stdout and first.stdout.readline() == b"have it\n"
    with pytest.raises(UserError, match=f"is being trained by process {first.pid} on "), locked(run):
        pass
    first.kill()
    first.wait()
    with locked(run):
        pass


def test_a_log_is_continued_after_what_a_kill_or_a_full_disk_left_of_it(tmp_path):
    log = MetricsLog(replace(TINY, run=str(tmp_path)))
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 2}\n{"step": 3}\n{"st')
    log.rewind(2)
    assert path.read_text() == '{"step": 2}\n'
    path.write_text('{"step": 2}\n{"ste' + 99 * "x")  # a line cut short by a full disk
    path.rename(tmp_path / "away")
    log.write(3, {"loss": 1.0})
    with pytest.raises(UserError, match="No such file"):
        log.flush()
    (tmp_path / "away").rename(path)
    log.write(4, {"loss": 2.0})
    assert path.read_text() == '{"step": 2}\n{"step": 3, "loss": 1.0}\n{"step": 4, "loss": 2.0}\n'
    log.close()


def test_more_than_ten_bad_batches_are_no_bad_luck(tmp_path):
    for step in range(1, 11):
        skip(tmp_path, step, ["loss"], [])
    with pytest.raises(UserError, match="diverges"):
        skip(tmp_path, 11, ["loss"], [])
    assert skipped(tmp_path) == set(range(1, 11))
