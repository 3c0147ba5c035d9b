"""RUN/report: the page, metrics and figures of a run, evaluated on held-out images."""

import json
from collections.abc import Sequence
from html import escape
from pathlib import Path

from facedisent_jax import trained_model
from facedisent_jax.data.reading import crop_of
from facedisent_jax.data.record import Faces
from facedisent_jax.errors import UserError
from facedisent_jax.evaluation.judged_swaps import judge_swaps
from facedisent_jax.evaluation.judges import FaceMesh, StillJudges, still_judges
from facedisent_jax.evaluation.one_picture import STRENGTHS, decode_one_picture, one_picture_metrics
from facedisent_jax.evaluation.stills import evaluate_stills, load_held_out, provenance, to_json
from facedisent_jax.reporting import disentanglement_report, explorer, gallery, html
from facedisent_jax.reporting.figures import ReportFigure
from facedisent_jax.reporting.html import MetricRow, number, percent
from facedisent_jax.trained_model import TrainedModel

EXPLORER_PEOPLE = 4  # of the page with sliders: 3 MB, and a few seconds to decode and to judge

DEFINITIONS = """PSNR: 10 log10(1 / MSE) of 64x64 images with values in [0, 1], averaged over images. The 95 %
interval is Student's over people, each with the mean of their images. SSIM: Wang et al. 2004, Gaussian window of 11x11
(sigma 1.5), averaged over the colour channels. Swap: the target is a real image of a person. The identity code comes
from the image of this person, in the same sequence and condition, that differs most in expression. The expression code
comes from images of up to five other people with the target's expression and intensity, drawn by seed. In the table of
swaps, "real image" gives the value for the target itself in place of the swap. Intensity along the label vector: the
expression code is projected onto the label vector. Probes are linear (ridge regression; its strength is chosen by
leave-one-out on the images it is fitted on). All these numbers, and more, are in <a
href="metrics.json">metrics.json</a>."""


def write(
    run: Path | str,
    data: Sequence[Path | str] = (),
    split: str = "test",
    step: str | int = "best",
    face_mesh: FaceMesh | None = None,
    out: Path | None = None,
) -> dict:
    """Evaluate a run on a split and write its report. Returns the content of metrics.json.

    data: data folders; by default those the run was trained on.
    out: folder of the report; by default RUN/report.
    face_mesh: measures the smile of the swaps; without it the mouth reader does.

    The page is moved into place last: an interrupted report leaves the older one whole.
    """
    run = Path(run)
    model = trained_model.load(run, step)
    folders = [Path(folder) for folder in data or model.info["data"]]
    faces, left_out = load_held_out(model, run, folders, split)
    evaluation = evaluate_stills(model, faces)
    judges = still_judges(model, float(crop_of(folders)["margin"] or 0), face_mesh)
    smile_judge, identity_judge, missing = judges
    evaluation.metrics["judged_swaps"] = judge_swaps(
        model, faces, evaluation.codes, evaluation.swaps, smile_judge, identity_judge
    )
    one_picture = decode_one_picture(model, faces, evaluation.codes)
    evaluation.metrics["one_picture"] = (
        one_picture_metrics(faces, one_picture, smile_judge, identity_judge) if one_picture else None
    )
    evaluation.metrics["data"] |= provenance(model, folders, split)
    notes = [*evaluation.notes, *missing]
    if left_out:
        notes.append(f"{left_out} of {left_out + len(faces)} images were left out, to keep the evaluation short.")

    metrics = to_json(evaluation.metrics)
    drawings = gallery.draw_all(
        model, faces, evaluation.codes, evaluation.swaps, one_picture, smile_judge, history(run)
    )
    text = json.dumps(metrics, indent=2, allow_nan=False)
    sliders, link = explorer_page(model, faces, judges, face_mesh)
    earlier = disentanglement_report.earlier_rows(run, metrics["data"])
    page = render(run.name, metrics, drawings, notes, earlier, link)
    html.publish(out or run / "report", page, text, drawings, sliders)
    return json.loads(text)


def explorer_page(
    model: TrainedModel, faces: Faces, judges: StillJudges, face_mesh: FaceMesh | None
) -> tuple[str | None, str]:
    """The page with sliders for some held-out people, None if it cannot be made; and the sentence about it, as HTML."""
    command = "python eval.py explore RUN"
    if len(model.expressions) != 1:
        return None, f"For a page with sliders choose an expression: <code>{command} --expression NAME</code>."
    if model.expressions != ["smile"] and face_mesh:  # it measures nothing but the smile
        judges = judges._replace(smile=None)
    try:
        names, images = explorer.held_out_people(model, faces, EXPLORER_PEOPLE)
    except UserError:
        return None, f"For a page with sliders give photographs: <code>{command} A.jpg B.jpg</code>."
    link = f'<a href="{html.EXPLORER}">Sliders for {len(names)} of these people</a>'
    page = explorer.render(model, names, images, judges, None)
    return page, f"{link}, from neutral to the full expression and beyond."


def history(run: Path) -> list[dict]:
    """The lines of metrics.jsonl, without one that was cut off when the run was killed."""
    lines = (run / "metrics.jsonl").read_text().splitlines() if (run / "metrics.jsonl").is_file() else []
    entries = []
    for line in lines:
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(entry, dict) and "step" in entry:
            entries.append(entry)
    return entries


def render(
    run: str,
    metrics: dict,
    drawings: Sequence[ReportFigure],
    notes: Sequence[str],
    disentanglement: Sequence[MetricRow] = (),
    link: str = "",
) -> str:
    """The page.

    metrics:         the content of metrics.json, where None is a metric that the data does not allow.
    disentanglement: what an earlier `eval.py disentangle` has measured.
    link:            a sentence about the page with sliders, as HTML.
    """
    data = metrics["data"]
    body = [
        html.provenance_list(data),
        f"<p>{link}</p>",
        "<h2>Metrics</h2>",
        image_table(metrics),
        code_table(metrics),
        html.metric_table(disentanglement, "disentanglement") if disentanglement else "",
        judge_table(metrics["judged_swaps"]),
        one_picture_table(metrics["one_picture"]),
        html.notes(notes),
        *map(html.figure, drawings),
        html.definitions(DEFINITIONS),
    ]
    lead = f"Evaluated on {data['pictures']} images of {data['subjects']} people that the network never saw."
    return html.page(f"{run}: report", run, lead, body)


def image_table(metrics: dict) -> str:
    """PSNR and SSIM of the network and of the baselines."""
    swap, baselines = metrics["swap"], metrics["baselines"]
    within, without = (
        {key: swap.get(f"{kind}_{key}") for key in ("psnr", "ssim")} for kind in ("same_subject", "unswapped")
    )
    rows = [
        ("reconstruction", metrics["reconstruction"], "decoded from the image's own two codes"),
        ("swap", swap, "expression code of another person, compared with the real image"),
        ("swap within a person", within, "the person's own expression code, from the real image"),
        ("no swap", without, "decoded with the person's other expression; a swap must be better"),
        ("mean face", baselines.get("mean_face"), "of the training images and their mirror images"),
    ]
    for name, values in baselines.items():
        if name.startswith("pca_"):
            images = f"{baselines['fitted_pictures']} training images and their mirror images"
            remark = f"{values['components']} principal components of {images}"
            rows.append((name.replace("pca_", "PCA-"), values, remark))
    body = []
    for name, values, remark in rows:
        if values is None:
            continue
        bounds = values.get("psnr_ci95") or (None, None)
        cells = [escape(name), number(values["psnr"], 2), html.interval(bounds, 1), number(values["ssim"], 3)]
        kind = ' class="network"' if name in ("reconstruction", "swap") else ""
        body.append(f"<tr{kind}>{''.join(f'<td>{c}</td>' for c in cells)}<td class='remark'>{escape(remark)}</td></tr>")
    return html.table(("images", "PSNR, dB", "95 % interval", "SSIM", ""), body)


def code_table(metrics: dict) -> str:
    """What can be read from the codes, with chance."""
    intensity = metrics["intensity"]
    ceiling = intensity.get("spearman_ceiling")
    remark = f"at most {number(ceiling, 2)}, as many images share one intensity" if ceiling and ceiling < 0.995 else ""
    name = "intensity read along the label vector"
    rows = [
        MetricRow(f"{name}, Spearman", number(intensity["spearman"], 3), "0", remark),
        MetricRow(f"{name}, mean absolute error", number(intensity["mae"], 3)),
    ]
    return html.metric_table(rows + html.probe_rows(metrics["probes"], metrics["leakage"]))


def one_picture_table(values: dict | None) -> str:
    """From one neutral image to the full expression; nothing where nobody has both."""
    if values is None:
        return ""
    rows = []
    if "rise" in values:
        remark = f"share of the mean real rise, by the {values['smile_judge']}"
        rows.append(MetricRow("rise of the smile", number(values["rise"], 2), "1", remark))
        rises = ", ".join(number(rise, 2) for rise in values["rise_at"])
        strengths = ", ".join(f"{strength:g}" for strength in STRENGTHS)
        rows.append(MetricRow(f"the same at {strengths}", rises, strengths))
        remark = "the expression code of the person's real full expression"
        rows.append(MetricRow("the same with the person's own code", number(values["own_code_rise"], 2), "1", remark))
    if "identity" in values:
        distances = number(values["identity"], 2), number(values["real_identity"], 2)
        rows.append(MetricRow("identity distance to the neutral image", *distances))
    rows.append(MetricRow("sharpness of the mouth, of the real one's", number(values["sharpness"], 2), "1"))
    unchanged = f"{number(values['unchanged_psnr'], 2)} if left neutral"
    remark = "PSNR to the person's real full expression, dB"
    rows.append(MetricRow("likeness to the real image", number(values["psnr"], 2), unchanged, remark))
    rows.append(MetricRow("the same with the person's own code", number(values["own_code_psnr"], 2), unchanged))
    for name, remark in (("gain", "likeness minus that of the neutral image"), ("gain_mouth", "the same of the mouth")):
        between = html.interval(values[f"{name}_ci95"], 2)
        text = number(values[name], 2) + (f" ({between})" if between else "")
        rows.append(MetricRow("nearer than left neutral, dB", text, "", f"{remark}, paired by person, 95 % interval"))
    return html.metric_table(rows, f"one picture in: neutral to full, {values['people']} people", "real image")


def judge_table(judged: dict) -> str:
    """What independent networks measure on the swaps; nothing without a judge."""
    rows = []
    if smile := judged["smile"]:
        remark = f"{smile['judge']}; {judged['swaps']} swaps, no face found in {smile['no_face']}"
        values = number(smile["correlation"], 2), number(smile["real_correlation"], 2)
        rows.append(MetricRow("smile of the swap and of the donor, Spearman", *values, remark))
        values = number(smile["followed"], 2), number(smile["real_followed"], 2)
        rows.append(MetricRow("share of the donor's smile in the swap", *values, "1 is all of it"))
    if identity := judged["identity"]:
        values = number(identity["distance"], 2), number(identity["real_distance"], 2)
        remark = f"{identity['judge']}; below 0.6 counts as the same person"
        rows.append(MetricRow("identity distance of the swap to the person", *values, remark))
        rows.append(MetricRow("identity distance of the swap to the donor", number(identity["donor_distance"], 2)))
        rows.append(MetricRow("swaps closer to the person than to the donor", percent(identity["nearer_than_donor"])))
    return html.metric_table(rows, "swaps, measured by independent networks", "real image") if rows else ""
