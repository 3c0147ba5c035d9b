"""TODO."""

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from facedisent_jax import trained_model
from facedisent_jax.data.reading import crop_of
from facedisent_jax.evaluation import judges
from facedisent_jax.evaluation.stills import evaluate_stills, judge_swaps, load_held_out, provenance, to_json
from facedisent_jax.reporting import figures, gallery, html


def write(
    run: Path | str,
    data: Sequence[Path | str] = (),
    split: str = "test",
    step: str | int = "best",
    points: "judges.Points | None" = None,
) -> dict:
    """Judge a run on the `split` of the data folders (none: those it was trained on) and write RUN/report.

    points: the face mesh, which then judges the smile of the swaps. Returns what metrics.json holds. The page is moved
    into place last: a report cut short leaves none.
    """
    run = Path(run)
    face = trained_model.load(run, step)
    folders = [Path(folder) for folder in data or face.info["data"]]
    faces, left_out = load_held_out(face, run, folders, split)
    judged = evaluate_stills(face, faces)
    margin = float(crop_of(folders)["margin"] or 0)
    under = judge_swaps(face, faces, judged.codes, judged.swaps, margin, points)
    judged.figures["judged_swaps"] = under
    judged.notes.extend(under["missing"])
    judged.figures["data"] |= provenance(face, folders, split)
    if left_out:
        judged.notes.append(
            f"{left_out} of {left_out + len(faces)} pictures were not judged, to keep the report quick."
        )

    unfinished = run / "report.unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    (unfinished / "figures").mkdir(parents=True)
    shown = gallery.draw(face, faces, judged.codes, judged.swaps, history(run))
    for drawn in shown:
        if drawn.image is not None:
            figures.save(drawn.image, unfinished / "figures" / f"{drawn.name}.png")
    text = json.dumps(to_json(judged.figures), indent=2, allow_nan=False)
    (unfinished / "metrics.json").write_text(text + "\n", encoding="utf-8")
    page = html.render(run.name, to_json(judged.figures), shown, judged.notes)
    (unfinished / "index.html").write_text(page, encoding="utf-8", errors="backslashreplace")
    publish(unfinished, run / "report", [f"figures/{drawn.name}.png" for drawn in shown])
    return json.loads(text)


def history(run: Path) -> list[dict]:
    """The lines of metrics.jsonl; one cut short by a kill is passed over."""
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


def publish(unfinished: Path, report: Path, own: Sequence[str]) -> None:
    """Move a finished report into place, the page last; an older page goes first, its figures (`own`) with it."""
    (report / "figures").mkdir(parents=True, exist_ok=True)
    for name in ("index.html", *own):
        (report / name).unlink(missing_ok=True)
    for name in own:
        if (unfinished / name).exists():
            os.replace(unfinished / name, report / name)
    for name in ("metrics.json", "index.html"):
        os.replace(unfinished / name, report / name)
    shutil.rmtree(unfinished)
