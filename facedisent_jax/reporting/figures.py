"""Pictures for a report or a paper: grids of faces with labels, curves, scatters, animations. Imports none of ours.

Faces are enlarged without smoothing their pixels away (Lanczos), on white, with labels that are fitted and never cut.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from facedisent_jax.errors import UserError
from facedisent_jax.files import replacing

STILLS = (".png", ".jpg", ".jpeg")
ANIMATIONS = (".gif", ".webp", ".mp4")
SCALE = 3
"""Enlargement of a face: 192 pixels, so that six to ten fill a page's width at 300 dots an inch."""
GAP, MARGIN_GAP, BORDER = 6, 30, 24
INK, FAINT = "#1a1a1a", "#8a8a8a"
TEXT = 26
"""Size of labels in pixels in a figure of up to eight columns, up to twice that in wider ones; down to SMALLEST where
they would not fit."""
SMALLEST = 15
NO_TERMS = ("step", "images_per_second", "learning_rate", "gradient_norm", "seconds")
"""Numbers of metrics.jsonl that are no terms of the loss."""


def check_suffix(path: Path, kinds: Sequence[str]) -> None:
    """Raises FigureError unless the file's name ends in one of `kinds`."""
    if path.suffix.lower() not in kinds:
        found = f'ends in "{path.suffix}"' if path.suffix else "has no ending"
        raise UserError(f"{path} {found}, which tells no kind of picture: use {', '.join(kinds)}.")


def grid(
    cells: Sequence[Sequence[np.ndarray | None]],
    top: Sequence[str] = (),
    left: Sequence[str] = (),
    margin_rows: int = 0,
    margin_columns: int = 0,
    end_columns: int = 0,
    scale: int = SCALE,
) -> Image.Image:
    """Rows of faces with labels above the columns and beside the rows.

    cells: pictures [64, 64, 3], float in [0, 1] or uint8, or None for an empty place. The first `margin_rows` and
    `margin_columns` and the last `end_columns` (the real pictures) stand apart from the rest.
    """
    top, left = ([_printed(label) for label in labels] for labels in (top, left))
    side = scale * next(len(cell) for row in cells for cell in row if cell is not None)
    columns = max(map(len, cells))
    text = int(TEXT * min(max(1, columns / 8), 2))  # a wide figure is printed smaller
    beside = max((_width(label, text) for label in left), default=0)
    beside = min(beside, 2 * side) + (12 if left else 0)
    lines = max((label.count("\n") + 1 for label in top), default=0)
    above = lines * (text + 8) + (8 if lines else 0)
    xs = _places(columns, side, (margin_columns, columns - end_columns), BORDER + beside)
    ys = _places(len(cells), side, (margin_rows,), BORDER + above)
    size = xs[-1] + side + BORDER, ys[-1] + side + BORDER
    canvas = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(canvas)
    for c, label in enumerate(top):
        _text(draw, (xs[c] + side / 2, ys[0] - 10), label, side, text, "md")
    for r, label in enumerate(left):
        _text(draw, (xs[0] - 12, ys[r] + side / 2), label, beside - 12, text, "rm")
    for r, row in enumerate(cells):
        for c, cell in enumerate(row):
            if cell is not None:
                canvas.paste(enlarged(cell, scale), (xs[c], ys[r]))
    return canvas


def _places(count: int, side: int, breaks: Sequence[int], start: int) -> list[int]:
    """Where each of `count` cells begins, with a wider gap before the cells in `breaks`."""
    apart = [k for k in breaks if 0 < k < count]
    return [start + k * (side + GAP) + MARGIN_GAP * sum(k >= place for place in apart) for k in range(count)]


def enlarged(face: np.ndarray, scale: int = SCALE) -> Image.Image:
    """One face, [h, w, 3] float in [0, 1] or uint8, `scale` times as large."""
    picture = Image.fromarray(_bytes(face))
    return picture.resize((picture.width * scale, picture.height * scale), Image.Resampling.LANCZOS)


def _bytes(face: np.ndarray) -> np.ndarray:
    return face if face.dtype == np.uint8 else np.rint(255 * np.clip(face, 0, 1)).astype(np.uint8)


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans: it knows Greek, Cyrillic and accents, and comes with matplotlib."""
    import matplotlib

    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", size)


def _printed(label: str) -> str:
    """What a font can draw of a name, whatever it holds; of many lines the first three."""
    lines = ["".join(letter if letter.isprintable() else "?" for letter in line) for line in label.split("\n")]
    return "\n".join(lines[:3])


def _width(text: str, size: int) -> int:
    return max(int(np.ceil(_font(size).getlength(line))) for line in text.split("\n"))


def _text(draw: ImageDraw.ImageDraw, at: tuple[float, float], text: str, width: int, size: int, anchor: str) -> None:
    """Text no wider than `width`: smaller if need be, and as a last resort with its middle left out."""
    size = next((size for size in range(size, SMALLEST, -1) if _width(text, size) <= width), SMALLEST)
    text = "\n".join(_shortened(line, size, width) for line in text.split("\n"))
    draw.multiline_text(at, text, INK, _font(size), anchor, align="right" if anchor[0] == "r" else "center")


def _shortened(text: str, size: int, width: int) -> str:
    keep = len(text)
    short = text
    while _width(short, size) > width and keep > 2:
        keep -= 1
        short = text[: (keep + 1) // 2] + "…" + text[len(text) - keep // 2 :]
    return short


def curves(history: Sequence[Mapping[str, float]]) -> "Image.Image | None":
    """Loss terms and validation figures over steps, from the lines of metrics.jsonl; None if there are none.

    Left: every loss term, on a logarithmic axis. Right: "validation/..._psnr" in dB.
    """
    series: dict[str, tuple[list, list]] = {}
    for entry in history:
        for name, value in entry.items():
            usable = isinstance(value, int | float) and np.isfinite(value)
            if usable and name not in NO_TERMS:
                xs, ys = series.setdefault(name, ([], []))
                xs.append(entry["step"])
                ys.append(value)
    first = ("loss", "reconstruction", "swap")
    names = sorted(series, key=lambda name: (first.index(name) if name in first else len(first), name))
    terms = {name: series[name] for name in names if "/" not in name and max(series[name][1]) > 0}
    judged = {name.removeprefix("validation/"): line for name, line in series.items() if name.endswith("_psnr")}
    panels = [(terms, "training: the loss, and its terms unweighted", True), (judged, "validation subjects, dB", False)]
    panels = [panel for panel in panels if panel[0]]
    if not panels:
        return None
    figure, axes = _axes(len(panels), (5.6 * len(panels), 3.8))
    for axis, (lines, title, log) in zip(axes, panels, strict=True):
        for k, (name, (xs, ys)) in enumerate(lines.items()):
            style = ("-", "--", ":")[k // 10 % 3]
            axis.plot(xs, ys, style, label=name.replace("_", " "), linewidth=1.4, marker="." if len(xs) < 30 else "")
        axis.set_title(title, loc="left", fontsize=10)
        axis.set_xlabel("step")
        if log:
            axis.set_yscale("log")
        axis.legend(fontsize=7.5, frameon=False, loc="upper left", bbox_to_anchor=(1.01, 1.02))
    return _drawn(figure)


def readings(truth: np.ndarray, read: np.ndarray, kinds: np.ndarray) -> Image.Image:
    """Intensity read from the expression code against the true one, one colour for each action."""
    figure, (axis,) = _axes(1, (4.6, 4.2))
    axis.plot([0, 1], [0, 1], color=FAINT, linewidth=1)
    jitter = np.random.default_rng(0).uniform(-0.012, 0.012, len(truth))  # many pictures share one intensity
    for kind in np.unique(kinds):
        chosen = kinds == kind
        name = str(kind)[:40].replace("$", r"\$")  # no formula
        axis.scatter(truth[chosen] + jitter[chosen], read[chosen], s=9, alpha=0.5, linewidths=0, label=name)
    axis.set_xlabel("true intensity")
    axis.set_ylabel("read from the expression code")
    axis.set_xlim(-0.05, 1.05)
    axis.set_ylim(min(-0.05, read.min() - 0.05), max(1.05, read.max() + 0.05))
    axis.legend(fontsize=8, frameon=False, loc="upper left")
    return _drawn(figure)


class Line(NamedTuple):
    """One line of a chart. strong: drawn thick; dashed: a rival; faint: one of many, without a name."""

    name: str
    x: np.ndarray
    y: np.ndarray
    colour: str
    strong: bool = False
    dashed: bool = False
    faint: bool = False


def charts(panels: Sequence[tuple[str, Sequence[Line]]], across: str, up: str) -> Image.Image:
    """Panels of lines side by side, (title, lines) each, with one legend for all at the right."""
    figure, axes = _axes(len(panels), (4.1 * len(panels) + 2.3, 3.8))
    named = {}
    for axis, (title, lines) in zip(axes, panels, strict=True):
        for line in lines:
            width = 0.6 if line.faint else 2.2 if line.strong else 1.2
            style, strength = ("--" if line.dashed else "-"), (0.45 if line.faint else 1.0)
            (drawn,) = axis.plot(line.x, line.y, style, color=line.colour, linewidth=width, alpha=strength)
            if not line.faint:
                named.setdefault(line.name, drawn)
        axis.set_title(title, loc="left", fontsize=10)
        axis.set_xlabel(across)
    axes[0].set_ylabel(up)
    figure.legend(list(named.values()), list(named), loc="outside right upper", fontsize=8, frameon=False)
    return _drawn(figure)


def _axes(count: int, size: tuple[float, float]):
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, dpi=200, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, count, squeeze=False)[0]
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(color="#e6e6e6", linewidth=0.6)
        axis.set_axisbelow(True)
    return figure, axes


def _drawn(figure) -> Image.Image:
    figure.canvas.draw()
    return Image.fromarray(np.asarray(figure.canvas.buffer_rgba())[..., :3].copy())


def save(image: Image.Image, path: Path) -> None:
    """Write a picture whole or not at all; 300 dots an inch."""
    check_suffix(path, STILLS)
    with replacing(path) as unfinished:
        image.save(unfinished, dpi=(300, 300), quality=95, compress_level=4)  # of JPEG, and of PNG


def animate(frames: np.ndarray, path: Path, per_second: float = 10, scale: int = 4) -> None:
    """Write frames [n, 64, 64, 3] as .gif or .webp (there and back, for ever) or .mp4 (there and back, once)."""
    check_suffix(path, ANIMATIONS)
    pictures = [enlarged(frame, scale) for frame in (*frames, *frames[-2:0:-1])]
    with replacing(path) as unfinished:
        if path.suffix.lower() == ".mp4":
            _mp4(pictures, unfinished, per_second)
        else:
            pause = [5 if k in (0, len(frames) - 1) else 1 for k in range(len(pictures))]  # rest at both ends
            duration = [int(1000 * times / per_second) for times in pause]
            pictures[0].save(
                unfinished, save_all=True, append_images=pictures[1:], duration=duration, loop=0, quality=95
            )


def _mp4(pictures: Sequence[Image.Image], path: Path, per_second: float) -> None:
    import cv2

    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), per_second, pictures[0].size)
    if not writer.isOpened():
        raise UserError(f"OpenCV cannot write {path.name} on this machine: ask for a .gif or .webp instead.")
    for picture in pictures:
        writer.write(np.asarray(picture)[..., ::-1])
    writer.release()
