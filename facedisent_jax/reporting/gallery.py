"""The figures of the report: which held-out images they show, among them the poster's Figures 2, 3 and 4.

People are drawn by seed, never picked by eye.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from facedisent_jax.data.labels import intensity_step
from facedisent_jax.data.record import APEX_ABOVE, NEUTRAL, Faces
from facedisent_jax.evaluation import metrics
from facedisent_jax.evaluation.judges import Judge
from facedisent_jax.evaluation.metrics import SEED
from facedisent_jax.evaluation.one_picture import STRENGTHS, OnePicture
from facedisent_jax.models import Codes
from facedisent_jax.reporting import figures
from facedisent_jax.reporting.figures import ReportFigure
from facedisent_jax.trained_model import Move, TrainedModel

STEPS = 11  # of an interpolation, both ends included
EndPair = tuple[int, int]  # rows of a person's least and most expressive image within a take


def draw_all(
    model: TrainedModel,
    faces: Faces,
    codes: Codes,
    swaps: metrics.Swaps,
    one_picture: OnePicture | None,
    smile_judge: Judge | None,
    history: Sequence[Mapping[str, float]],
) -> list[ReportFigure]:
    """All figures of a report, in the order of the page."""
    people = most_different_pairs(faces)
    return [
        triplets(faces, people),
        from_one_picture(faces, one_picture, smile_judge),
        swap_grid(model, faces, codes, people),
        swap_truth(model, faces, codes, swaps),
        interpolations(model, faces, people, "both"),
        interpolations(model, faces, people, "expression"),
        reconstructions(model, faces, codes, people),
        intensities(model, faces, codes),
        training(history),
    ]


def most_different_pairs(faces: Faces) -> list[EndPair]:
    """The least and the most expressive image of each person within one take. People are in an order drawn by seed.

    People without two intensities in a take are left out.
    """
    step = intensity_step(faces.intensity)
    step = np.where(metrics.displayed_expression(faces.expression, faces.intensity) == "", -1, step)
    takes: dict[tuple[str, str, str], list[int]] = {}
    for i in np.flatnonzero((faces.subject != "") & (step >= 0)).tolist():
        takes.setdefault((faces.subject[i], faces.sequence[i], faces.condition[i]), []).append(i)
    pairs: dict[str, EndPair] = {}
    for (subject, _, _), rows in takes.items():
        low, high = rows[step[rows].argmin()], rows[step[rows].argmax()]
        earlier = pairs.get(subject)
        if step[high] > step[low] and (earlier is None or step[high] - step[low] > step[earlier[1]] - step[earlier[0]]):
            pairs[subject] = (low, high)
    names = sorted(pairs)
    return [pairs[names[k]] for k in np.random.default_rng(SEED).permutation(len(names))]


def label(faces: Faces, row: int) -> str:
    """Name and expression of an image, in two lines."""
    expression = str(metrics.displayed_expression(faces.expression[row : row + 1], faces.intensity[row : row + 1])[0])
    is_partial = expression not in ("", NEUTRAL) and faces.intensity[row] < APEX_ABOVE
    intensity = f" {faces.intensity[row]:.1f}" if is_partial else ""
    return f"{faces.subject[row] or 'unnamed'}\n{expression or 'unlabelled'}{intensity}"


def triplets(faces: Faces, people: list[EndPair]) -> ReportFigure:
    title = "Triplets (the poster's Figure 2)"
    expression = metrics.displayed_expression(faces.expression, faces.intensity)
    rows = []
    for k, (low, high) in enumerate(people):
        a, b = (high, low) if k % 2 == 0 else (low, high)
        candidates = [pair[k % 2 == 0] for pair in people[k + 1 :] + people[:k]]
        c = next((i for i in candidates if expression[i] == expression[a]), None)
        if c is not None:
            rows.append((a, b, c))
    if not rows:
        return ReportFigure("triplets", title, "Left out: a triplet needs two people with two expressions each.")
    top = ["anchor", "same person,\nother expression", "other person,\nsame expression"]
    image = figures.grid([[faces.image[i] for i in row] for row in rows[:3]], top, scale=figures.SCALE + 1)
    caption = "Triplets of held-out people, as the network sees them in training. Real images."
    return ReportFigure("triplets", title, caption, image)


def from_one_picture(faces: Faces, out: OnePicture | None, smile_judge: Judge | None) -> ReportFigure:
    title = "One picture in"
    if out is None:
        return ReportFigure("one_picture", title, "Left out: nobody has a neutral image and a full expression.")
    cells, below = [], []
    for k in range(min(8, len(out.neutral))):
        neutral, full = (faces.image[rows[k]].astype(np.float32) / 255 for rows in (out.neutral, out.full))
        row = np.stack([neutral, *out.decoded[k], out.own_code[k], full])
        cells.append(row)
        if smile_judge:
            below.append([f"{smile:.2f}" if np.isfinite(smile) else "" for smile in smile_judge.measure(row)])
    top = ["source", *(f"{strength:g}" for strength in STRENGTHS), "own code", "real"]
    image = figures.grid(cells, top, below=below, margin_columns=1, end_columns=1)
    caption = (
        "Left: the neutral image of a person never seen. Then the same person with the full expression in the mean "
        "style of the training people, at rising strength, and with the expression code of their own real image. "
        "Right: that real image. People drawn by seed."
    )
    judged = f" Below each: the smile by the {smile_judge.name}." if smile_judge else ""
    return ReportFigure("one_picture", title, caption + judged, image)


def swap_grid(model: TrainedModel, faces: Faces, codes: Codes, people: list[EndPair]) -> ReportFigure:
    title = "Expression swapping between people (the poster's Figure 3)"
    if len(people) < 2:
        return ReportFigure("swap", title, "Left out: swapping needs two people with two expressions each.")
    rows = [pair[k % 2] for k, pair in enumerate(people[:6])]
    columns = [i for pair in (people[6:9] if len(people) >= 9 else people[-3:]) for i in pair]
    row, column = np.array([(r, c) for r in rows for c in columns]).T
    decoded = model.decode_with_source(Codes(codes.identity[row], codes.expression[column]), faces.image[row])
    decoded = decoded.reshape(len(rows), len(columns), *decoded.shape[1:])
    cells = [[None, *(faces.image[c] for c in columns)]]
    cells += [[faces.image[r], *swapped] for r, swapped in zip(rows, decoded, strict=True)]
    top, left = ["", *(label(faces, c) for c in columns)], ["expression\nof", *(label(faces, r) for r in rows)]
    caption = (
        "Each row has the identity code of the real image on its left, each column the expression code of the real "
        "image at its top. The margins are real images, the others are decoded. People drawn by seed."
    )
    return ReportFigure("swap", title, caption, figures.grid(cells, top, left, margin_rows=1, margin_columns=1))


def swap_truth(model: TrainedModel, faces: Faces, codes: Codes, swaps: metrics.Swaps) -> ReportFigure:
    title = "Swaps and the real images"
    if not len(swaps.target):
        reason = "Left out: no swap of these images has a real image to compare with."
        return ReportFigure("swap_truth", title, reason)
    step = intensity_step(faces.intensity)
    chosen: dict[str, int] = {}
    for k in np.random.default_rng(SEED).permutation(len(swaps.target)):
        target, source = swaps.target[k], swaps.source[k]
        is_large_change = abs(step[target] - step[source]) >= 8 or len(np.unique(step)) < 11
        rises = step[target] > step[source]
        if is_large_change and rises == (len(chosen) % 2 == 0):
            chosen.setdefault(str(faces.subject[target]), k)
        if len(chosen) == 8:
            break
    if not chosen:
        chosen[""] = 0
    source, donor, target = (index[list(chosen.values())] for index in swaps)
    decoded = model.decode_with_source(Codes(codes.identity[source], codes.expression[donor]), faces.image[source])
    cells = [[faces.image[i] for i in index] for index in (source, donor)]
    cells += [list(decoded), [faces.image[i] for i in target]]
    left = ["identity of", "expression of", "decoded", "real"]
    caption = (
        "The first two rows give the identity and the expression. The third row is decoded from both, and should equal "
        "the real image below it."
    )
    return ReportFigure("swap_truth", title, caption, figures.grid(cells, left=left, margin_rows=2))


def interpolations(model: TrainedModel, faces: Faces, people: list[EndPair], move: Move) -> ReportFigure:
    name = f"interpolation_{move}"
    if move == "both":
        title = "Interpolation of both codes between two people (the poster's Figure 4)"
        pairs = [(people[k][0], people[(k + 1) % len(people)][1]) for k in range(0, len(people), 2)]
        caption = "Both codes move in a straight line between the real images of two people, at the left and the right."
        min_people = 2
    else:
        title = "Interpolation of the expression code"
        pairs = people
        caption = (
            "The expression code moves in a straight line between two real images of one person, at the left and the "
            "right. The identity code stays."
        )
        min_people = 1
    if len(people) < min_people:
        return ReportFigure(name, title, "Left out: an interpolation needs people with two expressions.")
    cells, left = [], []
    for a, b in pairs[:4]:
        frames = model.interpolate(faces.image[a], faces.image[b], STEPS, move)
        cells.append([faces.image[a], *frames, faces.image[b]])
        left.append(" to\n".join(dict.fromkeys((str(faces.subject[a]), str(faces.subject[b])))))
    top = ["real", *(f"{alpha:.1f}" for alpha in np.linspace(0, 1, STEPS)), "real"]
    return ReportFigure(name, title, caption, figures.grid(cells, top, left, margin_columns=1, end_columns=1))


def reconstructions(model: TrainedModel, faces: Faces, codes: Codes, people: list[EndPair]) -> ReportFigure:
    rows = [pair[k % 2] for k, pair in enumerate(people)]
    shuffled = np.random.default_rng(SEED).permutation(len(faces))
    rows = (rows + [i for i in shuffled if i not in set(rows)])[:16] if len(rows) < 16 else rows[:16]
    decoded = model.decode(Codes(codes.identity[rows], codes.expression[rows]))
    cells, left = [], []
    for start in range(0, len(rows), 8):
        cells += [[faces.image[i] for i in rows[start : start + 8]], list(decoded[start : start + 8])]
        left += ["real", "decoded"]
    caption = "Real images of held-out people, and below each the image decoded from its two codes. Drawn by seed."
    image = figures.grid(cells, left=left)
    return ReportFigure("reconstruction", "Reconstructions of held-out people", caption, image)


def intensities(model: TrainedModel, faces: Faces, codes: Codes) -> ReportFigure:
    title = "Intensity read from the expression code"
    expression = metrics.displayed_expression(faces.expression, faces.intensity)
    actions = [action for action in model.expressions if action in expression]
    if not actions:
        caption = "Left out: no image shows, at a known intensity, an expression that the model was trained on."
        return ReportFigure("intensity", title, caption)
    truth, read, labels = [], [], []
    for action in actions:
        rows = (expression == action) | ((expression == NEUTRAL) & (len(actions) == 1))
        truth.append(faces.intensity[rows])
        read.append(model.intensity(codes.expression[rows], action))
        labels.append(expression[rows])
    image = figures.intensity_scatter(*(np.concatenate(parts) for parts in (truth, read, labels)))
    caption = (
        "Each point is a held-out image. Its expression code is projected onto the label vector to read the intensity. "
        "On the line, the reading is exact."
    )
    return ReportFigure("intensity", title, caption, image)


def training(history: Sequence[Mapping[str, float]]) -> ReportFigure:
    title, image = "Training", figures.training_curves(history)
    if image is None:
        return ReportFigure("curves", title, "Left out: metrics.jsonl of the run has no logged steps.")
    caption = "Left: the loss and its unweighted terms. Right: PSNR on the validation people."
    return ReportFigure("curves", title, caption, image)
