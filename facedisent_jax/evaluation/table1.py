"""The poster's Table 1 as an experiment: tight against loose crop, with against without the swapping loss."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from PIL import Image

from facedisent_jax import trained_model
from facedisent_jax.config import IMAGE_SIZE, Config
from facedisent_jax.data import reading
from facedisent_jax.data.labels import take_ids
from facedisent_jax.errors import UserError
from facedisent_jax.evaluation import metrics
from facedisent_jax.evaluation.stills import load_held_out
from facedisent_jax.files import write_atomically
from facedisent_jax.models import Codes
from facedisent_jax.training.run import train

FILE = "table1.json"
METRICS = ("reconstruction", "swap", "unswapped", "gain")


class Variant(NamedTuple):
    """One row of the table. margin: of the data folder's crop. swap: whether the swapping loss is on."""

    name: str
    data: Path
    margin: float
    swap: bool


def train_and_evaluate(
    folders: Sequence[Path], out: Path, preset: Config, seeds: Sequence[int], steps: int | None
) -> tuple[dict[str, dict[str, list[float]]], int]:
    """Train and evaluate every row with every seed, and write out/FILE after each row.

    Runs that are in `out` already go on from their last checkpoint. steps: of each run; None: the preset's.

    Returns the rows as `format_table` takes them, and the size in pixels at which they are compared.
    Raises UserError for folders that make no table.
    """
    rows_to_train = variants(folders)
    size = common_resolution(rows_to_train)
    by_seed, rows = {}, {}
    for variant in rows_to_train:
        outcomes = []
        for seed in seeds:
            run = out / f"margin{variant.margin:g}-{'swap' if variant.swap else 'noswap'}-seed{seed}"
            print(f"{variant.name}, seed {seed}")
            train(variant_config(preset, variant, run, seed, steps), [variant.data])
            outcomes.append(evaluate_run(run, variant.data, variant.margin, size))
        by_seed[variant.name] = dict(zip(map(str, seeds), outcomes, strict=True))
        rows[variant.name] = mean_and_std(outcomes)
        facts = {"preset": preset.preset, "steps": steps or preset.steps, "pixels": size, "data": [*map(str, folders)]}
        write_atomically(out / FILE, json.dumps(facts | {"rows": rows, "seeds": by_seed}, indent=2) + "\n")
    return rows, size


def variants(folders: Sequence[Path]) -> list[Variant]:
    """The rows: each crop, the tightest first, with and without the swapping loss.

    Raises UserError for folders of different people, and for folders with the same crop.
    """
    infos = [reading.read_info(folder) for folder in folders]
    for folder, info in zip(folders, infos, strict=True):
        if info["subjects"] != infos[0]["subjects"]:
            raise UserError(
                f"--data must be folders of the same people in the same splits, got other people in {folder} than in "
                f"{folders[0]}. Prepare both from the same photographs, one with another --margin and with "
                f"--split-like {folders[0]}."
            )
    margins = [float(info["margin"]) for info in infos]
    if len(set(margins)) < max(2, len(margins)):
        listed = ", ".join(f"{folder} ({margin:g})" for folder, margin in zip(folders, margins, strict=True))
        raise UserError(f"--data must be folders of different margins (--margin), got {listed or 'none'}.")
    return [
        Variant(f"{f'margin {margin:g}' if margin else 'tight'}, {'with' if swap else 'no'} swap", folder, margin, swap)
        for margin, folder in sorted(zip(margins, folders, strict=True))
        for swap in (True, False)
    ]


def common_resolution(rows: Sequence[Variant]) -> int:
    """Side of the face region in the loosest crop, in pixels: all rows are compared at this size."""
    return round(IMAGE_SIZE / (1 + max(variant.margin for variant in rows)))


def variant_config(preset: Config, variant: Variant, run: Path, seed: int, steps: int | None) -> Config:
    """The config of a row and a seed: the preset, but for data, seed, length and swapping loss."""
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


def face_region(images: Float[np.ndarray, "n 64 64 3"], margin: float, size: int) -> np.ndarray:
    """The square of the tight crop within images cropped with a margin, [n, size, size, 3].

    So a tight and a loose crop are compared on the same part of the photograph at the same resolution.
    """
    side = images.shape[1]
    inner = side / (1 + margin)
    box = ((side - inner) / 2,) * 2 + ((side + inner) / 2,) * 2
    channels = np.moveaxis(np.asarray(images, np.float32), 3, 1).reshape(-1, side, side)
    resized = [Image.fromarray(c).resize((size, size), Image.Resampling.BOX, box=box) for c in channels]
    return np.moveaxis(np.stack([np.asarray(c) for c in resized]).reshape(len(images), 3, size, size), 1, 3)


def evaluate_run(run: Path, data: Path, margin: float, size: int, split: str = "test") -> dict[str, float]:
    """PSNR in dB on the face region, mean over held-out people, for each of METRICS.

    swap: with another person's expression code, against the real image. unswapped: the same without the swap.
    gain: swap - unswapped, how much of the other expression came across.
    """
    model = trained_model.load(run)
    faces, _ = load_held_out(model, run, [data], split)
    codes = model.encode(np.asarray(faces.image))
    swaps = metrics.swaps(faces.subject, take_ids(faces), faces.expression, faces.intensity)
    if not len(swaps.target):
        raise UserError(
            f"--data must hold two people, each with two expressions, got {data}: no swap of its {split} images has a "
            "real image to be compared with."
        )
    real = face_region(np.asarray(faces.image, np.float32) / 255, margin, size)

    def psnr(identity: np.ndarray, expression: np.ndarray, target: np.ndarray) -> float:
        decoded = model.decode(Codes(codes.identity[identity], codes.expression[expression]))
        values = metrics.psnr(face_region(decoded, margin, size), real[target])
        return metrics.subject_mean(values, faces.subject[target])[0]

    rows = np.arange(len(faces))
    swap, unswapped = (psnr(swaps.source, expression, swaps.target) for expression in (swaps.donor, swaps.source))
    return dict(zip(METRICS, (psnr(rows, rows, rows), swap, unswapped, swap - unswapped), strict=True))


def mean_and_std(outcomes: Sequence[dict[str, float]]) -> dict[str, list[float]]:
    """[mean, standard deviation] of each metric over the seeds."""
    ddof = int(len(outcomes) > 1)
    return {
        name: [float(np.mean([o[name] for o in outcomes])), float(np.std([o[name] for o in outcomes], ddof=ddof))]
        for name in METRICS
    }


def format_table(rows: dict[str, dict[str, list[float]]]) -> str:
    """The table as text: PSNR in dB, mean and standard deviation over the seeds."""
    width = max(map(len, rows))
    lines = [f"{'':{width}}" + "".join(f"{name:>18}" for name in METRICS)]
    for name, row in rows.items():
        cells = (f"{mean:.2f} ± {deviation:.2f}" for mean, deviation in (row[metric] for metric in METRICS))
        lines.append(f"{name:{width}}" + "".join(f"{cell:>18}" for cell in cells))
    return "\n".join(lines)
