"""The intensities of the takes in a data folder: curves over time, and how far they are from a truth.

Imports facedisent_jax.records, mug for the names of expressions, sources, splits and tables; matplotlib and SciPy where
they are used.
"""

import textwrap
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from data_prep.layouts import mug
from data_prep.layouts.csv_labels import FrameLabels
from data_prep.layouts.scan import printable
from data_prep.output import splits
from facedisent_jax.data.reading import read_info, read_split
from facedisent_jax.data.record import NEUTRAL, SPLITS, Faces

Key = tuple[str, str, str, int]
Curves = dict[tuple[str, str, str], dict[int, float]]
"""(subject, expression, sequence) -> frame number -> intensity."""
SHOWN = 8
"""Takes in the picture."""


def takes(folder: Path) -> Curves:
    """The takes with more than 2 frames, of more than 2 different intensities, in order of the names."""
    out: Curves = {}
    for split in SPLITS:
        faces = read_split(folder, split, in_memory=False)
        for k in np.flatnonzero(np.isfinite(faces.intensity) & (faces.sequence != "") & (faces.expression != NEUTRAL)):
            name = str(faces.subject[k]), str(faces.expression[k]), str(faces.sequence[k])
            out.setdefault(name, {})[int(faces.frame[k])] = float(faces.intensity[k])
    return {name: out[name] for name in sorted(out) if len(set(out[name].values())) > 2}


def of_labels(labels: FrameLabels, folder: Path) -> dict[Key, float]:
    """(subject, expression or "", take, frame) -> true intensity, the subjects named as in `folder`."""
    pattern = read_info(folder)["options"].get("subject_pattern")
    matcher = splits.compiled(pattern, "--subject-pattern") if pattern else None
    return {
        (splits.canonical(who, matcher), mug.EXPRESSIONS.get(what, what), take, frame): value
        for (who, what, take, frame), value in labels.values.items()
    }


def true_curve(truth: dict[Key, float], name: tuple[str, str, str], frames: dict[int, float]) -> dict[int, float]:
    """What the truth says of a take's frames; a sequence may have more than the take's name, as in anger/take000."""
    subject, expression, sequence = name
    take = sequence.rsplit("/", 1)[-1]
    out = {}
    for frame in frames:
        for what in (expression, ""):
            if (value := truth.get((subject, what, take, frame))) is not None:
                out[frame] = value
    return out


def compare(takes: Curves, truth: dict[Key, float]) -> str:
    """Spearman's correlation within each take, and the mean absolute error, averaged over the takes of each name.

    The error tells of a measure that is scaled to each take's own apex only where the true apex is full.
    """
    from scipy.stats import spearmanr

    found: dict[str, list[tuple[float, float, float]]] = {}
    for name, frames in takes.items():
        true = true_curve(truth, name, frames)
        if len(set(true.values())) > 2:
            ours, theirs = np.array([frames[k] for k in true]), np.array(list(true.values()))
            rank = float(spearmanr(ours, theirs)[0])  # type: ignore[arg-type]
            found.setdefault(name[2], []).append((rank, float(np.abs(ours - theirs).mean()), theirs.max()))
    number = sum(map(len, found.values()))
    lines = [f"against the truth: {number} of {len(takes)} takes; Spearman within each take, mean absolute error"]
    lines.append(f"{'take':22}{'takes':>6}{'Spearman':>10}{'lowest':>8}{'error':>8}{'largest':>9}{'true apex':>11}")
    rows = [(printable(name), found[name]) for name in sorted(found)][:20]
    for name, values in [*rows, *([("all", sum(found.values(), []))] if len(rows) > 1 else [])]:
        rank, error, apex = np.array(values).T
        lines.append(
            f"  {name[:19]:20}{len(values):6}{rank.mean():10.3f}{rank.min():8.2f}{error.mean():8.3f}{error.max():9.2f}"
            f"{apex.min():7.2f}-{apex.max():.2f}"
        )
    return "\n".join(lines)


def plot(takes: Curves, path: Path, truth: dict[Key, float]) -> None:
    """Intensity over frame of a handful of takes, of people spread evenly; the truth, where there is one, dashed."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    people: dict[str, tuple[str, str, str]] = {}
    for name in takes:
        people.setdefault(name[0], name)
    names = list(people.values()) if len(people) >= SHOWN else list(takes)
    shown = [names[k] for k in np.unique(np.linspace(0, len(names) - 1, min(SHOWN, len(names))).astype(int))]
    columns = min(4, len(shown))
    rows = -(-len(shown) // columns)
    figure = Figure(figsize=(3.2 * columns, 2.2 * rows + 0.5), layout="constrained")
    axes = figure.subplots(rows, columns, sharey=True, squeeze=False).ravel()
    for ax, name in zip(axes, shown, strict=False):
        frames = sorted(takes[name])
        ax.plot(frames, [takes[name][k] for k in frames], "-o", ms=3, lw=1.2, label="in the folder")
        if true := true_curve(truth, name, takes[name]):
            ax.plot(sorted(true), [true[k] for k in sorted(true)], "--", color="0.3", lw=1, label="truth")
        subject, expression, sequence = name
        named = f"{subject} {expression} {sequence.rsplit('/', 1)[-1]}"
        ax.set_title(printable(named)[:60].replace("$", r"\$"), fontsize=9)  # no formula
        ax.grid(alpha=0.3)
        ax.tick_params(labelsize=8)
        ax.set_ylim(-0.05, 1.05)
        ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    for ax in axes[len(shown) :]:
        ax.set_axis_off()
    figure.supxlabel("frame", fontsize=9)
    figure.supylabel("intensity", fontsize=9)
    if truth:
        axes[0].legend(fontsize=7)
    figure.savefig(path, dpi=110)


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
