"""Figures for a report or a paper: labelled grids of faces, curves, scatter plots, animations.

Faces are enlarged so that their pixels stay visible (Lanczos). The background is white, and labels are never cut off.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Shaped, UInt8
from PIL import Image, ImageDraw, ImageFont

from facedisent_jax.environment import import_matplotlib
from facedisent_jax.errors import UserError
from facedisent_jax.files import STILLS, check_suffix, replacing

Image64 = UInt8[np.ndarray, "64 64 3"] | Float[np.ndarray, "64 64 3"]  # floats in [0, 1]

ANIMATIONS = (".gif", ".webp", ".mp4")
SCALE = 3  # enlargement of a face: at 192 pixels, six to ten fill the width of a page at 300 dots per inch
GAP = 6  # pixels between faces
MARGIN_GAP = 30  # pixels between the margins and the other faces
BORDER = 24  # pixels around the figure
INK, FAINT = "#1a1a1a", "#8a8a8a"
LABEL_SIZE = 26  # pixels, in a figure of up to eight columns; up to twice that in wider ones
MIN_LABEL_SIZE = 15  # pixels, where a label would not fit otherwise
NOT_LOSS_TERMS = ("step", "images_per_second", "learning_rate", "gradient_norm", "seconds")  # in metrics.jsonl


class ReportFigure(NamedTuple):
    """A figure of a page. name: of its file, without .png. Without an image, the caption says why it was left out."""

    name: str
    title: str
    caption: str
    image: Image.Image | None = None


def grid(
    cells: Sequence[Sequence[Image64 | None]],
    top: Sequence[str] = (),
    left: Sequence[str] = (),
    below: Sequence[Sequence[str]] = (),
    margin_rows: int = 0,
    margin_columns: int = 0,
    end_columns: int = 0,
    scale: int = SCALE,
) -> Image.Image:
    """Rows of faces with labels above the columns and to the left of the rows.

    cells: None leaves a cell empty.
    below: a label under each face, row by row.
    margin_rows, margin_columns, end_columns: how many of the first rows, first columns and last columns (usually the
    real images) are set apart from the rest.
    """
    top, left = ([_printable(label) for label in labels] for labels in (top, left))
    side = scale * next(len(cell) for row in cells for cell in row if cell is not None)
    columns = max(map(len, cells))
    label_size = int(LABEL_SIZE * min(max(1, columns / 8), 2))  # a wide figure is printed smaller
    left_width = max((_width(label, label_size) for label in left), default=0)
    left_width = min(left_width, 2 * side) + (12 if left else 0)
    lines = max((label.count("\n") + 1 for label in top), default=0)
    top_height = lines * (label_size + 8) + (8 if lines else 0)
    xs = _cell_starts(columns, side, (margin_columns, columns - end_columns), BORDER + left_width)
    below_height = label_size + 24 if below else 0
    ys = _cell_starts(len(cells), side + below_height, (margin_rows,), BORDER + top_height)
    canvas = Image.new("RGB", (xs[-1] + side + BORDER, ys[-1] + side + below_height + BORDER), "white")
    draw = ImageDraw.Draw(canvas)
    for c, label in enumerate(top):
        _draw_text(draw, (xs[c] + side / 2, ys[0] - 10), label, side, label_size, "md")
    for r, label in enumerate(left):
        _draw_text(draw, (xs[0] - 12, ys[r] + side / 2), label, left_width - 12, label_size, "rm")
    for r, labels in enumerate(below):
        for c, label in enumerate(labels):
            _draw_text(draw, (xs[c] + side / 2, ys[r] + side + 4), label, side, label_size, "ma")
    for r, row in enumerate(cells):
        for c, cell in enumerate(row):
            if cell is not None:
                canvas.paste(enlarge(cell, scale), (xs[c], ys[r]))
    return canvas


def _cell_starts(count: int, side: int, breaks: Sequence[int], start: int) -> list[int]:
    """The first pixel of each cell, with a wider gap before the cells in `breaks`."""
    breaks = [k for k in breaks if 0 < k < count]
    return [start + k * (side + GAP) + MARGIN_GAP * sum(k >= b for b in breaks) for k in range(count)]


def enlarge(face: Image64, scale: int = SCALE) -> Image.Image:
    """One face as an image `scale` times as large."""
    image = Image.fromarray(_to_uint8(face))
    return image.resize((image.width * scale, image.height * scale), Image.Resampling.LANCZOS)


def _to_uint8(face: np.ndarray) -> np.ndarray:
    return face if face.dtype == np.uint8 else np.rint(255 * np.clip(face, 0, 1)).astype(np.uint8)


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which comes with matplotlib and has Greek, Cyrillic and accents."""
    import_matplotlib()
    import matplotlib

    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", size)


def _printable(label: str) -> str:
    """The label with "?" for what cannot be drawn, and three lines at most."""
    lines = ["".join(letter if letter.isprintable() else "?" for letter in line) for line in label.split("\n")]
    return "\n".join(lines[:3])


def _width(text: str, size: int) -> int:
    return max(int(np.ceil(_font(size).getlength(line))) for line in text.split("\n"))


def _draw_text(
    draw: ImageDraw.ImageDraw, position: tuple[float, float], text: str, width: int, size: int, anchor: str
) -> None:
    """Text no wider than `width`: in smaller letters if needed, and as a last resort without its middle."""
    size = next((size for size in range(size, MIN_LABEL_SIZE, -1) if _width(text, size) <= width), MIN_LABEL_SIZE)
    text = "\n".join(_shorten(line, size, width) for line in text.split("\n"))
    draw.multiline_text(position, text, INK, _font(size), anchor, align="right" if anchor[0] == "r" else "center")


def _shorten(text: str, size: int, width: int) -> str:
    letters = len(text)
    short = text
    while _width(short, size) > width and letters > 2:
        letters -= 1
        short = text[: (letters + 1) // 2] + "…" + text[len(text) - letters // 2 :]
    return short


def training_curves(history: Sequence[Mapping[str, float]]) -> Image.Image | None:
    """Loss terms (left, logarithmic) and validation PSNR in dB (right) over the steps.

    history: the lines of metrics.jsonl. Returns None if they have neither.
    """
    series: dict[str, tuple[list, list]] = {}
    for entry in history:
        for name, value in entry.items():
            usable = isinstance(value, int | float) and np.isfinite(value)
            if usable and name not in NOT_LOSS_TERMS:
                xs, ys = series.setdefault(name, ([], []))
                xs.append(entry["step"])
                ys.append(value)
    first = ("loss", "reconstruction", "swap")
    names = sorted(series, key=lambda name: (first.index(name) if name in first else len(first), name))
    terms = {name: series[name] for name in names if "/" not in name and max(series[name][1]) > 0}
    psnr = {name.removeprefix("validation/"): line for name, line in series.items() if name.endswith("_psnr")}
    panels = [(terms, "training: loss and its unweighted terms", True), (psnr, "validation PSNR, dB", False)]
    panels = [panel for panel in panels if panel[0]]
    if not panels:
        return None
    figure, axes = new_axes(len(panels), (5.6 * len(panels), 3.8))
    for axis, (lines, title, log) in zip(axes, panels, strict=True):
        for k, (name, (xs, ys)) in enumerate(lines.items()):
            style = ("-", "--", ":")[k // 10 % 3]
            axis.plot(xs, ys, style, label=name.replace("_", " "), linewidth=1.4, marker="." if len(xs) < 30 else "")
        axis.set_title(title, loc="left", fontsize=10)
        axis.set_xlabel("step")
        if log:
            axis.set_yscale("log")
        axis.legend(fontsize=7.5, frameon=False, loc="upper left", bbox_to_anchor=(1.01, 1.02))
    return render(figure)


def intensity_scatter(
    truth: Float[np.ndarray, "n"], read: Float[np.ndarray, "n"], actions: Shaped[np.ndarray, "n"]
) -> Image.Image:
    """Intensity read from the expression code against the true intensity, one colour per action."""
    figure, (axis,) = new_axes(1, (4.6, 4.2))
    axis.plot([0, 1], [0, 1], color=FAINT, linewidth=1)
    jitter = np.random.default_rng(0).uniform(-0.012, 0.012, len(truth))  # many images share one intensity
    for action in np.unique(actions):
        rows = actions == action
        name = str(action)[:40].replace("$", r"\$")  # not a formula
        axis.scatter(truth[rows] + jitter[rows], read[rows], s=9, alpha=0.5, linewidths=0, label=name)
    axis.set_xlabel("true intensity")
    axis.set_ylabel("read from the expression code")
    axis.set_xlim(-0.05, 1.05)
    axis.set_ylim(min(-0.05, read.min() - 0.05), max(1.05, read.max() + 0.05))
    axis.legend(fontsize=8, frameon=False, loc="upper left")
    return render(figure)


class Line(NamedTuple):
    """One line of a chart. strong: thick. dashed: a baseline. faint: one of many, not in the legend."""

    name: str
    x: np.ndarray
    y: np.ndarray
    colour: str
    strong: bool = False
    dashed: bool = False
    faint: bool = False


def line_charts(panels: Sequence[tuple[str, Sequence[Line]]], x_label: str, y_label: str) -> Image.Image:
    """Panels of lines side by side, each (title, lines), with one legend at the right."""
    figure, axes = new_axes(len(panels), (4.1 * len(panels) + 2.3, 3.8))
    legend = {}
    for axis, (title, lines) in zip(axes, panels, strict=True):
        for line in lines:
            width = 0.6 if line.faint else 2.2 if line.strong else 1.2
            style, opacity = ("--" if line.dashed else "-"), (0.45 if line.faint else 1.0)
            (artist,) = axis.plot(line.x, line.y, style, color=line.colour, linewidth=width, alpha=opacity)
            if not line.faint:
                legend.setdefault(line.name, artist)
        axis.set_title(title, loc="left", fontsize=10)
        axis.set_xlabel(x_label)
    axes[0].set_ylabel(y_label)
    figure.legend(list(legend.values()), list(legend), loc="outside right upper", fontsize=8, frameon=False)
    return render(figure)


def new_axes(count: int, size: tuple[float, float]):
    import_matplotlib()
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


def render(figure) -> Image.Image:
    figure.canvas.draw()
    return Image.fromarray(np.asarray(figure.canvas.buffer_rgba())[..., :3].copy())


def save(image: Image.Image, path: Path) -> None:
    """Write an image at 300 dots per inch, whole or not at all."""
    check_suffix(path, STILLS)
    with replacing(path) as partial:
        image.save(partial, dpi=(300, 300), quality=95, compress_level=4)  # quality for JPEG, compress_level for PNG


def animate(
    frames: Float[np.ndarray, "n 64 64 3"] | UInt8[np.ndarray, "n 64 64 3"],
    path: Path,
    frame_rate: float = 10,
    scale: int = 4,
) -> None:
    """Write frames forwards and backwards: as .gif or .webp, which repeat, or as .mp4, which plays once."""
    check_suffix(path, ANIMATIONS)
    images = [enlarge(frame, scale) for frame in (*frames, *frames[-2:0:-1])]
    with replacing(path) as partial:
        if path.suffix.lower() == ".mp4":
            _write_mp4(images, partial, frame_rate)
        else:
            repeats = [5 if k in (0, len(frames) - 1) else 1 for k in range(len(images))]  # rest at both ends
            duration = [int(1000 * count / frame_rate) for count in repeats]
            images[0].save(partial, save_all=True, append_images=images[1:], duration=duration, loop=0, quality=95)


def _write_mp4(images: Sequence[Image.Image], path: Path, frame_rate: float) -> None:
    import cv2

    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), frame_rate, images[0].size)
    if not writer.isOpened():
        raise UserError("OpenCV cannot write .mp4 on this machine: use .gif or .webp.")
    for image in images:
        writer.write(np.asarray(image)[..., ::-1])
    writer.release()
