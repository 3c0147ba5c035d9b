"""What the pieces of accelerator.py are given, and how they report: a line of JSON for each figure."""

import argparse
import json
import time
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

START = time.monotonic()
"""When the process of this piece began, but for the start of Python."""
MARK = "figure: "
"""How the line of a figure begins, on the standard output of a piece."""


class Piece(NamedTuple):
    """pictures: the .npz. rehearse: small sizes and few steps. end: when it must be over, by `time.monotonic`, which is
    the same in all processes of a machine. out: folder for weights."""

    pictures: Path
    rehearse: bool
    end: float
    out: Path

    def has(self, seconds: float) -> bool:
        """Whether so much time is left. A rehearsal does not hurry."""
        return self.rehearse or self.left() > seconds

    def left(self) -> float:
        return max(0.0, self.end - time.monotonic())

    def arguments(self) -> list[str]:
        """For the command line of another process of this piece."""
        options = [str(self.pictures), "--end", str(self.end), "--out", str(self.out)]
        return [*options, *["--rehearse"] * self.rehearse]


def parse_piece(option: str = "") -> tuple[Piece, str]:
    """The command line of another process of a piece: `Piece.arguments`, and perhaps one more option with its value."""
    parser = argparse.ArgumentParser()
    parser.add_argument("pictures", type=Path)
    parser.add_argument("--end", type=float)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--rehearse", action="store_true")
    if option:
        parser.add_argument(option, dest="value")
    options = parser.parse_args()
    return Piece(options.pictures, options.rehearse, options.end, options.out), getattr(options, "value", "")


@cache
def device_kind() -> str:
    """Of the device that JAX computes on."""
    import jax

    return jax.devices()[0].device_kind


def report(
    what: str,
    value: float | None,
    unit: str = "",
    note: str = "",
    at_most: float | None = None,
    at_least: float | None = None,
    device: str = "",
    **details: Any,
) -> None:
    """Print a figure.

    value: None where it was not measured; the note says why. at_most, at_least: the target, if it has one.
    device: "" is the device that JAX computes on. details: go into the JSON file alone.
    """
    figure: dict[str, Any] = {"what": what, "value": value, "unit": unit, "note": note}
    if at_most is not None:
        figure |= {"target": f"<= {at_most:g}", "met": value is not None and value <= at_most}
    if at_least is not None:
        figure |= {"target": f">= {at_least:g}", "met": value is not None and value >= at_least}
    print(MARK + json.dumps(figure | details | {"device_kind": device or device_kind()}), flush=True)


def rows(figures: Iterable[dict]) -> list[tuple[str, ...]]:
    """Figures as the rows of one table, with its head."""
    head = ("what", "value", "unit", "target", "met", "device", "note")
    return [head] + [
        (
            figure["what"],
            "-" if figure["value"] is None else f"{figure['value']:.4g}",
            figure["unit"],
            figure.get("target", ""),
            {True: "yes", False: "no"}.get(figure.get("met"), "") if figure["value"] is not None else "",
            figure["device_kind"],
            figure["note"],
        )
        for figure in figures
    ]
