"""The figure of `eval.py disentangle`: which code holds which factor."""

import numpy as np
from jaxtyping import Float
from PIL import Image

from facedisent_jax.evaluation.factor_probes import above_chance
from facedisent_jax.models import Codes
from facedisent_jax.reporting import figures

COLOURS = {"expected": "#1f5fa8", "unexpected": "#c4421a", "": "#6b6b6b"}
TITLES = {"expression_label": "expression:\nlabel dims", "expression_free": "expression:\nfree dims"}
GROUPS = {"smile": "way of smiling"}


def blocks_by_factors(metrics: dict) -> Image.Image:
    """Factors down, codes and probes across. metrics: the content of disentangle/metrics.json."""
    columns = [(block, kind) for block, kinds in metrics["blocks"].items() for kind in kinds]
    factors: list[dict[str, str]] = [factor for factor in metrics["factors"] if factor["name"] != "subject"]
    values = [[metrics["blocks"][block][kind][factor["name"]] for block, kind in columns] for factor in factors]
    people = metrics["subject"]
    person = {block: above_chance(**people[block]) for block in people if people[block]["accuracy"] is not None}
    if person:  # first, as a probe that names the person sees all that differs between people
        factors = [{"name": "person", "group": "person", "expected_in": "identity"}, *factors]
        values = [[person[block] if kind == "linear" else np.nan for block, kind in columns], *values]
    marks = [[mark_of(factor["expected_in"], block) for block, _ in columns] for factor in factors]
    top = [f"{TITLES.get(block, block)}\n{kind.replace('nonlinear', 'non-linear')}" for block, kind in columns]
    groups = [GROUPS.get(factor["group"], factor["group"]) for factor in factors]
    left = [factor["name"].replace("_", " ") for factor in factors]
    return draw(np.array(values, float), marks, top, left, groups)


def mark_of(expected_in: str, block: str) -> str:
    """Whether a block, or the code that it is a part of, should hold a factor: "expected", "unexpected" or ""."""
    if not expected_in:
        return ""
    code = next(name for name in Codes._fields if block.startswith(name))
    return "expected" if code == expected_in else "unexpected"


def draw(
    values: Float[np.ndarray, "n m"], marks: list[list[str]], top: list[str], left: list[str], groups: list[str]
) -> Image.Image:
    """A table of numbers in [0, 1], each on a ground whose colour is that of its mark; NaN leaves a cell empty.

    groups: of each row; a line separates them.
    """
    rows, columns = values.shape
    figure, (axis,) = figures.new_axes(1, (1.25 * columns + 3.2, 0.22 * rows + 1.4))
    from matplotlib.colors import to_rgb  # imported by new_axes first, whatever backend is set
    from matplotlib.patches import Patch

    ground = np.array([[to_rgb(COLOURS[mark]) for mark in row] for row in marks])
    share = np.nan_to_num(values)[..., None]
    axis.imshow(1 - share * (1 - ground), aspect="auto")
    for row, column in np.argwhere(np.isfinite(values)):
        value = values[row, column]
        colour = "white" if value > 0.55 else figures.INK if value > 0.15 else COLOURS[marks[row][column]]
        axis.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=7.5, color=colour)
    axis.grid(False)
    axis.tick_params(length=0, labelsize=8.5)
    axis.xaxis.tick_top()
    axis.set_xticks(range(columns), top)
    axis.set_yticks(range(rows), left)
    starts = [k for k in range(rows) if k == 0 or groups[k] != groups[k - 1]]
    for first, last in zip(starts, [*starts[1:], rows], strict=True):
        axis.axhline(last - 0.5, color=figures.FAINT, linewidth=0.8)
        axis.text(columns - 0.4, (first + last - 1) / 2, groups[first], va="center", fontsize=8.5, color=figures.FAINT)
    labels = {"expected": "should be here", "unexpected": "should not be here", "": "no claim"}
    used_marks = [mark for mark in labels if any(mark in row for row in marks)]
    handles = [Patch(color=COLOURS[mark], label=labels[mark]) for mark in used_marks]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), fontsize=8.5, frameon=False)
    return figures.render(figure)
