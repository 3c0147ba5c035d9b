"""A run folder: one process at a time, and only with the settings that it was started with."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
from killed import TINY
from tiny_run import ROOT, person, terms, write_folder, write_run

import facedisent_jax as fd
from facedisent_jax.commands import train as train_command
from facedisent_jax.config import Config, ModelConfig, OptimConfig, to_dict
from facedisent_jax.data.record import PREP_FILE
from facedisent_jax.errors import UserError
from facedisent_jax.presets import POSTER_LOSS
from facedisent_jax.reporting import report
from facedisent_jax.training import checkpoint
from facedisent_jax.training.loop import NonFiniteError
from facedisent_jax.training.run import CONFIG, DATA_CONTENT, check_config_unchanged, locked, open_run, train

OLD = "must be of facedisent-jax version 0.2, got one without a version"


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
    (tmp_path / CONFIG).write_text(json.dumps(to_dict(TINY) | {DATA_CONTENT: []}))
    here = replace(TINY, run=str(tmp_path))
    check_config_unchanged(replace(here, steps=9, log_every=1, report=True), [])
    with pytest.raises(UserError, match="started with other settings \\(seed 1 here, 0 there\\)"):
        check_config_unchanged(replace(here, seed=1), [])


def data_folder(folder: Path, content: str | None) -> Path:
    """An empty data folder, and the hash of what it could hold."""
    info = {"source": "folder", "detector": "none", "margin": 0.0, "options": {}, "splits": {}, "subjects": {}}
    folder.mkdir()
    (folder / PREP_FILE).write_text(json.dumps(info | ({"content": content} if content else {})))
    return folder


def begin(run: Path, *folders: Path | str, **settings) -> None:
    """Begin or continue a run, and take no step."""
    config = replace(TINY, run=str(run), data=tuple(map(str, folders)), **settings)
    with open_run(config, [Path(folder) for folder in folders]):
        pass


def test_a_run_goes_on_with_the_same_data_wherever_it_lies_and_with_no_other(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run, folder = tmp_path / "run", data_folder(tmp_path / "d12", "12")
    begin(run, "d12", init_from="first")
    for spelling in ("d12/", "./d12", folder, "../" + tmp_path.name + "/d12"):
        begin(run, spelling, init_from=f"{tmp_path}/first/")
    folder.rename(tmp_path / "moved")
    begin(run, "moved", init_from="first")
    replacement = data_folder(tmp_path / "d13", "13")
    replacement.rename(tmp_path / "d12")  # where the run's data was
    for folders in (["d12"], ["moved", "d12"], []):
        with pytest.raises(UserError, match=r"was started with other data \(--data moved\) than is now in"):
            begin(run, *folders, init_from="first")


def test_the_order_of_the_data_folders_belongs_to_the_run(tmp_path):
    folders = [data_folder(tmp_path / name, name) for name in ("a", "b")]
    begin(tmp_path / "run", *folders)
    with pytest.raises(UserError, match="The same folders in the same order continue it"):
        begin(tmp_path / "run", *folders[::-1])


def test_a_data_folder_without_a_hash_may_be_named_in_another_way_but_not_moved(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = data_folder(tmp_path / "old", None)
    begin(tmp_path / "run", folder)
    begin(tmp_path / "run", "./old/")
    folder.rename(tmp_path / "moved")
    with pytest.raises(UserError, match="or their paths where there is no hash"):
        begin(tmp_path / "run", "moved")


def test_a_run_whose_name_is_no_text_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(UserError, match=r"--run must be a name in UTF-8, .* got '.*\\udcff'"):
        check_config_unchanged(replace(TINY, run=str(tmp_path / os.fsdecode(b"\xff"))), [])


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="--run must be a run folder or a new one, got .* without a config.json"):
        check_config_unchanged(replace(TINY, run=str(tmp_path)), [])


def test_what_a_kill_leaves_in_the_first_moment_is_a_new_run(tmp_path):
    for name in ("lock", ".partial-0123abcd-config.json"):
        (tmp_path / name).write_text("")
    check_config_unchanged(replace(TINY, run=str(tmp_path)), [])


def test_an_old_run_is_refused_by_everything_that_reads_it(tmp_path):
    splits = {"train": person(0) + person(1), "validation": person(2), "test": person(3)}
    data = write_folder(tmp_path / "data", splits)
    run = write_run(tmp_path / "run", data)
    meta = run / "checkpoints" / "0" / "meta" / "metadata"
    values = json.loads(meta.read_text())
    del values["config"]["version"]
    meta.write_text(json.dumps(values))
    (run / CONFIG).write_text(json.dumps(values["config"]))
    for reader in (
        lambda: fd.load(run),
        lambda: report.write(run, [data]),
        lambda: train(replace(TINY, data=(str(data),), run=str(run)), [data]),
        lambda: train(replace(TINY, data=(str(data),), run=str(tmp_path / "new"), init_from=str(run)), [data]),
    ):
        with pytest.raises(UserError, match=OLD) as error:
            reader()
        assert "\n" not in str(error.value)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "faces"
    splits = {"train": [r for k in range(5) for r in person(k)], "validation": person(8) + person(9), "test": person(7)}
    return write_folder(path, splits)


def config(folder, run, steps, **changes) -> Config:
    base = Config(data=(str(folder),), run=str(run), steps=steps, batch=4, log_every=1, validate_every=2, report=False)
    return replace(
        base,
        **{
            "model": TINY.model,
            "augment": TINY.augment,
            "loss": POSTER_LOSS,
            "optim": OptimConfig(warmup_steps=2, decay_steps=8),
        }
        | changes,
    )


@pytest.fixture(scope="module")
def two_steps(folder, tmp_path_factory):
    """A run of two steps."""
    return train_command.main(config(folder, tmp_path_factory.mktemp("runs") / "first", 2))


@pytest.mark.slow
def test_the_run_folder(folder, two_steps):
    run = two_steps
    assert {p.name for p in run.iterdir() if not p.name.startswith("events")} == {
        "config.json",
        "metrics.jsonl",
        "checkpoints",
        "lock",
    }
    assert any(p.name.startswith("events") for p in run.iterdir())
    steps = [line["step"] for line in terms(run)]
    assert steps == [1, 2, 2]  # validation has lines of its own, here at step 2
    assert {"loss", "swap", "label", "identity_triplet"} <= terms(run)[0].keys()
    assert {"validation/reconstruction_psnr", "validation/swap_psnr"} <= terms(run)[2].keys()
    last_checkpoint = checkpoint.load(run, "last")
    assert last_checkpoint.step == 2 and last_checkpoint.config == config(folder, run, 2)
    assert last_checkpoint.info["train_subjects"] == [f"p{k:03d}" for k in range(5)]
    assert last_checkpoint.info["crop"] == {"detector": "none", "margin": 0.0}
    assert checkpoint.load(run).step == 2


@pytest.mark.slow
def test_a_run_of_other_settings_is_not_continued(folder, two_steps):
    log = (two_steps / "metrics.jsonl").read_text()
    with pytest.raises(UserError, match=r"batch 8 here, 4 there"):
        train_command.main(config(folder, two_steps, 4, batch=8))
    assert (two_steps / "metrics.jsonl").read_text() == log


@pytest.mark.slow
def test_a_run_can_start_from_the_weights_of_another(folder, two_steps, tmp_path):
    no_learning = OptimConfig(lr=0.0, warmup_steps=2, decay_steps=8)
    second_run = train_command.main(config(folder, tmp_path / "second", 2, init_from=str(two_steps), optim=no_learning))
    params_1, params_2 = checkpoint.load(two_steps).params, checkpoint.load(second_run).params
    for a, b in zip(jax.tree.leaves(params_1), jax.tree.leaves(params_2), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"model": ModelConfig(width=128, blocks=2)}, "blocks 2 here, 0 there"),
        ({"data": "other"}, "trained on 1 .*p003"),
    ],
)
def test_weights_that_do_not_fit_or_were_trained_on_held_out_people_are_refused(
    folder, two_steps, tmp_path, changes, match
):
    if "data" in changes:
        other_data = write_folder(tmp_path / "other", {"train": person(1), "validation": person(3), "test": person(9)})
        changes = {"data": (str(other_data),)}
    with pytest.raises(UserError, match=match):
        train_command.main(config(folder, tmp_path / "second", 2, init_from=str(two_steps), **changes))
    assert not (tmp_path / "second").exists()


@pytest.mark.parametrize(
    "options",
    [
        "--steps 0",
        "--batch 0",
        "--model.width 100",
        "--optim.decay-steps 100",
        "--intensity-step 0",
        "--seed -1",
        "--objective.mouth-weight 0",
        "--model.expression-rank 65",
    ],
)
def test_settings_that_no_run_can_have_are_named(folder, tmp_path, options):
    option, value = options.split()
    config = train_command.parse(["smile", "--data", str(folder), "--run", str(tmp_path / "run"), option, value])
    with pytest.raises(UserError, match=f"{option} must be .*, got {value}"):
        train_command.main(config)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_ends_only_trains_on_neutral_and_apex_of_clips(tmp_path, capsys):
    levels = (0.0, 0.04, 0.3, 0.6, 0.97, 1.0)
    splits = {"train": person(1, levels) + person(2, levels), "validation": person(3), "test": person(4)}
    folder = write_folder(tmp_path / "clips", splits)
    train_command.main(config(folder, tmp_path / "run", 1, ends_only=True))
    assert "8 training images of 2 subjects" in capsys.readouterr().out


def test_a_folder_that_is_no_run_is_left_alone(folder, tmp_path):
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(UserError, match="--run must be a run folder"):
        train_command.main(config(folder, tmp_path, 2))
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.slow
def test_without_test_people_the_run_ends_well_and_says_why_there_is_no_report(tmp_path, capsys):
    data = write_folder(tmp_path / "data", {"train": person(1) + person(2), "validation": person(3)})
    run = train_command.main(config(data, tmp_path / "run", 2, report=True))
    assert "No report: the data has no test images" in capsys.readouterr().out and not (run / "report").exists()
    train_command.main(config(data, tmp_path / "run", 1))
    assert "2 steps done before, --steps asks for 1" in capsys.readouterr().out


@pytest.mark.slow
def test_weights_of_a_step_that_is_not_finite_are_never_saved(folder, tmp_path):
    settings = config(folder, tmp_path / "run", 4, optim=OptimConfig(lr=float("nan"), warmup_steps=0, decay_steps=8))
    with pytest.raises(NonFiniteError, match="at step 2"):
        train_command.main(settings)
    assert checkpoint.steps(tmp_path / "run") == []
