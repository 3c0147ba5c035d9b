"""Builds a data folder in processes that are killed at each of their steps in the file system; what is left?

`python killed_prep.py FOLDER SCENARIO STRIDE [tensorflow]` prints, as JSON, how many were killed and what was wrong. A
program of its own, as processes with TensorFlow's threads are not to be forked: it forks before there are any. Without
`tensorflow`, the shards are plain files, which makes a build a matter of milliseconds.
"""

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from data_prep.output import build, writer
from data_prep.output.build import Plan
from data_prep.output.spool import Item
from facedisent_jax.data.record import NAME, Record
from facedisent_jax.errors import UserError

STEPS = {"open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.listdir", "os.scandir", "shutil.rmtree"}
"""Audit events that are steps in the file system; a process is killed before it takes the step."""


def items(shade: int) -> list[Item]:
    image = np.full((64, 64, 3), shade, np.uint8)
    known = [(f"s{who}", ("neutral", "smile")[k], float(k)) for who in range(4) for k in (0, 1)]
    return [Item(f"{who}{y}", Record(image, who, expression, intensity=y)) for who, expression, y in known]


def plain_files(folder: Path, splits) -> Path:
    """In place of shards.write."""
    made = folder / NAME / writer.VERSION
    made.mkdir(parents=True)
    for split, stream in splits.items():
        with (made / f"{NAME}-{split}.tfrecord-00000-of-00001").open("wb") as file:
            for key, record in stream():
                file.write(key.encode() + record.image.tobytes())
    for name in ("dataset_info.json", "features.json"):
        (made / name).write_text("{}")
    return made


def killed_at(folder: Path, step: int) -> None:
    """From now on, this process is killed before its step number `step` below `folder`."""
    taken = 0

    def watch(event: str, arguments: tuple) -> None:
        nonlocal taken
        if event in STEPS and str(arguments[0]).startswith(str(folder)):
            taken += 1
            if taken == step:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)


def in_child(work: Callable[[], None]) -> int:
    """The exit code of a process that does `work`; negative if a signal ended it."""
    child = os.fork()
    if child == 0:
        sys.stderr = open(os.devnull, "w")
        code = 1
        try:
            work()
            code = 0
        except UserError as error:
            code = 3 if "is already a data folder" in str(error) else 4
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()} if folder.exists() else {}


def main(folder: Path, scenario: str, stride: int) -> None:
    out, wrong, kills, step = folder / "place" / "out", [], 0, 1
    replace = scenario == "overwrite"
    for name, shade in (("old", 10), ("new", 200)):
        assert in_child(lambda: build.build(folder / name, items(shade), Plan("folder"))) == 0, name  # noqa: B023
    old, new = content(folder / "old"), content(folder / "new")

    def make(overwrite: bool, kill: int = 0) -> None:
        if kill:
            killed_at(out.parent, kill)
        build.build(out, items(200), Plan("folder", overwrite=overwrite))

    while True:
        shutil.rmtree(out.parent, ignore_errors=True)
        out.parent.mkdir()
        if replace:
            shutil.copytree(folder / "old", out)
        elif scenario == "empty":
            out.mkdir()
        ended = in_child(lambda: make(replace, step))  # noqa: B023
        there = content(out)
        if there and there not in (old, new):
            wrong.append(f"step {step}: half a folder is in place: {sorted(there)}")
        kept = [content(path) for path in out.parent.glob("out.replaced-*")]
        if replace and there not in (old, new) and old not in kept:
            wrong.append(f"step {step}: what was finished is lost")
        if any(one != old for one in kept):
            wrong.append(f"step {step}: half a folder is kept to be brought back")
        again = in_child(lambda: make(False))
        if again != (3 if replace or there == new else 0):
            wrong.append(f"step {step}: the next run without --overwrite ended with {again}")
        if in_child(lambda: make(True)) != 0 or content(out) != new:
            wrong.append(f"step {step}: the next run with --overwrite made no folder")
        if left := [path.name for path in out.parent.iterdir() if path != out]:
            wrong.append(f"step {step}: remains {left}")
        if ended == 0:
            break
        if ended != -signal.SIGKILL:
            wrong.append(f"step {step}: ended with {ended}")
        kills, step = kills + 1, step + stride
    print(json.dumps({"kills": kills, "wrong": wrong}))


if __name__ == "__main__":
    if "tensorflow" not in sys.argv:
        writer.write = plain_files
    else:
        writer.quiet_tensorflow()
        import tensorflow  # noqa: F401  # once, before the processes begin
        import tensorflow_datasets  # noqa: F401
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
