"""The poster's Table 1 as an experiment: tight against loose crop, with against without the swapping loss.

Imports study, report, runlog and what lies below them; trains with the function that it is given.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from facedisent_jax import trained_model
from facedisent_jax.config import IMAGE_SIZE, Config
from facedisent_jax.data import reading
from facedisent_jax.errors import UserError
from facedisent_jax.evaluation import metrics
from facedisent_jax.evaluation.stills import SEED, load_held_out, takes
from facedisent_jax.files import write_atomically
from facedisent_jax.models.codes import Codes

FILE = "table1.json"
FIGURES = ("reconstruction", "swap", "unswapped", "gain")


class Variant(NamedTuple):
    """One row of the table: its name, the data folder and its margin, and whether the swapping loss is on."""

    name: str
    data: Path
    margin: float
    swap: bool


def train_and_judge(
    folders: Sequence[Path],
    out: Path,
    preset: Config,
    seeds: Sequence[int],
    steps: int | None,
    train: Callable[[Config], Path],
) -> tuple[dict[str, dict[str, list[float]]], int]:
    """Train and judge every row with every seed: the rows as `text` takes them, and the pixels they are judged at.

    train: trains or continues the run of a config and returns its folder. After each row all that is known is written
    to out/FILE. Raises ReportError for folders that make no table.
    """
    made = variants(folders)
    size = resolution(made)
    found, rows = {}, {}
    for variant in made:
        outcomes = []
        for seed in seeds:
            run = out / f"margin{variant.margin:g}-{'swap' if variant.swap else 'noswap'}-seed{seed}"
            print(f"{variant.name}, seed {seed}")
            run = train(config(preset, variant, run, seed, steps))
            outcomes.append(judge(run, variant.data, variant.margin, size))
        found[variant.name] = dict(zip(map(str, seeds), outcomes, strict=True))
        rows[variant.name] = spread(outcomes)
        facts = {"preset": preset.preset, "steps": steps or preset.steps, "pixels": size, "data": [*map(str, folders)]}
        write_atomically(out / FILE, json.dumps(facts | {"rows": rows, "seeds": found}, indent=2) + "\n")
    return rows, size


def variants(folders: Sequence[Path]) -> list[Variant]:
    """The rows: each crop, the tightest first, with and without the swapping loss.

    Raises ReportError for folders of other people, or that are all cropped alike.
    """
    infos = [reading.read_info(folder) for folder in folders]
    for folder, info in zip(folders, infos, strict=True):
        if info["subjects"] != infos[0]["subjects"]:
            raise UserError(
                f"{folder} and {folders[0]} hold other people, or the same in other splits: prepare both from the same "
                f"photographs, one with another --margin, and --split-like {folders[0]}."
            )
    margins = [float(info["margin"]) for info in infos]
    if len(set(margins)) < max(2, len(margins)):
        listed = ", ".join(f"{folder} {margin:g}" for folder, margin in zip(folders, margins, strict=True))
        raise UserError(
            f"Table 1 compares crops: give data folders of different margins (--margin), not {listed or 'none'}."
        )
    return [
        Variant(f"{f'margin {margin:g}' if margin else 'tight'}, {'with' if swap else 'no'} swap", folder, margin, swap)
        for margin, folder in sorted(zip(margins, folders, strict=True))
        for swap in (True, False)
    ]


def resolution(made: Sequence[Variant]) -> int:
    """Pixels of the face region's side in the loosest crop: all are judged at that size."""
    return round(IMAGE_SIZE / (1 + max(variant.margin for variant in made)))


def config(preset: Config, variant: Variant, run: Path, seed: int, steps: int | None) -> Config:
    """The run of a row and a seed: the preset, but for the data, the seed, the length and the swapping loss."""
    steps = steps or preset.steps
    return replace(
        preset,
        data=(str(variant.data),),
        run=str(run),
        seed=seed,
        steps=steps,
        report=False,
        validate_every=max(1, steps // 4),
        optim=replace(preset.optim, decay_steps=steps, warmup_steps=min(preset.optim.warmup_steps, steps // 4)),
        loss=preset.loss if variant.swap else replace(preset.loss, swap=0.0),
    )


def face_region(images: np.ndarray, margin: float, size: int) -> np.ndarray:
    """The square of the tight crop within pictures cropped with a margin, at `size` pixels.

    images: [n, 64, 64, 3] float in [0, 1] -> [n, size, size, 3] float in [0, 1]. So a tight and a loose crop are judged
    on the same part of the photograph at the same resolution.
    """
    side = images.shape[1]
    inner = side / (1 + margin)
    box = ((side - inner) / 2,) * 2 + ((side + inner) / 2,) * 2
    channels = np.moveaxis(np.asarray(images, np.float32), 3, 1).reshape(-1, side, side)
    small = [Image.fromarray(c).resize((size, size), Image.Resampling.BOX, box=box) for c in channels]
    return np.moveaxis(np.stack([np.asarray(c) for c in small]).reshape(len(images), 3, size, size), 1, 3)


def judge(run: Path, data: Path, margin: float, size: int, split: str = "test") -> dict[str, float]:
    """PSNR in dB on the face region, mean over held-out people.

    reconstruction; swap: another person's expression code, against the real picture; unswapped: the same without the
    swap; gain: swap - unswapped, how much of the other expression came across.
    """
    face = trained_model.load(run)
    faces, _ = load_held_out(face, run, [data], split)
    codes = face.encode(np.asarray(faces.image))
    swaps = metrics.swaps(faces.subject, takes(faces), faces.expression, faces.intensity, seed=SEED)
    if not len(swaps.target):
        raise UserError(f"No swap of the {split} pictures in {data} has a truth to be compared with.")
    real = face_region(np.asarray(faces.image, np.float32) / 255, margin, size)

    def psnr(identity: np.ndarray, expression: np.ndarray, target: np.ndarray) -> float:
        made = face.decode(Codes(codes.identity[identity], codes.expression[expression]))
        values = metrics.psnr(face_region(made, margin, size), real[target])
        return metrics.by_subject(values, faces.subject[target])[0]

    every = np.arange(len(faces))
    swap, unswapped = (psnr(swaps.source, expression, swaps.target) for expression in (swaps.donor, swaps.source))
    return dict(zip(FIGURES, (psnr(every, every, every), swap, unswapped, swap - unswapped), strict=True))


def spread(outcomes: Sequence[dict[str, float]]) -> dict[str, list[float]]:
    """Of each figure [mean, standard deviation] over the seeds."""
    ddof = int(len(outcomes) > 1)
    return {
        name: [float(np.mean([o[name] for o in outcomes])), float(np.std([o[name] for o in outcomes], ddof=ddof))]
        for name in FIGURES
    }


def text(rows: dict[str, dict[str, list[float]]]) -> str:
    """The table as it is printed: PSNR in dB, mean and spread over seeds."""
    width = max(map(len, rows))
    lines = [f"{'':{width}}" + "".join(f"{name:>18}" for name in FIGURES)]
    for name, figures in rows.items():
        cells = (f"{mean:.2f} ± {deviation:.2f}" for mean, deviation in (figures[f] for f in FIGURES))
        lines.append(f"{name:{width}}" + "".join(f"{cell:>18}" for cell in cells))
    return "\n".join(lines)
