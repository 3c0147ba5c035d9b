"""Builds a data folder: crops, splits by subject, shards, prep.json, rejected.csv and remarks.csv."""

import contextlib
import csv
import json
import logging
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from data_prep.intensity import IntensityMethod
from data_prep.layouts.scan import Rejected, ScanResult
from data_prep.output import splits, staging
from data_prep.output.spool import CropStore, Item, Selection, Spool, items_from_crops, items_from_reasons
from facedisent_jax.data.factors import write_factors
from facedisent_jax.data.reading import read_info
from facedisent_jax.data.record import PREP_FILE, SPLITS, content_hash
from facedisent_jax.errors import UserError

VERSION = 1  # of prep.json


class Plan(NamedTuple):
    """What a data folder is made from, and how.

    source, detector, margin, options: written to prep.json.
    subject_pattern: regular expression that maps the names of one person to a single name.
    split_like: data folder whose people keep their split.
    training_subjects: if any, only these are for training.
    """

    source: str
    detector: str = "none"
    margin: float = 0.0
    options: dict[str, Any] = {}
    subject_pattern: str | None = None
    split_seed: int = 0
    split_like: Path | None = None
    overwrite: bool = False
    training_subjects: tuple[str, ...] = ()

    @property
    def compiled_pattern(self) -> re.Pattern[str] | None:
        return splits.compile_pattern(self.subject_pattern, "--subject-pattern") if self.subject_pattern else None


def build_from_scan(
    out: Path | str,
    scan: ScanResult,
    plan: Plan,
    landmarker: Path | None = None,
    workers: int = 0,
    intensity_method: IntensityMethod | None = None,
    beam_options: Sequence[str] | None = None,
) -> dict:
    """Crop the pictures that a layout has found and build a data folder. Returns the content of its prep.json.

    workers:          number of processes that crop; 0 is one for each core.
    intensity_method: for takes, whose intensities may have to be measured.
    beam_options:     NAME=VALUE each, if Apache Beam is to crop and write in place of the workers.
    """
    from data_prep.cropping import crop, jobs

    staging.check_output_folder(out, plan.overwrite)
    if not scan.sources:
        raise UserError(no_pictures_message(scan.rejected, scan.left_out))
    pattern = plan.compiled_pattern
    if plan.training_subjects:  # subjects that do not fit the list are reported before hours of cropping
        subjects = [splits.canonical_subject(source.subject, pattern) for source in scan.sources]
        splits.published_split(subjects, plan.training_subjects)
    cropping = crop.Cropping(plan.detector, plan.margin, landmarker, intensity_method)
    if cropping.needs_mesh:
        from data_prep.cropping import face_mesh

        # Fetched once, not by every worker. Loaded here, so that anything missing is reported before the work begins.
        cropping = cropping._replace(landmarker=face_mesh.model_file(landmarker))
        face_mesh.load_mesh(cropping.landmarker)

    def items() -> Iterator[Item]:
        yield from items_from_reasons(scan.rejected)
        yield from items_from_reasons(scan.remarks, remark=True)
        if beam_options is None:
            with contextlib.closing(jobs.crop_all(scan.sources, cropping, workers or core_count())) as parts:
                for crops in parts:
                    yield from items_from_crops(crops)

    if beam_options is None:
        store = Spool
    else:
        beam = import_beam_pipeline()
        store = partial(beam.BeamStore, scan.sources, cropping, beam.parse_options(beam_options))
    total = len(scan.sources) + len(scan.rejected)
    return build_folder(out, items(), plan, total, scan.left_out, scan.notes, store)


def import_beam_pipeline():
    """The module that needs Apache Beam, which then logs nothing but errors."""
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


def build_synthetic(
    out: Path | str,
    subjects: int = 200,
    seed: int = 0,
    stills: bool = True,
    clips: int = 0,
    levels: int = 11,
    independent: bool = False,
    split_seed: int = 0,
    workers: int = 0,
    overwrite: bool = False,
) -> dict:
    """Build a data folder of the built-in faces, with their factors. Returns the content of its prep.json."""
    from data_prep.synthetic import faces

    drawn: dict[str, Any] = {"subjects": subjects, "seed": seed, "stills": stills, "clips": clips, "levels": levels}
    drawn["independent"] = independent
    plan = Plan("synthetic", options=drawn | {"split_seed": split_seed}, split_seed=split_seed, overwrite=overwrite)
    items = (Item(key, record) for key, record in faces.records(**drawn, workers=workers or core_count()))
    return build_folder(out, items, plan, finish=lambda folder: write_factors(folder, faces.factors(**drawn)))


def core_count() -> int:
    """Number of processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def build_folder(
    out: Path | str,
    items: Iterable[Item],
    plan: Plan,
    total: int | None = None,
    left_out: dict[str, int] | None = None,
    notes: Iterable[str] = (),
    store: Callable[[Path, re.Pattern[str] | None], CropStore] = Spool,
    finish: Callable[[Path], None] = lambda folder: None,
) -> dict:
    """Build a data folder from finished crops. Returns the content of its prep.json.

    total:    expected number of items, for the progress bar.
    left_out: counts of files that the layout passed over, by kind.
    notes:    sentences for the user.
    store:    makes the crop store from a folder and the subject pattern.
    finish:   writes what else belongs into the folder.
    """
    out = staging.check_output_folder(out, plan.overwrite)
    pattern, fixed = plan.compiled_pattern, _read_splits(plan.split_like)
    with staging.staging_folder(out) as folder:
        with store(folder, pattern) as crops:
            summary = _collect(crops.add_all(items), total)
            if not summary.images:
                raise UserError(no_pictures_message(summary.rejected, left_out or {}))
            if plan.training_subjects:
                fixed |= splits.published_split(summary.images, plan.training_subjects, plan.split_seed)
            split_by_subject, split_notes = splits.split_subjects(summary.images, plan.split_seed, fixed)
            selection = Selection(split_by_subject, summary.copies, _image_counts(summary.images, split_by_subject))
            finished, digests = crops.write(selection)
        info = _describe(plan, summary, selection, digests, left_out or {}, [*notes, *split_notes])
        finish(finished)
        _write_reports(finished, info, summary)
        staging.move_into_place(finished, out, folder)
    return info


class _Summary(NamedTuple):
    """What has become of the items.

    images:   subject -> number of images.
    rejected: files that were left out, each with its reason.
    remarks:  what was noticed about files that are used.
    found_by: detector -> number of images.
    copies:   keys of crops that are left out, see `find_copies`.
    """

    images: Counter[str]
    rejected: list[Rejected]
    remarks: list[Rejected]
    found_by: Counter[str]
    copies: set[str]


def _collect(items: Iterable[Item], total: int | None) -> _Summary:
    """Go through all items, with a progress bar."""
    from tqdm import tqdm

    used: list[Item] = []
    rejected: list[Rejected] = []
    remarks: list[Rejected] = []
    with tqdm(desc="Cropping" if total else "Drawing", total=total, unit=" images") as bar:
        for item in items:
            if item.remark:
                remarks.append(Rejected(item.key, item.reason))
                continue
            bar.update()
            if item.record is None:
                rejected.append(Rejected(item.key, item.reason))
            else:
                used.append(item)
    copies = find_copies(used)
    rejected += [Rejected(key, f"equal to another picture: {original}") for key, original in copies.items()]
    used = [item for item in used if item.key not in copies]
    images = Counter(item.record.subject for item in used if item.record)
    return _Summary(images, rejected, remarks, Counter(item.found_by for item in used if item.found_by), set(copies))


def find_copies(items: Iterable[Item]) -> dict[str, str]:
    """Key of each picture that is left out because another subject has an equal one -> key of that one.

    So equal pictures are never in two splits. Of equal ones the first by key stays, labelled ones before others; with
    it all of the same subject stay, as nothing may move in a video for a while.
    """
    candidates = [
        (item.digest, not item.record.subject, not item.record.expression, item.key, item.record.subject)
        for item in items
        if item.record and item.digest
    ]
    copies = {}
    for _, group in groupby(sorted(candidates), key=lambda candidate: candidate[0]):
        (*_, original, subject), *equal = group
        copies |= {key: original for *_, key, name in equal if name != subject}
    return copies


def _describe(
    plan: Plan,
    summary: _Summary,
    selection: Selection,
    digests: list[bytes],
    left_out: dict[str, int],
    notes: list[str],
) -> dict:
    """The content of prep.json."""
    return {
        "version": VERSION,
        "source": plan.source,
        "detector": plan.detector,
        "margin": plan.margin,
        "options": {name: _to_json(value) for name, value in plan.options.items()},
        "splits": dict(selection.counts),
        "subjects": {
            name: sorted(s for s, split in selection.split_by_subject.items() if split == name) for name in SPLITS
        },
        "pictures": summary.images.total(),
        "content": content_hash(digests),
        "found_by": dict(summary.found_by),
        "rejected": _counts_by_kind(summary.rejected),
        "remarks": _counts_by_kind(summary.remarks),
        "left_out": left_out,
        "notes": notes,
    }


def _write_reports(folder: Path, info: dict, summary: _Summary) -> None:
    """Write prep.json, rejected.csv and, if there are any remarks, remarks.csv."""
    _write_csv(folder / staging.REJECTED_FILE, "reason", summary.rejected)
    if summary.remarks:
        _write_csv(folder / staging.REMARKS_FILE, "remark", summary.remarks)
    text = json.dumps(info, indent=1, ensure_ascii=False) + "\n"
    (folder / PREP_FILE).write_text(text, encoding="utf-8", errors="backslashreplace")  # JSON's own escapes


def _read_splits(folder: Path | None) -> dict[str, str]:
    """The split of each subject in a data folder."""
    subjects = read_info(folder)["subjects"] if folder else {}
    return {subject: split for split, names in subjects.items() for subject in names}


def _image_counts(images: Counter[str], split_by_subject: dict[str, str]) -> dict[str, int]:
    """The number of images in each split."""
    counts: dict[str, int] = {split: 0 for split in SPLITS}
    for subject, count in images.items():
        counts[splits.split_of(subject, split_by_subject)] += count
    return counts


def _counts_by_kind(entries: list[Rejected]) -> dict[str, int]:
    """Counts by the short form of the reason, the most common first."""
    return dict(Counter(entry.kind for entry in entries).most_common())


def _write_csv(path: Path, column: str, entries: list[Rejected]) -> None:
    with path.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
        csv.writer(file).writerows([("file", column), *sorted(entries)])


def no_pictures_message(rejected: list[Rejected], left_out: dict[str, int]) -> str:
    counts = Counter(entry.kind for entry in rejected).most_common(4)
    reasons = [f"{count} {reason}" for reason, count in [*counts, *((kind, n) for kind, n in left_out.items())]]
    return f"No usable picture was found ({'; '.join(reasons) or 'the folder holds no file'}): nothing was written."


def _to_json(value: Any) -> Any:
    """An option as JSON can hold it."""
    if isinstance(value, Path):
        return str(value)
    return list(value) if isinstance(value, tuple) else value
