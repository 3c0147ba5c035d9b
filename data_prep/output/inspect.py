"""What is in a data folder: counts, a contact sheet, curves of intensity, and how far these are from a truth."""

import textwrap
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from data_prep.layouts import mug
from data_prep.layouts.csv_labels import FrameLabels
from data_prep.layouts.scan import printable
from data_prep.output.splits import canonical_subject, compile_pattern
from facedisent_jax.data.reading import read_info, read_split
from facedisent_jax.data.record import NEUTRAL, SPLITS, Faces
from facedisent_jax.environment import import_matplotlib

TakeName = tuple[str, str, str]  # subject, expression, sequence
Curve = dict[int, float]  # frame number -> intensity
Truth = dict[tuple[str, str, str, int], float]  # subject, expression or "", take, frame number -> intensity

# The contact sheet, in pixels.
COLUMNS = 14
TILE = 96  # an image
CAPTION = 26  # the two lines below an image
HEADING = 26
GAP = 6
INK, PAPER, FAINT = (30, 30, 30), (255, 255, 255), (110, 110, 110)

MAX_TABLE_ROWS = 24
MAX_COMPARED_TAKES = 20
PLOTTED_TAKES = 8


def describe(folder: Path) -> str:
    """The counts of a data folder as text."""
    info = read_info(folder)
    faces_by_split = {split: read_split(folder, split, in_memory=False) for split in SPLITS}
    lines = [
        f"{folder}: {info['pictures']} images, source {info['source']}, detector {info['detector']}, "
        f"margin {info['margin']:g}",
        "",
        f"{'split':14}{'images':>9}{'subjects':>9}{'no subject':>12}{'no expression':>15}",
    ]
    for split, faces in faces_by_split.items():
        subjects = np.unique(faces.subject[faces.subject != ""])
        no_subject, no_expression = int((faces.subject == "").sum()), int((faces.expression == "").sum())
        lines.append(f"{split:14}{len(faces):9}{len(subjects):9}{no_subject:12}{no_expression:15}")
    for field in ("expression", "condition"):
        counts = {split: Counter(map(str, getattr(faces, field))) for split, faces in faces_by_split.items()}
        lines += ["", *_count_table(field, counts)]
    for split, faces in faces_by_split.items():
        lines += ["", *_subject_list(split, Counter(map(str, faces.subject)))]
    lines += ["", *_histogram(np.concatenate([faces.intensity for faces in faces_by_split.values()]))]
    rejected = sum(info["rejected"].values())
    lines += ["", f"left out: {rejected} images{' (rejected.csv)' if rejected else ''}"]
    lines += [f"  {count:8} {printable(reason)}" for reason, count in info["rejected"].items()]
    lines += [f"passed over: {count} {kind}" for kind, count in info["left_out"].items()]
    return "\n".join(lines)


def _count_table(field: str, counts: dict[str, Counter[str]]) -> list[str]:
    """Counts of each value by split, of the most common values only if there are many."""
    total = sum(counts.values(), Counter())
    if set(total) <= {""}:
        return [f"{field}: unknown for all images"]
    is_long = len(total) > MAX_TABLE_ROWS
    values = [value for value, _ in total.most_common(MAX_TABLE_ROWS)] if is_long else sorted(total)
    lines = [f"{field:22}" + "".join(f"{split:>12}" for split in counts)]
    for value in values:
        label = printable(value) or "(unknown)"
        lines.append(f"  {label[:19]:20}" + "".join(f"{counts[split][value]:12}" for split in counts))
    return [*lines, f"  and {len(total) - MAX_TABLE_ROWS} others"] if is_long else lines


def _subject_list(split: str, counts: Counter[str]) -> list[str]:
    """The number of images of each subject."""
    entries = [f"{printable(subject) or '(unknown)'}:{count}" for subject, count in sorted(counts.items())]
    text = ", ".join(entries) or "none"
    lines = textwrap.wrap(text, 110, initial_indent="  ", subsequent_indent="  ")
    return [f"{split} subjects, images of each", *lines]


def _histogram(intensities: np.ndarray) -> list[str]:
    """The number of images for each intensity, in steps of 0.1."""
    finite = intensities[~np.isnan(intensities)]
    counts = np.bincount(np.round(finite * 10).astype(int), minlength=11)
    lines = ["intensity"]
    for step, count in enumerate(counts):
        lines.append(f"  {step / 10:.1f} {count:9} {'#' * int(np.ceil(40 * count / max(1, counts.max())))}")
    if len(finite) < len(intensities):
        lines.append(f"  unknown {len(intensities) - len(finite):5}")
    return lines


def contact_sheet(folder: Path, max_images: int = 168) -> Image.Image:
    """Images of a data folder with their labels, by split and subject. Large folders show an even sample of people."""
    total = max(1, read_info(folder)["pictures"])
    sections = []  # split, its number of images, the images on the sheet
    for split in SPLITS:
        faces = read_split(folder, split, in_memory=False)
        if len(faces):
            count = max(COLUMNS, max_images * len(faces) // total)
            sections.append((split, len(faces), faces.take(_even_sample(faces, count))))
    row_height = TILE + CAPTION + GAP
    height = GAP + sum(HEADING + -(-len(faces) // COLUMNS) * row_height for _, _, faces in sections)
    sheet = Image.new("RGB", (GAP + COLUMNS * (TILE + GAP), height), PAPER)
    draw, large, small = ImageDraw.Draw(sheet), ImageFont.load_default(15), ImageFont.load_default(11)
    y = GAP
    for split, count, faces in sections:
        draw.text((GAP, y), f"{split}: {len(faces)} of {count} images", INK, large)
        y += HEADING
        for k in range(len(faces)):
            corner = GAP + k % COLUMNS * (TILE + GAP), y + k // COLUMNS * row_height
            _draw_tile(sheet, small, faces, k, *corner)
        y += -(-len(faces) // COLUMNS) * row_height
    return sheet


def _draw_tile(sheet: Image.Image, font, faces: Faces, k: int, x: int, y: int) -> None:
    """Image k with two lines below it: person, sequence and condition; expression and intensity."""
    sheet.paste(Image.fromarray(faces.image[k]).resize((TILE, TILE), Image.Resampling.BICUBIC), (x, y))
    origin = " ".join(filter(None, (str(faces.subject[k]), str(faces.sequence[k]), str(faces.condition[k]))))
    label = f"{faces.expression[k]} {faces.intensity[k]:.2f}" if faces.expression[k] else "unlabelled"
    draw = ImageDraw.Draw(sheet)
    draw.text((x, y + TILE), _shorten(origin or "unknown", draw, font), INK, font)
    draw.text((x, y + TILE + 12), _shorten(label, draw, font), FAINT, font)


def _shorten(text: str, draw: ImageDraw.ImageDraw, font) -> str:
    """As much of the text as fits below an image."""
    text = printable(text).encode("latin-1", "replace").decode("latin-1")  # what the built-in font can draw
    while len(text) > 1 and draw.textlength(text, font) > TILE:
        text = text[:-1]
    return text


def _even_sample(faces: Faces, count: int) -> np.ndarray:
    """Indices of about `count` images of evenly sampled people, sorted by subject, sequence, condition, intensity."""
    order = np.lexsort((faces.frame, faces.intensity, faces.condition, faces.sequence, faces.subject))
    if len(order) <= count:
        return order
    subjects, starts, sizes = np.unique(faces.subject[order], return_index=True, return_counts=True)
    sampled = np.unique(np.linspace(0, len(subjects) - 1, min(len(subjects), max(1, count // 4))).astype(int))
    indices = []
    for k in sampled:
        images = min(count // len(sampled), sizes[k])
        indices.append(starts[k] + np.unique(np.linspace(0, sizes[k] - 1, images).astype(int)))
    return order[np.concatenate(indices)]


def intensity_curves(folder: Path) -> dict[TakeName, Curve]:
    """The takes of a data folder that have more than two different intensities, sorted by name."""
    curves: dict[TakeName, Curve] = {}
    for split in SPLITS:
        faces = read_split(folder, split, in_memory=False)
        in_take = np.isfinite(faces.intensity) & (faces.sequence != "") & (faces.expression != NEUTRAL)
        for k in np.flatnonzero(in_take):
            name = str(faces.subject[k]), str(faces.expression[k]), str(faces.sequence[k])
            curves.setdefault(name, {})[int(faces.frame[k])] = float(faces.intensity[k])
    return {name: curves[name] for name in sorted(curves) if len(set(curves[name].values())) > 2}


def truth_from_labels(labels: FrameLabels, folder: Path) -> Truth:
    """The intensities of a CSV, with subjects and expressions named as in `folder`."""
    option = read_info(folder)["options"].get("subject_pattern")
    pattern = compile_pattern(option, "--subject-pattern") if option else None
    return {
        (canonical_subject(subject, pattern), mug.EXPRESSIONS.get(expression, expression), take, frame): value
        for (subject, expression, take, frame), value in labels.values.items()
    }


def true_curve(truth: Truth, name: TakeName, frames: Curve) -> Curve:
    """The true intensities of the frames of a take, as far as they are known."""
    subject, expression, sequence = name
    take = sequence.rsplit("/", 1)[-1]  # a sequence may be more than the name of the take: anger/take000
    curve = {}
    for frame in frames:
        for label in (expression, ""):
            if (value := truth.get((subject, label, take, frame))) is not None:
                curve[frame] = value
    return curve


def compare_with_truth(curves: dict[TakeName, Curve], truth: Truth) -> str:
    """A table: Spearman's correlation within each take and the mean absolute error, averaged over takes of one name.

    A measure that is scaled to the apex of each take can match the truth only where the true apex is a full expression.
    """
    from scipy.stats import spearmanr  # takes a second to import

    rows_by_take: dict[str, list[tuple[float, float, float]]] = {}  # Spearman, error, true apex
    for name, curve in curves.items():
        true = true_curve(truth, name, curve)
        if len(set(true.values())) > 2:
            measured, expected = np.array([curve[k] for k in true]), np.array(list(true.values()))
            rank = float(spearmanr(measured, expected)[0])  # type: ignore[arg-type]
            error = float(np.abs(measured - expected).mean())
            rows_by_take.setdefault(name[2], []).append((rank, error, expected.max()))
    all_rows = [row for rows in rows_by_take.values() for row in rows]
    sections = [(printable(name), rows_by_take[name]) for name in sorted(rows_by_take)][:MAX_COMPARED_TAKES]
    if len(sections) > 1:
        sections.append(("all", all_rows))
    lines = [
        f"compared with the truth: {len(all_rows)} of {len(curves)} takes; Spearman within each take, absolute error",
        f"{'take':22}{'takes':>6}{'Spearman':>10}{'lowest':>8}{'error':>8}{'largest':>9}{'true apex':>11}",
    ]
    for name, rows in sections:
        rank, error, apex = np.array(rows).T
        lines.append(
            f"  {name[:19]:20}{len(rows):6}{rank.mean():10.3f}{rank.min():8.2f}{error.mean():8.3f}{error.max():9.2f}"
            f"{apex.min():7.2f}-{apex.max():.2f}"
        )
    return "\n".join(lines)


def plot_curves(curves: dict[TakeName, Curve], path: Path, truth: Truth) -> None:
    """Plot intensity against frame for a few takes of evenly sampled people; the truth, if any, is dashed."""
    import_matplotlib()
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    plotted = _takes_to_plot(list(curves))
    columns = min(4, len(plotted))
    rows = -(-len(plotted) // columns)
    figure = Figure(figsize=(3.2 * columns, 2.2 * rows + 0.5), layout="constrained")
    axes = figure.subplots(rows, columns, sharey=True, squeeze=False).ravel()
    for ax, name in zip(axes, plotted, strict=False):
        frames = sorted(curves[name])
        ax.plot(frames, [curves[name][k] for k in frames], "-o", ms=3, lw=1.2, label="in the folder")
        if true := true_curve(truth, name, curves[name]):
            ax.plot(sorted(true), [true[k] for k in sorted(true)], "--", color="0.3", lw=1, label="truth")
        subject, expression, sequence = name
        title = printable(f"{subject} {expression} {sequence.rsplit('/', 1)[-1]}")
        ax.set_title(title[:60].replace("$", r"\$"), fontsize=9)  # $ would begin a formula
        ax.grid(alpha=0.3)
        ax.tick_params(labelsize=8)
        ax.set_ylim(-0.05, 1.05)
        ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    for ax in axes[len(plotted) :]:
        ax.set_axis_off()
    figure.supxlabel("frame", fontsize=9)
    figure.supylabel("intensity", fontsize=9)
    if truth:
        axes[0].legend(fontsize=7)
    figure.savefig(path, dpi=110)


def _takes_to_plot(names: list[TakeName]) -> list[TakeName]:
    """An even sample of the takes, one for each person if there are enough people."""
    first_takes: dict[str, TakeName] = {}
    for name in names:
        first_takes.setdefault(name[0], name)
    candidates = list(first_takes.values()) if len(first_takes) >= PLOTTED_TAKES else names
    indices = np.unique(np.linspace(0, len(candidates) - 1, min(PLOTTED_TAKES, len(candidates))).astype(int))
    return [candidates[k] for k in indices]
