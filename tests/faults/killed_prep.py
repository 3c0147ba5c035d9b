"""Kills processes that build a data folder, one before each of their steps in the file system, and checks what is left.

`python killed_prep.py FOLDER SCENARIO STRIDE [tensorflow]` prints as JSON how many were killed and what was wrong. It
is a program of its own because it forks, which is safe only before TensorFlow has started threads. Without
`tensorflow` the shards are plain files, and a build takes milliseconds.
"""

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from data_prep.output import writer
from data_prep.output.build import Plan, build_folder
from data_prep.output.spool import Item
from facedisent_jax.data.record import NAME, Record
from facedisent_jax.environment import quiet_tensorflow
from facedisent_jax.errors import UserError

STEPS = {"open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.listdir", "os.scandir", "shutil.rmtree"}
"""Audit events that are steps in the file system. A process is killed before it takes the step."""

OK, FAILED, ALREADY_THERE, OTHER_ERROR = 0, 1, 3, 4  # exit codes of a build


def items(grey: int) -> list[Item]:
    """Two images, neutral and smile, of each of four people."""
    image = np.full((64, 64, 3), grey, np.uint8)
    return [
        Item(f"s{subject}{intensity}", Record(image, f"s{subject}", expression, intensity=intensity))
        for subject in range(4)
        for expression, intensity in (("neutral", 0.0), ("smile", 1.0))
    ]


def write_plain_files(folder: Path, splits) -> Path:
    """A replacement for `writer.write_shards`."""
    out = folder / NAME / writer.VERSION
    out.mkdir(parents=True)
    for split, stream in splits.items():
        with (out / f"{NAME}-{split}.tfrecord-00000-of-00001").open("wb") as file:
            for key, record in stream():
                file.write(key.encode() + record.image.tobytes())
    for name in ("dataset_info.json", "features.json"):
        (out / name).write_text("{}")
    return out


def kill_before(step: int, folder: Path) -> None:
    """Have this process killed before its step number `step` below `folder`."""
    steps_taken = 0

    def watch(event: str, arguments: tuple) -> None:
        nonlocal steps_taken
        if event in STEPS and str(arguments[0]).startswith(str(folder)):
            steps_taken += 1
            if steps_taken == step:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)


def run_in_child(work: Callable[[], object]) -> int:
    """The exit code of a process that does `work`; negative if a signal ended it."""
    child = os.fork()
    if child == 0:
        sys.stderr = open(os.devnull, "w")
        code = FAILED
        try:
            work()
            code = OK
        except UserError as error:
            code = ALREADY_THERE if "is already a data folder" in str(error) else OTHER_ERROR
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()} if folder.exists() else {}


def main(folder: Path, scenario: str, stride: int) -> None:
    """Scenarios: "first" (OUT does not exist), "empty" (OUT is an empty folder), "overwrite" (OUT is replaced)."""
    out, faults, kills, step = folder / "parent" / "out", [], 0, 1
    overwrite = scenario == "overwrite"
    for name, grey in (("old", 10), ("new", 200)):
        assert run_in_child(lambda: build_folder(folder / name, items(grey), Plan("folder"))) == OK, name  # noqa: B023
    old_content, new_content = content(folder / "old"), content(folder / "new")

    def build_new(overwrite: bool, kill_at: int = 0) -> None:
        if kill_at:
            kill_before(kill_at, out.parent)
        build_folder(out, items(200), Plan("folder", overwrite=overwrite))

    while True:
        shutil.rmtree(out.parent, ignore_errors=True)
        out.parent.mkdir()
        if overwrite:
            shutil.copytree(folder / "old", out)
        elif scenario == "empty":
            out.mkdir()
        code = run_in_child(lambda: build_new(overwrite, step))  # noqa: B023
        out_content = content(out)
        if out_content and out_content not in (old_content, new_content):
            faults.append(f"step {step}: OUT is half a folder: {sorted(out_content)}")
        set_aside = [content(path) for path in out.parent.glob("out.replaced-*")]
        if overwrite and out_content not in (old_content, new_content) and old_content not in set_aside:
            faults.append(f"step {step}: the finished folder is lost")
        if any(folder_content != old_content for folder_content in set_aside):
            faults.append(f"step {step}: half a folder would be restored")
        next_code = run_in_child(lambda: build_new(False))
        if next_code != (ALREADY_THERE if overwrite or out_content == new_content else OK):
            faults.append(f"step {step}: the next run without --overwrite ended with {next_code}")
        if run_in_child(lambda: build_new(True)) != OK or content(out) != new_content:
            faults.append(f"step {step}: the next run with --overwrite made no folder")
        if remains := [path.name for path in out.parent.iterdir() if path != out]:
            faults.append(f"step {step}: remains {remains}")
        if code == OK:
            break
        if code != -signal.SIGKILL:
            faults.append(f"step {step}: ended with {code}")
        kills, step = kills + 1, step + stride
    print(json.dumps({"kills": kills, "wrong": faults}))


if __name__ == "__main__":
    if "tensorflow" not in sys.argv:
        writer.write_shards = write_plain_files
    else:
        quiet_tensorflow()
        import tensorflow  # noqa: F401  # once, before the processes begin
        import tensorflow_datasets  # noqa: F401
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
