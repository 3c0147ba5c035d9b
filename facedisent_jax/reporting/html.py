"""The report as one HTML page: what was judged, the table of figures, the pictures. Imports none of ours.

Everything that comes from data or a command line is escaped.
"""

from collections.abc import Iterable, Sequence
from html import escape
from typing import Protocol

from PIL import Image

STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; color: #1a1a1a; background: #fff;
  max-width: 1080px; margin: 2.5rem auto 4rem; padding: 0 1.5rem; }
h1 { font-size: 1.7rem; margin: 0 0 .2rem; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 2.6rem 0 .6rem; }
p.lead { color: #555; margin: 0 0 1.4rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1.2rem; margin: 0; font-size: .92rem; }
dt { color: #666; } dd { margin: 0; overflow-wrap: anywhere; }
table { border-collapse: collapse; font-size: .92rem; font-variant-numeric: tabular-nums; margin: .4rem 0 1rem; }
th, td { text-align: right; padding: .28rem .9rem; border-bottom: 1px solid #e4e4e4; }
th { color: #666; font-weight: 500; border-bottom: 1px solid #999; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
td.what { text-align: left; color: #555; }
tr.own td:not(.what) { font-weight: 600; }
td:not(.what) { white-space: nowrap; }
figure { margin: 0; } img { max-width: 100%; height: auto; display: block; border: 1px solid #eee; }
figcaption, .note, .foot { color: #555; font-size: .88rem; margin-top: .5rem; max-width: 52rem; }
ul.note { padding-left: 1.2rem; }
@media print { body { margin: 0; max-width: none; } figure, table { break-inside: avoid; } }
"""


SOURCES = {"synthetic": "built-in faces", "multipie": "Multi-PIE", "mug": "MUG", "folder": "a folder of pictures"}
"""Names of prep.json's sources for readers."""


class Shown(Protocol):
    """A figure: its file's name without .png, title and caption; image None if it was left out."""

    @property
    def name(self) -> str: ...
    @property
    def title(self) -> str: ...
    @property
    def caption(self) -> str: ...
    @property
    def image(self) -> Image.Image | None: ...


def render(run: str, figures: dict, shown: Sequence[Shown], notes: Sequence[str]) -> str:
    """The page. figures: what metrics.json holds (None where a figure could not be computed)."""
    data = figures["data"]
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">',
        f"<title>{escape(run)}: report</title><style>{STYLE}</style></head><body>",
        f"<h1>{escape(run)}</h1>",
        f'<p class="lead">Judged on {data["subjects"]} people that the network never saw, '
        f"{data['pictures']} pictures.</p>",
        header(data),
        "<h2>Figures</h2>",
        pictures_table(figures),
        codes_table(figures),
        judged_table(figures["judged_swaps"]),
        "".join(f'<p class="note">{escape(note)}</p>' for note in notes),
    ]
    for item in shown:
        parts.append(f"<h2>{escape(item.title)}</h2>")
        if item.image is None:
            parts.append(f'<p class="note">{escape(item.caption)}</p>')
        else:
            source, text = escape(f"figures/{item.name}.png"), escape(item.caption)
            width = item.image.width // 2  # drawn for 300 dots an inch
            picture = f'<img src="{source}" alt="{escape(item.title)}" width="{width}">'
            parts.append(f"<figure>{picture}<figcaption>{text}</figcaption></figure>")
    return "\n".join([*parts, DEFINITIONS, "</body></html>", ""])


def header(data: dict) -> str:
    """Data, split, checkpoint, seed, crop: what every figure below has to name."""
    learnt = f"{data['train_subjects']} subjects, {crop(data['train_crop'])}"
    rows = []
    for folder, source, date, how in zip(*(data[k] for k in ("folders", "sources", "prepared", "crop")), strict=True):
        rows.append(("data", f"{folder} ({SOURCES.get(source, source)}, prepared {date}; {crop(how)})"))
    rows += [
        ("split", f"{data['split']}: {data['subjects']} subjects, {data['pictures']} pictures"),
        ("checkpoint", f"step {data['step']} of a {data['preset']} run, seed {data['seed']}"),
        ("trained on", f"{', '.join(data['trained_on'])}: {learnt}"),
        ("report", f"written {data['written']}"),
    ]
    return "<dl>" + "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in rows) + "</dl>"


def crop(how: dict) -> str:
    detector, margin = how.get("detector"), how.get("margin")
    if detector in (None, "none"):
        return "pictures not cropped"
    return f"crop by {detector}, " + ("tight" if not margin else f"margin {margin:g}")


def pictures_table(figures: dict) -> str:
    """Pixel figures of the network beside those of the baselines."""
    rivals, swap = figures["baselines"], figures["swap"]
    same, unswapped = ({k: swap.get(f"{kind}_{k}") for k in ("psnr", "ssim")} for kind in ("same_subject", "unswapped"))
    rows = [
        ("reconstruction", figures["reconstruction"], "decoded from a picture's own two codes"),
        ("swap", swap, "expression code of another person, against the real picture"),
        ("swap within a person", same, "expression code of the real picture itself"),
        ("no swap", unswapped, "the other expression decoded unchanged: a swap has to beat it"),
        ("mean face", rivals.get("mean_face"), "of the training pictures and their flips"),
    ]
    for name, rival in rivals.items():
        if name.startswith("pca_"):
            text = (
                f"{rival['components']} principal components, fitted on {rivals['fitted_pictures']} pictures and flips"
            )
            rows.append((name.replace("pca_", "PCA-"), rival, text))
    body = []
    for name, values, what in rows:
        if values is None:
            continue
        low, high = values.get("psnr_ci95") or (None, None)
        between = f"{low:.1f} to {high:.1f}" if low is not None and high is not None else ""
        cells = [escape(name), number(values["psnr"], 2), between, number(values["ssim"], 3)]
        own = ' class="own"' if name in ("reconstruction", "swap") else ""
        body.append(f"<tr{own}>{''.join(f'<td>{c}</td>' for c in cells)}<td class='what'>{escape(what)}</td></tr>")
    return table(("", "PSNR, dB", "95 % over people", "SSIM", ""), body)


def codes_table(figures: dict) -> str:
    """What can be read from the codes, chance beside each."""
    read, probe = figures["intensity"], figures["probes"]
    ceiling = read.get("spearman_ceiling")
    most = f"at most {number(ceiling, 2)} with so many equal intensities" if ceiling and ceiling < 0.995 else ""
    rows = [
        ("intensity read from the expression code, Spearman", number(read["spearman"], 3), "0", most),
        ("the same, mean absolute error", number(read["mae"], 3), "", ""),
    ]
    return codes_rows(rows + probe_rows(probe, figures["leakage"]))


def probe_rows(probe: dict, leakage: float | None) -> list[tuple[str, str, str, str]]:
    """What linear probes find in the codes: name, figure, chance, explanation."""
    rows = []
    for wanted, of in ((False, "expression"), (True, "identity")):
        p = probe[f"subject_from_{of}"]
        what = p["how"] + ("; should be high" if wanted else "; should be at chance")
        rows.append((f"subject from the {of} code", percent(p["accuracy"]), percent(p["chance"]), what))
    for wanted, of in ((False, "identity"), (True, "expression")):
        p = probe[f"intensity_from_{of}"]
        what = p["how"] + ("; should be high" if wanted else "; should be at chance")
        rows.append((f"intensity from the {of} code, Spearman", number(p["spearman"], 3), "0", what))
        rows.append(("the same, mean absolute error", number(p["mae"], 3), number(p["chance_mae"], 3), ""))
    text = "variance over one person's pictures / variance over people; 0 is none"
    rows.append(("leakage into the identity code", number(leakage, 3), "", text))
    return rows


def judged_table(judged: dict) -> str:
    """What independent judges say of the swaps; nothing without a judge."""
    rows = []
    if smile := judged["smile"]:
        what = f"{smile['judge']}; {judged['swaps']} swaps, {smile['no_face']} without a face found"
        pair = number(smile["correlation"], 2), number(smile["real_correlation"], 2)
        rows.append(("smile of the swap and of its donor, Spearman", *pair, what))
        pair = number(smile["followed"], 2), number(smile["real_followed"], 2)
        rows.append(("share of the donor's smile taken over", *pair, "1: all of it"))
    if who := judged["identity"]:
        pair = number(who["distance"], 2), number(who["real_distance"], 2)
        rows.append(("distance of the swap from the person", *pair, f"{who['judge']}; one person below 0.6"))
        rows.append(("distance of the swap from the donor", number(who["donor_distance"], 2), "", ""))
        rows.append(("nearer to the person than to the donor", percent(who["nearer_than_donor"]), "", ""))
    return codes_rows(rows, "swaps under independent judges", "real picture") if rows else ""


def codes_rows(rows: Iterable[tuple[str, str, str, str]], title: str = "codes", mark: str = "chance") -> str:
    """A table of figures: name, figure, chance or another mark, explanation."""
    body = []
    for name, value, chance, what in rows:
        cells = f"<td>{escape(name)}</td><td>{value}</td><td>{chance}</td><td class='what'>{escape(what)}</td>"
        body.append(f"<tr>{cells}</tr>")
    return table((title, "", mark, ""), body)


def table(heads: Iterable[str], rows: Iterable[str]) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in heads)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f} %"


DEFINITIONS = """<h2>Definitions</h2>
<p class="foot">PSNR: 10 log10(1 / MSE) of a 64x64 picture with values in [0, 1], mean over pictures. The interval: mean
of each person's mean, 95 % bootstrap over people. SSIM: Wang et al. 2004, Gaussian window of 11x11 (sigma 1.5), mean of
the colour channels. Swap: the identity code comes from the person's picture farthest in expression within the same
sequence and condition, the expression code from up to five other people's pictures of the target's expression and step
of intensity, drawn by seed. Under the judges, "real picture" is the person's own picture with that
expression in place of the swap. Probes are linear (ridge, strength by leave-one-out on the fitted part). The same
numbers, and more, are in <a href="metrics.json">metrics.json</a>.</p>"""
