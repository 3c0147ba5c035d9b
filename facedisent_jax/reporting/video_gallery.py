"""The figures of the video report: curves along the path, and images of each method beside the real frames.

People are drawn by seed, never picked by eye.
"""

from collections.abc import Sequence

import numpy as np

from facedisent_jax.data.record import Faces
from facedisent_jax.evaluation.clips import Clip
from facedisent_jax.evaluation.judges import FaceMesh
from facedisent_jax.evaluation.metrics import SEED
from facedisent_jax.evaluation.path_methods import (
    ABLATIONS,
    NETWORK_METHODS,
    TITLES,
    encode_clip,
    interpolation_methods,
    per_frame_references,
)
from facedisent_jax.evaluation.training_statistics import TrainingStatistics
from facedisent_jax.reporting import figures
from facedisent_jax.reporting.figures import Line, ReportFigure
from facedisent_jax.trained_model import TrainedModel

STRIPS, STRIP_FRAMES = 4, 8  # figures of one clip each, and the frames in each
PEOPLE, PERSON_FRAMES = 6, 6  # people in the figure of several, and frames of each
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
STRIP_METHODS = (*NETWORK_METHODS, "reconstruction", "cross_fade", "morph")
X_LABEL = "alpha (0 is neutral, 1 is the apex)"


def draw_all(
    model: TrainedModel,
    faces: Faces,
    clips: Sequence[Clip],
    statistics: TrainingStatistics,
    metrics: dict,
    face_mesh: FaceMesh | None,
) -> list[ReportFigure]:
    """All figures of the page, in its order. metrics: the content of metrics.json."""
    first_clips: dict[str, Clip] = {}
    for k in np.random.default_rng(SEED).permutation(len(clips)):
        first_clips.setdefault(clips[k].subject, clips[k])
    people = list(first_clips.values())
    return [
        error_curves(metrics),
        smile_curves(metrics),
        people_grid(model, faces, people[:PEOPLE], statistics),
        *(strip(k, model, faces, clip, statistics, face_mesh) for k, clip in enumerate(people[:STRIPS])),
    ]


def error_curves(metrics: dict) -> ReportFigure:
    panels = []
    for region, title in (("whole", "whole face"), ("mouth", "mouth region")):
        panels.append((title, method_lines(metrics, f"error_{region}", [n for n in TITLES if n not in ABLATIONS])))
    caption = (
        "Root mean squared error against the real frame of equal intensity, mean over people. Dashed: baselines and "
        "the reconstruction. A cross-fade has no error at the ends, because both end frames are given."
    )
    image = figures.line_charts(panels, X_LABEL, "error in grey levels of 255")
    return ReportFigure("error", "Error along the path", caption, image)


def smile_curves(metrics: dict) -> ReportFigure:
    alpha = np.array(metrics["alpha"])
    diagonal = Line("straight", np.array([0, 1]), np.array([0, 1]), "#cccccc")
    network = ("real", "reconstruction", *NETWORK_METHODS)
    baselines = [name for name in TITLES if name not in ("reconstruction", *NETWORK_METHODS, *ABLATIONS)]
    panels = [
        (title, [diagonal, *method_lines(metrics, "trajectory", names)])
        for title, names in (("the network", network), ("baselines", baselines))
    ]
    clip_curves = [clip["methods"]["expression"]["series"]["trajectory"] for clip in metrics["clips"]]
    faint = [Line("", alpha, np.array(s), COLOURS["expression"], faint=True) for s in clip_curves if None not in s]
    panels.append(("expression code, all clips", [diagonal, *faint]))
    caption = (
        f"Smile on the decoded images, measured by {metrics['judges']['smile']['name']}. 0 and 1 are the values "
        "measured on the real neutral frame and on the real apex. Mean over people; on the right, every clip."
    )
    image = figures.line_charts(panels, X_LABEL, "measured smile")
    return ReportFigure("smile", "Measured smile along the path", caption, image)


def method_lines(metrics: dict, key: str, names: Sequence[str]) -> list[Line]:
    """The curves of the methods that have one."""
    alpha = np.array(metrics["alpha"])
    lines = []
    for name in names:
        curve = metrics["methods"].get(name, {}).get("curves", {}).get(key)
        if curve is not None and None not in curve:
            strong, dashed = name in NETWORK_METHODS or name == "real", name not in NETWORK_METHODS
            lines.append(Line(TITLES[name][0], alpha, np.array(curve), COLOURS[name], strong, dashed))
    return lines


def strip(
    k: int,
    model: TrainedModel,
    faces: Faces,
    clip: Clip,
    statistics: TrainingStatistics,
    face_mesh: FaceMesh | None,
) -> ReportFigure:
    """The real frames of a clip above the images of each method at their alphas."""
    encoded = encode_clip(model, faces, clip)
    columns = np.unique(nearest_frames(clip.alpha, STRIP_FRAMES))
    alpha = clip.alpha[columns]
    methods = interpolation_methods(model, encoded, statistics, face_mesh)
    references = per_frame_references(encoded, statistics)
    cells, left = [list(encoded.real[columns])], ["real"]
    for name in STRIP_METHODS:
        if name in methods or name in references:
            cells.append(list(methods[name](alpha) if name in methods else references[name][columns]))
            left.append(TITLES[name][0].replace(" ", "\n", 1))
    image = figures.grid(cells, [f"{a:.2f}" for a in alpha], left, margin_rows=1)
    caption = (
        f"Top: real frames of {clip.name} and their alpha, the position between the end frames by intensity. Below: "
        "each method at the same alpha. All but the reconstruction use only the end frames. Clip drawn by seed."
    )
    return ReportFigure(f"strip_{k + 1}", f"Real frames and every method: {clip.subject}", caption, image)


def people_grid(
    model: TrainedModel, faces: Faces, clips: Sequence[Clip], statistics: TrainingStatistics
) -> ReportFigure:
    """Several people in two columns: real frames, the network between the two end frames, and their cross-fade."""
    blocks = []
    for clip in clips:
        encoded = encode_clip(model, faces, clip)
        columns = nearest_frames(clip.alpha, PERSON_FRAMES)
        methods = interpolation_methods(model, encoded, statistics)
        decoded = [methods[name](clip.alpha[columns]) for name in ("expression", "cross_fade")]
        blocks.append([list(encoded.real[columns]), *map(list, decoded)])
    blocks += [[[None] * PERSON_FRAMES] * 3] * (len(blocks) % 2)
    cells = [
        left_row + right_row
        for left_block, right_block in zip(blocks[::2], blocks[1::2], strict=True)
        for left_row, right_row in zip(left_block, right_block, strict=True)
    ]
    top = [f"{alpha:.1f}" for alpha in np.linspace(0, 1, PERSON_FRAMES)] * 2
    left = ["real", "ours", "cross-fade"] * (len(cells) // 3)
    image = figures.grid(cells, top, left, margin_columns=PERSON_FRAMES, scale=2)
    names = ", ".join(clip.name for clip in clips)
    caption = (
        "Three rows per person: the real frames nearest to the alpha above, the images decoded between the first and "
        f"the last of them (expression code), and the cross-fade of the two. Drawn by seed: {names}."
    )
    return ReportFigure("people", "Several people and the real frames", caption, image)


def nearest_frames(alpha: np.ndarray, count: int) -> list[int]:
    """The frames nearest to `count` evenly spaced alphas."""
    return [int(abs(alpha - target).argmin()) for target in np.linspace(0, 1, count)]
