"""Hostile images, names and files: data preparation never crashes, hangs, fills the memory or writes elsewhere.

What cannot be used is listed with its reason. Nothing that is read is executed: no pickle, no code.
"""

import ast
import csv
import itertools
import os
import re
import shutil
import socket
import struct
import subprocess
import sys
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import evil_worker
import numpy as np
import pytest
from mutants import face, mutants, saved
from tiny_run import ROOT

from data_prep.__main__ import main
from data_prep.cropping import crop, video_io, workers
from data_prep.cropping.crop import Cropping
from data_prep.cropping.image_io import ImageError
from data_prep.cropping.workers import Lost
from data_prep.layouts import csv_labels, mat_landmarks, mug
from data_prep.layouts.scan import Source, decode_file_name, list_images, printable
from data_prep.output import build, staging
from data_prep.output.build import Plan
from data_prep.output.spool import Item
from facedisent_jax.data.reading import read_info, read_split
from facedisent_jax.data.record import Record
from facedisent_jax.errors import UserError

PATTERN = r"(?s)(?P<subject>[^/]*)_(?P<expression>neutral|smile)[^/]*$"
posix = pytest.mark.skipif(os.name != "posix", reason="names, links and FIFOs of POSIX")


class Prepared(NamedTuple):
    """A run of prep over hostile files: its folders, exit code and what it printed; what lay there before and after."""

    raw: Path
    out: Path
    code: int
    printed: str
    before: dict
    after: dict

    @property
    def rejected(self) -> dict[str, str]:
        with (self.out / "rejected.csv").open(newline="", encoding="utf-8") as file:
            rows = list(csv.reader(file))
        assert rows[0] == ["file", "reason"] and len(dict(rows[1:])) == len(rows) - 1
        return dict(rows[1:])


def everything(folder: Path, but: Path) -> dict:
    """Size and time of change of all that lies below `folder`, but for `but` and temporary files."""
    found = {}
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if Path(place, name) not in (but, folder / "tmp")]
        for name in [*folders, *files]:
            status = os.lstat(os.path.join(place, name))
            found[os.path.join(place, name)] = status.st_mode, status.st_size, status.st_mtime_ns
    return found


def prepare(folder: Path, *options: str, seconds: float = 600) -> Prepared:
    """`python -m data_prep folder` over folder/raw, which may not hang."""
    raw, out = folder / "raw", folder / "out"
    command = [sys.executable, "-m", "data_prep", "folder", raw, out, "--pattern", PATTERN, "--workers", "2", *options]
    before = everything(folder, out)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "200", "TMPDIR": str(folder / "tmp")}
    done = subprocess.run(
        command, env=environment, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=seconds
    )
    return Prepared(raw, out, done.returncode, done.stdout.decode(), before, everything(folder, out))


def write_mutants(raw: Path, count: int, seed: int) -> None:
    for name, content in mutants(count, seed):
        (raw / name).write_bytes(content)


EVIL = (
    "new\nline", "tab\tand\rreturn", 'quote"quote', "quote's", "<script>alert(1)<%script>", "<b onload='x'>&amp;",
    "a..", "a\\..\\..\\etc", "$\\frac{$", "%s%n{0}", "-rf", "\x1b[31mred", "a,b;c", "=HYPERLINK(1)", "\u202egnp",
    "smile \U0001f642", "é", "e\u0301", " ", "~", "*?[a]", "|touch pwned", "$(touch pwned)", "nul\\x00", "CON", "#1",
    "http:", "line\u2028end",
)  # fmt: skip


def write_names(raw: Path) -> None:
    """Sound pictures under hostile names; links, FIFOs, devices and sockets under sound ones."""
    content = {expression: saved(face(3, value), "PNG") for expression, value in (("neutral", 0.0), ("smile", 1.0))}
    for name in [*EVIL, "n" * 243]:
        for expression in ("neutral", "smile"):
            (raw / f"{name}_{expression}.png").write_bytes(content[expression])
    (raw / "folder\nof\x1b[2J<i>").mkdir()
    (raw / "folder\nof\x1b[2J<i>" / "x_smile.png").write_bytes(content["smile"])
    Path(os.fsdecode(os.fsencode(raw) + b"/\xff\xfe_smile.png")).write_bytes(content["smile"])
    Path(os.fsdecode(os.fsencode(raw) + b"/\xc3(_neutral.png")).write_bytes(content["neutral"])
    os.mkdir(os.fsencode(raw) + b"/folder\xff")
    (raw / "folder_smile.png").mkdir()
    (raw / "loop_smile.png").symlink_to("pool_smile.png")
    (raw / "pool_smile.png").symlink_to("loop_smile.png")
    (raw / "own_smile.png").symlink_to("own_smile.png")
    (raw / "broken_smile.png").symlink_to("nowhere.png")
    (raw / "zero_smile.png").symlink_to("/dev/zero")
    (raw / "tty_smile.png").symlink_to("/dev/tty")
    (raw / "passwd_smile.png").symlink_to("/etc/passwd")
    for name, target in (("root", "/"), ("up", ".."), ("self", "."), ("deep", "../raw/self/self"), ("void", "void")):
        (raw / name).symlink_to(target)
    (raw / "beside").symlink_to("../beside")
    (raw.parent / "beside").mkdir()
    (raw.parent / "beside" / "b_smile.png").write_bytes(content["smile"])
    (raw.parent / "elsewhere_smile.png").write_bytes(content["smile"])  # not below RAW
    os.mkfifo(raw / "fifo_smile.png")
    with socket.socket(socket.AF_UNIX) as listener:
        here = os.getcwd()
        os.chdir(raw)  # a socket's path is short
        try:
            listener.bind("socket_smile.png")
        finally:
            os.chdir(here)
    (raw / "p_99999999999999999999_smile.png").write_bytes(content["smile"])


NO_FILES = {
    "broken_smile.png": "missing file, or a broken link",
    "fifo_smile.png": "a folder or a device, not a file",
    "loop_smile.png": "a link that leads back to itself",
    "own_smile.png": "a link that leads back to itself",
    "passwd_smile.png": "not an image, or of a type that is not supported",
    "pool_smile.png": "a link that leads back to itself",
    "socket_smile.png": "a folder or a device, not a file",
    "tty_smile.png": "a folder or a device, not a file",
    "zero_smile.png": "a folder or a device, not a file",
}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Prepared:
    folder = tmp_path_factory.mktemp("hostile")
    for name in ("raw", "tmp"):
        (folder / name).mkdir()
    write_mutants(folder / "raw", 160, seed=1)
    write_names(folder / "raw")
    return prepare(folder, "--no-face")


def check(prepared: Prepared, count: int) -> None:
    assert prepared.code == 0, prepared.printed
    assert "Traceback" not in prepared.printed and "Decode" not in prepared.printed
    assert not [key for key, reason in prepared.rejected.items() if re.match("unexpected|its process", reason)]
    assert read_info(prepared.out)["pictures"] + len(prepared.rejected) == count
    assert prepared.before == prepared.after


@posix
def test_every_file_is_used_or_listed_and_nothing_is_written_elsewhere(prepared):
    files, _ = list_images(prepared.raw)
    assert len(files) == 160 + 2 * (len(EVIL) + 1) + 1 + 2 + 1 + 1 + len(NO_FILES)
    check(prepared, len(files))
    assert set(prepared.rejected) <= {key for _, key in files}
    assert {key: prepared.rejected[key] for key in NO_FILES} == NO_FILES
    sound = {f"{name}_{expression}.png" for name in EVIL for expression in ("neutral", "smile")}
    assert not sound & set(prepared.rejected)
    main(["verify", str(prepared.out)])


@posix
def test_a_link_to_a_folder_that_contains_raw_is_not_followed(prepared):
    files, passed_over = list_images(prepared.raw)
    assert passed_over["links to a folder that contains RAW"] == 2  # root, up
    assert not [key for _, key in files if key.startswith(("root/", "up/", "self/", "deep/"))]
    assert ["beside/b_smile.png"] == [key for _, key in files if key.startswith("beside/")]


@posix
def test_hostile_names_are_stored_unchanged_and_printed_escaped(prepared, capsys):
    people = set().union(*(read_info(prepared.out)["subjects"].values()))
    assert {name for name in EVIL if name.strip()} <= people | {" "} and {"\\xff\\xfe", "\\xc3("} <= people
    main(["inspect", str(prepared.out)])
    printed = capsys.readouterr().out
    assert all(letter.isprintable() or letter == "\n" for letter in printed + prepared.printed.replace("\r", "\n"))
    assert "new\\nline:2" in printed and "\\x1b[31mred:2" in printed


@posix
def test_a_data_folder_whose_name_is_not_utf8_is_refused(prepared, tmp_path):
    out = os.fsdecode(os.fsencode(tmp_path) + b"/out\xff")
    with pytest.raises(UserError, match=r"OUT must be a name in UTF-8, .*out\\xff"):
        staging.check_output_folder(out, overwrite=False)


@posix
@pytest.mark.parametrize("name", ["*?[a]{b}", "new\nline", "a b'\"<i>", "-out", "%41", "é" * 100])
def test_a_data_folder_may_have_any_name(tmp_path, name):
    out = tmp_path / name
    record = Record(np.zeros((64, 64, 3), np.uint8), "s", "smile", intensity=1.0)
    build.build_folder(out, [Item("a", record)], Plan("folder", options={"raw": Path("/raw\udcff")}))
    assert len(read_split(out, "train")) == 1 and read_info(out)["options"]["raw"] == "/raw\udcff"
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.slow
def test_two_thousand_damaged_images_are_used_or_listed(tmp_path):
    for name in ("raw", "tmp"):
        (tmp_path / name).mkdir()
    write_mutants(tmp_path / "raw", 2400, seed=0)
    done = prepare(tmp_path, seconds=1200)
    check(done, 2400)
    found = read_info(done.out)
    assert found["pictures"] > 100 and found["rejected"]["damaged image"] > 100


# Workers that die, hang or meet an unexpected error


def test_a_worker_that_dies_or_hangs_is_replaced():
    jobs = iter([1, "crash", 2, "loop", 3, 4])
    time_limit = lambda job: 1.0 if job == "loop" else 60.0  # noqa: E731
    answers = dict(workers.run_jobs(evil_worker.square, lambda: next(jobs, None), 2, time_limit))
    assert answers == {1: 1, "crash": Lost("died"), 2: 4, "loop": Lost("took more than 1 seconds"), 3: 9, 4: 16}


def test_an_image_that_ends_its_worker_is_listed_and_all_others_are_used(monkeypatch):
    monkeypatch.setattr(crop, "_work", evil_worker.crop_to_black)
    keys = [*map(str, range(20)), "crash", *map(str, range(20, 30))]
    sources = [Source(Path(key), key, key) for key in keys]
    used, refused = set(), {}
    for crops in crop.crop_all(sources, Cropping("none"), 2):
        used |= {source.key for source in crops.sources}
        refused |= dict(crops.rejected)
    assert used == set(keys) - {"crash"} and set(refused) == {"crash"}
    assert refused["crash"].startswith("its process died: ")


def test_if_every_worker_dies_the_machine_is_blamed_and_not_the_images(monkeypatch):
    monkeypatch.setattr(crop, "_work", evil_worker.crop_to_black)
    monkeypatch.setattr(crop, "MAX_LOSSES", 1)
    sources = [Source(Path("crash"), "crash", f"{k}") for k in range(40)]
    with pytest.raises(UserError, match="2 worker processes in a row died or hung, .*--workers 1"):
        list(crop.crop_all(sources, Cropping("none"), 2))


def test_an_unexpected_error_costs_only_its_image(tmp_path, monkeypatch):
    (tmp_path / "a.png").write_bytes(saved(face(), "PNG"))
    sources = [Source(tmp_path / "a.png", key, key) for key in ("bad", "good")]
    real = crop._read_source
    monkeypatch.setattr(crop, "_read_source", lambda s, *a, **k: 1 / 0 if s.key == "bad" else real(s, *a, **k))
    crops, _ = crop._work(Cropping("none"), crop._Job([[source] for source in sources]))
    assert [source.key for source in crops.sources] == ["good"]
    assert [tuple(entry) for entry in crops.rejected] == [("bad", "unexpected ZeroDivisionError: division by zero")]


def test_a_process_that_draws_and_dies_is_replaced(monkeypatch):
    from data_prep.synthetic import faces

    real, killed = workers._start, []

    def start(work):
        worker = real(work)
        if not killed:
            killed.append(worker.process.kill())
        return worker

    alone = list(faces.records(3, levels=2))
    monkeypatch.setattr(workers, "_start", start)
    shared = list(faces.records(3, levels=2, workers=2))
    assert killed and [key for key, _ in shared] == [key for key, _ in alone]
    assert all((a.image == b.image).all() for (_, a), (_, b) in zip(alone, shared, strict=True))


# Memory


def png(width: int, height: int, depth: int, colour: int, data: bytes = b"") -> bytes:
    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def zeros(count: int) -> bytes:
    """`count` zero bytes, deflated."""
    packer = zlib.compressobj(9)
    parts = [packer.compress(bytes(min(1 << 20, count - start))) for start in range(0, count, 1 << 20)]
    return b"".join(parts) + packer.flush()


def bombs() -> Iterator[tuple[str, bytes]]:
    """Small files that promise large pictures."""
    yield "header.png", png(65_000, 65_000, 8, 2)
    yield "wide.png", png(2_000_000_000, 1, 8, 0)
    yield "rgba.png", png(12_000, 12_000, 8, 6, zeros(10_000_000))  # 144 million pixels, and four copies of them
    yield "sixteen.png", png(12_000, 12_000, 16, 0, zeros(10_000_000))
    yield "a.gif", b"GIF89a" + struct.pack("<HH", 65_535, 65_535) + saved(face().quantize(8), "GIF")[10:]
    bmp = bytearray(saved(face(), "BMP"))
    bmp[18:26] = struct.pack("<ii", 60_000, 60_000)
    yield "a.bmp", bytes(bmp)
    jpg = bytearray(saved(face(), "JPEG"))
    at = jpg.index(b"\xff\xc0") + 5
    jpg[at : at + 4] = struct.pack(">HH", 65_000, 65_000)
    yield "a.jpg", bytes(jpg)
    tif = bytearray(saved(face(), "TIFF"))
    for tag in (256, 257):
        at = tif.index(struct.pack("<HH", tag, 4))
        tif[at + 8 : at + 12] = struct.pack("<I", 100_000)
    yield "a.tif", bytes(tif)
    yield "a.ppm", b"P6 100000 100000 255\n" + bytes(100)
    yield "a.pgm", b"P5 12000 12000 65535\n" + bytes(100)
    jp2 = bytearray(saved(face(), "JPEG2000"))
    at = jp2.index(b"ihdr") + 4
    jp2[at : at + 8] = struct.pack(">II", 12_000, 12_000)
    yield "a.jp2", bytes(jp2)
    webp = bytearray(saved(face(), "WEBP"))
    at = webp.index(b"\x9d\x01\x2a") + 3
    webp[at : at + 4] = struct.pack("<HH", 16_383, 16_383)
    yield "a.webp", bytes(webp)


READ_WITHIN = """
import resource, sys
from pathlib import Path
from data_prep.cropping.image_io import ImageError, read_image
in_use = int(next(line for line in open("/proc/self/status") if line.startswith("VmSize")).split()[1]) * 1024
resource.setrlimit(resource.RLIMIT_AS, (in_use + int(sys.argv[2]),) * 2)
for path in sorted(Path(sys.argv[1]).iterdir()):
    try:
        print(path.name, read_image(path).size)
    except ImageError as error:
        print(path.name, error)
"""


def read_within(folder: Path, memory: int) -> dict[str, str]:
    """What reading each picture of a folder comes to in a process that may take `memory` bytes more than it has."""
    command = [sys.executable, "-c", READ_WITHIN, str(folder), str(memory)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return dict(line.split(" ", 1) for line in done.stdout.splitlines())


@pytest.mark.skipif(sys.platform != "linux", reason="limits the memory by Linux's means")
def test_bombs_are_refused_before_they_take_memory(tmp_path):
    bomb_files = dict(bombs())
    for name, content in bomb_files.items():
        (tmp_path / name).write_bytes(content)
    found = read_within(tmp_path, 300_000_000)
    assert set(found) == set(bomb_files)
    for name, outcome in found.items():
        assert re.fullmatch(r"more than (150|50) million pixels|damaged image", outcome), (name, outcome)
    refused = [name for name, outcome in found.items() if "million" in outcome]
    assert len(refused) >= len(found) - 2, found


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="limits the memory by Linux's means")
def test_reading_the_largest_images_takes_little_more_than_a_gigabyte(tmp_path):
    from PIL import Image

    (tmp_path / "rgb.png").write_bytes(png(12_200, 12_200, 8, 2, zeros(12_200 * 36_601)))
    (tmp_path / "rgba.png").write_bytes(png(7_000, 7_000, 8, 6, zeros(7_000 * 28_001)))
    (tmp_path / "sixteen.png").write_bytes(png(7_000, 7_000, 16, 0, zeros(7_000 * 14_001)))
    for mode in ("F", "I", "LA"):
        Image.new(mode, (7_000, 7_000)).save(tmp_path / f"{mode}.tif", compression="tiff_deflate")
    for kind in ("webp", "jp2"):
        Image.new("RGB", (7_000, 7_000)).save(tmp_path / f"a.{kind}")
    found = read_within(tmp_path, 1_300_000_000)
    assert set(found.values()) == {"(7000, 7000)", "(12200, 12200)"}, found


# Files beside the images


def matrix(name: bytes, rows: int, columns: int, numbers: bytes, kind: int = 6, claimed: int | None = None) -> bytes:
    """A MAT 5 file with one compressed matrix of doubles. kind: class (6 double, 1 cell); claimed: bytes."""
    body = struct.pack("<IIII", 6, 8, kind, 0) + struct.pack("<IIii", 5, 8, rows, columns)
    body += struct.pack("<II", 1, len(name)) + name.ljust(-(-len(name) // 8) * 8, b"\0")
    body += (struct.pack("<II", 9, len(numbers) if claimed is None else claimed) if kind == 6 else b"") + numbers
    packed = zlib.compress(struct.pack("<II", 14, len(body)) + body, 9)
    return (
        b"MATLAB 5.0 MAT-file".ljust(124)
        + struct.pack("<HH", 0x0100, 0x4D49)
        + struct.pack("<II", 15, len(packed))
        + packed
    )


def nested_cells(depth: int) -> bytes:
    inner = b""
    for _ in range(depth):
        body = struct.pack("<IIII", 6, 8, 1, 0) + struct.pack("<IIii", 5, 8, 1, 1) + struct.pack("<II", 1, 0) + inner
        inner = struct.pack("<II", 14, len(body)) + body
    return inner


POINTS = np.random.default_rng(0).uniform(0, 640, (68, 2))
NUMBERS = POINTS.T.astype("<f8").tobytes()


def test_a_sound_landmark_file_is_read(tmp_path):
    (tmp_path / "a.mat").write_bytes(matrix(b"pts", 68, 2, NUMBERS))
    found = mat_landmarks.read_mat_landmarks(tmp_path / "a.mat")
    assert found is not None and (found == POINTS).all()


MATS = {
    "many zeros": matrix(b"pts", 4_000_000, 2, bytes(64_000_000)),
    "zeros in place of the points": matrix(b"pts", 68, 2, bytes(64_000_000)),
    "more promised than there is": matrix(b"pts", 68, 2, NUMBERS, claimed=2**31 - 16),
    "cells in cells": matrix(b"pts", 68, 2, nested_cells(2_000), kind=1),
    "too large": matrix(b"pts", 68, 2, NUMBERS) + bytes(25_000_000),
    "nothing": b"",
    "text": b"pts = [1 2 3];" * 20,
}


@posix
@pytest.mark.parametrize("kind", MATS)
def test_hostile_landmark_files_are_not_read(tmp_path, kind):
    import resource

    (tmp_path / "a.mat").write_bytes(MATS[kind])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert mat_landmarks.read_mat_landmarks(tmp_path / "a.mat") is None
    if sys.platform == "linux":  # in KiB
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < 300_000


@posix
def test_a_fifo_named_like_a_landmark_file_does_not_block(tmp_path):
    code = "import sys, pathlib; from data_prep.layouts.mat_landmarks import read_mat_landmarks as read; "
    code += "print(read(pathlib.Path(sys.argv[1])))"
    os.mkfifo(tmp_path / "a.mat")
    command = [sys.executable, "-c", code, str(tmp_path / "a.mat")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.stdout.strip() == "None", done.stderr


def damaged_landmark_files(folder: Path, numbers: Iterable[int]) -> Iterator[Path]:
    sound = matrix(b"pts", 68, 2, NUMBERS)
    unpacked = sound[:128] + zlib.decompress(sound[136:])
    for number in numbers:
        rng = np.random.default_rng(number)
        content = bytearray(unpacked if number % 2 else sound)
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
    monkeypatch.setattr(crop, "_work", evil_worker.crash_on_landmark_file)
    (tmp_path / "a.png").write_bytes(saved(face(), "PNG"))
    sources = [Source(tmp_path / "a.png", key, key) for key in "abc"]
    sources[1] = sources[1]._replace(landmark_file=tmp_path / "b.mat")
    parts = list(crop.crop_all(sources, Cropping("none"), 1))
    assert sorted(source.key for part in parts for source in part.sources) == ["a", "c"]
    ((key, reason),) = (entry for part in parts for entry in part.rejected)
    assert key == "b" and reason.startswith("its process died: a file that cannot be read")


@posix
def test_a_circle_of_links_among_the_landmark_files_ends(tmp_path):
    from data_prep.layouts import multipie

    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "001_01_01_051_07.png").write_bytes(saved(face(), "PNG"))
    place = tmp_path / "labels"
    place.mkdir()
    (place / "001_01_01_051_07_lm.mat").write_bytes(matrix(b"pts", 68, 2, NUMBERS))
    (place / "loop").symlink_to(".")
    (place / "001_01_01_051_08_lm.mat").symlink_to("001_01_01_051_08_lm.mat")
    deep = place
    for _ in range(600):
        deep = deep / "d"
        deep.mkdir()
    found = multipie.scan_multipie(tmp_path / "raw", mat_labels=place)
    assert [source.landmark_file for source in found.sources] == [place / "001_01_01_051_07_lm.mat"]


def test_a_huge_frame_number_is_listed(tmp_path):
    big = Item("a", Record(np.zeros((64, 64, 3), np.uint8), "s", "smile", frame=10**30, intensity=1.0))
    small = Item("b", Record(np.zeros((64, 64, 3), np.uint8), "s", "smile", frame=2**63 - 1, intensity=1.0))
    info = build.build_folder(tmp_path / "out", [big, small], Plan("folder"))
    assert info["pictures"] == 1 and info["rejected"] == {"frame number of more than 18 digits": 1}
    table = tmp_path / "labels.csv"
    table.write_text(f"subject,take,frame,intensity\ns,t,{'9' * 5000},0.5\n")
    assert len(csv_labels.read_frame_labels(table).remarks) == 1


@posix
def test_a_subject_whose_folder_is_not_utf8_is_escaped(tmp_path):
    take = os.fsencode(tmp_path) + b"/\xffanna/happiness/take000"
    os.makedirs(take)
    Path(os.fsdecode(take), "img_0001.jpg").write_bytes(saved(face(), "JPEG"))
    found = mug.scan_mug(Path(os.fsdecode(os.path.dirname(take))))
    assert [source.subject for source in found.sources] == ["\\xffanna"]


@posix
def test_a_playlist_named_like_a_video_opens_nothing(tmp_path):
    import cv2

    frames = [np.asarray(face(1, level)) for level in (0.0, 0.5, 1.0)]
    writer = cv2.VideoWriter(str(tmp_path / "real.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 19, (112, 112))  # type: ignore
    for frame in frames:
        writer.write(np.ascontiguousarray(frame))
    writer.release()
    assert video_io.count_frames(tmp_path / "real.avi") == 3
    texts = {
        "concat.avi": "ffconcat version 1.0\nfile real.avi\n",
        "list.mp4": f"#EXTM3U\n#EXTINF:1,\n{tmp_path}/real.avi\n#EXT-X-ENDLIST\n",
        "empty.avi": "",
        "fifo.avi": None,
        "\udcff.avi": "x",
    }
    for name, text in texts.items():
        path = tmp_path / name
        os.mkfifo(path) if text is None else path.write_text(text)
        with pytest.raises(ImageError):
            video_io.count_frames(path)
    shutil.copy(tmp_path / "real.avi", tmp_path / "\udcfe.avi")
    with pytest.raises(ImageError, match="its name is not UTF-8"):
        video_io.count_frames(tmp_path / "\udcfe.avi")


def test_printable_text_has_no_control_characters():
    assert printable("a\nb\x1b[1m\udcff\u202eä 🙂") == "a\\nb\\x1b[1m\\udcff\\u202eä 🙂"
    assert decode_file_name("a\udcff") == "a\\xff"


# Nothing that is read is executed


UNSAFE_MODULES = {"pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "torch", "yaml", "runpy", "code"}
UNSAFE_CALLS = {"eval", "exec", "compile", "__import__", "load_module", "system", "popen"}


def test_nothing_is_unpickled_or_run():
    """No source imports pickle or calls np.load, with the exception of temporary files that the same command wrote."""
    places = itertools.chain(
        ROOT.glob("*.py"), (ROOT / "facedisent_jax").rglob("*.py"), (ROOT / "data_prep").rglob("*.py")
    )
    found = set()
    for path in places:
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [str(node.module)]
            found |= {(path.name, name) for name in names if name.split(".")[0] in UNSAFE_MODULES}
            if isinstance(node, ast.Call):
                called = node.func
                if isinstance(called, ast.Name) and called.id in UNSAFE_CALLS:
                    found.add((path.name, called.id))
                if isinstance(called, ast.Attribute):
                    owner = ast.unparse(called.value)
                    if called.attr in ("system", "popen") or (owner in ("np", "numpy") and called.attr == "load"):
                        found.add((path.name, f"{owner}.{called.attr}"))
                    if owner == "pickle" and called.attr in ("load", "loads"):
                        found.add((path.name, f"pickle.{called.attr}"))
    # The Beam pipeline reads what its own workers have left beside the data folder.
    assert found == {("beam_pipeline.py", "pickle"), ("beam_pipeline.py", "pickle.load")}
