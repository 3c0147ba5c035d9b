"""What is in a data folder: counts, a histogram of intensities, a contact sheet.

Imports sources and facedisent_jax.records.
"""

import textwrap
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from data_prep.sources import printable
from facedisent_jax.records import SPLITS, Faces, read_info, read_split

TILE, CAPTION, GAP, COLUMNS = 96, 26, 6, 14
"""Pixels of a picture on the contact sheet, of the two lines below it, between pictures; pictures in a row."""
INK, PAPER, FAINT = (30, 30, 30), (255, 255, 255), (110, 110, 110)


def describe(folder: Path) -> str:
    """The counts of a data folder as text."""
    info = read_info(folder)
    parts = {split: read_split(folder, split, in_memory=False) for split in SPLITS}
    lines = [
        f"{folder}: {info['pictures']} pictures from {info['source']}, face found by {info['detector']}, "
        f"margin {info['margin']:g}",
        "",
        f"{'split':14}{'pictures':>9}{'subjects':>9}{'no subject':>12}{'no expression':>15}",
    ]
    for split, faces in parts.items():
        people = np.unique(faces.subject[faces.subject != ""])
        unknown = int((faces.subject == "").sum()), int((faces.expression == "").sum())
        lines.append(f"{split:14}{len(faces):9}{len(people):9}{unknown[0]:12}{unknown[1]:15}")
    for name in ("expression", "condition"):
        table = {split: Counter(map(str, getattr(faces, name))) for split, faces in parts.items()}
        lines += ["", *_table(name, table)]
    for split, faces in parts.items():
        lines += ["", *_people(split, Counter(map(str, faces.subject)))]
    values = np.concatenate([faces.intensity for faces in parts.values()])
    lines += ["", *_histogram(values)]
    rejected = sum(info["rejected"].values())
    lines += ["", f"left out: {rejected} pictures{' (rejected.csv)' if rejected else ''}"]
    lines += [f"  {number:8} {printable(reason)}" for reason, number in info["rejected"].items()]
    lines += [f"passed over: {number} {kind}" for kind, number in info["left_out"].items()]
    return "\n".join(lines)


def _table(name: str, counts: dict[str, Counter[str]], most: int = 24) -> list[str]:
    """Counts of each value by split; the commonest values where there are too many to list."""
    total = sum(counts.values(), Counter())
    values = sorted(total) if len(total) <= most else [value for value, _ in total.most_common(most)]
    if set(total) <= {""}:
        return [f"{name}: not known of any picture"]
    lines = [f"{name:22}" + "".join(f"{split:>12}" for split in counts)]
    for value in values:
        shown = printable(value) or "(not known)"
        lines.append(f"  {shown[:19]:20}" + "".join(f"{counts[split][value]:12}" for split in counts))
    if len(total) > most:
        lines.append(f"  and {len(total) - most} others")
    return lines


def _people(split: str, counts: Counter[str]) -> list[str]:
    """How many pictures there are of each subject."""
    named = [f"{printable(who) or '(not known)'}:{number}" for who, number in sorted(counts.items())]
    text = ", ".join(named) or "none"
    return [
        f"{split} subjects, pictures of each",
        *textwrap.wrap(text, 110, initial_indent="  ", subsequent_indent="  "),
    ]


def _histogram(values: np.ndarray) -> list[str]:
    """How many pictures have which intensity, in steps of 0.1."""
    known = values[~np.isnan(values)]
    steps = np.bincount(np.round(known * 10).astype(int), minlength=11)
    lines = ["intensity"]
    for step, number in enumerate(steps):
        lines.append(f"  {step / 10:.1f} {number:9} {'#' * int(np.ceil(40 * number / max(1, steps.max())))}")
    if len(known) < len(values):
        lines.append(f"  not known {len(values) - len(known):3}")
    return lines


def contact_sheet(folder: Path, most: int = 168) -> Image.Image:
    """Pictures of the folder with their labels, by split and subject; of large folders, of people spread evenly."""
    rows = []
    for split in SPLITS:
        faces = read_split(folder, split, in_memory=False)
        if len(faces):
            share = max(COLUMNS, most * len(faces) // max(1, read_info(folder)["pictures"]))
            rows.append((split, len(faces), faces.take(_sample(faces, share))))
    width = GAP + COLUMNS * (TILE + GAP)
    heading = 26
    height = GAP + sum(heading + -(-len(shown) // COLUMNS) * (TILE + CAPTION + GAP) for _, _, shown in rows)
    sheet = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(sheet)
    large, small = ImageFont.load_default(15), ImageFont.load_default(11)
    y = GAP
    for split, number, shown in rows:
        draw.text((GAP, y), f"{split}: {len(shown)} of {number} pictures", INK, large)
        y += heading
        for k in range(len(shown)):
            x, top = GAP + k % COLUMNS * (TILE + GAP), y + k // COLUMNS * (TILE + CAPTION + GAP)
            tile = Image.fromarray(shown.image[k]).resize((TILE, TILE), Image.Resampling.BICUBIC)
            sheet.paste(tile, (x, top))
            who = " ".join(filter(None, (str(shown.subject[k]), str(shown.sequence[k]), str(shown.condition[k]))))
            what = f"{shown.expression[k]} {shown.intensity[k]:.2f}" if shown.expression[k] else "unlabelled"
            draw.text((x, top + TILE), _fitting(who or "unknown", draw, small), INK, small)
            draw.text((x, top + TILE + 12), _fitting(what, draw, small), FAINT, small)
        y += -(-len(shown) // COLUMNS) * (TILE + CAPTION + GAP)
    return sheet


def _fitting(text: str, draw: ImageDraw.ImageDraw, font) -> str:
    """As much of the text as fits below a picture."""
    text = printable(text).encode("latin-1", "replace").decode("latin-1")  # what the built-in font can draw
    while len(text) > 1 and draw.textlength(text, font) > TILE:
        text = text[:-1]
    return text


def _sample(faces: Faces, most: int) -> np.ndarray:
    """Which pictures to show, in order of subject, sequence and condition, the neutral one first."""
    order = np.lexsort((faces.frame, faces.intensity, faces.condition, faces.sequence, faces.subject))
    if len(order) <= most:
        return order
    people, first, number = np.unique(faces.subject[order], return_index=True, return_counts=True)
    some = np.unique(np.linspace(0, len(people) - 1, min(len(people), max(1, most // 4))).astype(int))
    chosen = []
    for who in some:
        shown = min(most // len(some), number[who])
        chosen.append(first[who] + np.unique(np.linspace(0, number[who] - 1, shown).astype(int)))
    return order[np.concatenate(chosen)]
