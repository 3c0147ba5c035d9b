"""The intensities of the takes in a data folder: curves over time, and how far they are from a truth.

Imports facedisent_jax.records, mug for the names of expressions, sources, splits and tables; matplotlib and SciPy where
they are used.
"""

from pathlib import Path

import numpy as np

from data_prep import mug, splits
from data_prep.sources import printable
from data_prep.tables import FrameLabels
from facedisent_jax.records import NEUTRAL, SPLITS, read_info, read_split

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
