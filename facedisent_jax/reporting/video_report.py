"""RUN/video: the page, metrics and figures of a run, compared with real clips frame by frame (docs/video.md)."""

import json
from collections.abc import Sequence
from html import escape
from pathlib import Path

from facedisent_jax.evaluation import video
from facedisent_jax.evaluation.path_methods import NETWORK_METHODS, TITLES
from facedisent_jax.evaluation.video import VideoEvalOptions, prepare
from facedisent_jax.reporting import html, video_gallery
from facedisent_jax.reporting.figures import ReportFigure
from facedisent_jax.reporting.html import MetricRow, number

IMAGE_METRICS = (("psnr", "PSNR, dB", 2), ("ssim", "SSIM", 3), ("lpips", "LPIPS", 3))

DEFINITIONS = """Onset: from the last frame below 5 % of the take's range of intensity to the first above 95 %, at least
8 frames. Alpha: position between the two end frames, by intensity. Every method gets the two end frames only ("one
picture": only the neutral one). Means are over the frames in between, then over the clips of a person, then over
people; 95 % intervals are Student's over people. Mouth: rows 38-59, columns 14-49. Smoothness: max|ds| / |s1 - s0| -
1 / (K - 1) for the smile s measured at K = 11 equal steps of alpha; 0 is an even path. R2: of a straight line fitted to
s over alpha. Inversions: steps in the wrong direction. Range: s1 - s0, divided by that of the real clip. LPIPS steps:
the sum over neighbouring images, divided by the LPIPS of the two ends. LPIPS is a squared distance, so even steps in a
straight line give 0.1 and a single jump gives 1. Identity distance: to the real neutral frame, mean over alpha 0.5 and
1. All metrics, also those of each clip, are in <a href="metrics.json">metrics.json</a>."""


def write(run: Path | str, options: VideoEvalOptions, out: Path | None = None) -> dict:
    """Evaluate a run on clips and write its page, to `out` or RUN/video. Returns the content of metrics.json."""
    run = Path(run)
    setup = prepare(run, options)
    statistics, metrics = video.measure_clips(setup, options)
    drawings = video_gallery.draw_all(setup.model, setup.faces, setup.clips, statistics, metrics, options.face_mesh)
    text = json.dumps(metrics, indent=1, allow_nan=False)
    html.publish(out or run / "video", render(run.name, metrics, drawings), text, drawings)
    return metrics


def render(run: str, metrics: dict, drawings: Sequence[ReportFigure]) -> str:
    """The page. metrics: the content of metrics.json, where None is a metric that the data does not allow."""
    data = metrics["data"]
    body = [
        html.provenance_list(data),
        judge_list(metrics),
        html.notes([*data["easier_than_video"], *clip_notes(data), *dict.fromkeys(metrics["missing"])]),
        "<h2>Against the real frame of equal intensity</h2>",
        image_table(metrics, "intensity"),
        "<h2>Along the path</h2>",
        trajectory_table(metrics),
        intensity_table(metrics),
        *map(html.figure, drawings),
        "<h2>Other alignments, and against reconstructions</h2>",
        html.notes(["Against the real frame of equal time:"]),
        image_table(metrics, "time"),
        html.notes(["Against the real frames under a monotone alignment (dynamic time warping):"]),
        image_table(metrics, "dtw"),
        html.notes(
            [
                "Against the reconstruction of the real frame of equal intensity. It shows how much the path bends, "
                "without the blur of the decoder:"
            ]
        ),
        image_table(metrics, "own_range"),
        rejected_table(data),
        html.definitions(DEFINITIONS),
    ]
    title = f"{run}: comparison with real video"
    lead = (
        "Each path is decoded from the two end frames of a clip and compared with the real frames in between: "
        f"{data['clips']} clips of {data['subjects']} people that the network never saw."
    )
    return html.page(title, title, lead, body)


def judge_list(metrics: dict) -> str:
    """The networks that judge the images, or why one is missing."""
    names = {"smile": "smile", "smile_reader": "second smile", "identity": "identity", "lpips": "LPIPS"}
    rows = []
    for key, judge in metrics["judges"].items():
        description = ". ".join(part for part in (judge["name"], judge.get("note")) if part)
        rows.append((f"{names[key]} judge", description or judge.get("missing", "")))
    return html.definition_list(rows)


def clip_notes(data: dict) -> list[str]:
    """The length of the onsets, and how many takes and clips were left out, with the reasons."""
    onset = data["onset_frames"]
    notes = [f"The clips have {onset['fewest']} to {onset['most']} frames each, {onset['all']} in total."]
    if data["rejected"]:
        reasons = "; ".join(f"{count}: {reason}" for reason, count in data["rejected"].items())
        notes.append(f"{sum(data['rejected'].values())} takes could not be used ({reasons}).")
    if data["clips_left_out"]:
        count = data["clips_left_out"]
        notes.append(f"{count} more clips were left out, to keep the evaluation short (--clips 0 uses all).")
    return notes


def summary_cell(summary: dict | None, digits: int, with_interval: bool = False) -> str:
    """The mean over people as a table cell, and its interval as another."""
    if summary is None or summary["mean"] is None:
        return "<td>–</td>" * (1 + with_interval)
    text = f"<td>{summary['mean']:.{digits}f}</td>"
    return text + (f"<td>{html.interval(summary['ci95'], digits)}</td>" if with_interval else "")


def method_row(name: str, cells: str) -> str:
    kind = ' class="network"' if name in NETWORK_METHODS else ""
    title, description = map(escape, TITLES[name])
    return f"<tr{kind}><td>{title}</td>{cells}<td class='remark'>{description}</td></tr>"


def image_table(metrics: dict, alignment: str) -> str:
    """PSNR with its interval, SSIM and LPIPS, for the whole face and for the mouth region."""
    headings, rows = [""], []
    for region in ("face", "mouth"):
        for key, title, _ in IMAGE_METRICS:
            headings += [f"{region}: {title}"] + (["95 % interval"] if key == "psnr" else [])
    for name, method in metrics["methods"].items():
        if alignment in method:
            cells = [
                summary_cell(method[alignment][region].get(key), digits, key == "psnr")
                for region in ("whole", "mouth")
                for key, _, digits in IMAGE_METRICS
            ]
            rows.append(method_row(name, "".join(cells)))
    return html.table([*headings, ""], rows)


def trajectory_table(metrics: dict) -> str:
    """The measured smile along alpha, and the identity distance."""
    columns = (("r2", 3), ("spearman", 3), ("inversions", 2), ("range", 2), ("lpips_length", 2))
    rows = []
    for name, method in metrics["methods"].items():
        if trajectory := method.get("trajectory"):
            cells = [summary_cell(trajectory.get("smoothness"), 3, True)]
            cells += [summary_cell(trajectory.get(key), digits) for key, digits in columns]
            cells.append(summary_cell(method.get("identity", {}).get("distance"), 3))
            rows.append(method_row(name, "".join(cells)))
    headings = ["", "smoothness", "95 % interval", "R2", "Spearman", "inversions", "range", "LPIPS steps"]
    distance = metrics["identity_between_people"]
    note = [f"Identity distance between different people: {distance:.2f}."] if distance is not None else []
    return html.table([*headings, "identity distance", ""], rows) + html.notes(note)


def intensity_table(metrics: dict) -> str:
    """Intensity read from the expression code within a clip, and what linear probes find in the codes."""
    columns = (
        ("Spearman within a clip", "spearman", "0"),
        ("mean absolute error", "mae", ""),
        ("mean absolute error after scaling to each person's neutral and apex", "mae_per_person", ""),
    )
    rows = []
    for title, key, chance in columns:
        summary = metrics["intensity"][key]
        between = html.interval(summary["ci95"], 3)
        remark = f"95 % interval over people: {between}" if between else ""
        name = f"intensity read from the expression code, {title}"
        rows.append(MetricRow(name, number(summary["mean"], 3), chance, remark))
    codes = metrics["disentanglement"]
    return html.metric_table(rows + html.probe_rows(codes["probes"], codes["leakage"]))


def rejected_table(data: dict) -> str:
    """The takes that could not be used, each with the reason."""
    if not data["rejected_takes"]:
        return ""
    rows = [
        f"<tr><td>{escape(take['take'])}</td><td class='remark'>{escape(take['reason'])}</td></tr>"
        for take in data["rejected_takes"][:100]
    ]
    return "<h2>Takes that could not be used</h2>" + html.table(("take", "reason"), rows)


def as_text(metrics: dict) -> str:
    """The most telling metrics for the terminal, one line per method."""
    headings = ("face dB", "mouth dB", "smoothness", "R2", "Spearman", "range")
    lines = [" " * 26 + "".join(f"{heading:>11s}" for heading in headings)]
    for name, method in metrics["methods"].items():
        images, trajectory = method.get("intensity", {}), method.get("trajectory", {})
        summaries = [images.get(region, {}).get("psnr") for region in ("whole", "mouth")]
        summaries += [trajectory.get(key) for key in ("smoothness", "r2", "spearman", "range")]
        values = [number(s["mean"] if s else None, n) for s, n in zip(summaries, (2, 2, 3, 3, 3, 2), strict=True)]
        lines.append(f"{TITLES[name][0]:26s}" + "".join(f"{value:>11s}" for value in values))
    read = {key: number(summary["mean"], 3) for key, summary in metrics["intensity"].items()}
    lines.append(
        f"intensity read from the expression code: Spearman within a clip {read['spearman']}, mean absolute error "
        f"{read['mae']}, after scaling per person {read['mae_per_person']}"
    )
    return "\n".join(lines)
