"""Prep killed at any moment: no folder looks finished, nothing finished is lost, the same command again succeeds."""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from test_build import dead_process
from test_prep_command import PATTERN, children, linux, photographs, run, start
from tiny_run import ROOT

from data_prep.output import build
from facedisent_jax.data.reading import read_info, read_split
from facedisent_jax.data.record import SPLITS
from facedisent_jax.errors import UserError

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="kills processes that it forks")


def killed(folder: Path, *arguments: str) -> dict:
    command = [sys.executable, str(ROOT / "tests" / "faults" / "killed_prep.py"), str(folder), *arguments]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("scenario", ["first", "overwrite", "empty"])
def test_a_build_may_be_killed_before_each_of_its_steps(tmp_path, scenario):
    found = killed(tmp_path, scenario, "1")
    assert not found["wrong"] and found["kills"] > 15


@pytest.mark.slow
@pytest.mark.parametrize("scenario", ["first", "overwrite"])
def test_a_build_that_writes_real_shards_may_be_killed(tmp_path, scenario):
    found = killed(tmp_path, scenario, "3", "tensorflow")
    assert not found["wrong"] and found["kills"] > 5


@linux
@pytest.mark.slow
def test_the_command_may_be_killed_at_any_moment_and_so_may_its_workers(tmp_path):
    raw, out, rng, ends = photographs(tmp_path / "raw", 8, (300, 300)), tmp_path / "out", random.Random(0), []
    options = ("--pattern", PATTERN, "--boxes", raw / "boxes.csv", "--workers", "2")
    for number in range(8):
        process = start("folder", raw, out, *options)
        until = time.monotonic() + rng.uniform(0.5, 1 + number)  # the first before it can be finished
        while time.monotonic() < until and process.poll() is None:
            time.sleep(0.05)
            if number % 2 and (workers := children(process.pid)):
                os.kill(rng.choice(workers), signal.SIGKILL)
        process.kill()
        process.communicate()
        ends.append(process.returncode)
        if out.exists():
            break
    finished = out.exists()
    code, _, err = run("folder", raw, out, *options)
    assert code == (1 if finished else 0), err
    kept = sum(len(read_split(out, split)) for split in SPLITS)
    assert kept == read_info(out)["pictures"]
    # Pictures at which workers died twice are refused, by a run that came to its end although they were killed.
    refused = (out / "rejected.csv").read_text().count("its process died")
    assert kept + refused == 16 and (finished or not refused)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "raw"] and -signal.SIGKILL in ends


def test_what_was_left_by_a_run_on_another_machine_goes_after_a_day(tmp_path):
    """Whether that run still lives cannot be asked: but a living one writes all the time."""
    fresh, stale, hidden = (tmp_path / f"out.incomplete-elsewhere{k}-{dead_process()}" for k in range(3))
    before = time.time() - build.STALE_AFTER_SECONDS - 60
    for folder in (fresh, stale, hidden):
        folder.mkdir()
        (folder / "crops.raw").write_bytes(b"")
        if folder != hidden:
            os.utime(folder / "crops.raw", (before, before))
    for folder in (stale, hidden):
        os.utime(folder, (before, before))
    build.check_out(tmp_path / "out", overwrite=False)
    assert fresh.exists() and hidden.exists() and not stale.exists()


def test_a_folder_that_another_machine_was_replacing_comes_back_after_a_day(tmp_path):
    old = tmp_path / f"out.replaced-elsewhere-{dead_process()}"
    old.mkdir()
    (old / "prep.json").write_text("{}")
    before = time.time() - build.STALE_AFTER_SECONDS - 60
    for path in (old / "prep.json", old):
        os.utime(path, (before, before))
    with pytest.raises(UserError, match="is already a data folder"):
        build.check_out(tmp_path / "out", overwrite=False)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_process_number_that_somebody_else_has_now_does_not_keep_remains_for_ever(tmp_path):
    left = tmp_path / f"out.incomplete-{socket.gethostname()}-{os.getppid()}"
    left.mkdir()
    before = time.time() - build.STALE_AFTER_SECONDS - 60
    os.utime(left, (before, before))
    build.check_out(tmp_path / "out", overwrite=False)
    assert not left.exists()
