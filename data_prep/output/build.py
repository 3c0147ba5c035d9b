"""Sources, or finished records, -> a data folder: crops, splits by subject, shards, prep.json, rejected.csv.

A data folder is built beside its place and moved there when it is whole, so a run that is killed leaves nothing that
looks finished. Imports sources, cropping, splits, spool, beams (if asked for) and facedisent_jax.records.
"""

import contextlib
import csv
import json
import logging
import os
import re
import shutil
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from data_prep.intensity import IntensityMethod
from data_prep.layouts.scan import Rejected, ScanResult, decode_file_name
from data_prep.output import splits
from data_prep.output.spool import CropStore, Item, Spool, left_out, of_crops, split_of
from facedisent_jax.data.reading import read_info
from facedisent_jax.data.record import NAME, PREP_FILE, SPLITS, content_hash
from facedisent_jax.errors import UserError

VERSION = 1
REJECTED_FILE = "rejected.csv"
REMARKS_FILE = "remarks.csv"
SHEET_FILE = "contact_sheet.png"
CURVES_FILE = "intensity_curves.png"
STALE_AFTER_SECONDS = 24 * 3600
"""Seconds after which what a run left unfinished, and nobody has written to since, is taken away."""


class Plan(NamedTuple):
    """What is built, and how.

    source, detector, margin, options: written to prep.json. subject_pattern: makes names of one person equal.
    split_like: a data folder whose people keep their split. training: the people that train, all others being held out.
    """

    source: str
    detector: str = "none"
    margin: float = 0.0
    options: dict[str, Any] = {}
    subject_pattern: str | None = None
    split_seed: int = 0
    split_like: Path | None = None
    overwrite: bool = False
    training: tuple[str, ...] = ()

    @property
    def pattern(self) -> re.Pattern[str] | None:
        return splits.compiled(self.subject_pattern, "--subject-pattern") if self.subject_pattern else None


def from_sources(
    out: Path | str,
    found: ScanResult,
    plan: Plan,
    landmarker: Path | None = None,
    workers: int = 0,
    takes: IntensityMethod | None = None,
    beam: Sequence[str] | None = None,
) -> dict:
    """Crop the pictures of a layout and build; the content of prep.json.

    Cropped in `workers` processes (0: one a core); or by Apache Beam, if its options (NAME=VALUE) are given.
    """
    from data_prep.cropping import crop

    check_out(out, plan.overwrite)
    if not found.sources:
        raise UserError(no_pictures_message(found.rejected, found.left_out))
    pattern = plan.pattern
    if plan.training:  # names of another kind than the list's are said before hours of cropping
        splits.published((splits.canonical(source.subject, pattern) for source in found.sources), plan.training)
    how = crop.Cropping(plan.detector, plan.margin, landmarker, takes)
    if how.needs_mesh:
        from data_prep.cropping import face_mesh

        how = how._replace(landmarker=face_mesh.model_file(landmarker))  # fetched once, not by every worker
        face_mesh.load_mesh(how.landmarker)  # what is missing is said here, before anything begins

    def items() -> Iterator[Item]:
        yield from left_out(found.rejected)
        yield from left_out(found.remarks, remark=True)
        if beam is not None:
            return  # the rest is made by its workers
        with contextlib.closing(crop.crop_all(found.sources, how, workers or cores())) as parts:
            for crops in parts:
                yield from of_crops(crops)

    keeper = Spool if beam is None else partial(beams().Crops, found.sources, how, beams().configured(beam))
    total = len(found.sources) + len(found.rejected)
    return build(out, items(), plan, total, found.left_out, found.notes, keeper)


def beams():
    """The module that needs Apache Beam, which then complains of errors alone."""
    logging.basicConfig(level=logging.ERROR)
    try:
        from data_prep.output import beam_pipeline
    except ModuleNotFoundError as error:
        if error.name != "apache_beam":
            raise
        raise UserError(
            "--beam needs Apache Beam, which is not installed: pip install 'facedisent-jax[beam]'."
        ) from error
    return beam_pipeline


def synthetic(
    out: Path | str,
    subjects: int = 200,
    seed: int = 0,
    stills: bool = True,
    clips: int = 0,
    levels: int = 11,
    split_seed: int = 0,
    workers: int = 0,
    overwrite: bool = False,
) -> dict:
    """The built-in faces as a data folder."""
    from data_prep.synthetic import faces as drawn

    options = dict(subjects=subjects, seed=seed, stills=stills, clips=clips, levels=levels, split_seed=split_seed)
    plan = Plan("synthetic", options=options, split_seed=split_seed, overwrite=overwrite)
    check_out(out, overwrite)
    stream = drawn.records(subjects, seed, stills, clips, levels, workers or cores())
    try:
        return build(out, (Item(key, record) for key, record in stream), plan)
    except ValueError as error:  # a number of subjects, levels or clips that cannot be
        raise UserError(str(error)) from error


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def build(
    out: Path | str,
    items: Iterable[Item],
    plan: Plan,
    total: int | None = None,
    left_out: dict[str, int] | None = None,
    notes: Iterable[str] = (),
    keeper: Callable[[Path, re.Pattern[str] | None], CropStore] = Spool,
) -> dict:
    """Build the data folder `out` from finished pictures and return the content of its prep.json.

    keeper: made with a folder, it keeps the pictures, may have more of them made, and writes the shards.
    """
    out, pattern = check_out(out, plan.overwrite), plan.pattern
    known = {who: split for split, people in _like(plan.split_like).items() for who in people}
    out.parent.mkdir(parents=True, exist_ok=True)
    staging = out.with_name(f"{out.name}.incomplete-{socket.gethostname()}-{os.getpid()}")
    staging.mkdir()
    try:
        with keeper(staging, pattern) as crops:
            people, rejected, remarks, found_by = _collect(crops.passing(items), total)
            if not people:
                raise UserError(no_pictures_message(rejected, left_out or {}))
            known |= splits.published(people, plan.training, plan.split_seed) if plan.training else {}
            placed, more = splits.split_subjects(people, plan.split_seed, known)
            made, digests = crops.write(placed)
        info = {
            "version": VERSION,
            "source": plan.source,
            "detector": plan.detector,
            "margin": plan.margin,
            "options": {name: _plain(value) for name, value in plan.options.items()},
            "splits": {s: sum(n for who, n in people.items() if split_of(who, placed) == s) for s in SPLITS},
            "subjects": {split: sorted(who for who, at in placed.items() if at == split) for split in SPLITS},
            "pictures": people.total(),
            "content": content_hash(digests),
            "found_by": dict(found_by),
            "rejected": dict(Counter(entry.kind for entry in rejected).most_common()),
            "remarks": dict(Counter(entry.kind for entry in remarks).most_common()),
            "left_out": left_out or {},
            "notes": [*notes, *more],
        }
        _list(made / REJECTED_FILE, "reason", rejected)
        if remarks:
            _list(made / REMARKS_FILE, "remark", remarks)
        text = json.dumps(info, indent=1, ensure_ascii=False) + "\n"
        (made / PREP_FILE).write_text(text, encoding="utf-8", errors="backslashreplace")  # as JSON writes it
        _put_in_place(made, out, staging)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return info


def _list(path: Path, what: str, entries: list[Rejected]) -> None:
    with path.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
        csv.writer(file).writerows([("file", what), *sorted(entries)])


def _collect(
    items: Iterable[Item], total: int | None
) -> tuple[Counter[str], list[Rejected], list[Rejected], Counter[str]]:
    """Pictures of each person, what was left out, what was noticed, and who found the faces."""
    from tqdm import tqdm

    people: Counter[str] = Counter()
    rejected: list[Rejected] = []
    remarks: list[Rejected] = []
    found_by: Counter[str] = Counter()
    with tqdm(desc="Cropping" if total else "Drawing", total=total, unit=" pictures") as bar:
        for item in items:
            if item.remark:
                remarks.append(Rejected(item.key, item.reason))
                continue
            bar.update()
            if item.record is None:
                rejected.append(Rejected(item.key, item.reason))
                continue
            people[item.record.subject] += 1
            if item.found_by:
                found_by[item.found_by] += 1
    return people, rejected, remarks, found_by


def _like(folder: Path | None) -> dict[str, list[str]]:
    return read_info(folder)["subjects"] if folder else {}


def no_pictures_message(rejected: list[Rejected], left_out: dict[str, int]) -> str:
    counts = Counter(entry.kind for entry in rejected)
    why = [f"{count} {reason}" for reason, count in counts.most_common(4)]
    why += [f"{count} {kind}" for kind, count in left_out.items()]
    return f"No usable picture was found ({'; '.join(why) or 'the folder holds no file'}): nothing was written."


def _plain(value: Any) -> Any:
    """An option as JSON can hold it."""
    if isinstance(value, Path):
        return str(value)
    return list(value) if isinstance(value, tuple) else value


def check_out(out: Path | str, overwrite: bool) -> Path:
    """The place of the new folder, all links resolved; refused if it holds anything that this run must not replace."""
    out = Path(out).resolve()
    if decode_file_name(str(out)) != str(out):
        raise UserError(f"{decode_file_name(str(out))} is not UTF-8, which TensorFlow needs: choose another name.")
    _clear_remains(out)
    if not out.exists():
        return out
    if not out.is_dir():
        raise UserError(f"{out} is a file; a place for a new folder was expected.")
    entries = sorted(entry.name for entry in out.iterdir())
    if not entries:
        return out
    if PREP_FILE not in entries:
        raise UserError(f"{out} was not made by this command (it holds {entries[0]}): choose another folder.")
    if not overwrite:
        raise UserError(f"{out} is already a data folder: add --overwrite to replace it, or choose another folder.")
    ours = re.compile(
        rf"{NAME}-.*\.tfrecord-.*|dataset_info\.json|features\.json|{PREP_FILE}|{REJECTED_FILE}|{REMARKS_FILE}|{SHEET_FILE}|{CURVES_FILE}"
    )
    if others := [name for name in entries if not ours.fullmatch(name)]:
        raise UserError(f"{out} also holds {others[0]}, which is not ours to replace: move it away first.")
    return out


def _clear_remains(out: Path) -> None:
    """Take away what runs that were killed have left beside `out`; bring back a folder that was being replaced."""
    if not out.parent.is_dir():
        return
    for left in sorted(out.parent.iterdir()):
        named = re.fullmatch(rf"{re.escape(out.name)}\.(incomplete|replaced)-(.+)-(\d+)", left.name)
        if not named:
            continue
        dead = named[2] == socket.gethostname() and not _alive(int(named[3]))
        if not dead and _seconds_since_change(left) < STALE_AFTER_SECONDS:
            continue
        if named[1] == "replaced" and not out.exists():
            left.rename(out)
        else:
            shutil.rmtree(left, ignore_errors=True)


def _seconds_since_change(folder: Path) -> float:
    """A run writes all the time: what it left on another machine is known to be dead by this alone."""
    try:
        return time.time() - max(path.lstat().st_mtime for path in [folder, *folder.rglob("*")])
    except OSError:  # somebody is at work on it
        return 0.0


def _alive(process: int) -> bool:
    """Whether another process has this number; where that cannot be asked, it is taken to be alive."""
    if process == os.getpid():
        return False
    try:
        if os.name == "posix":
            os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _put_in_place(made: Path, out: Path, staging: Path) -> None:
    """Move the finished folder to its place; an older one goes only when the new one is there."""
    if not out.exists() or not any(out.iterdir()):
        made.rename(out)
        return
    old = out.with_name(f"{out.name}.replaced-{socket.gethostname()}-{os.getpid()}")
    try:
        out.rename(old)
        made.rename(out)
    except BaseException:
        if old.exists() and not out.exists():
            old.rename(out)
        raise
    old.rename(staging / "replaced")  # goes with the rest: half of it must not be taken for a folder to bring back
