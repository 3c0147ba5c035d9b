"""Killed at any moment, a run leaves no folder that looks finished, loses none that is, and can be repeated."""

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
from prep_helpers import (
    PATTERN,
    dead_process,
    linux_only,
    run_prep,
    start_prep,
    worker_processes,
    write_photographs,
)
from tiny_run import ROOT

from data_prep.output import staging
from facedisent_jax.data.reading import read_info, read_split
from facedisent_jax.data.record import SPLITS
from facedisent_jax.errors import UserError

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="kills processes that it forks")


def run_killed_prep(folder: Path, *arguments: str) -> dict:
    """What tests/faults/killed_prep.py prints."""
    command = [sys.executable, str(ROOT / "tests" / "faults" / "killed_prep.py"), str(folder), *arguments]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1800)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1])


@pytest.mark.parametrize("scenario", ["first", "overwrite", "empty"])
def test_a_build_may_be_killed_before_each_of_its_steps(tmp_path, scenario):
    result = run_killed_prep(tmp_path, scenario, "1")
    assert not result["wrong"] and result["kills"] > 15


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("scenario", ["first", "overwrite"])
def test_a_build_with_real_shards_may_be_killed_before_its_steps(tmp_path, scenario):
    result = run_killed_prep(tmp_path, scenario, "3", "tensorflow")
    assert not result["wrong"] and result["kills"] > 5


@linux_only
@pytest.mark.slow
@pytest.mark.long
def test_the_command_and_its_workers_may_be_killed_at_any_moment(tmp_path):
    raw, out, rng, codes = write_photographs(tmp_path / "raw", 8, (300, 300)), tmp_path / "out", random.Random(0), []
    options = ("--pattern", PATTERN, "--boxes", raw / "boxes.csv", "--workers", "2")
    for number in range(8):
        process = start_prep("folder", raw, out, *options)
        deadline = time.monotonic() + rng.uniform(0.5, 1 + number)  # the first comes before it can be finished
        while time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.05)
            if number % 2 and (workers := worker_processes(process.pid)):
                os.kill(rng.choice(workers), signal.SIGKILL)
        process.kill()
        process.communicate()
        codes.append(process.returncode)
        if out.exists():
            break
    is_finished = out.exists()
    code, _, errors = run_prep("folder", raw, out, *options)
    assert code == (1 if is_finished else 0), errors
    n_stored = sum(len(read_split(out, split)) for split in SPLITS)
    assert n_stored == read_info(out)["pictures"]
    # A run that ended although its workers were killed refuses the pictures at which workers died twice.
    n_lost = (out / "rejected.csv").read_text().count("its process died")
    assert n_stored + n_lost == 16 and (is_finished or not n_lost)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "raw"] and -signal.SIGKILL in codes


def test_remains_of_a_run_on_another_machine_are_deleted_after_a_day(tmp_path):
    """Whether that run is alive cannot be known, but a living one writes all the time."""
    fresh_run, stale_run, mixed_run = (tmp_path / f"out.incomplete-elsewhere{k}-{dead_process()}" for k in range(3))
    long_ago = time.time() - staging.STALE_AFTER_SECONDS - 60
    for folder in (fresh_run, stale_run, mixed_run):
        folder.mkdir()
        (folder / "crops.raw").write_bytes(b"")
        if folder != mixed_run:
            os.utime(folder / "crops.raw", (long_ago, long_ago))
    for folder in (stale_run, mixed_run):
        os.utime(folder, (long_ago, long_ago))
    staging.check_output_folder(tmp_path / "out", overwrite=False)
    assert fresh_run.exists() and mixed_run.exists() and not stale_run.exists()


def test_a_folder_that_another_machine_was_replacing_is_restored_after_a_day(tmp_path):
    replaced_folder = tmp_path / f"out.replaced-elsewhere-{dead_process()}"
    replaced_folder.mkdir()
    (replaced_folder / "prep.json").write_text("{}")
    long_ago = time.time() - staging.STALE_AFTER_SECONDS - 60
    for path in (replaced_folder / "prep.json", replaced_folder):
        os.utime(path, (long_ago, long_ago))
    with pytest.raises(UserError, match="is already a data folder"):
        staging.check_output_folder(tmp_path / "out", overwrite=False)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_remains_are_deleted_after_a_day_even_if_another_process_has_the_number_now(tmp_path):
    remains = tmp_path / f"out.incomplete-{socket.gethostname()}-{os.getppid()}"
    remains.mkdir()
    long_ago = time.time() - staging.STALE_AFTER_SECONDS - 60
    os.utime(remains, (long_ago, long_ago))
    staging.check_output_folder(tmp_path / "out", overwrite=False)
    assert not remains.exists()
