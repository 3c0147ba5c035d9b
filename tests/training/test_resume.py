"""A run that is killed or stopped at any moment and started again ends bit for bit like an undisturbed run. Its
checkpoints are whole or not there. A batch that is not finite stops it and is named.

The runs are processes of their own (faults/killed.py), ended by SIGKILL, SIGTERM or SIGINT.
"""

import json
import os
import re
import shutil
import subprocess

import numpy as np
import pytest
from killed import Job, check_equal, perform
from tiny_run import terms

from facedisent_jax.training import checkpoint
from facedisent_jax.training.run import NON_FINITE

SIGTERM, SIGINT = ("SIGTERM",), ("SIGINT",)


@pytest.mark.slow
def test_an_undisturbed_run_logs_these_steps(work):
    assert [line["step"] for line in terms(work / "alone")] == [2, 3, 3, 4, 6, 6]


@pytest.mark.slow
@pytest.mark.long
def test_killed_in_the_last_save(work):
    killed_run, resumed_run = perform(work, "in-save", Job(at=("checkpoints/6", 6)), Job())
    assert killed_run.status == -9
    check_equal(work, "in-save", resumed_run)


@pytest.mark.slow
@pytest.mark.long
def test_killed_in_a_save_and_then_in_a_step(work):
    first_run, second_run, last_run = perform(work, "twice", Job(at=("checkpoints/3", 6)), Job(at=("step", 5)), Job())
    assert first_run.status == second_run.status == -9
    check_equal(work, "twice", last_run)


EVENTS = [("checkpoints/3.orbax-checkpoint-tmp /", 1)]  # the rename that makes it a checkpoint
MORE_EVENTS = [
    ("step", 4),
    (".deleted", 1),
    ("metrics.jsonl", 5),
    ("config.json", 1),
    ("compile", 1),
    ("checkpoints/3", 20),
    ("checkpoints/6", 1),
    ("lock", 1),
    ("config.json", 2),
    ("metrics.jsonl", 1),
    ("step", 1),
    ("step", 6),
    ("checkpoints/3", 1),
    ("checkpoints/6", 20),
    (".deleted", 2),
]


@pytest.mark.slow
@pytest.mark.parametrize(
    "event",
    [*EVENTS, *(pytest.param(event, marks=pytest.mark.long) for event in MORE_EVENTS)],
    ids=lambda event: f"{event[0]}-{event[1]}".replace("/", "_"),
)
def test_killed_at(work, event):
    run = f"event-{[*EVENTS, *MORE_EVENTS].index(event)}"
    killed_run, resumed_run = perform(work, run, Job(at=event), Job())
    assert killed_run.status == -9
    check_equal(work, run, resumed_run)


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("number", [3, 20])
def test_killed_at_file_operations_all_over_the_run(work, number):
    (counted_run,) = perform(work, f"counted-{number}", Job())
    for n in np.linspace(1, counted_run.file_operations, number).astype(int).tolist():
        killed_run, resumed_run = perform(work, f"file-{n}", Job(at=("", n)), Job())
        assert killed_run.status == -9
        check_equal(work, f"file-{n}", resumed_run)
        shutil.rmtree(work / f"file-{n}")


@pytest.mark.slow
@pytest.mark.long
def test_killed_in_the_report(work):
    killed_run, resumed_run = perform(work, "report-killed", Job(at=("report/", 3)), Job(), report=True)
    assert killed_run.status == -9
    check_equal(work, "report-killed", resumed_run)
    assert (work / "report-killed/report/index.html").stat().st_size > 1000


@pytest.mark.slow
@pytest.mark.long
def test_a_half_written_compilation_cache_does_no_harm(work):
    for k, path in enumerate(sorted((work / "cache").rglob("*-cache"))):
        path.write_bytes(path.read_bytes()[: 1000 * (k % 2)])
    (result,) = perform(work, "half-cached", Job())
    check_equal(work, "half-cached", result)


@pytest.mark.slow
def test_a_full_disk_stops_the_run_and_costs_no_checkpoint(work):
    (stopped_run,) = perform(work, "full", Job(disk_full_at_save=2))
    assert stopped_run.status == 1 and "File too large" in stopped_run.output
    assert "last good one is of step 3" in stopped_run.output
    assert checkpoint.load(work / "full", "last").step == 3


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("save", [1, 2])
def test_after_a_full_disk_the_run_continues(work, save):
    run = f"full-{save}"
    stopped_run, resumed_run = perform(work, run, Job(disk_full_at_save=save), Job())
    assert stopped_run.status == 1
    assert ("last good one is of step 3" if save == 2 else "there is no earlier one") in stopped_run.output
    check_equal(work, run, resumed_run)


@pytest.mark.slow
@pytest.mark.long
def test_a_run_folder_that_disappears_stops_the_run(work):
    run = work / "gone"
    (stopped_run,) = perform(work, "gone", Job(command_at_save=(2, f"mv {run} {run}-away")))
    assert stopped_run.status == 1 and re.search("no longer exists|No such file", stopped_run.output)
    run.with_name("gone-away").rename(run)
    check_equal(work, "gone", perform(work, "gone", Job())[0])


@pytest.mark.slow
@pytest.mark.long
def test_a_file_system_that_becomes_read_only_stops_the_run(work):
    if os.geteuid():
        pytest.skip("only root can make a file system read-only")
    folder = work / "read-only" / "checkpoints"
    command = f"mount --bind {folder} {folder} && mount -o remount,ro,bind {folder}"
    try:
        (stopped_run,) = perform(work, "read-only", Job(command_at_save=(2, command)))
    finally:
        subprocess.run(["umount", str(folder)])
    assert stopped_run.status == 1 and "Read-only file system" in stopped_run.output
    assert "last good one is of step 3" in stopped_run.output
    check_equal(work, "read-only", perform(work, "read-only", Job())[0])


@pytest.mark.slow
def test_a_batch_that_is_not_finite_stops_the_run_and_its_images_are_named(work):
    (stopped_run,) = perform(work, "not-finite", Job(nan_at_step=5))
    assert stopped_run.status == 1 and "not finite at step 5" in stopped_run.output
    assert "the checkpoint of step 3" in stopped_run.output
    batch = json.loads((work / "not-finite" / NON_FINITE).read_text())
    assert batch["records"][0] in stopped_run.output and "label" in batch["terms"]
    assert checkpoint.steps(work / "not-finite") == [3]


@pytest.mark.slow
@pytest.mark.long
def test_a_run_continues_on_more_devices(work):
    flags = {"XLA_FLAGS": f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=8"}
    _, resumed_run = perform(work, "eight", Job(at=("step", 5)), Job(), environment=flags)
    assert resumed_run.status == 0
    for a, b in zip(terms(work / "eight"), terms(work / "alone"), strict=True):
        assert a == pytest.approx(b, rel=1e-4, abs=1e-6)


@pytest.mark.slow
def test_sigterm_saves_after_the_step_and_leaves_no_trace_later(work):
    (stopped_run,) = perform(work, "term", Job(("step", 5), SIGTERM))
    assert stopped_run.status == 143
    assert "stopped by SIGTERM after step 5, saved in" in stopped_run.output and "checkpoints/5" in stopped_run.output
    # What was not validated is never the best.
    assert checkpoint.steps(work / "term") == [3, 5] and checkpoint.load(work / "term").step == 3
    assert [line["step"] for line in terms(work / "term")] == [2, 3, 3, 4]
    check_equal(work, "term", perform(work, "term", Job())[0])


@pytest.mark.slow
@pytest.mark.long
def test_several_stops_leave_no_trace(work):
    """Also between two lines of the log: the next line is a mean over the steps of both starts."""
    first_run, second_run, last_run = perform(work, "stops", Job(("step", 1), SIGTERM), Job(("step", 2), SIGINT), Job())
    assert (first_run.status, second_run.status) == (143, 130)
    check_equal(work, "stops", last_run)


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
@pytest.mark.parametrize("event", ["read_faces", "compile", "validate"])
def test_a_stop_at_any_moment_leaves_no_trace(work, event, name):
    run = f"{event}-{name}"
    stopped_run, resumed_run = perform(work, run, Job((event, 1), (name,)), Job())
    assert stopped_run.status == {"SIGTERM": 143, "SIGINT": 130}[name]
    assert ("saved in" in stopped_run.output) == (event != "read_faces")
    check_equal(work, run, resumed_run)


@pytest.mark.slow
@pytest.mark.long
def test_a_report_that_is_stopped_is_written_by_the_next_start(work):
    stopped_run, resumed_run = perform(work, "report-later", Job(("report/", 3), SIGTERM), Job(), report=True)
    assert stopped_run.status == 143
    check_equal(work, "report-later", resumed_run)
    assert (work / "report-later/report/index.html").stat().st_size > 1000
