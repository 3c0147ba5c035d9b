"""The model card of an exported model: what it is, what it was trained on, its metrics, and what not to use it for.

After Mitchell et al. 2019. Every number is from the report of the run; without a report the card says so.
"""

from collections.abc import Sequence
from html import escape

from facedisent_jax.config import VERSION
from facedisent_jax.reporting.html import SOURCE_NAMES, describe_crop, interval, number, percent
from facedisent_jax.trained_model import TrainedModel

MANY_DIFFER = 0.95  # share of the swaps that must be the same person to a judge; below, the card lists it as a failure

USES = """## What it is for

Research on representations of faces and on the perception of expressions, with images of people who agreed to it.
Label generated faces as generated.

## What it is not for

- Identifying people, or telling whether two images show one person.
- Reading emotions, character, health or truthfulness from a face. A smile is not a feeling.
- Decisions about people, such as hiring, teaching, policing or insurance.
- Images of people who did not agree, or that pass for photographs."""


def render(
    model: TrainedModel,
    name: str,
    folders: Sequence[dict | None],
    metrics: dict | None,
    licence: str | None,
    files: Sequence[tuple[str, str]],
    remarks: Sequence[str],
) -> str:
    """The card, in Markdown. All text from outside is escaped.

    name:    of the model.
    folders: what data preparation wrote about each data folder of the training; None for one that was not found.
    metrics: metrics.json of the report of this checkpoint. None: there is none.
    licence: of the training data, as the user states it.
    files:   names, and what each file holds.
    remarks: sentences on the files.
    """
    config, people = model.config, len(model.info["train_subjects"])
    expressions = ", ".join(model.expressions) or "no labelled expression"
    existing = [folder for folder in folders if folder]
    sources = ", ".join(dict.fromkeys(str(SOURCE_NAMES.get(folder["source"], folder["source"])) for folder in existing))
    pictures = sum(folder["splits"].get("train", 0) for folder in existing)
    dims = config.model.code_dims
    return "\n\n".join(
        [
            f"# {_text(name)}",
            f"A network of facedisent-jax {VERSION} (kind `{config.model.kind}`, preset `{_text(config.preset)}`, step "
            f"{model.step}, seed {config.seed}). It turns the 64x64 image of a face into an identity code and an "
            f"expression code of {dims} dimensions each, and such codes into an image.",
            "## Files",
            _table(("file", "content"), [(f"`{file}`", about) for file, about in files]),
            *remarks,
            "## What it was trained on",
            _table(
                ("", ""),
                [
                    ("people", str(people)),
                    ("images", str(pictures) if len(existing) == len(folders) else "not known: the data was not found"),
                    ("source", _text(sources) or "not known: the data was not found"),
                    ("expressions", _text(expressions)),
                    ("crop", _text(describe_crop(model.info["crop"]))),
                    ("licence of the data", _text(licence) if licence else "not stated by whoever exported this model"),
                ],
            ),
            "## Metrics",
            *_metrics(metrics),
            "## Known failures",
            "\n".join(f"- {sentence}" for sentence in _failures(model, people, metrics)),
            USES,
            "",
        ]
    )


def _metrics(metrics: dict | None) -> list[str]:
    if metrics is None:
        return ["This checkpoint was not evaluated. `python eval.py report RUN` does it; then export again."]
    data, swap, one_picture = metrics["data"], metrics["swap"], metrics.get("one_picture")
    images, targets = f"{data['pictures']} images", f"{swap.get('targets', 0)} images"
    rows = [
        ("reconstruction, PSNR in dB", metrics["reconstruction"], "psnr", images),
        ("swap: another person's expression code, PSNR in dB", swap, "psnr", targets),
        ("no swap: the expression left as it was, PSNR in dB", swap, "unswapped_psnr", targets),
        ("intensity read from the expression code, Spearman", metrics["intensity"], "spearman", images),
    ]
    if one_picture:
        people = f"{one_picture['people']} people"
        rows += [
            ("from a neutral image to the full expression: rise, share of the real one", one_picture, "rise", people),
            ("the same: PSNR minus that of the neutral image, dB", one_picture, "gain", people),
        ]
    identity = (metrics.get("judged_swaps") or {}).get("identity")
    if identity:
        swaps = f"{metrics['judged_swaps']['swaps']} swaps"
        rows += [
            ("identity distance of a swap to the person (0.6: another person)", identity, "distance", swaps),
            ("the same of the real image", identity, "real_distance", swaps),
        ]
    cells = [
        (name, number(values[key], 2), interval(values.get(f"{key}_ci95") or (None, None), 2), count)
        for name, values, key, count in rows
        if values.get(key) is not None
    ]
    about = (
        f"On {data['pictures']} images of {data['subjects']} people never seen in training (split "
        f"{_text(data['split'])} of {', '.join(SOURCE_NAMES.get(name, _text(name)) for name in data['sources'])}), "
        f"written {_text(data['written'])}. Intervals are 95 %, Student's, over people."
    )
    return [about, _table(("metric", "value", "95 % interval", "n"), cells)]


def _failures(model: TrainedModel, people: int, metrics: dict | None) -> list[str]:
    """What does not work, as sentences: of every such model, and as the metrics show it."""
    sentences = [
        f"It saw {people} people. Expect other numbers for people unlike them.",
        "It sees 64x64 crops of roughly frontal faces, cropped as in training. Other crops give other codes.",
    ]
    if model.uses_source:
        sentences.append("Teeth that the source image does not show are painted as a blurred band.")
    else:
        sentences.append("An image from codes alone is blurred: teeth, wrinkles and hair lose detail.")
    if metrics is None:
        return sentences
    swap, one_picture = metrics["swap"], metrics.get("one_picture") or {}
    if swap["psnr"] is not None and swap["psnr"] < swap["unswapped_psnr"]:
        sentences.append(
            f"A swap is further from the real image ({number(swap['psnr'], 1)} dB) than the image with the expression "
            f"left as it was ({number(swap['unswapped_psnr'], 1)} dB)."
        )
    if one_picture.get("sharpness") is not None:
        sentences.append(f"The mouth has {percent(one_picture['sharpness'])} of the sharpness of a real one.")
    identity = (metrics.get("judged_swaps") or {}).get("identity") or {}
    if identity.get("same_person") is not None and identity["same_person"] < MANY_DIFFER:
        share = percent(1 - identity["same_person"])
        sentences.append(f"In {share} of the swaps a face recognizer sees another person.")
    probe = metrics["probes"]["subject_from_expression"]
    if probe["accuracy"] is not None and probe["accuracy"] > 2 * probe["chance"]:
        sentences.append(
            "The expression code is not free of identity: a linear probe finds the person in "
            f"{percent(probe['accuracy'])} of the images (chance {percent(probe['chance'])})."
        )
    return sentences


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _text(value: str) -> str:
    """On one line, and nothing in it is HTML, a cell of a table or other Markdown."""
    text = escape(" ".join(str(value).split()), quote=False)
    return "".join(f"\\{letter}" if letter in "\\`*_[]|#" else letter for letter in text)
