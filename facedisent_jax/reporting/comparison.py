"""Several runs on the same clips: one table, with intervals over people and paired differences to the first run.

Several seeds of one kind are a group: a person's figure is its mean over the seeds, before the bootstrap over people.
Imports metrics, paths, video.
"""

import csv
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from facedisent_jax.errors import UserError
from facedisent_jax.evaluation import metrics, path_methods, video
from facedisent_jax.evaluation.stills import to_json
from facedisent_jax.evaluation.video import VideoEvalOptions
from facedisent_jax.files import write_atomically
from facedisent_jax.reporting import video_report

ALONG = (
    ("trajectory/smoothness", "smoothness (0 is even)", 3, "less"),
    ("trajectory/r2", "R2 of smile over alpha", 3, "more"),
    ("trajectory/spearman", "Spearman of smile and alpha", 3, "more"),
    ("trajectory/inversions", "inversions", 2, "less"),
    ("trajectory/without_inversion", "clips without inversion", 2, "more"),
    ("trajectory/range", "range, real clip = 1", 2, ""),
    ("trajectory/lpips_length", "LPIPS of the steps / of the ends", 2, "less"),
    ("identity/distance", "identity distance", 3, "less"),
    ("intensity/whole/psnr", "face PSNR, dB", 2, "more"),
    ("intensity/whole/ssim", "face SSIM", 3, "more"),
    ("intensity/whole/lpips", "face LPIPS", 3, "less"),
    ("intensity/mouth/psnr", "mouth PSNR, dB", 2, "more"),
    ("intensity/mouth/ssim", "mouth SSIM", 3, "more"),
    ("intensity/mouth/lpips", "mouth LPIPS", 3, "less"),
    ("own_range/whole/psnr", "face PSNR in own range, dB", 2, "more"),
    ("own_range/mouth/psnr", "mouth PSNR in own range, dB", 2, "more"),
)
"""Figures of each way of the network: key in metrics.json, name, digits, which is better."""
READ = (
    ("spearman", "Spearman within a clip", 3, "more"),
    ("mae", "mean absolute error", 3, "less"),
    ("mae_per_person", "mean absolute error, per person", 3, "less"),
)
"""Figures of the intensity read from the expression code."""


class Figure(NamedTuple):
    """One figure of one group. mean, low, high over people; spread over seeds (NaN for one); against the first group:
    difference, its interval, and over how many people (NaN, 0 for the first itself)."""

    group: str
    mean: float
    low: float
    high: float
    spread: float
    difference: float
    difference_low: float
    difference_high: float
    people: int


class Row(NamedTuple):
    """A line of the table. what: the way, or the reading; better: "more", "less" or "" for neither."""

    what: str
    figure: str
    better: str
    digits: int
    figures: list[Figure]


class Table(NamedTuple):
    """facts: data, split, judges, runs with checkpoint and seed; rows in the table's order."""

    facts: dict
    rows: list[Row]

    def text(self) -> str:
        """For the terminal: each figure with its interval, and the difference to the first group below it."""
        return "\n".join([*said(self.facts), "", *lines(self.rows)])


def groups(arguments: Sequence[str]) -> dict[str, list[Path]]:
    """`RUN` or `NAME=RUN,RUN,...` -> the runs of each group. Raises VideoError for less than two groups."""
    out: dict[str, list[Path]] = {}
    for argument in arguments:
        name, given, listed = argument.partition("=")
        runs = [Path(run) for run in listed.split(",") if run] if given else [Path(argument)]
        if not runs or not name:
            raise UserError(f"{argument} names no runs: give NAME=RUN,RUN,... or a run folder.")
        if name in out:
            raise UserError(f"{name} was given twice: give each run or group once.")
        if len(set(runs)) < len(runs):
            raise UserError(f"{argument} names a run twice: a seed counts once.")
        out[name] = runs
    if len(out) < 2:
        raise UserError(f"Comparing takes two runs or groups, {len(out)} given.")
    return out


def compare(
    held: dict[str, list[Path]], asked: VideoEvalOptions, tell: Callable[[Path], None] = lambda run: None
) -> Table:
    """Figures of every run on the same clips. Those in RUN/video are used where they are of the same data, split,
    checkpoint, clips and judges; others are measured (`tell` is called with the run) and written there."""
    found: dict[str, list[dict]] = {}
    for name, runs in held.items():
        for run in runs:
            one = video.load_cached(run, asked)
            if one is None:
                tell(run)
                one = video_report.write(run, asked)
            if not asked.data:  # the first run's own data is what all are compared on
                asked = replace(asked, data=tuple(Path(folder) for folder in one["data"]["folders"]))
            found.setdefault(name, []).append(one)
    first = next(iter(found.values()))[0]
    for name, ones in found.items():
        for run, one in zip(held[name], ones, strict=True):
            if one["key"]["clips"] != first["key"]["clips"] or one["key"]["judges"] != first["key"]["judges"]:
                raise UserError(f"{run} was judged on other clips or by other judges than the first run.")
    return Table(facts(held, found), table(found))


def table(found: dict[str, list[dict]]) -> list[Row]:
    """The rows of the table, those with no number left out. found: metrics.json of each seed of each group."""
    wanted = [
        (path_methods.TITLES[mode][0], title, better, digits, lambda clip, mode=mode, key=key: _of_way(clip, mode, key))
        for mode in path_methods.MODES
        for key, title, digits, better in ALONG
    ]
    wanted += [
        ("intensity read", title, better, digits, lambda clip, key=key: clip["intensity"].get(key))
        for key, title, digits, better in READ
    ]
    rows = []
    for what, title, better, digits, get in wanted:
        people = {name: [per_person(one["clips"], get) for one in ones] for name, ones in found.items()}
        figures = figures_of(people)
        if any(np.isfinite(figure.mean) for figure in figures):
            rows.append(Row(what, title, better, digits, figures))
    return rows


def _of_way(clip: dict, mode: str, key: str) -> float | None:
    return clip["methods"].get(mode, {"figures": {}})["figures"].get(key)


def per_person(clips: list[dict], get: Callable[[dict], float | None]) -> dict[str, float]:
    """Each person's mean over their clips; people without a number are left out."""
    values: dict[str, list[float]] = {}
    for clip in clips:
        if (value := get(clip)) is not None:
            values.setdefault(clip["subject"], []).append(value)
    return {name: float(np.mean(held)) for name, held in values.items()}


def figures_of(people: dict[str, list[dict[str, float]]]) -> list[Figure]:
    """One figure for each group. people: group -> for each seed, the figure of each person.

    A person counts where every seed of the group has a number; a difference is of people whom both groups have.
    """
    means = {name: over_seeds(seeds) for name, seeds in people.items()}
    out, first = [], next(iter(means.values()))
    for k, (name, own) in enumerate(means.items()):
        mean, low, high = interval(own)
        spread = np.nan
        if len(people[name]) > 1 and own:
            spread = float(np.std([np.mean([seed[who] for who in own]) for seed in people[name]], ddof=1))
        both = sorted(set(own) & set(first)) if k else []
        paired = interval({who: own[who] - first[who] for who in both})
        out.append(Figure(name, mean, low, high, spread, *paired, len(both)))
    return out


def over_seeds(seeds: list[dict[str, float]]) -> dict[str, float]:
    """Each person's mean over the seeds, of people whom all seeds have."""
    shared = set.intersection(*(set(seed) for seed in seeds))
    return {who: float(np.mean([seed[who] for seed in seeds])) for who in sorted(shared)}


def interval(values: dict[str, float]) -> tuple[float, float, float]:
    """Mean over people and its 95 % bootstrap interval; the same draws for all figures of the same people."""
    return metrics.by_subject(np.array(list(values.values()), float), np.array(list(values), str), video.SEED)


def facts(held: dict[str, list[Path]], found: dict[str, list[dict]]) -> dict:
    """What the table has to name."""
    one = next(iter(found.values()))[0]
    data = one["data"]
    runs = {
        name: [
            {"run": str(run), "preset": f["data"]["preset"], "step": f["data"]["step"], "seed": f["data"]["seed"]}
            for run, f in zip(held[name], ones, strict=True)
        ]
        for name, ones in found.items()
    }
    kept = ("folders", "split", "subjects", "clips", "onset_frames", "rejected", "easier_than_video")
    return {key: data[key] for key in kept} | {"judges": one["judges"], "runs": runs}


def said(held: dict) -> list[str]:
    """Data, judges and runs as lines of text."""
    out = [f"{held['clips']} clips of {held['subjects']} people, {held['split']} split of {', '.join(held['folders'])}"]
    for judge, one in held["judges"].items():
        out += [f"{judge.replace('_', ' ')}: {one['name']}"] if one["name"] else []
        out += [one[key] for key in ("missing", "note") if one.get(key)]
    for name, runs in held["runs"].items():
        each = ", ".join(f"{run['run']} ({run['preset']}, seed {run['seed']}, step {run['step']})" for run in runs)
        out.append(each if [run["run"] for run in runs] == [name] else f"{name}: {each}")
    return out + held["easier_than_video"]


def lines(rows: list[Row]) -> list[str]:
    """The table as text. A difference clear of zero is marked * if better, ! if worse, ~ if neither."""
    names = [figure.group for figure in rows[0].figures] if rows else []
    wide = max([34, *(len(name) + 2 for name in names)])
    out, what = [" " * 34 + "".join(f"{name:>{wide}s}" for name in names)], ""
    for row in rows:
        if row.what != what:
            what = row.what
            out.append(what)
        cells = [with_interval(f.mean, f.low, f.high, row.digits, f.spread) for f in row.figures]
        out.append(f"  {row.figure:32s}" + "".join(f"{cell:>{wide}s}" for cell in cells))
        if any(f.people for f in row.figures):
            cells = [
                with_interval(f.difference, f.difference_low, f.difference_high, row.digits, sign=True) + mark(f, row)
                if f.people
                else ""
                for f in row.figures
            ]
            out.append(f"  {'  difference to the first':32s}" + "".join(f"{cell:>{wide}s}" for cell in cells))
    out += [
        "",
        "[...]: 95 % bootstrap over people; sd: over seeds; * clear of zero and better, ! clear of zero and worse",
    ]
    return out


def with_interval(mean: float, low: float, high: float, digits: int, spread: float = np.nan, sign: bool = False) -> str:
    if not np.isfinite(mean):
        return "-"
    plus = "+" if sign else ""
    text = f"{mean:{plus}.{digits}f}"
    text += f" [{low:.{digits}f}, {high:.{digits}f}]" if np.isfinite(low) else ""
    return text + (f" sd {spread:.{digits}f}" if np.isfinite(spread) else "")


def mark(figure: Figure, row: Row) -> str:
    """Whether the interval of the difference is clear of zero, and which way."""
    if not figure.difference_low * figure.difference_high > 0:
        return ""
    if not row.better:
        return "~"
    return "*" if (figure.difference > 0) == (row.better == "more") else "!"


def save(made: Table, path: Path) -> None:
    """Write the table as .csv (one line a figure and group) or .json (with the facts), whole or not at all."""
    columns = ("what", "figure", "better", *Figure._fields)
    if path.suffix.lower() == ".csv":
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(columns)
        for row in made.rows:
            for figure in row.figures:
                values = ["" if isinstance(v, float) and not np.isfinite(v) else v for v in figure]
                writer.writerow([row.what, row.figure, row.better, *values])
        content = text.getvalue()
    else:
        rows = [
            {"what": row.what, "figure": row.figure, "better": row.better, "groups": [f._asdict() for f in row.figures]}
            for row in made.rows
        ]
        content = json.dumps(to_json({"facts": made.facts, "rows": rows}), indent=1, allow_nan=False) + "\n"
    write_atomically(path, content)


def check_out(path: Path) -> None:
    """Raises VideoError for a file that the table cannot be written to."""
    if path.suffix.lower() not in (".csv", ".json"):
        raise UserError(f"{path} tells no kind of table: use .csv or .json.")
