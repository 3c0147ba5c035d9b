"""The command: what it answers, and that a run that is stopped or killed leaves nothing that looks finished."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_run import ROOT

from data_prep.__main__ import main
from facedisent_jax.data.reading import read_info, read_split

COMMAND = [sys.executable, "-m", "data_prep"]
PATTERN = r"(?P<subject>s\d+)_(?P<expression>\w+)\.png"
linux = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc for the worker processes")


def start(*arguments: str | Path) -> subprocess.Popen:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "200"}
    pipe = subprocess.PIPE
    return subprocess.Popen([*COMMAND, *map(str, arguments)], env=environment, stdout=pipe, stderr=pipe, text=True)


def run(*arguments: str | Path) -> tuple[int, str, str]:
    process = start(*arguments)
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def photographs(folder: Path, people: int = 4, size: tuple[int, int] = (200, 200)) -> Path:
    """Noise, two pictures a person, and boxes for them."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    lines = ["path,left,top,right,bottom"]
    for who in range(people):
        for expression in ("neutral", "smile"):
            name = f"s{who:02}_{expression}.png"
            Image.fromarray(rng.integers(0, 256, (*size, 3), np.uint8)).save(folder / name, compress_level=1)
            lines.append(f"{name},20,30,148,158")
    (folder / "boxes.csv").write_text("\n".join(lines) + "\n")
    return folder


def test_photographs_become_a_folder_and_every_file_is_accounted_for(tmp_path, capsys):
    raw = photographs(tmp_path / "raw")
    (raw / "s00_smile.png").write_bytes(b"")
    (raw / "s01_smile.png").write_bytes((raw / "s01_smile.png").read_bytes()[:3000])
    options = ["--pattern", PATTERN, "--boxes", str(raw / "boxes.csv"), "--workers", "1"]
    main(["folder", str(raw), str(tmp_path / "out"), *options])
    out = capsys.readouterr().out
    assert "left out           2 pictures" in out and "1 empty file" in out and "1 truncated picture" in out
    assert "passed over        1 files that are not images" in out
    rejected = (tmp_path / "out" / "rejected.csv").read_text().splitlines()
    assert rejected == ["file,reason", "s00_smile.png,empty file", "s01_smile.png,truncated picture"]
    info = read_info(tmp_path / "out")
    assert info["detector"] == "boxes" and info["found_by"] == {"given": 6} and info["options"]["pattern"] == PATTERN
    train = read_split(tmp_path / "out", "train")
    assert set(train.expression) == {"neutral", "smile"} and train.image.shape[1:] == (64, 64, 3)


def test_the_answer_to_a_typo_or_a_mistake_is_one_sentence(tmp_path):
    raw = photographs(tmp_path / "raw", 1)
    for arguments, sentence in (
        (("multipy", raw, tmp_path / "out"), "data_prep: there is no command 'multipy': did you mean multipie?"),
        (("folder", tmp_path / "nowhere", tmp_path / "out"), "data_prep: There is no folder"),
        (("folder", raw, tmp_path / "out", "--pattern", "("), "is not a regular expression"),
        (("folder", raw, tmp_path / "out", "--detector", "boxes"), "needs the boxes of each picture"),
        (("folder", raw, tmp_path / "out", "--margin", "90"), "--margin is 90"),
        (("folder", raw, raw), "was not made by this command"),
        (("folder", raw, tmp_path / "out"), "No usable picture was found (2 no face found"),
        (("inspect", tmp_path / "nowhere"), "data_prep: There is no data folder"),
        (("inspect", raw), "has no prep.json"),
    ):
        code, out, err = run(*arguments)
        said = [line for line in err.replace("\r", "\n").split("\n") if line and not line.startswith("Cropping")]
        assert code == 1 and out == "" and len(said) == 1 and sentence in said[0], (arguments, err)
        assert not (tmp_path / "out").exists()
    code, out, err = run("folder", raw, tmp_path / "out", "--patern", "x")
    assert code == 2 and "Perhaps you meant" in out + err and "--pattern" in out + err


def test_help_needs_no_heavy_library():
    report = (
        "import sys; import data_prep.__main__; print([m for m in ('tensorflow', 'cv2', 'jax') if m in sys.modules])"
    )
    got = subprocess.run([sys.executable, "-c", report], cwd=ROOT, capture_output=True, text=True, check=True)
    assert got.stdout.strip() == "[]"
    code, out, _ = run("folder", "--help")
    assert code == 0 and "--pattern" in out and "--overwrite" in out


def children(process: int) -> list[int]:
    """Worker processes of a run."""
    listed = Path(f"/proc/{process}/task/{process}/children")
    found = [int(child) for child in listed.read_text().split()] if listed.exists() else []
    return [child for child in found if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()]


def until(condition, seconds: float = 60.0):
    """The first true value of `condition()`."""
    for _ in range(int(seconds / 0.02)):
        if value := condition():
            return value
        time.sleep(0.02)
    raise AssertionError("waited in vain")


def at_work(tmp_path: Path, workers: int) -> subprocess.Popen:
    """A run that has begun to crop and will not be done soon."""
    raw = photographs(tmp_path / "raw", 16, (700, 700))
    process = start(
        "folder", raw, tmp_path / "out", "--pattern", PATTERN, "--boxes", raw / "boxes.csv", "--workers", str(workers)
    )
    until(lambda: list(tmp_path.glob("out.incomplete-*/crops.raw")) and len(children(process.pid)) == workers)
    return process


@linux
def test_a_killed_run_leaves_nothing_that_looks_finished_and_can_be_repeated(tmp_path):
    process = at_work(tmp_path, 2)
    workers = children(process.pid)
    process.kill()
    process.communicate()
    assert not (tmp_path / "out").exists() and len(list(tmp_path.glob("out.incomplete-*"))) == 1
    until(lambda: not any(Path(f"/proc/{worker}").exists() for worker in workers), 20)
    raw = tmp_path / "raw"
    code, _, err = run("folder", raw, tmp_path / "out", "--pattern", PATTERN, "--boxes", raw / "boxes.csv")
    assert code == 0, err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "raw"]
    assert read_info(tmp_path / "out")["pictures"] == 32


@linux
@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_run_that_is_stopped_ends_quietly_and_leaves_nothing(tmp_path, sent, code):
    process = at_work(tmp_path, 1)
    process.send_signal(sent)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code and "Traceback" not in err
    assert [path.name for path in tmp_path.iterdir()] == ["raw"]


@linux
@pytest.mark.slow
def test_what_a_killed_worker_was_at_work_on_is_done_by_another(tmp_path):
    process = at_work(tmp_path, 2)
    os.kill(children(process.pid)[0], signal.SIGKILL)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0 and "Traceback" not in err
    assert read_info(tmp_path / "out")["pictures"] == 32 and not read_info(tmp_path / "out")["rejected"]
