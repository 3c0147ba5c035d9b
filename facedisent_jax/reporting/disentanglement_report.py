"""RUN/disentangle: the page, metrics and figure of `eval.py disentangle`, and its rows in the report."""

import json
from collections.abc import Sequence
from pathlib import Path

from facedisent_jax import trained_model
from facedisent_jax.evaluation import factors_in_codes
from facedisent_jax.evaluation.stills import to_json
from facedisent_jax.reporting import heat_map, html
from facedisent_jax.reporting.figures import ReportFigure
from facedisent_jax.reporting.html import MetricRow, number, percent

FOLDER = "disentangle"  # in the run folder
DEFINITIONS = """MIG: mutual information gap (Chen et al. 2018). SAP: separated attribute predictability, by squared
correlation (Kumar et al. 2018). DCI: disentanglement, completeness, informativeness (Eastwood and Williams 2018), with
importances from ridge regression. IRS: interventional robustness (Suter et al. 2019). Modularity: Ridgeway and Mozer
2018. These five see single dimensions of both codes together; chance is the same code with the factors of other people.
A factor in a code: R2 of a probe fitted on four fifths of the people and tested on the rest, in turn; for a category,
accuracy above that of the most frequent one, as a share of what is possible. Linear: ridge regression. Non-linear: with
random Fourier features. The way of smiling is probed on images of at least half intensity. All numbers are in <a
href="metrics.json">metrics.json</a>."""
CAPTION = """How much of each factor a probe reads from each code, 0 to 1, on people that it was not fitted on. Blue:
the code that should hold the factor. Red: the code that should not. Person: a linear probe that names the person,
accuracy above chance as a share of what is possible."""


def write(run: Path, data: Sequence[Path], split: str, step: str | int, out: Path) -> dict:
    """Evaluate a run, and write page, metrics.json and figure to `out`. Returns the content of metrics.json."""
    model = trained_model.load(run, step)
    folders = [Path(folder) for folder in data or model.info["data"]]
    metrics = to_json(factors_in_codes.evaluate(model, run, folders, split))
    drawing = ReportFigure("blocks", "Factors in codes", CAPTION, heat_map.blocks_by_factors(metrics))
    html.publish(out, render(run.name, metrics, drawing), json.dumps(metrics, indent=2, allow_nan=False), [drawing])
    return metrics


def render(run: str, metrics: dict, drawing: ReportFigure) -> str:
    """The page. metrics: the content of metrics.json."""
    data = metrics["data"]
    body = [
        html.provenance_list(data),
        "<h2>Metrics</h2>",
        html.metric_table(metric_rows(metrics), "disentanglement"),
        html.notes([settings_sentence(metrics)]),
        html.figure(drawing),
        html.definitions(DEFINITIONS),
    ]
    lead = f"{len(metrics['factors'])} factors in the codes of {data['pictures']} images of {data['subjects']} people."
    return html.page(f"{run}: disentanglement", run, lead, body)


def settings_sentence(metrics: dict) -> str:
    """What the numbers depend on besides the data."""
    settings, dims = metrics["settings"], metrics["data"]["dimensions"]
    return (
        f"Codes of {dims['identity']} and {dims['expression']} dimensions; {settings['bins']} bins of equal width; "
        f"{settings['folds']} folds of people; {settings['random_features']} random features; IRS at the "
        f"{settings['irs_quantile']:g} quantile; seed {settings['seed']}. "
        f"Probe of the person: {settings['subject_probe']}."
    )


def metric_rows(metrics: dict) -> list[MetricRow]:
    """Every score with chance, and with what is best."""
    chance = metrics["chance"]
    rows = [
        MetricRow(title, number(metrics[key], 3), number(chance[key], 3), f"single dimensions; {remark}")
        for key, title, remark in (
            ("mig", "MIG", "1: one dimension alone knows a factor"),
            ("sap", "SAP", "1: one dimension alone predicts a factor"),
            ("irs", "IRS", "1: a dimension moves with one factor alone"),
            ("modularity", "modularity", "1: a dimension knows one factor alone"),
        )
    ]
    remarks = ("a dimension tells of one factor", "one dimension tells of a factor", "all factors are read, linearly")
    for key, remark in zip(("disentanglement", "completeness", "informativeness"), remarks, strict=True):
        values = number(metrics["dci"][key], 3), number(chance["dci"][key], 3)
        rows.append(MetricRow(f"DCI {key}", *values, f"single dimensions; 1: {remark}"))
    for kind, title in (("linear", "linear"), ("nonlinear", "non-linear")):
        expected, unexpected = (number(metrics[key][kind], 3) for key in ("expected", "unexpected"))
        name = f"factors in the code that should hold them, {title} probe"
        rows.append(MetricRow(name, expected, "0", "mean R2; 1 is best"))
        rows.append(MetricRow(f"factors in the other code, {title} probe", unexpected, "0", "mean R2; 0 is best"))
    for block, probe in metrics["subject"].items():
        name = block.replace("expression_", "expression code, ").replace("_", " ")
        title = f"person from the {name} dimensions" if "," in name else f"person from the {name} code"
        goal = "should be high" if block == "identity" else "should be at chance"
        remark = f"{metrics['data']['dimensions'][block]} dimensions; linear probe, accuracy; {goal}"
        rows.append(MetricRow(title, percent(probe["accuracy"]), percent(probe["chance"]), remark))
    return rows


def earlier_rows(run: Path, data: dict) -> list[MetricRow]:
    """The rows of RUN/disentangle/metrics.json, if it is of this checkpoint, data and split; none where it is not.

    data: where the numbers of a report come from (`stills.provenance`).
    """
    try:
        metrics = json.loads((run / FOLDER / html.METRICS).read_text(encoding="utf-8"))
        if all(metrics["data"][key] == data[key] for key in ("folders", "prepared", "split", "step")):
            return metric_rows(metrics)
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return []
