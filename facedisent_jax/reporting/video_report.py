"""The page of video truth and its pictures: curves over alpha, strips under the real frames. Imports page and figures.

People are drawn by seed, never by eye. Everything that comes from data is escaped.
"""

import json
import shutil
from collections.abc import Sequence
from html import escape
from pathlib import Path

import numpy as np

from facedisent_jax import trained_model
from facedisent_jax.data.record import Faces
from facedisent_jax.evaluation import judges, path_methods, video
from facedisent_jax.evaluation.clips import Clip
from facedisent_jax.evaluation.video import VideoEvalOptions, prepare
from facedisent_jax.reporting import figures, html, report
from facedisent_jax.reporting.figures import Line
from facedisent_jax.reporting.gallery import GalleryFigure

SEED = 0
STRIPS, COLUMNS = 4, 8
PEOPLE, PLACES = 6, 6
"""People in the one picture of several, in two columns, and frames of each."""
COLOURS = {
    "expression": "#c0392b",
    "whole": "#e08214",
    "one_picture": "#8e44ad",
    "own_smile": "#c77dd6",
    "own_codes": "#6a3d9a",
    "rotated": "#3f8fa8",
    "reconstruction": "#555555",
    "from_another": "#8a6d3b",
    "cross_fade": "#1f77b4",
    "cross_fade_reconstructions": "#7fb3d9",
    "morph": "#16836a",
    "mean_difference": "#8bbf4d",
    "unchanged": "#b09060",
    "pca_128": "#d48ab0",
    "nearest": "#a0a0a0",
    "real": "#000000",
}
IN_STRIPS = (*path_methods.MODES, "reconstruction", "cross_fade", "morph")
FIGURES = (("psnr", "PSNR", 2), ("ssim", "SSIM", 3), ("lpips", "LPIPS", 3))


def draw(
    face: trained_model.TrainedModel,
    faces: Faces,
    chosen: Sequence[Clip],
    learnt: path_methods.TrainingStatistics,
    found: dict,
    points: "judges.Points | None",
) -> list[GalleryFigure]:
    """All pictures of the page, in its order."""
    out = [error_curves(found), smile_curves(found)]
    people: dict[str, Clip] = {}
    for k in np.random.default_rng(SEED).permutation(len(chosen)):
        people.setdefault(chosen[k].subject, chosen[k])
    out.append(beside_real(face, faces, list(people.values())[:PEOPLE], learnt))
    for number, clip in enumerate(list(people.values())[:STRIPS]):
        out.append(strip(number, face, faces, clip, learnt, points))
    return out


def line_of(found: dict, name: str, key: str, alpha: np.ndarray) -> Line | None:
    """A way's curve, None where there is none."""
    curve = found["methods"].get(name, {}).get("curves", {}).get(key)
    if curve is None or None in curve:
        return None
    strong = name in path_methods.MODES or name == "real"
    return Line(
        path_methods.TITLES[name][0], alpha, np.array(curve), COLOURS[name], strong, name not in path_methods.MODES
    )


def error_curves(found: dict) -> GalleryFigure:
    alpha = np.array(found["alpha"])
    panels = []
    for region, title in (("whole", "whole face"), ("mouth", "mouth region")):
        lines = [
            line_of(found, name, f"error_{region}", alpha)
            for name in path_methods.TITLES
            if name not in path_methods.ABLATION
        ]
        panels.append((title, [line for line in lines if line]))
    caption = (
        "Root mean squared error against the real frame of equal intensity, mean over people. Dashed lines are rivals "
        "and the ceiling. The two ends are given, so a cross-fade has no error there."
    )
    image = figures.charts(panels, "alpha: 0 neutral, 1 apex", "error, grey levels of 255")
    return GalleryFigure("error", "Error over alpha", caption, image)


def smile_curves(found: dict) -> GalleryFigure:
    alpha = np.array(found["alpha"])
    straight = Line("straight", np.array([0, 1]), np.array([0, 1]), "#cccccc")
    panels = []
    for title, names in (
        ("the network", ("real", "reconstruction", *path_methods.MODES)),
        (
            "its rivals",
            [
                name
                for name in path_methods.TITLES
                if name not in ("reconstruction", *path_methods.MODES, *path_methods.ABLATION)
            ],
        ),
    ):
        lines = [line_of(found, name, "trajectory", alpha) for name in names]
        panels.append((title, [straight, *(line for line in lines if line)]))
    each = [one["methods"]["expression"]["series"]["trajectory"] for one in found["clips"]]
    thin = [Line("", alpha, np.array(s), COLOURS["expression"], faint=True) for s in each if None not in s]
    panels.append(("expression code, each clip", [straight, *thin]))
    caption = (
        f"Smile on the decoded pictures, measured by {found['judges']['smile']['name']}; 0 and 1 are what it measures "
        "on the real neutral frame and apex. Mean over people; at the right every clip."
    )
    image = figures.charts(panels, "alpha: 0 neutral, 1 apex", "measured smile")
    return GalleryFigure("smile", "Measured smile over alpha", caption, image)


def strip(
    number: int,
    face: trained_model.TrainedModel,
    faces: Faces,
    clip: Clip,
    learnt: path_methods.TrainingStatistics,
    points: "judges.Points | None",
) -> GalleryFigure:
    """The real frames of a clip above what each way makes at their intensities."""
    known = path_methods.encode_clip(face, faces, clip)
    alpha = clip.alpha
    columns = np.unique(nearest(alpha, COLUMNS))
    ways, made = (
        path_methods.interpolation_methods(face, known, learnt, points),
        path_methods.per_frame_references(known, learnt),
    )
    cells, left = [list(known.real[columns])], ["real"]
    for name in IN_STRIPS:
        if name in ways or name in made:
            cells.append(list(ways[name](alpha[columns]) if name in ways else made[name][columns]))
            left.append(path_methods.TITLES[name][0].replace(" ", "\n", 1))
    image = figures.grid(cells, [f"{alpha[k]:.2f}" for k in columns], left, margin_rows=1)
    caption = (
        f"Top: real frames of {clip.name} with their place between the ends by intensity. Below: each way's pictures "
        "at the same alpha; all but the reconstruction are made from the end frames alone. Drawn by seed."
    )
    return GalleryFigure(f"strip_{number + 1}", f"Beside the real frames: {clip.subject}", caption, image)


def beside_real(
    face: trained_model.TrainedModel, faces: Faces, chosen: Sequence[Clip], learnt: path_methods.TrainingStatistics
) -> GalleryFigure:
    """Several people: the real frames above what is decoded between the two end frames, and the cross-fade."""
    blocks = []
    for clip in chosen:
        known = path_methods.encode_clip(face, faces, clip)
        columns = nearest(clip.alpha, PLACES)
        ways = path_methods.interpolation_methods(face, known, learnt)
        made = [ways[name](clip.alpha[columns]) for name in ("expression", "cross_fade")]
        blocks.append([list(known.real[columns]), *map(list, made)])
    blocks += [[[None] * PLACES] * 3] * (len(blocks) % 2)
    cells = [
        one + other for a, b in zip(blocks[::2], blocks[1::2], strict=True) for one, other in zip(a, b, strict=True)
    ]
    top = [f"{place:.1f}" for place in np.linspace(0, 1, PLACES)] * 2
    image = figures.grid(cells, top, ["real", "ours", "cross-fade"] * (len(cells) // 3), margin_columns=PLACES, scale=2)
    names = ", ".join(clip.name for clip in chosen)
    caption = (
        "Three rows a person: the real frames nearest to the places above, what the network makes between the first "
        f"and the last of them (expression code), and their cross-fade. Drawn by seed: {names}."
    )
    return GalleryFigure("people", "Several people beside the real frames", caption, image)


def nearest(alpha: np.ndarray, count: int) -> list[int]:
    """The frames nearest to `count` even places between the ends."""
    return [int(abs(alpha - wanted).argmin()) for wanted in np.linspace(0, 1, count)]


def render(run: str, found: dict, shown: Sequence[GalleryFigure]) -> str:
    """The page. found: what metrics.json holds (None where a figure could not be computed)."""
    data = found["data"]
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">',
        f"<title>{escape(run)}: video truth</title><style>{html.STYLE}</style></head><body>",
        f"<h1>{escape(run)}: video truth</h1>",
        f'<p class="lead">Paths decoded from two end frames, against the real frames between: {data["clips"]} clips of '
        f"{data['subjects']} people that the network never saw.</p>",
        html.header(data),
        judges_list(found),
        "".join(f'<p class="note">{escape(sentence)}</p>' for sentence in [*data["easier_than_video"], *taken(data)]),
        "".join(f'<p class="note">{escape(sentence)}</p>' for sentence in dict.fromkeys(found["missing"])),
        "<h2>Against the real frame of equal intensity</h2>",
        truth_table(found, "intensity"),
        "<h2>Along the path</h2>",
        trajectory_table(found),
        intensity_table(found),
    ]
    for item in shown:
        source, text = escape(f"figures/{item.name}.png"), escape(item.caption)
        width = item.image.width // 2 if item.image else 0
        picture = f'<img src="{source}" alt="{escape(item.title)}" width="{width}">'
        parts.append(f"<h2>{escape(item.title)}</h2><figure>{picture}<figcaption>{text}</figcaption></figure>")
    parts += [
        "<h2>Other alignments, and inside the decoder's own range</h2>",
        '<p class="note">Against the real frame of equal time.</p>',
        truth_table(found, "time"),
        '<p class="note">Under a monotone alignment (dynamic time warping).</p>',
        truth_table(found, "dtw"),
        '<p class="note">At equal intensity, against the reconstructions of the real frames: how much the path bends, '
        "apart from the decoder's blur.</p>",
        truth_table(found, "own_range"),
        rejected_table(data),
    ]
    return "\n".join([*parts, DEFINITIONS, "</body></html>", ""])


def judges_list(found: dict) -> str:
    """Who judged, with the backbone, or what is missing."""
    names = {"smile": "smile", "smile_reader": "second smile", "identity": "identity", "lpips": "LPIPS"}
    rows = []
    for key, judge in found["judges"].items():
        said = ". ".join(part for part in (judge["name"], judge.get("note")) if part) or judge.get("missing", "")
        rows.append(f"<dt>{escape(names[key])} judge</dt><dd>{escape(said)}</dd>")
    return f"<dl>{''.join(rows)}</dl>"


def taken(data: dict) -> list[str]:
    """How the onsets were trimmed, and how many takes were left out, for which reason."""
    onset = data["onset_frames"]
    said = [f"Onsets of {onset['fewest']} to {onset['most']} frames, {onset['all']} in all."]
    if data["rejected"]:
        why = "; ".join(f"{count}: {reason}" for reason, count in data["rejected"].items())
        said.append(f"{sum(data['rejected'].values())} takes were rejected ({why}).")
    if data["clips_left_out"]:
        said.append(f"{data['clips_left_out']} more clips were not judged, to keep it quick (--clips 0 judges all).")
    return said


def cell(value: dict | None, digits: int, interval: bool = False) -> str:
    if value is None or value["mean"] is None:
        return "<td>–</td>" * (1 + interval)
    low, high = value["ci95"]
    between = f"{low:.{digits}f} to {high:.{digits}f}" if interval and low is not None and high is not None else ""
    return f"<td>{value['mean']:.{digits}f}</td>" + (f"<td>{between}</td>" if interval else "")


def row(name: str, cells: str) -> str:
    own = ' class="own"' if name in path_methods.MODES else ""
    title, what = path_methods.TITLES[name]
    return f"<tr{own}><td>{escape(title)}</td>{cells}<td class='what'>{escape(what)}</td></tr>"


def truth_table(found: dict, alignment: str) -> str:
    """PSNR with its interval, SSIM and LPIPS, on the whole face and on the mouth region."""
    heads, rows = [""], []
    for region in ("face", "mouth"):
        for figure, title, _ in FIGURES:
            heads += [f"{region}: {title}" + (", dB" if figure == "psnr" else "")]
            heads += ["95 %"] if figure == "psnr" else []
    for name, method in found["methods"].items():
        if alignment in method:
            regions = [method[alignment][region] for region in ("whole", "mouth")]
            cells = [cell(r.get(figure), n, figure == "psnr") for r in regions for figure, _, n in FIGURES]
            rows.append(row(name, "".join(cells)))
    return html.table([*heads, ""], rows)


def trajectory_table(found: dict) -> str:
    """Figures of the measured smile along alpha, and the identity distance."""
    rows = []
    for name, method in found["methods"].items():
        if held := method.get("trajectory"):
            cells = [cell(held.get("smoothness"), 3, True)]
            places = (("r2", 3), ("spearman", 3), ("inversions", 2), ("range", 2), ("lpips_length", 2))
            cells += [cell(held.get(figure), digits) for figure, digits in places]
            cells.append(cell(method.get("identity", {}).get("distance"), 3))
            rows.append(row(name, "".join(cells)))
    heads = ["", "smoothness", "95 %", "R2", "Spearman", "inversions", "range", "LPIPS steps", "identity distance", ""]
    between = found["identity_between_people"]
    note = f"Identity distance between different people: {between:.2f}." if between is not None else ""
    return html.table(heads, rows) + f'<p class="note">{escape(note)}</p>'


def intensity_table(found: dict) -> str:
    """Intensity read from the expression code within a clip, and what linear probes find in the codes."""
    read, of = found["intensity"], found["disentanglement"]
    names = (
        ("intensity read from the expression code, Spearman within a clip", "spearman", "0"),
        ("the same, mean absolute error", "mae", ""),
        ("the same, after the map fixed by each person's neutral and apex", "mae_per_person", ""),
    )
    rows = []
    for title, key, chance in names:
        value, (low, high) = read[key]["mean"], read[key]["ci95"]
        what = f"95 % over people {low:.3f} to {high:.3f}" if low is not None and high is not None else ""
        rows.append((title, html.number(value, 3), chance, what))
    return html.codes_rows(rows + html.probe_rows(of["probes"], of["leakage"]))


def rejected_table(data: dict) -> str:
    """Each take that was rejected, with the reason."""
    if not data["rejected_takes"]:
        return ""
    rows = [
        f"<tr><td>{escape(one['take'])}</td><td class='what'>{escape(one['reason'])}</td></tr>"
        for one in data["rejected_takes"][:100]
    ]
    return "<h2>Takes that were rejected</h2>" + html.table(("take", "reason"), rows)


def as_text(found: dict) -> str:
    """The most telling figures for the terminal, one line a way."""
    heads = ("", "face dB", "mouth dB", "smoothness", "R2", "Spearman", "range")
    lines = [f"{heads[0]:26s}" + "".join(f"{head:>11s}" for head in heads[1:])]
    for name, method in found["methods"].items():
        truth, along = method.get("intensity", {}), method.get("trajectory", {})
        held = [truth.get(region, {}).get("psnr") for region in ("whole", "mouth")]
        held += [along.get(key) for key in ("smoothness", "r2", "spearman", "range")]
        digits = (2, 2, 3, 3, 3, 2)
        values = [html.number(value["mean"] if value else None, n) for value, n in zip(held, digits, strict=True)]
        lines.append(f"{path_methods.TITLES[name][0]:26s}" + "".join(f"{value:>11s}" for value in values))
    read = {key: html.number(value["mean"], 3) for key, value in found["intensity"].items()}
    lines.append(
        f"intensity read from the expression code: Spearman within a clip {read['spearman']}, mean absolute error "
        f"{read['mae']}, per person {read['mae_per_person']}"
    )
    return "\n".join(lines)


DEFINITIONS = """<h2>Definitions</h2>
<p class="foot">Onset: from the last frame below 5 % of the take's range of intensity to the first above 95 %, 8 frames
or more. Every way sees the two end frames alone (one picture: the neutral one); means are over the frames in between,
then over a person's clips, then over people; intervals are 95 % bootstrap over people. Mouth: rows 38-59, columns
14-49. Smoothness: max|ds| / |s1 - s0| - 1 / (K - 1) for the smile s measured at K = 11 equal steps of alpha; 0 is even.
R2: of the straight line of s over alpha. Inversions: steps that go back. Range: s1 - s0 over the real clip's. LPIPS
steps: sum over neighbours / LPIPS of the ends; LPIPS is a squared distance, so that even steps in a straight line give
0.1 and one jump 1. Identity distance: to the real neutral frame, mean of alpha 0.5 and 1. All figures, and those of
each clip, are in <a href="metrics.json">metrics.json</a>.</p>"""


def write(run: Path | str, asked: VideoEvalOptions) -> dict:
    """Measure a run and write RUN/video; returns what metrics.json holds. The page is moved into place last."""
    run = Path(run)
    begun = prepare(run, asked)
    learnt, found = video.measure(begun, asked)
    unfinished = run / "video.unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    (unfinished / "figures").mkdir(parents=True)
    text = json.dumps(found, indent=1, allow_nan=False)
    shown = draw(begun.face, begun.faces, begun.clips, learnt, found, asked.points)
    for item in shown:
        if item.image is not None:
            figures.save(item.image, unfinished / "figures" / f"{item.name}.png")
    (unfinished / "metrics.json").write_text(text + "\n", encoding="utf-8")
    page = render(run.name, found, shown)
    (unfinished / "index.html").write_text(page, encoding="utf-8", errors="backslashreplace")
    report.publish(unfinished, run / "video", [f"figures/{item.name}.png" for item in shown])
    return found
