"""The command: what it prints, and that a run that is stopped or killed leaves nothing that looks finished."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from prep_helpers import (
    PATTERN,
    linux_only,
    run_prep,
    start_prep,
    wait_until,
    worker_processes,
    write_photographs,
)
from tiny_run import ROOT

from data_prep.__main__ import main
from facedisent_jax.data.reading import read_info, read_split


def test_photographs_become_a_folder_and_every_file_is_accounted_for(tmp_path, capsys):
    raw = write_photographs(tmp_path / "raw")
    (raw / "s00_smile.png").write_bytes(b"")
    (raw / "s01_smile.png").write_bytes((raw / "s01_smile.png").read_bytes()[:3000])
    options = ["--pattern", PATTERN, "--boxes", str(raw / "boxes.csv"), "--workers", "1"]
    main(["folder", str(raw), str(tmp_path / "out"), *options])
    output = capsys.readouterr().out
    assert "left out           2 images" in output and "1 empty file" in output and "1 truncated image" in output
    assert "passed over        1 files that are not images" in output
    rejected_lines = (tmp_path / "out" / "rejected.csv").read_text().splitlines()
    assert rejected_lines == ["file,reason", "s00_smile.png,empty file", "s01_smile.png,truncated image"]
    info = read_info(tmp_path / "out")
    assert info["detector"] == "boxes" and info["found_by"] == {"given": 6} and info["options"]["pattern"] == PATTERN
    train = read_split(tmp_path / "out", "train")
    assert set(train.expression) == {"neutral", "smile"} and train.image.shape[1:] == (64, 64, 3)


def test_the_answer_to_a_typo_or_a_mistake_is_one_sentence(tmp_path):
    raw = write_photographs(tmp_path / "raw", 1)
    for arguments, sentence in (
        (("multipy", raw, tmp_path / "out"), "got multipy. Did you mean multipie?"),
        (("folder", tmp_path / "nowhere", tmp_path / "out"), "data_prep: RAW must be a folder of images, got "),
        (("folder", raw, tmp_path / "out", "--pattern", "("), "--pattern must be a regular expression, got '('"),
        (("folder", raw, tmp_path / "out", "--detector", "boxes"), "needs the boxes of each picture"),
        (("folder", raw, tmp_path / "out", "--margin", "90"), "--margin must be a fraction from -0.5 to 5"),
        (("folder", raw, raw), "OUT must not be an input, nor lie in one, got "),
        (("folder", raw, raw / "out"), "OUT must not be an input, nor lie in one, got "),
        (("folder", raw, tmp_path), "was not made by this command"),
        (("folder", raw, tmp_path / "out"), "No usable picture was found (2 no face found"),
        (("inspect", tmp_path / "nowhere"), "data_prep: There is no data folder"),
        (("inspect", raw), "has no prep.json"),
    ):
        code, output, errors = run_prep(*arguments)
        lines = [line for line in errors.replace("\r", "\n").split("\n") if line and not line.startswith("Cropping")]
        assert code == 1 and output == "" and len(lines) == 1 and sentence in lines[0], (arguments, errors)
        assert not (tmp_path / "out").exists()
    code, output, errors = run_prep("folder", raw, tmp_path / "out", "--patern", "x")
    assert code == 2 and "Perhaps you meant" in output + errors and "--pattern" in output + errors


@pytest.mark.parametrize("name", ["prep.json", "link.png", "../labels.csv"])
def test_inspect_does_not_write_over_what_it_reads(tmp_path, name):
    folder, truth = tmp_path / "data", tmp_path / "labels.csv"
    main(["synthetic", str(folder), "--subjects", "3", "--levels", "2", "--workers", "1"])
    truth.write_text("subject,take,frame,intensity\n0,0,0,0.5\n")
    (folder / "link.png").symlink_to(folder / "rejected.csv")
    before = {path: path.read_bytes() for path in [truth, *folder.iterdir()]}
    with pytest.raises(SystemExit, match="--out must not be an input"):
        main(["inspect", str(folder), "--truth", str(truth), "--out", str(folder / name)])
    with pytest.raises(SystemExit, match="The ending of sheet must be one of"):
        main(["inspect", str(folder), "--out", "sheet"])
    assert {path: path.read_bytes() for path in [truth, *folder.iterdir()]} == before


def test_help_needs_no_heavy_library():
    code = "import sys; import data_prep.__main__; print([m for m in ('tensorflow', 'cv2', 'jax') if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
    status, output, _ = run_prep("folder", "--help")
    assert status == 0 and "--pattern" in output and "--overwrite" in output


def running_prep(tmp_path: Path, workers: int) -> subprocess.Popen:
    """A run that has begun to crop and will take a while."""
    raw = write_photographs(tmp_path / "raw", 16, (700, 700))
    options = ["--pattern", PATTERN, "--boxes", raw / "boxes.csv", "--workers", str(workers)]
    process = start_prep("folder", raw, tmp_path / "out", *options)
    has_begun = lambda: list(tmp_path.glob("out.incomplete-*/crops.raw"))  # noqa: E731
    wait_until(lambda: has_begun() and len(worker_processes(process.pid)) == workers)
    return process


@pytest.mark.slow
@linux_only
def test_a_killed_run_leaves_nothing_that_looks_finished_and_can_be_repeated(tmp_path):
    process = running_prep(tmp_path, 2)
    workers = worker_processes(process.pid)
    process.kill()
    process.communicate()
    assert not (tmp_path / "out").exists() and len(list(tmp_path.glob("out.incomplete-*"))) == 1
    wait_until(lambda: not any(Path(f"/proc/{worker}").exists() for worker in workers), 20)
    raw = tmp_path / "raw"
    code, _, errors = run_prep("folder", raw, tmp_path / "out", "--pattern", PATTERN, "--boxes", raw / "boxes.csv")
    assert code == 0, errors
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "raw"]
    assert read_info(tmp_path / "out")["pictures"] == 32


@linux_only
@pytest.mark.parametrize(("signal_number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_run_that_is_stopped_ends_quietly_and_leaves_nothing(tmp_path, signal_number, code):
    process = running_prep(tmp_path, 1)
    process.send_signal(signal_number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == code and "Traceback" not in errors
    assert [path.name for path in tmp_path.iterdir()] == ["raw"]


@linux_only
@pytest.mark.slow
@pytest.mark.long
def test_the_work_of_a_killed_worker_is_done_by_another(tmp_path):
    process = running_prep(tmp_path, 2)
    os.kill(worker_processes(process.pid)[0], signal.SIGKILL)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0 and "Traceback" not in errors
    assert read_info(tmp_path / "out")["pictures"] == 32 and not read_info(tmp_path / "out")["rejected"]
