"""Several runs on the same clips in one table, with intervals over people and paired differences to the first run.

Several seeds of one kind form a group. A person's metric is first averaged over the seeds; then come mean and
interval over people.
"""

import csv
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from facedisent_jax.errors import UserError
from facedisent_jax.evaluation import metrics, video
from facedisent_jax.evaluation.path_methods import NETWORK_METHODS, TITLES
from facedisent_jax.evaluation.stills import to_json
from facedisent_jax.evaluation.video import VideoEvalOptions
from facedisent_jax.files import write_atomically
from facedisent_jax.reporting import video_report

Better = Literal["more", "less", ""]  # "": neither
PersonValues = dict[str, float]  # a metric of each person


class Metric(NamedTuple):
    """A metric of the table. key: in the clips of metrics.json."""

    key: str
    title: str
    digits: int
    better: Better


PATH_METRICS = (
    Metric("trajectory/smoothness", "smoothness (0 is even)", 3, "less"),
    Metric("trajectory/r2", "R2 of smile over alpha", 3, "more"),
    Metric("trajectory/spearman", "Spearman of smile and alpha", 3, "more"),
    Metric("trajectory/inversions", "inversions", 2, "less"),
    Metric("trajectory/without_inversion", "clips without inversion", 2, "more"),
    Metric("trajectory/range", "range, real clip = 1", 2, ""),
    Metric("trajectory/lpips_length", "LPIPS of the steps / of the ends", 2, "less"),
    Metric("identity/distance", "identity distance", 3, "less"),
    Metric("intensity/whole/psnr", "face PSNR, dB", 2, "more"),
    Metric("intensity/whole/ssim", "face SSIM", 3, "more"),
    Metric("intensity/whole/lpips", "face LPIPS", 3, "less"),
    Metric("intensity/mouth/psnr", "mouth PSNR, dB", 2, "more"),
    Metric("intensity/mouth/ssim", "mouth SSIM", 3, "more"),
    Metric("intensity/mouth/lpips", "mouth LPIPS", 3, "less"),
    Metric("own_range/whole/psnr", "face PSNR in own range, dB", 2, "more"),
    Metric("own_range/mouth/psnr", "mouth PSNR in own range, dB", 2, "more"),
)
INTENSITY_METRICS = (
    Metric("spearman", "Spearman within a clip", 3, "more"),
    Metric("mae", "mean absolute error", 3, "less"),
    Metric("mae_per_person", "mean absolute error, per person", 3, "less"),
)


class Cell(NamedTuple):
    """A metric of one group.

    mean, low, high: over people. spread: standard deviation over seeds, NaN for one seed.
    difference, difference_low, difference_high: to the first group, over the `people` that both have. NaN and 0 people
    for the first group itself.
    """

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
    """A metric of every group. method: of interpolation, or "intensity read"."""

    method: str
    metric: str
    better: Better
    digits: int
    cells: list[Cell]


class Table(NamedTuple):
    """provenance: data, split, judges, and the runs with checkpoint and seed."""

    provenance: dict
    rows: list[Row]

    def text(self) -> str:
        """For the terminal."""
        return "\n".join([*provenance_lines(self.provenance), "", *row_lines(self.rows)])


def groups(arguments: Sequence[str]) -> dict[str, list[Path]]:
    """The runs of each group, from `RUN` or `NAME=RUN,RUN,...`. Raises UserError for fewer than two groups."""
    out: dict[str, list[Path]] = {}
    for argument in arguments:
        name, equals, listed = argument.partition("=")
        runs = [Path(run) for run in listed.split(",") if run] if equals else [Path(argument)]
        if not runs or not name:
            raise UserError(f"Each group must be a run folder or NAME=RUN,RUN,..., got {argument}.")
        if name in out:
            raise UserError(f"Each run or group must be given once, got {name} twice.")
        if len(set(runs)) < len(runs):
            raise UserError(f"Each seed of a group must be another run, got a run twice in {argument}.")
        out[name] = runs
    if len(out) < 2:
        raise UserError(f"A comparison needs at least two runs or groups, got {len(out)}.")
    return out


def compare(
    groups: dict[str, list[Path]], options: VideoEvalOptions, on_measure: Callable[[Path], None] = lambda run: None
) -> Table:
    """Metrics of every run on the same clips.

    RUN/video/metrics.json is used if it has the same data, split, checkpoint, clips and judges. Otherwise `on_measure`
    is called with the run, and RUN/video is written anew. Without data in the options, the first run's data is used.
    """
    by_group: dict[str, list[dict]] = {}
    for name, runs in groups.items():
        for run in runs:
            run_metrics = video.load_cached(run, options)
            if run_metrics is None:
                on_measure(run)
                run_metrics = video_report.write(run, options)
            if not options.data:
                options = replace(options, data=tuple(Path(folder) for folder in run_metrics["data"]["folders"]))
            by_group.setdefault(name, []).append(run_metrics)
    first_key = next(iter(by_group.values()))[0]["key"]
    for name, group_metrics in by_group.items():
        for run, run_metrics in zip(groups[name], group_metrics, strict=True):
            if any(run_metrics["key"][part] != first_key[part] for part in ("clips", "judges")):
                raise UserError(f"{run} was evaluated on other clips or by other judges than the first run.")
    return Table(table_provenance(groups, by_group), table_rows(by_group))


def table_rows(by_group: dict[str, list[dict]]) -> list[Row]:
    """The rows with at least one number. by_group: for each group, metrics.json of every seed."""
    readers = [
        (TITLES[method][0], metric, _path_reader(method, metric))
        for method in NETWORK_METHODS
        for metric in PATH_METRICS
    ]
    readers += [("intensity read", metric, _intensity_reader(metric)) for metric in INTENSITY_METRICS]
    rows = []
    for method, metric, read in readers:
        values = {name: [person_means(seed["clips"], read) for seed in seeds] for name, seeds in by_group.items()}
        cells = group_cells(values)
        if any(np.isfinite(cell.mean) for cell in cells):
            rows.append(Row(method, metric.title, metric.better, metric.digits, cells))
    return rows


def _path_reader(method: str, metric: Metric) -> Callable[[dict], float | None]:
    return lambda clip: clip["methods"].get(method, {"figures": {}})["figures"].get(metric.key)


def _intensity_reader(metric: Metric) -> Callable[[dict], float | None]:
    return lambda clip: clip["intensity"].get(metric.key)


def person_means(clips: list[dict], read: Callable[[dict], float | None]) -> PersonValues:
    """Each person's mean over their clips. People without a number are left out."""
    values: dict[str, list[float]] = {}
    for clip in clips:
        if (value := read(clip)) is not None:
            values.setdefault(clip["subject"], []).append(value)
    return {name: float(np.mean(clip_values)) for name, clip_values in values.items()}


def group_cells(values: dict[str, list[PersonValues]]) -> list[Cell]:
    """The cell of each group. values: for each group, the people's values with every seed.

    A person counts if every seed of the group has a number. Differences are over the people whom both groups have.
    """
    means = {group: seed_means(seeds) for group, seeds in values.items()}
    first = next(iter(means.values()))
    cells = []
    for k, (group, people) in enumerate(means.items()):
        spread = np.nan
        if len(values[group]) > 1 and people:
            spread = float(np.std([np.mean([seed[name] for name in people]) for seed in values[group]], ddof=1))
        paired = sorted(set(people) & set(first)) if k else []
        difference = mean_and_interval({name: people[name] - first[name] for name in paired})
        cells.append(Cell(group, *mean_and_interval(people), spread, *difference, len(paired)))
    return cells


def seed_means(seeds: list[PersonValues]) -> PersonValues:
    """Each person's mean over the seeds, for the people whom all seeds have."""
    shared = set.intersection(*(set(seed) for seed in seeds))
    return {name: float(np.mean([seed[name] for seed in seeds])) for name in sorted(shared)}


def mean_and_interval(people: PersonValues) -> tuple[float, float, float]:
    """Mean over people and its 95 % interval."""
    return metrics.subject_mean(np.array(list(people.values()), float), np.array(list(people), str))


def table_provenance(groups: dict[str, list[Path]], by_group: dict[str, list[dict]]) -> dict:
    """What the numbers of the table depend on."""
    first = next(iter(by_group.values()))[0]
    runs = {}
    for name, seeds in by_group.items():
        runs[name] = [
            {"run": str(run)} | {key: seed["data"][key] for key in ("preset", "step", "seed")}
            for run, seed in zip(groups[name], seeds, strict=True)
        ]
    keys = ("folders", "split", "subjects", "clips", "onset_frames", "rejected", "easier_than_video")
    return {key: first["data"][key] for key in keys} | {"judges": first["judges"], "runs": runs}


def provenance_lines(provenance: dict) -> list[str]:
    """Data, judges and runs, for the terminal."""
    folders = ", ".join(provenance["folders"])
    lines = [
        f"{provenance['clips']} clips of {provenance['subjects']} people, {provenance['split']} split of {folders}"
    ]
    for key, judge in provenance["judges"].items():
        lines += [f"{key.replace('_', ' ')}: {judge['name']}"] if judge["name"] else []
        lines += [judge[remark] for remark in ("missing", "note") if judge.get(remark)]
    for name, runs in provenance["runs"].items():
        text = ", ".join(f"{run['run']} ({run['preset']}, seed {run['seed']}, step {run['step']})" for run in runs)
        lines.append(text if [run["run"] for run in runs] == [name] else f"{name}: {text}")
    return lines + provenance["easier_than_video"]


def row_lines(rows: list[Row]) -> list[str]:
    """The rows as text: each metric with its interval, and below it the difference to the first group."""
    names = [cell.group for cell in rows[0].cells] if rows else []
    width = max([34, *(len(name) + 2 for name in names)])

    def line(title: str, texts: Sequence[str]) -> str:
        return f"{title:34s}" + "".join(f"{text:>{width}s}" for text in texts)

    lines, method = [line("", names)], ""
    for row in rows:
        if row.method != method:
            method = row.method
            lines.append(method)
        values = [with_interval(c.mean, c.low, c.high, row.digits, c.spread) for c in row.cells]
        lines.append(line(f"  {row.metric}", values))
        if any(cell.people for cell in row.cells):
            lines.append(line("    difference to the first", [difference_text(cell, row) for cell in row.cells]))
    legend = (
        "[...]: Student's 95 % interval over people; sd: over seeds; difference over n people: * better, ! worse "
        "(interval without 0)"
    )
    return [*lines, "", legend]


def difference_text(cell: Cell, row: Row) -> str:
    if not cell.people:
        return ""
    bounds = cell.difference, cell.difference_low, cell.difference_high
    mark = significance_mark(cell, row.better) if round(cell.difference, row.digits) else ""
    return with_interval(*bounds, row.digits, sign=True) + f"{mark} n={cell.people}"


def with_interval(mean: float, low: float, high: float, digits: int, spread: float = np.nan, sign: bool = False) -> str:
    if not np.isfinite(mean):
        return "-"
    plus = "+" if sign else ""
    text = f"{mean:{plus}.{digits}f}"
    text += f" [{low:.{digits}f}, {high:.{digits}f}]" if np.isfinite(low) else ""
    return text + (f" sd {spread:.{digits}f}" if np.isfinite(spread) else "")


def significance_mark(cell: Cell, better: Better) -> str:
    """Where the interval of the difference does not contain 0: "*" better, "!" worse, "~" neither; "" elsewhere."""
    if not cell.difference_low * cell.difference_high > 0:
        return ""
    if not better:
        return "~"
    return "*" if (cell.difference > 0) == (better == "more") else "!"


def save(table: Table, path: Path) -> None:
    """Write the table as .csv (one line per metric and group) or .json (with the provenance), whole or not at all."""
    if path.suffix.lower() == ".csv":
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(("method", "metric", "better", *Cell._fields))
        for row in table.rows:
            for cell in row.cells:
                values = ["" if isinstance(v, float) and not np.isfinite(v) else v for v in cell]
                writer.writerow([row.method, row.metric, row.better, *values])
        content = text.getvalue()
    else:
        rows = [
            {
                "method": row.method,
                "metric": row.metric,
                "better": row.better,
                "groups": [c._asdict() for c in row.cells],
            }
            for row in table.rows
        ]
        content = json.dumps(to_json({"provenance": table.provenance, "rows": rows}), indent=1, allow_nan=False) + "\n"
    write_atomically(path, content)


def check_out(path: Path) -> None:
    """Raises UserError for a file that the table cannot be written to."""
    if path.suffix.lower() not in (".csv", ".json"):
        raise UserError(f"--out must end in .csv or .json, got {path}.")
