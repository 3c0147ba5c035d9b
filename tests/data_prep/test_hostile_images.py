"""Hostile images, videos and names: data preparation never crashes, hangs, fills the memory or writes elsewhere.

What cannot be used is listed with its reason.
"""

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
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from mutants import face, image_bytes, mutants
from prep_helpers import posix_only
from tiny_run import ROOT

from data_prep.__main__ import main
from data_prep.cropping import video_io
from data_prep.cropping.image_io import ImageError
from data_prep.layouts import mug
from data_prep.layouts.scan import decode_file_name, list_images, plain_name, printable
from data_prep.output import build, staging
from data_prep.output.build import Plan
from data_prep.output.spool import Item
from facedisent_jax.data.reading import read_info, read_split
from facedisent_jax.data.record import Record
from facedisent_jax.errors import UserError

PATTERN = r"(?s)(?P<subject>[^/]*)_(?P<expression>neutral|smile)[^/]*$"


class PrepRun(NamedTuple):
    """A run of prep over hostile files: its folders, exit code and what it printed; what lay there before and after."""

    raw: Path
    out: Path
    code: int
    output: str
    states_before: dict
    states_after: dict

    @property
    def rejected(self) -> dict[str, str]:
        with (self.out / "rejected.csv").open(newline="", encoding="utf-8") as file:
            rows = list(csv.reader(file))
        assert rows[0] == ["file", "reason"] and len(dict(rows[1:])) == len(rows) - 1
        return dict(rows[1:])


def file_states(folder: Path, but: Path) -> dict:
    """Size and time of change of all that lies below `folder`, but for `but` and temporary files."""
    states = {}
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if Path(parent, name) not in (but, folder / "tmp")]
        for name in [*folders, *files]:
            status = os.lstat(os.path.join(parent, name))
            states[os.path.join(parent, name)] = status.st_mode, status.st_size, status.st_mtime_ns
    return states


def prepare(folder: Path, *options: str, seconds: float = 600) -> PrepRun:
    """`python -m data_prep folder` over folder/raw, which may not hang."""
    raw, out = folder / "raw", folder / "out"
    command = [sys.executable, "-m", "data_prep", "folder", raw, out, "--pattern", PATTERN, "--workers", "2", *options]
    states_before = file_states(folder, out)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "200", "TMPDIR": str(folder / "tmp")}
    result = subprocess.run(
        command, env=environment, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=seconds
    )
    return PrepRun(raw, out, result.returncode, result.stdout.decode(), states_before, file_states(folder, out))


def write_mutants(raw: Path, count: int, seed: int) -> None:
    for name, content in mutants(count, seed):
        (raw / name).write_bytes(content)


EVIL_NAMES = (
    "new\nline", "tab\tand\rreturn", 'quote"quote', "quote's", "<script>alert(1)<%script>", "<b onload='x'>&amp;",
    "a..", "a\\..\\..\\etc", "$\\frac{$", "%s%n{0}", "-rf", "\x1b[31mred", "a,b;c", "=HYPERLINK(1)", "\u202egnp",
    "smile \U0001f642", "é", "e\u0301", " ", "~", "*?[a]", "|touch pwned", "$(touch pwned)", "nul\\x00", "CON", "#1",
    "http:", "line\u2028end",
)  # fmt: skip


def write_names(raw: Path) -> None:
    """Sound pictures under hostile names; links, FIFOs, devices and sockets under sound ones."""
    seeds = itertools.count(3)  # another person each time: of equal images one is used

    def content(expression: str) -> bytes:
        return image_bytes(face(next(seeds), float(expression == "smile")), "PNG")

    for name in [*EVIL_NAMES, "n" * 243]:
        for expression in ("neutral", "smile"):
            (raw / f"{name}_{expression}.png").write_bytes(content(expression))
    (raw / "folder\nof\x1b[2J<i>").mkdir()
    (raw / "folder\nof\x1b[2J<i>" / "x_smile.png").write_bytes(content("smile"))
    Path(os.fsdecode(os.fsencode(raw) + b"/\xff\xfe_smile.png")).write_bytes(content("smile"))
    Path(os.fsdecode(os.fsencode(raw) + b"/\xc3(_neutral.png")).write_bytes(content("neutral"))
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
    (raw.parent / "beside" / "b_smile.png").write_bytes(content("smile"))
    (raw.parent / "elsewhere_smile.png").write_bytes(content("smile"))  # not below RAW
    os.mkfifo(raw / "fifo_smile.png")
    with socket.socket(socket.AF_UNIX) as listener:
        working_folder = os.getcwd()
        os.chdir(raw)  # a socket's path is short
        try:
            listener.bind("socket_smile.png")
        finally:
            os.chdir(working_folder)
    (raw / "p_99999999999999999999_smile.png").write_bytes(content("smile"))


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
def prep_run(tmp_path_factory) -> PrepRun:
    folder = tmp_path_factory.mktemp("hostile")
    for name in ("raw", "tmp"):
        (folder / name).mkdir()
    write_mutants(folder / "raw", 160, seed=1)
    write_names(folder / "raw")
    return prepare(folder, "--no-face")


def check(prep_run: PrepRun, count: int) -> None:
    assert prep_run.code == 0, prep_run.output
    assert "Traceback" not in prep_run.output and "Decode" not in prep_run.output
    assert not [key for key, reason in prep_run.rejected.items() if re.match("unexpected|its process", reason)]
    assert read_info(prep_run.out)["pictures"] + len(prep_run.rejected) == count
    assert prep_run.states_before == prep_run.states_after


@pytest.mark.slow
@posix_only
def test_every_file_is_used_or_listed_and_nothing_is_written_elsewhere(prep_run):
    files, _ = list_images(prep_run.raw)
    assert len(files) == 160 + 2 * (len(EVIL_NAMES) + 1) + 1 + 2 + 1 + 1 + len(NO_FILES)
    check(prep_run, len(files))
    assert set(prep_run.rejected) <= {key for _, key in files}
    assert {key: prep_run.rejected[key] for key in NO_FILES} == NO_FILES
    sound_names = {f"{name}_{expression}.png" for name in EVIL_NAMES for expression in ("neutral", "smile")}
    assert not sound_names & set(prep_run.rejected)
    main(["verify", str(prep_run.out)])


@posix_only
def test_a_link_to_a_folder_that_contains_raw_is_not_followed(prep_run):
    files, left_out = list_images(prep_run.raw)
    assert left_out["links to a folder that contains RAW"] == 2  # root, up
    assert not [key for _, key in files if key.startswith(("root/", "up/", "self/", "deep/"))]
    assert ["beside/b_smile.png"] == [key for _, key in files if key.startswith("beside/")]


@posix_only
def test_hostile_names_are_stored_and_printed_escaped(prep_run, capsys):
    people = set().union(*(read_info(prep_run.out)["subjects"].values()))
    assert {plain_name(name) for name in EVIL_NAMES} <= people | {""} and {"\\xff\\xfe", "\\xc3("} <= people
    main(["inspect", str(prep_run.out)])
    output = capsys.readouterr().out
    assert all(letter.isprintable() or letter == "\n" for letter in output + prep_run.output.replace("\r", "\n"))
    assert "new\\nline:2" in output and "\\x1b[31mred:2" in output


@posix_only
def test_a_data_folder_whose_name_is_not_utf8_is_refused(prep_run, tmp_path):
    out = os.fsdecode(os.fsencode(tmp_path) + b"/out\xff")
    with pytest.raises(UserError, match=r"OUT must be a name in UTF-8, .*out\\xff"):
        staging.check_output_folder(out, overwrite=False)


@posix_only
@pytest.mark.parametrize("name", ["*?[a]{b}", "new\nline", "a b'\"<i>", "-out", "%41", "é" * 100])
def test_a_data_folder_may_have_any_name(tmp_path, name):
    out = tmp_path / name
    record = Record(np.zeros((64, 64, 3), np.uint8), "s", "smile", intensity=1.0)
    build.build_folder(out, [Item("a", record)], Plan("folder", options={"raw": Path("/raw\udcff")}))
    assert len(read_split(out, "train")) == 1 and read_info(out)["options"]["raw"] == "/raw\udcff"
    assert [path.name for path in tmp_path.iterdir()] == [name]


@posix_only
def test_a_subject_whose_folder_is_not_utf8_is_escaped(tmp_path):
    take = os.fsencode(tmp_path) + b"/\xffanna/happiness/take000"
    os.makedirs(take)
    Path(os.fsdecode(take), "img_0001.jpg").write_bytes(image_bytes(face(), "JPEG"))
    scan = mug.scan_mug(Path(os.fsdecode(os.path.dirname(take))))
    assert [source.subject for source in scan.sources] == ["\\xffanna"]


def test_printable_text_has_no_control_characters():
    assert printable("a\nb\x1b[1m\udcff\u202eä 🙂") == "a\\nb\\x1b[1m\\udcff\\u202eä 🙂"
    assert decode_file_name("a\udcff") == "a\\xff"


# Damaged images and videos


@pytest.mark.slow
@pytest.mark.long
def test_two_thousand_damaged_images_are_used_or_listed(tmp_path):
    for name in ("raw", "tmp"):
        (tmp_path / name).mkdir()
    write_mutants(tmp_path / "raw", 2400, seed=0)
    prep_run = prepare(tmp_path, seconds=1200)
    check(prep_run, 2400)
    info = read_info(prep_run.out)
    assert info["pictures"] > 100 and info["rejected"]["damaged image"] > 100


@posix_only
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
    yield "a.gif", b"GIF89a" + struct.pack("<HH", 65_535, 65_535) + image_bytes(face().quantize(8), "GIF")[10:]
    bmp = bytearray(image_bytes(face(), "BMP"))
    bmp[18:26] = struct.pack("<ii", 60_000, 60_000)
    yield "a.bmp", bytes(bmp)
    jpg = bytearray(image_bytes(face(), "JPEG"))
    at = jpg.index(b"\xff\xc0") + 5
    jpg[at : at + 4] = struct.pack(">HH", 65_000, 65_000)
    yield "a.jpg", bytes(jpg)
    tif = bytearray(image_bytes(face(), "TIFF"))
    for tag in (256, 257):
        at = tif.index(struct.pack("<HH", tag, 4))
        tif[at + 8 : at + 12] = struct.pack("<I", 100_000)
    yield "a.tif", bytes(tif)
    yield "a.ppm", b"P6 100000 100000 255\n" + bytes(100)
    yield "a.pgm", b"P5 12000 12000 65535\n" + bytes(100)
    jp2 = bytearray(image_bytes(face(), "JPEG2000"))
    at = jp2.index(b"ihdr") + 4
    jp2[at : at + 8] = struct.pack(">II", 12_000, 12_000)
    yield "a.jp2", bytes(jp2)
    webp = bytearray(image_bytes(face(), "WEBP"))
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
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, result.stderr
    return dict(line.split(" ", 1) for line in result.stdout.splitlines())


@pytest.mark.skipif(sys.platform != "linux", reason="limits the memory by Linux's means")
def test_bombs_are_refused_before_they_take_memory(tmp_path):
    bomb_files = dict(bombs())
    for name, content in bomb_files.items():
        (tmp_path / name).write_bytes(content)
    outcomes = read_within(tmp_path, 300_000_000)
    assert set(outcomes) == set(bomb_files)
    for name, outcome in outcomes.items():
        assert re.fullmatch(r"more than (150|50) million pixels|damaged image", outcome), (name, outcome)
    refused_names = [name for name, outcome in outcomes.items() if "million" in outcome]
    assert len(refused_names) >= len(outcomes) - 2, outcomes


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
    outcomes = read_within(tmp_path, 1_300_000_000)
    assert set(outcomes.values()) == {"(7000, 7000)", "(12200, 12200)"}, outcomes
