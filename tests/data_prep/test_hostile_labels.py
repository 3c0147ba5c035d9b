"""Hostile files beside the images: landmark files and label tables cost their entries, and are never executed."""

import ast
import itertools
import os
import struct
import subprocess
import sys
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import evil_worker
import numpy as np
import pytest
from mutants import face, image_bytes
from prep_helpers import posix_only
from tiny_run import ROOT

from data_prep.cropping import jobs, workers
from data_prep.cropping.crop import Cropping
from data_prep.cropping.workers import Lost
from data_prep.layouts import csv_labels, mat_landmarks
from data_prep.layouts.scan import Source
from data_prep.output import build
from data_prep.output.build import Plan
from data_prep.output.spool import Item
from facedisent_jax.data.record import Record


def matrix(name: bytes, rows: int, columns: int, numbers: bytes, kind: int = 6, size: int | None = None) -> bytes:
    """A MAT 5 file with one compressed matrix of doubles. kind: class (6 double, 1 cell); size: bytes promised."""
    body = struct.pack("<IIII", 6, 8, kind, 0) + struct.pack("<IIii", 5, 8, rows, columns)
    body += struct.pack("<II", 1, len(name)) + name.ljust(-(-len(name) // 8) * 8, b"\0")
    body += (struct.pack("<II", 9, len(numbers) if size is None else size) if kind == 6 else b"") + numbers
    packed = zlib.compress(struct.pack("<II", 14, len(body)) + body, 9)
    return (
        b"MATLAB 5.0 MAT-file".ljust(124)
        + struct.pack("<HH", 0x0100, 0x4D49)
        + struct.pack("<II", 15, len(packed))
        + packed
    )


def nested_cells(depth: int) -> bytes:
    cells = b""
    for _ in range(depth):
        body = struct.pack("<IIII", 6, 8, 1, 0) + struct.pack("<IIii", 5, 8, 1, 1) + struct.pack("<II", 1, 0) + cells
        cells = struct.pack("<II", 14, len(body)) + body
    return cells


POINTS = np.random.default_rng(0).uniform(0, 640, (68, 2))
NUMBERS = POINTS.T.astype("<f8").tobytes()


def test_a_sound_landmark_file_is_read(tmp_path):
    (tmp_path / "a.mat").write_bytes(matrix(b"pts", 68, 2, NUMBERS))
    points = mat_landmarks.read_mat_landmarks(tmp_path / "a.mat")
    assert points is not None and (points == POINTS).all()


MATS = {
    "many zeros": matrix(b"pts", 4_000_000, 2, bytes(64_000_000)),
    "zeros in place of the points": matrix(b"pts", 68, 2, bytes(64_000_000)),
    "more promised than there is": matrix(b"pts", 68, 2, NUMBERS, size=2**31 - 16),
    "cells in cells": matrix(b"pts", 68, 2, nested_cells(2_000), kind=1),
    "too large": matrix(b"pts", 68, 2, NUMBERS) + bytes(25_000_000),
    "nothing": b"",
    "text": b"pts = [1 2 3];" * 20,
}


@posix_only
@pytest.mark.parametrize("kind", MATS)
def test_hostile_landmark_files_are_not_read(tmp_path, kind):
    import resource

    (tmp_path / "a.mat").write_bytes(MATS[kind])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert mat_landmarks.read_mat_landmarks(tmp_path / "a.mat") is None
    if sys.platform == "linux":  # in KiB
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < 300_000


@posix_only
def test_a_fifo_named_like_a_landmark_file_does_not_block(tmp_path):
    code = "import sys, pathlib; from data_prep.layouts.mat_landmarks import read_mat_landmarks as read; "
    code += "print(read(pathlib.Path(sys.argv[1])))"
    os.mkfifo(tmp_path / "a.mat")
    command = [sys.executable, "-c", code, str(tmp_path / "a.mat")]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert result.stdout.strip() == "None", result.stderr


def damaged_landmark_files(folder: Path, numbers: Iterable[int]) -> Iterator[Path]:
    sound_file = matrix(b"pts", 68, 2, NUMBERS)
    unpacked_file = sound_file[:128] + zlib.decompress(sound_file[136:])
    for number in numbers:
        rng = np.random.default_rng(number)
        content = bytearray(unpacked_file if number % 2 else sound_file)
        for _ in range(int(rng.integers(1, 6))):
            at = int(rng.integers(128 if number % 3 else 0, len(content) if number % 5 else 240))
            content[at] = rng.integers(256)
        path = folder / f"{number}.mat"
        path.write_bytes(content[: None if number % 4 else int(rng.integers(len(content)))])
        yield path


@pytest.mark.slow
def test_damaged_landmark_files_are_none_or_points_or_end_their_worker(tmp_path):
    files = damaged_landmark_files(tmp_path, range(600))
    answers = list(workers.run_jobs(mat_landmarks.read_mat_landmarks, lambda: next(files, None), 2, lambda _: 60.0))
    assert len(answers) == 600
    for _, points in answers:
        assert points is None or isinstance(points, Lost) or np.shape(points) == (68, 2)


def test_a_landmark_file_that_ends_its_worker_is_listed_and_the_others_are_used(tmp_path, monkeypatch):
    monkeypatch.setattr(jobs, "work", evil_worker.crash_on_landmark_file)
    (tmp_path / "a.png").write_bytes(image_bytes(face(), "PNG"))
    sources = [Source(tmp_path / "a.png", key, key) for key in "abc"]
    sources[1] = sources[1]._replace(landmark_file=tmp_path / "b.mat")
    parts = list(jobs.crop_all(sources, Cropping("none"), 1))
    assert sorted(source.key for part in parts for source in part.sources) == ["a", "c"]
    ((key, reason),) = (entry for part in parts for entry in part.rejected)
    assert key == "b" and reason.startswith("its process died: a file that cannot be read")


@posix_only
def test_a_circle_of_links_among_the_landmark_files_ends(tmp_path):
    from data_prep.layouts import multipie

    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "001_01_01_051_07.png").write_bytes(image_bytes(face(), "PNG"))
    folder = tmp_path / "labels"
    folder.mkdir()
    (folder / "001_01_01_051_07_lm.mat").write_bytes(matrix(b"pts", 68, 2, NUMBERS))
    (folder / "loop").symlink_to(".")
    (folder / "001_01_01_051_08_lm.mat").symlink_to("001_01_01_051_08_lm.mat")
    subfolder = folder
    for _ in range(600):
        subfolder = subfolder / "d"
        subfolder.mkdir()
    scan = multipie.scan_multipie(tmp_path / "raw", mat_labels=folder)
    assert [source.landmark_file for source in scan.sources] == [folder / "001_01_01_051_07_lm.mat"]


def test_a_huge_frame_number_is_listed(tmp_path):
    big_item = Item("a", Record(np.zeros((64, 64, 3), np.uint8), "s", "smile", frame=10**30, intensity=1.0))
    small_item = Item("b", Record(np.zeros((64, 64, 3), np.uint8), "s", "smile", frame=2**63 - 1, intensity=1.0))
    info = build.build_folder(tmp_path / "out", [big_item, small_item], Plan("folder"))
    assert info["pictures"] == 1 and info["rejected"] == {"frame number of more than 18 digits": 1}
    table = tmp_path / "labels.csv"
    table.write_text(f"subject,take,frame,intensity\ns,t,{'9' * 5000},0.5\n")
    assert len(csv_labels.read_frame_labels(table).remarks) == 1


# Nothing that is read is executed


UNSAFE_MODULES = {"pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "torch", "yaml", "runpy", "code"}
UNSAFE_CALLS = {"eval", "exec", "compile", "__import__", "load_module", "system", "popen"}


def test_nothing_is_unpickled_or_run():
    """No source imports pickle, or calls np.load without allow_pickle=False, with the exception of temporary files that
    the same command wrote."""
    paths = itertools.chain(
        ROOT.glob("*.py"), (ROOT / "facedisent_jax").rglob("*.py"), (ROOT / "data_prep").rglob("*.py")
    )
    uses = set()
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [str(node.module)]
            uses |= {(path.name, name) for name in names if name.split(".")[0] in UNSAFE_MODULES}
            if isinstance(node, ast.Call):
                function = node.func
                if isinstance(function, ast.Name) and function.id in UNSAFE_CALLS:
                    uses.add((path.name, function.id))
                if isinstance(function, ast.Attribute):
                    owner = ast.unparse(function.value)
                    plain = any(ast.unparse(keyword) == "allow_pickle=False" for keyword in node.keywords)
                    unpickles = owner in ("np", "numpy") and function.attr == "load" and not plain
                    if function.attr in ("system", "popen") or unpickles:
                        uses.add((path.name, f"{owner}.{function.attr}"))
                    if owner == "pickle" and function.attr in ("load", "loads"):
                        uses.add((path.name, f"pickle.{function.attr}"))
    # The Beam pipeline reads what its own workers have left beside the data folder.
    assert uses == {("beam_pipeline.py", "pickle"), ("beam_pipeline.py", "pickle.load")}
