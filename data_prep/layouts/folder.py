"""Layout of anybody's photographs: a regular expression on the path gives the subject, the expression and the rest."""

import math
import re
import unicodedata
from collections import Counter
from pathlib import Path

from data_prep.layouts import csv_labels
from data_prep.layouts.csv_labels import ImageKey
from data_prep.layouts.scan import Rejected, ScanResult, Source, list_images, plain_name
from data_prep.output.splits import compile_pattern
from facedisent_jax.data.record import NEUTRAL
from facedisent_jax.errors import UserError, did_you_mean

GROUPS = ("subject", "expression", "sequence", "frame", "condition", "intensity")  # named groups of a pattern


def scan_folder(
    raw: Path,
    pattern: str | None = None,
    neutral: str = NEUTRAL,
    intensities: Path | None = None,
    boxes: Path | None = None,
    points: Path | None = None,
    expression: str | None = None,
) -> ScanResult:
    """List the images below `raw`. Those whose path does not match `pattern` stay unlabelled.

    pattern:       regular expression with named groups, searched in the path relative to `raw`, with / as separator.
    neutral:       what the group expression matches for a neutral face.
    intensities:   table of intensities. An image that it does not name has 0 if it is neutral, else what the group
                   intensity says, else it is unknown (NaN). Without a table it is then 1 for a still and unknown for a
                   frame of a clip: a sequence with several images of one expression and no neutral image.
    boxes, points: table of tight crops, or of landmarks that define them.
    expression:    the action on all images that `pattern` matches, in place of a group expression.

    The images of one sequence share one crop. Their paths agree up to the end of the group sequence.
    """
    matcher = _compile_pattern(pattern) if pattern else None
    if expression and (matcher is None or "expression" in matcher.groupindex):
        raise UserError("--expression needs a --pattern without the group expression: it names that of all images.")
    files, left_out = list_images(raw)
    labelled, unmatched = [], []
    for path, key in files:
        match = matcher.search(unicodedata.normalize("NFC", key)) if matcher else None
        if match:
            labelled.append(_labelled_source(path, key, match, expression))
        else:
            unmatched.append(Source(path, key, key))
    if matcher and unmatched and not labelled:
        raise UserError(
            f"--pattern must match some of the {len(unmatched)} images (such as {unmatched[0].key}), got {pattern}. "
            "Without --pattern all images stay unlabelled."
        )
    labelled, notes = _fold_expressions(labelled, plain_name(neutral))
    sources = csv_labels.add_boxes([*labelled, *unmatched], boxes, points)
    table = csv_labels.read_intensities(intensities) if intensities else {}
    sources = _add_intensities(sources, intensities, table)
    sources.sort(key=lambda s: (s.crop_group, s.expression != NEUTRAL, s.frame, s.key))
    notes += _notes(sources, pattern, unmatched, neutral)
    intensity_notes, remarks = _unknown_intensities(sources, intensities, table)
    return ScanResult(sources, [], left_out, notes + intensity_notes, remarks)


def _compile_pattern(pattern: str) -> re.Pattern[str]:
    matcher = compile_pattern(pattern, "--pattern")
    for name in matcher.groupindex:
        if name not in GROUPS:
            hint = did_you_mean(name, GROUPS)
            raise UserError(f"The named groups of --pattern must be among {', '.join(GROUPS)}, got {name!r}.{hint}")
    if not matcher.groupindex:
        raise UserError(f"--pattern must have a named group such as (?P<subject>\\d+), got {pattern!r}.")
    return matcher


def _labelled_source(path: Path, key: str, match: re.Match[str], expression: str | None) -> Source:
    matched = match.groupdict(default="")
    groups = {name: plain_name(matched.get(name, "")) for name in GROUPS}
    frame = groups["frame"]
    if frame and not frame.isdecimal():
        raise UserError(f"{key}: the group frame of --pattern must match digits, got {frame!r}.")
    subject, sequence, condition = groups["subject"], groups["sequence"], groups["condition"]
    return Source(
        path,
        key,
        crop_group="\n".join((_sequence_path(match), subject, condition)) if sequence else key,
        subject=subject,
        expression=plain_name(expression) if expression else groups["expression"],
        sequence=sequence,
        condition=condition,
        frame=int(frame or 0),
        intensity=_parse_intensity(key, groups["intensity"]),
    )


def _parse_intensity(key: str, text: str) -> float:
    if not text:
        return math.nan
    try:
        intensity = float(text)
    except ValueError:
        intensity = math.nan
    if not 0 <= intensity <= 1:
        raise UserError(
            f"{key}: the group intensity of --pattern must match a number from 0 (neutral) to 1, got {text!r}."
        )
    return intensity


def _fold_expressions(sources: list[Source], neutral: str) -> tuple[list[Source], list[str]]:
    """The sources with one spelling of each expression, and a note if there were several.

    neutral: the word for neutral, which becomes NEUTRAL.
    """
    names = sorted({source.expression for source in sources})
    spelling = {name.casefold(): name for name in names}  # of several the last one: lower case sorts after upper case
    spelling |= {name.casefold(): NEUTRAL for name in (neutral, NEUTRAL)}
    folded = [name for name in names if name not in (neutral, spelling[name.casefold()])]
    readings = ", ".join(f"{name} is read as {spelling[name.casefold()]}" for name in folded)
    notes = [f"Expressions that differ only by case are one: {readings}."] if folded else []
    return [source._replace(expression=spelling[source.expression.casefold()]) for source in sources], notes


def _sequence_path(match: re.Match[str]) -> str:
    """The path up to the end of the group sequence, without the frame number.

    It tells take000 of `anger` from take000 of `fear`, where the folder of the expression comes first.
    """
    key, end = match.string, match.end("sequence")
    if "frame" in match.re.groupindex and 0 <= match.end("frame") <= end:
        return key[: match.start("frame")] + "*" + key[match.end("frame") : end]
    return key[:end]


def _add_intensities(sources: list[Source], table_path: Path | None, table: dict[ImageKey, float]) -> list[Source]:
    """The sources with their intensities."""
    if table_path:
        csv_labels.require_matches(table_path, table, sources)
    groups_with_neutral = {source.crop_group for source in sources if source.expression == NEUTRAL}
    frame_counts = Counter((source.crop_group, source.expression) for source in sources if source.sequence)
    out = []
    for source in sources:
        table_intensity = csv_labels.lookup(table, source)
        intensity = source.intensity if table_intensity is None else table_intensity
        if source.expression == NEUTRAL:
            if intensity > 0:
                where = f" in {table_path}" if table_intensity is not None else ""
                raise UserError(
                    f"The intensity of {source.key} must be 0 because its expression is {NEUTRAL}, "
                    f"got {intensity:g}{where}."
                )
            intensity = 0.0
        elif math.isnan(intensity) and source.expression and not table_path:
            several_frames = frame_counts[source.crop_group, source.expression] > 1
            in_clip = several_frames and source.crop_group not in groups_with_neutral
            intensity = math.nan if in_clip else 1.0
        out.append(source._replace(intensity=intensity))
    return out


def _unknown_intensities(
    sources: list[Source], table_path: Path | None, table: dict[ImageKey, float]
) -> tuple[list[str], list[Rejected]]:
    """Notes on images whose intensity is unknown and on lines of the table that name no image; and all of them."""
    unknown = [source.key for source in sources if source.expression and math.isnan(source.intensity)]
    if not table_path:
        advice = "Give it by --intensities or by a group intensity in --pattern."
        note = f"{len(unknown)} frames of clips have no intensity and train only the reconstruction. {advice}"
        return [note] if unknown else [], []
    unused = csv_labels.unused_lines(table, sources)
    notes = []
    if unknown:
        notes.append(
            f"{table_path} does not name {len(unknown)} of {len(sources)} images (such as {unknown[0]}). Their "
            "intensity is unknown, and they train only the reconstruction."
        )
    if unused:
        notes.append(f"{len(unused)} of {len(table)} lines of {table_path} name no image (such as {unused[0]}).")
    remarks = [Rejected(key, f"unknown intensity: {table_path} does not name it") for key in unknown]
    return notes, remarks + [Rejected(str(table_path), f"line that names no image: {line}") for line in unused]


def _notes(sources: list[Source], pattern: str | None, unmatched: list[Source], neutral: str) -> list[str]:
    notes = []
    if pattern is None and sources:
        notes.append("Without --pattern all images are unlabelled: they train only the reconstruction.")
    if pattern and unmatched:
        notes.append(
            f"--pattern does not match {len(unmatched)} of {len(sources)} images (such as {unmatched[0].key}). "
            "They stay unlabelled and train only the reconstruction."
        )
    expressions = sorted({source.expression for source in sources if source.expression})
    if expressions and NEUTRAL not in expressions and not any(source.intensity == 0 for source in sources):
        notes.append(
            f"No image is neutral: --neutral is {neutral!r}, and the expressions are {', '.join(expressions[:10])}. "
            "Give the name of the neutral one by --neutral."
        )
    if pattern and sources and not expressions:
        notes.append(
            "No image has an expression: all train only the reconstruction. Give a group expression in --pattern, or "
            "name the expression of all images by --expression, of which intensity 0 is neutral."
        )
    return notes
