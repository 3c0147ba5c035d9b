"""A run folder: one process at a time, and only with the settings that it was started with."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest
from killed import TINY
from tiny_run import ROOT, person, write_folder, write_run

import facedisent_jax as fd
from facedisent_jax.config import to_dict
from facedisent_jax.errors import UserError
from facedisent_jax.reporting import report
from facedisent_jax.training.run import CONFIG, check_config_unchanged, locked, train

OLD = "must be of facedisent-jax version 0.1, got one from before 0.1"


def test_two_processes_do_not_train_in_one_folder(tmp_path):
    code = (
        "import pathlib, sys; from facedisent_jax.training.run import locked\nwith locked(pathlib.Path(sys.argv[1])): "
    )
    run = tmp_path / "run"
    owner = subprocess.Popen(
        [sys.executable, "-c", code + "print('locked', flush=True); input()", str(run)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert owner.stdout and owner.stdout.readline() == b"locked\n"
    with pytest.raises(UserError, match=f"is being trained by process {owner.pid} on "), locked(run):
        pass
    owner.kill()
    owner.wait()
    with locked(run):
        pass


def test_a_run_is_not_continued_with_other_settings(tmp_path):
    (tmp_path / CONFIG).write_text(json.dumps(to_dict(TINY)))
    check_config_unchanged(replace(TINY, steps=9, log_every=1, report=True), tmp_path)
    with pytest.raises(UserError, match="started with other settings \\(seed 1 here, 0 there\\)"):
        check_config_unchanged(replace(TINY, seed=1), tmp_path)


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="--run must be a run folder or a new one, got .* without a config.json"):
        check_config_unchanged(TINY, tmp_path)


def test_what_a_kill_leaves_in_the_first_moment_is_a_new_run(tmp_path):
    for name in ("lock", ".partial-0123abcd-config.json"):
        (tmp_path / name).write_text("")
    check_config_unchanged(TINY, tmp_path)


def test_an_old_run_is_refused_by_everything_that_reads_it(tmp_path):
    splits = {"train": person(0) + person(1), "validation": person(2), "test": person(3)}
    data = write_folder(tmp_path / "data", splits)
    run = write_run(tmp_path / "run", data)
    meta = run / "checkpoints" / "0" / "meta" / "metadata"
    values = json.loads(meta.read_text())
    del values["config"]["version"]
    meta.write_text(json.dumps(values))
    (run / CONFIG).write_text(json.dumps(values["config"]))
    for read in (
        lambda: fd.load(run),
        lambda: report.write(run, [data]),
        lambda: train(replace(TINY, data=(str(data),), run=str(run)), [data]),
        lambda: train(replace(TINY, data=(str(data),), run=str(tmp_path / "new"), init_from=str(run)), [data]),
    ):
        with pytest.raises(UserError, match=OLD) as refused:
            read()
        assert "\n" not in str(refused.value)
