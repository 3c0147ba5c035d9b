"""Layout of anybody's photographs: a regular expression on the path gives the subject, the expression and the rest."""

import math
import re
from collections import Counter
from pathlib import Path

from data_prep.layouts import csv_labels
from data_prep.layouts.scan import ScanResult, Source, list_images
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
) -> ScanResult:
    """List the images below `raw`. Those whose path does not match `pattern` stay unlabelled.

    pattern:       regular expression with named groups, searched in the path relative to `raw`, with / as separator.
    neutral:       what the group expression matches for a neutral face.
    intensities:   table of intensities. An image that it does not name has 0 if it is neutral, else what the group
                   intensity says, else 1 if it is a still. For a frame of a clip the intensity is then unknown (NaN):
                   a clip is a sequence with several images of one expression and no neutral image.
    boxes, points: table of tight crops, or of landmarks that define them.

    The images of one sequence share one crop. Their paths agree up to the end of the group sequence.
    """
    matcher = _compile_pattern(pattern) if pattern else None
    files, left_out = list_images(raw)
    sources, n_unmatched = [], 0
    for path, key in files:
        match = matcher.search(key) if matcher else None
        n_unmatched += matcher is not None and match is None
        sources.append(_labelled_source(path, key, match, neutral) if match else Source(path, key, key))
    if n_unmatched == len(sources) > 0:
        raise UserError(
            f"--pattern must match some of the {n_unmatched} images (such as {sources[0].key}), got {pattern}. "
            "Without --pattern all images stay unlabelled."
        )
    sources = csv_labels.add_boxes(sources, boxes, points)
    sources, n_unknown = _add_intensities(sources, intensities)
    sources.sort(key=lambda s: (s.crop_group, s.expression != NEUTRAL, s.frame, s.key))
    return ScanResult(sources, [], left_out, _notes(sources, pattern, n_unmatched, n_unknown, neutral), [])


def _compile_pattern(pattern: str) -> re.Pattern[str]:
    matcher = compile_pattern(pattern, "--pattern")
    for name in matcher.groupindex:
        if name not in GROUPS:
            hint = did_you_mean(name, GROUPS)
            raise UserError(f"The named groups of --pattern must be among {', '.join(GROUPS)}, got {name!r}.{hint}")
    if not matcher.groupindex:
        raise UserError(f"--pattern must have a named group such as (?P<subject>\\d+), got {pattern!r}.")
    return matcher


def _labelled_source(path: Path, key: str, match: re.Match[str], neutral: str) -> Source:
    groups = dict.fromkeys(GROUPS, "") | match.groupdict(default="")
    frame = groups["frame"]
    if frame and not frame.isdecimal():
        raise UserError(f"{key}: the group frame of --pattern must match digits, got {frame!r}.")
    subject, sequence, condition = groups["subject"], groups["sequence"], groups["condition"]
    return Source(
        path,
        key,
        crop_group="\n".join((_sequence_path(key, match), subject, condition)) if sequence else key,
        subject=subject,
        expression=NEUTRAL if groups["expression"] == neutral else groups["expression"],
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


def _sequence_path(key: str, match: re.Match[str]) -> str:
    """The path up to the end of the group sequence, without the frame number.

    It tells take000 of `anger` from take000 of `fear`, where the folder of the expression comes first.
    """
    end = match.end("sequence")
    if "frame" in match.re.groupindex and 0 <= match.end("frame") <= end:
        return key[: match.start("frame")] + "*" + key[match.end("frame") : end]
    return key[:end]


def _add_intensities(sources: list[Source], table_path: Path | None) -> tuple[list[Source], int]:
    """The sources with their intensities, and the number of frames of clips whose intensity is unknown."""
    table = csv_labels.read_intensities(table_path) if table_path else {}
    if table_path:
        csv_labels.require_matches(table_path, table, sources)
    groups_with_neutral = {source.crop_group for source in sources if source.expression == NEUTRAL}
    frame_counts = Counter((source.crop_group, source.expression) for source in sources if source.sequence)
    out, n_unknown = [], 0
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
        elif math.isnan(intensity) and source.expression:
            several_frames = frame_counts[source.crop_group, source.expression] > 1
            in_clip = several_frames and source.crop_group not in groups_with_neutral
            n_unknown += in_clip
            intensity = math.nan if in_clip else 1.0
        out.append(source._replace(intensity=intensity))
    return out, n_unknown


def _notes(sources: list[Source], pattern: str | None, n_unmatched: int, n_unknown: int, neutral: str) -> list[str]:
    notes = []
    if pattern is None and sources:
        notes.append("Without --pattern all images are unlabelled: they train only the reconstruction.")
    if n_unmatched:
        example = next((source.key for source in sources if not source.subject and not source.expression), "")
        notes.append(
            f"--pattern does not match {n_unmatched} of {len(sources)} images (such as {example}). "
            "They stay unlabelled and train only the reconstruction."
        )
    expressions = sorted({source.expression for source in sources if source.expression})
    if expressions and NEUTRAL not in expressions and not any(source.intensity == 0 for source in sources):
        notes.append(
            f"No image is neutral: --neutral is {neutral!r}, and the expressions are {', '.join(expressions[:10])}. "
            "Give the name of the neutral one by --neutral."
        )
    if n_unknown:
        notes.append(
            f"{n_unknown} frames of clips have no intensity and train only the reconstruction. "
            "Give it by --intensities or by a group intensity in --pattern."
        )
    return notes
