"""Anybody's photographs: a regular expression on the paths tells who they show and with which expression.

Imports sources, tables, splits and the name of the neutral expression.
"""

import re
from collections import Counter
from pathlib import Path

from data_prep.layouts import csv_labels
from data_prep.layouts.scan import ScanResult, Source, list_images
from data_prep.output.splits import compiled
from facedisent_jax.data.record import NEUTRAL
from facedisent_jax.errors import UserError, did_you_mean

GROUPS = ("subject", "expression", "sequence", "frame", "condition", "intensity")
"""The named groups that a pattern may have."""


def scan_folder(
    raw: Path,
    pattern: str | None = None,
    neutral: str = NEUTRAL,
    intensities: Path | None = None,
    boxes: Path | None = None,
    points: Path | None = None,
) -> ScanResult:
    """The pictures below `raw`. Those whose path (relative, with /) does not match `pattern` stay unlabelled.

    A picture has intensity 0 if its expression is the word `neutral`, else what `intensities` or the group intensity
    says, else 1 (a still) or unknown (a frame of a clip: a sequence with several pictures of the same expression and no
    neutral one). Pictures of one sequence share one crop: those whose paths agree up to the end of the group sequence.
    """
    matcher = _compiled(pattern) if pattern else None
    files, passed_over = list_images(raw)
    given = csv_labels.read_intensities(intensities) if intensities else {}
    squares = csv_labels.read_boxes(boxes) if boxes else csv_labels.read_points(points) if points else {}
    sources, unmatched = [], 0
    for path, key in files:
        found = matcher.search(key) if matcher else None
        unmatched += matcher is not None and found is None
        source = _source(path, key, found, neutral) if found else Source(path, key, key)
        sources.append(source._replace(box=csv_labels.lookup(squares, source)))
    if unmatched == len(sources) > 0:
        raise UserError(
            f"--pattern {pattern} matches none of the {unmatched} pictures (such as {sources[0].key}): without "
            "--pattern all stay unlabelled."
        )
    for csv_path, table in ((intensities, given), (boxes or points, squares)):
        if csv_path:
            csv_labels.require_matches(csv_path, table, sources)
    sources, clips = _with_intensities(sources, given, intensities)
    sources.sort(key=lambda s: (s.crop_group, s.expression != NEUTRAL, s.frame, s.key))
    return ScanResult(sources, [], passed_over, _notes(sources, pattern, unmatched, clips, neutral), [])


def _compiled(pattern: str) -> re.Pattern[str]:
    matcher = compiled(pattern, "--pattern")
    names = list(matcher.groupindex)
    for name in names:
        if name not in GROUPS:
            hint = did_you_mean(name, GROUPS)
            raise UserError(f"The groups of --pattern must be among {', '.join(GROUPS)}, got {name!r}.{hint}")
    if not names:
        raise UserError(f"--pattern {pattern!r} has no named group such as (?P<subject>\\d+).")
    return matcher


def _source(path: Path, key: str, found: re.Match[str], neutral: str) -> Source:
    said = {name: (value or "") for name, value in found.groupdict().items()}
    frame = said.get("frame", "")
    if frame and not frame.isdecimal():
        raise UserError(f"{key}: the group frame of --pattern matched {frame!r}; digits were expected.")
    expression = said.get("expression", "")
    expression = NEUTRAL if expression == neutral else expression
    subject, sequence, condition = (said.get(name, "") for name in ("subject", "sequence", "condition"))
    intensity = float("nan")
    if said.get("intensity"):
        try:
            intensity = float(said["intensity"])
        except ValueError:
            pass
        if not 0 <= intensity <= 1:
            raise UserError(
                f"{key}: the group intensity of --pattern matched {said['intensity']!r}; "
                "a number from 0 (neutral) to 1 was expected."
            )
    group = key
    if sequence:
        group = "\n".join((_until_sequence(key, found), subject, condition))
    return Source(path, key, group, subject, expression, sequence, condition, int(frame or 0), intensity)


def _until_sequence(key: str, found: re.Match[str]) -> str:
    """The path up to the end of the group sequence, but for the frame: take000 of `anger` and of `fear` are two."""
    end = found.end("sequence")
    if "frame" in found.re.groupindex and 0 <= found.end("frame") <= end:
        return key[: found.start("frame")] + "*" + key[found.end("frame") : end]
    return key[:end]


def _with_intensities(sources: list[Source], given: dict, table: Path | None) -> tuple[list[Source], int]:
    """The sources with their intensities; and how many frames of clips have an unknown one."""
    neutral_groups = {source.crop_group for source in sources if source.expression == NEUTRAL}
    alike = Counter((source.crop_group, source.expression) for source in sources if source.sequence)
    out, unknown = [], 0
    for source in sources:
        said = csv_labels.lookup(given, source)
        intensity = source.intensity if said is None else said
        if source.expression == NEUTRAL:
            if intensity > 0:
                raise UserError(
                    f"{source.key} is {NEUTRAL} by its name and has intensity {intensity:g}"
                    f"{f' in {table}' if said is not None else ''}: a neutral picture has intensity 0."
                )
            intensity = 0.0
        elif intensity != intensity and source.expression:
            clip = alike[source.crop_group, source.expression] > 1 and source.crop_group not in neutral_groups
            unknown += clip
            intensity = float("nan") if clip else 1.0
        out.append(source._replace(intensity=intensity))
    return out, unknown


def _notes(sources: list[Source], pattern: str | None, unmatched: int, clips: int, neutral: str) -> list[str]:
    notes = []
    if pattern is None and sources:
        notes.append("No --pattern was given: all pictures are unlabelled and train reconstruction only.")
    if unmatched:
        first = next((source.key for source in sources if not source.subject and not source.expression), "")
        notes.append(
            f"--pattern does not match {unmatched} of {len(sources)} pictures (such as {first}): "
            "they stay unlabelled and train reconstruction only."
        )
    words = Counter(source.expression for source in sources if source.expression)
    if words and NEUTRAL not in words and not any(source.intensity == 0 for source in sources):
        notes.append(
            f"No picture is neutral: the expressions are {', '.join(sorted(words)[:10])}, and the neutral one is "
            f"called {neutral!r}; name it by --neutral."
        )
    if clips:
        notes.append(
            f"{clips} frames of clips have no intensity: give it by --intensities or a group intensity; "
            "until then they train reconstruction only."
        )
    return notes
