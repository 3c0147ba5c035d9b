"""What several tests of data_prep share: the command in a process of its own, and raw pictures to prepare."""

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from tiny_run import ROOT

from data_prep.synthetic.faces import draw_levels, random_identity

COMMAND = [sys.executable, "-m", "data_prep"]
posix_only = pytest.mark.skipif(os.name != "posix", reason="names, links and FIFOs of POSIX")
linux_only = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc for the worker processes")

PATTERN = r"(?P<subject>s\d+)_(?P<expression>\w+)\.png"  # of the names that `write_photographs` gives
RISE = np.concatenate([[0, 0], 0.5 - 0.5 * np.cos(np.pi * np.arange(1, 11) / 11), [1, 1, 1]])
"""Intensities of a take: neutral, an onset of 12 frames, apex."""


def start_prep(*arguments: str | Path) -> subprocess.Popen:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "200"}
    pipe = subprocess.PIPE
    return subprocess.Popen([*COMMAND, *map(str, arguments)], env=environment, stdout=pipe, stderr=pipe, text=True)


def run_prep(*arguments: str | Path) -> tuple[int, str, str]:
    """Exit code, output and error output."""
    process = start_prep(*arguments)
    output, errors = process.communicate(timeout=120)
    return process.returncode, output, errors


def worker_processes(process: int) -> list[int]:
    """The worker processes of a run."""
    path = Path(f"/proc/{process}/task/{process}/children")
    children = [int(child) for child in path.read_text().split()] if path.exists() else []
    return [child for child in children if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()]


def wait_until(condition, seconds: float = 60.0):
    """The first true value of `condition()`."""
    for _ in range(int(seconds / 0.02)):
        if value := condition():
            return value
        time.sleep(0.02)
    raise AssertionError(f"not within {seconds:g} seconds")


def dead_process() -> int:
    """The number of a process that has ended."""
    process = os.fork()
    if process == 0:
        os._exit(0)
    os.waitpid(process, 0)
    return process


def tree(root: Path, *names: str) -> Path:
    """Files that only have names: the parsers of layouts do not look into them."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return root


def write_photographs(folder: Path, people: int = 4, size: tuple[int, int] = (200, 200)) -> Path:
    """Images of noise, two of each person, and boxes.csv for them."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    lines = ["path,left,top,right,bottom"]
    for subject in range(people):
        for expression in ("neutral", "smile"):
            name = f"s{subject:02}_{expression}.png"
            Image.fromarray(rng.integers(0, 256, (*size, 3), np.uint8)).save(folder / name, compress_level=1)
            lines.append(f"{name},20,30,148,158")
    (folder / "boxes.csv").write_text("\n".join(lines) + "\n")
    return folder


def write_take(folder: Path, subject: int, levels: Sequence[float] | np.ndarray = RISE, first_frame: int = 0) -> Path:
    """A drawn take as JPEG frames of 64x64, which are used as they are."""
    folder.mkdir(parents=True)
    for number, image in enumerate(draw_levels(random_identity(0, subject), levels), first_frame):
        Image.fromarray(image).save(folder / f"img_{number:04}.jpg", quality=95)
    return folder


def write_video(path: Path, subject: int, levels: Sequence[float] | np.ndarray = RISE) -> Path:
    """A drawn take as a video of 64x64."""
    path.parent.mkdir(parents=True, exist_ok=True)
    codec = cv2.VideoWriter.fourcc(*("MJPG" if path.suffix == ".avi" else "mp4v"))
    writer = cv2.VideoWriter(str(path), codec, 19, (64, 64))
    assert writer.isOpened()
    for image in draw_levels(random_identity(0, subject), levels):
        writer.write(image[..., ::-1].copy())
    writer.release()
    return path
