"""HTML pages: the skeleton, tables, figures, and writing a page with its files. All text from outside is escaped."""

import os
import tempfile
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import NamedTuple

from facedisent_jax.errors import UserError
from facedisent_jax.files import PARTIAL
from facedisent_jax.reporting import figures
from facedisent_jax.reporting.figures import ReportFigure

PAGE, METRICS, EXPLORER = "index.html", "metrics.json", "explore.html"  # files of a report, beside the folder figures

STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; color: #1a1a1a; background: #fff;
  max-width: 1180px; margin: 2.5rem auto 4rem; padding: 0 1.5rem; }
h1 { font-size: 1.7rem; margin: 0 0 .2rem; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 2.6rem 0 .6rem; }
p.lead { color: #555; margin: 0 0 1.4rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1.2rem; margin: 0; font-size: .92rem; }
dt { color: #666; } dd { margin: 0; overflow-wrap: anywhere; }
table { display: block; overflow-x: auto; }
table { border-collapse: collapse; font-size: .92rem; font-variant-numeric: tabular-nums; margin: .4rem 0 1rem; }
th, td { text-align: right; padding: .28rem .5rem; border-bottom: 1px solid #e4e4e4; }
th { color: #666; font-weight: 500; border-bottom: 1px solid #999; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
td.remark { text-align: left; color: #555; min-width: 16rem; }
tr.network td:not(.remark) { font-weight: 600; }
td:not(.remark, :first-child) { white-space: nowrap; }
figure { margin: 0; } img { max-width: 100%; height: auto; display: block; border: 1px solid #eee; }
figcaption, .note, .definitions { color: #555; font-size: .88rem; margin-top: .5rem; max-width: 52rem; }
ul.note { padding-left: 1.2rem; }
@media print { body { margin: 0; max-width: none; } figure, table { break-inside: avoid; } }
"""

SOURCE_NAMES = {"synthetic": "built-in faces", "multipie": "Multi-PIE", "mug": "MUG", "folder": "a folder of images"}


class MetricRow(NamedTuple):
    """One metric of a table. reference: the value to compare with, such as chance."""

    name: str
    value: str
    reference: str = ""
    remark: str = ""


def page(title: str, heading: str, lead: str, body: Iterable[str]) -> str:
    """A whole page. body: HTML."""
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">',
            f"<title>{escape(title)}</title><style>{STYLE}</style></head><body>",
            f"<h1>{escape(heading)}</h1>",
            f'<p class="lead">{escape(lead)}</p>',
            *body,
            "</body></html>",
            "",
        ]
    )


def figure(drawing: ReportFigure) -> str:
    """A figure with its title and caption; without an image, the caption says why."""
    title, caption = escape(drawing.title), escape(drawing.caption)
    if drawing.image is None:
        return f'<h2>{title}</h2><p class="note">{caption}</p>'
    width = drawing.image.width // 2  # drawn for 300 dots per inch
    image = f'<img src="{escape(f"figures/{drawing.name}.png")}" alt="{title}" width="{width}">'
    return f"<h2>{title}</h2><figure>{image}<figcaption>{caption}</figcaption></figure>"


def notes(sentences: Iterable[str]) -> str:
    return "".join(f'<p class="note">{escape(sentence)}</p>' for sentence in sentences)


def definitions(html: str) -> str:
    return f'<h2>Definitions</h2>\n<p class="definitions">{html}</p>'


def definition_list(rows: Iterable[tuple[str, str]]) -> str:
    return "<dl>" + "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in rows) + "</dl>"


def provenance_list(data: dict) -> str:
    """What every number of a page depends on: data, split, checkpoint, seed, crop. data: from metrics.json."""
    folders = zip(*(data[key] for key in ("folders", "sources", "prepared", "crop")), strict=True)
    rows = [
        ("data", f"{folder} ({SOURCE_NAMES.get(source, source)}, prepared {date}; {describe_crop(crop)})")
        for folder, source, date, crop in folders
    ]
    train_crop = describe_crop(data["train_crop"])
    rows += [
        ("split", f"{data['split']}: {data['subjects']} people, {data['pictures']} images"),
        ("checkpoint", f"step {data['step']}, preset {data['preset']}, seed {data['seed']}"),
        ("trained on", f"{', '.join(data['trained_on'])}: {data['train_subjects']} people, {train_crop}"),
        ("report", f"written {data['written']}"),
    ]
    return definition_list(rows)


def describe_crop(crop: dict) -> str:
    detector, margin = crop.get("detector"), crop.get("margin")
    if detector in (None, "none"):
        return "images not cropped"
    return f"cropped by {detector}, " + ("tight" if not margin else f"margin {margin:g}")


def probe_rows(probes: dict, leakage: float | None) -> list[MetricRow]:
    """What linear probes find in the codes, and the leakage."""
    rows = []
    for code, goal in (("expression", "should be at chance"), ("identity", "should be high")):
        probe = probes[f"subject_from_{code}"]
        name, remark = f"person by linear probe of the {code} code, accuracy", f"{probe['how']}; {goal}"
        rows.append(MetricRow(name, percent(probe["accuracy"]), percent(probe["chance"]), remark))
    for code, goal in (("identity", "should be at chance"), ("expression", "should be high")):
        probe = probes[f"intensity_from_{code}"]
        name, remark = f"intensity by linear probe of the {code} code", f"{probe['how']}; {goal}"
        rows.append(MetricRow(f"{name}, Spearman", number(probe["spearman"], 3), "0", remark))
        rows.append(MetricRow(f"{name}, mean absolute error", number(probe["mae"], 3), number(probe["chance_mae"], 3)))
    remark = "variance within a person / variance between people; 0 is best"
    return [*rows, MetricRow("leakage into the identity code", number(leakage, 3), "", remark)]


def metric_table(rows: Iterable[MetricRow], title: str = "codes", reference: str = "chance") -> str:
    body = []
    for row in rows:
        name, value, mark, remark = map(escape, row)
        body.append(f"<tr><td>{name}</td><td>{value}</td><td>{mark}</td><td class='remark'>{remark}</td></tr>")
    return table((title, "", reference, ""), body)


def table(headings: Iterable[str], rows: Iterable[str]) -> str:
    """A table. rows: HTML."""
    head = "".join(f"<th>{escape(name)}</th>" for name in headings)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f} %"


def interval(bounds: Sequence[float | None], digits: int) -> str:
    """The two bounds, or "" where there is no interval."""
    low, high = bounds
    return "" if low is None or high is None else f"{low:.{digits}f} to {high:.{digits}f}"


def check_out(folder: Path) -> None:
    """Raises UserError unless a report may be written to this folder: a new or empty one, or that of a report."""
    if folder.exists() and not (folder.is_dir() and (not any(folder.iterdir()) or (folder / METRICS).is_file())):
        raise UserError(f"--out must be a new folder, or that of an earlier report, got {folder}.")


def publish(
    folder: Path, html: str, metrics: str, drawings: Sequence[ReportFigure], explorer: str | None = None
) -> None:
    """Write index.html, metrics.json, figures/ and explore.html beside `folder`, then move them into it, the page last.

    An older page is deleted first, together with its files, so that no page ever stands beside another's figures.
    metrics: as JSON. explorer: the page with sliders, None if there is none.

    Raises UserError where the folder cannot be written.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=PARTIAL) as partial:
            _publish(folder, Path(partial), html, metrics, drawings, explorer)
    except OSError as error:
        raise UserError(f"{folder} cannot be written ({error.strerror or error}): give another --out.") from error


def _publish(
    folder: Path, partial: Path, html: str, metrics: str, drawings: Sequence[ReportFigure], explorer: str | None
) -> None:
    (partial / "figures").mkdir()
    names = [EXPLORER]
    if explorer is not None:
        (partial / EXPLORER).write_text(explorer, encoding="utf-8", errors="backslashreplace")
    for drawing in drawings:
        names.append(f"figures/{drawing.name}.png")
        if drawing.image is not None:
            figures.save(drawing.image, partial / names[-1])
    (partial / METRICS).write_text(metrics + "\n", encoding="utf-8")
    (partial / PAGE).write_text(html, encoding="utf-8", errors="backslashreplace")

    (folder / "figures").mkdir(parents=True, exist_ok=True)
    for name in (PAGE, *names):
        (folder / name).unlink(missing_ok=True)
    for name in names:
        if (partial / name).exists():
            os.replace(partial / name, folder / name)
    for name in (METRICS, PAGE):
        os.replace(partial / name, folder / name)
