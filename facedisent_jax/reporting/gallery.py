"""Which held-out pictures a report shows, and their figures: the poster's Figures 2, 3 and 4, and more.

People are drawn by seed, never by eye. Imports study, metrics and figures.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from facedisent_jax import trained_model
from facedisent_jax.data.labels import intensity_step
from facedisent_jax.data.record import NEUTRAL, Faces
from facedisent_jax.evaluation import metrics
from facedisent_jax.models.codes import Codes
from facedisent_jax.reporting import figures

SEED = 0
STEPS = 11


class GalleryFigure(NamedTuple):
    """A figure of the report: its file's name, title and caption; no image, and the reason as caption, if skipped."""

    name: str
    title: str
    caption: str
    image: Image.Image | None = None


def draw(
    face: trained_model.TrainedModel,
    faces: Faces,
    codes: Codes,
    swaps: metrics.Swaps,
    history: Sequence[Mapping[str, float]],
) -> list[GalleryFigure]:
    """All figures of a report, in the page's order."""
    people = most_different_pairs(faces)
    return [
        triplets(faces, people),
        swap_grid(face, faces, codes, people),
        swap_truth(face, faces, codes, swaps),
        strips(face, faces, people, "both"),
        strips(face, faces, people, "expression"),
        reconstructions(face, faces, codes, people),
        intensities(face, faces, codes),
        training(history),
    ]


def most_different_pairs(faces: Faces) -> list[tuple[int, int]]:
    """(least, most) expressive picture of each person within one take, people in an order drawn by seed.

    People whose pictures all show the same are left out.
    """
    step = intensity_step(faces.intensity)
    step = np.where(metrics.displayed_expression(faces.expression, faces.intensity) == "", -1, step)
    takes: dict[tuple[str, str, str], list[int]] = {}
    for i in np.flatnonzero((faces.subject != "") & (step >= 0)).tolist():
        takes.setdefault((faces.subject[i], faces.sequence[i], faces.condition[i]), []).append(i)
    best: dict[str, tuple[int, int]] = {}
    for (subject, _, _), members in takes.items():
        low, high = members[step[members].argmin()], members[step[members].argmax()]
        held = best.get(subject)
        if step[high] > step[low] and (held is None or step[high] - step[low] > step[held[1]] - step[held[0]]):
            best[subject] = (low, high)
    names = sorted(best)
    return [best[names[k]] for k in np.random.default_rng(SEED).permutation(len(names))]


def name(faces: Faces, i: int) -> str:
    """Who and what a picture shows, in two lines."""
    shown = str(metrics.displayed_expression(faces.expression[i : i + 1], faces.intensity[i : i + 1])[0])
    degree = f" {faces.intensity[i]:.1f}" if shown not in ("", NEUTRAL) and faces.intensity[i] < 0.95 else ""
    return f"{faces.subject[i] or 'unnamed'}\n{shown or 'unlabelled'}{degree}"


def triplets(faces: Faces, people: list[tuple[int, int]]) -> GalleryFigure:
    title = "Triplets (the poster's Figure 2)"
    shown = metrics.displayed_expression(faces.expression, faces.intensity)
    rows = []
    for k, (low, high) in enumerate(people):
        a, b = (high, low) if k % 2 == 0 else (low, high)
        others = [pair[k % 2 == 0] for pair in people[k + 1 :] + people[:k]]
        c = next((i for i in others if shown[i] == shown[a]), None)
        if c is not None:
            rows.append((a, b, c))
    if not rows:
        return GalleryFigure("triplets", title, "Left out: a triplet takes two people, each with two expressions.")
    rows = rows[:3]
    top = ["anchor", "same person,\nother expression", "other person,\nsame expression"]
    image = figures.grid([[faces.image[i] for i in row] for row in rows], top, scale=figures.SCALE + 1)
    return GalleryFigure(
        "triplets", title, "What a training step sees, here with held-out people. Real pictures.", image
    )


def swap_grid(
    face: trained_model.TrainedModel, faces: Faces, codes: Codes, people: list[tuple[int, int]]
) -> GalleryFigure:
    title = "Expression swapping between people (the poster's Figure 3)"
    if len(people) < 2:
        return GalleryFigure("swap", title, "Left out: swapping takes two people, each with two expressions.")
    rows = [pair[k % 2] for k, pair in enumerate(people[:6])]
    columns = [i for pair in (people[6:9] if len(people) >= 9 else people[-3:]) for i in pair]
    pairs = np.array([(r, c) for r in rows for c in columns])
    made = face.decode_with_source(
        Codes(codes.identity[pairs[:, 0]], codes.expression[pairs[:, 1]]), faces.image[pairs[:, 0]]
    )
    made = made.reshape(len(rows), len(columns), *made.shape[1:])
    cells = [[None, *(faces.image[c] for c in columns)]]
    cells += [[faces.image[r], *line] for r, line in zip(rows, made, strict=True)]
    top, left = ["", *(name(faces, c) for c in columns)], ["expression\nof", *(name(faces, r) for r in rows)]
    caption = (
        "Rows: identity code of the real picture at the left. Columns: expression code of the real picture on top. "
        "The margins are the real pictures, everything else is decoded. People drawn by seed."
    )
    return GalleryFigure("swap", title, caption, figures.grid(cells, top, left, margin_rows=1, margin_columns=1))


def swap_truth(face: trained_model.TrainedModel, faces: Faces, codes: Codes, swaps: metrics.Swaps) -> GalleryFigure:
    title = "Swaps beside the truth"
    if not len(swaps.target):
        return GalleryFigure(
            "swap_truth", title, "Left out: no swap of these pictures has a real picture to compare with."
        )
    step = intensity_step(faces.intensity)
    chosen: dict[str, int] = {}
    for k in np.random.default_rng(SEED).permutation(len(swaps.target)):
        target, source = swaps.target[k], swaps.source[k]
        far = abs(step[target] - step[source]) >= 8 or len(np.unique(step)) < 11
        up = step[target] > step[source]
        if far and up == (len(chosen) % 2 == 0):
            chosen.setdefault(str(faces.subject[target]), k)
        if len(chosen) == 8:
            break
    if not chosen:
        chosen[""] = 0
    source, donor, target = (index[list(chosen.values())] for index in swaps)
    made = face.decode_with_source(Codes(codes.identity[source], codes.expression[donor]), faces.image[source])
    cells = [[faces.image[i] for i in index] for index in (source, donor)]
    cells += [list(made), [faces.image[i] for i in target]]
    left = ["identity of", "expression of", "decoded", "the real picture"]
    caption = "What is decoded from one person's identity and another's expression, above the picture it should equal."
    return GalleryFigure("swap_truth", title, caption, figures.grid(cells, left=left, margin_rows=2))


def strips(
    face: trained_model.TrainedModel, faces: Faces, people: list[tuple[int, int]], move: trained_model.Move
) -> GalleryFigure:
    between = move == "both"
    file = f"interpolation_{move}"
    title = "Interpolation of the whole code between two people" if between else "Interpolation of the expression alone"
    title += " (the poster's Figure 4)" if between else ""
    if len(people) < (2 if between else 1):
        return GalleryFigure(file, title, "Left out: it takes people with two expressions.")
    if between:
        pairs = [(people[k][0], people[(k + 1) % len(people)][1]) for k in range(0, len(people), 2)]
    else:
        pairs = people
    cells, left = [], []
    for a, b in pairs[:4]:
        frames = face.interpolate(faces.image[a], faces.image[b], STEPS, move)
        cells.append([faces.image[a], *frames, faces.image[b]])
        who = dict.fromkeys((str(faces.subject[a]), str(faces.subject[b])))
        left.append(" to\n".join(who))
    top = ["real", *(f"{alpha:.1f}" for alpha in np.linspace(0, 1, STEPS)), "real"]
    if between:
        caption = (
            "Both codes move in a straight line from the left picture's to the right one's, which is another person."
        )
    else:
        caption = "The expression code moves in a straight line between two pictures of a person, the identity stays."
    caption += " The outer columns are the real pictures."
    return GalleryFigure(file, title, caption, figures.grid(cells, top, left, margin_columns=1, end_columns=1))


def reconstructions(
    face: trained_model.TrainedModel, faces: Faces, codes: Codes, people: list[tuple[int, int]]
) -> GalleryFigure:
    rows = [pair[k % 2] for k, pair in enumerate(people)]
    rest = np.random.default_rng(SEED).permutation(len(faces))
    rows = (rows + [i for i in rest if i not in set(rows)])[:16] if len(rows) < 16 else rows[:16]
    made = face.decode(Codes(codes.identity[rows], codes.expression[rows]))
    cells, left = [], []
    for start in range(0, len(rows), 8):
        cells += [[faces.image[i] for i in rows[start : start + 8]], list(made[start : start + 8])]
        left += ["real", "decoded"]
    caption = "Pictures of people the network never saw, above what it decodes from their two codes. Drawn by seed."
    return GalleryFigure(
        "reconstruction", "Reconstructions of held-out people", caption, figures.grid(cells, left=left)
    )


def intensities(face: trained_model.TrainedModel, faces: Faces, codes: Codes) -> GalleryFigure:
    title = "Intensity read from the expression code"
    shown = metrics.displayed_expression(faces.expression, faces.intensity)
    actions = [action for action in np.unique(shown) if action not in ("", NEUTRAL)]
    if not actions:
        return GalleryFigure("intensity", title, "Left out: no picture shows an action of known intensity.")
    truth, read, kinds = [], [], []
    for action in actions:
        rows = (shown == action) | ((shown == NEUTRAL) & (len(actions) == 1))
        truth.append(faces.intensity[rows])
        read.append(face.intensity(codes.expression[rows], str(action)))
        kinds.append(shown[rows])
    image = figures.readings(*(np.concatenate(parts) for parts in (truth, read, kinds)))
    caption = (
        "Each held-out picture, its expression code projected on the label vector; a perfect code lies on the line."
    )
    return GalleryFigure("intensity", title, caption, image)


def training(history: Sequence[Mapping[str, float]]) -> GalleryFigure:
    title, image = "Training", figures.curves(history)
    if image is None:
        return GalleryFigure("curves", title, "Left out: the run has no metrics.jsonl with logged steps.")
    return GalleryFigure("curves", title, "The loss, its terms unweighted, and how validation subjects fared.", image)
