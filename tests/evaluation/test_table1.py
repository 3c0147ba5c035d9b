"""Tight and loose crops are judged on the same part of the photograph, and rows differ in one thing at a time."""

import json

import numpy as np
import pytest
from PIL import Image
from tiny_run import person, write_folder, write_run

import facedisent_jax as fd
from facedisent_jax.commands import evaluate
from facedisent_jax.data.reading import read_split
from facedisent_jax.data.record import PREP_FILE
from facedisent_jax.errors import UserError
from facedisent_jax.evaluation import table1
from facedisent_jax.evaluation.stills import evaluate_stills
from facedisent_jax.presets import PRESETS


def with_margin(folder, margin):
    info = json.loads((folder / PREP_FILE).read_text())
    (folder / PREP_FILE).write_text(json.dumps(info | {"margin": margin}))
    return folder


@pytest.fixture
def folders(tmp_path):
    splits = {
        "train": [r for k in range(3) for r in person(k)],
        "validation": person(6) + person(7),
        "test": person(4) + person(5),
    }
    return [with_margin(write_folder(tmp_path / name, splits), m) for name, m in (("loose", 0.5), ("tight", 0.0))]


def test_the_face_region_is_the_same_part_of_the_photograph_whatever_the_crop():
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 255, (12, 12, 3), np.uint8))
    photo = noise.resize((384, 384), Image.Resampling.BICUBIC)
    crops = []
    for margin in (0.0, 0.5):
        half_side = 128 * (1 + margin) / 2
        box = (192 - half_side, 192 - half_side, 192 + half_side, 192 + half_side)
        crop = np.asarray(photo.resize((64, 64), Image.Resampling.BOX, box=box), np.float32) / 255
        crops.append(table1.face_region(crop[None], margin, 32))
    assert crops[0].shape == (1, 32, 32, 3)
    assert abs(crops[0] - crops[1]).mean() < 0.02 < 0.1 < abs(crops[0] - crops[1][:, ::-1]).mean()


def test_rows_differ_in_the_crop_and_the_swapping_loss_alone(folders, tmp_path):
    variants = table1.variants(folders)
    assert [v.name for v in variants] == [
        "tight, with swap",
        "tight, no swap",
        "margin 0.5, with swap",
        "margin 0.5, no swap",
    ]
    assert table1.common_resolution(variants) == 43
    row_1, row_2 = (table1.variant_config(PRESETS["poster"].config, v, tmp_path, 3, 40) for v in variants[:2])
    assert row_1.loss.swap > 0 == row_2.loss.swap and (row_1.seed, row_1.steps, row_1.optim.decay_steps) == (3, 40, 40)
    assert {**vars(row_1), "loss": None} == {**vars(row_2), "loss": None}
    assert {**vars(row_1.loss), "swap": None} == {**vars(row_2.loss), "swap": None}


def test_folders_that_cannot_be_compared_are_refused(folders, tmp_path):
    with pytest.raises(UserError, match="folders of different margins"):
        table1.variants(folders[:1])
    stranger = with_margin(write_folder(tmp_path / "other", {"train": person(8), "test": person(9)}), 0.5)
    with pytest.raises(UserError, match="other people"):
        table1.variants([folders[1], stranger])


@pytest.mark.slow
def test_figures_of_a_network_are_those_of_the_report_where_the_region_is_the_whole_picture(folders, tmp_path):
    data = folders[1]
    run = write_run(tmp_path / "run", data, {"detector": "none", "margin": 0.0})
    row = table1.evaluate_run(run, data, 0.0, 64)
    metrics = evaluate_stills(fd.load(run), read_split(data, "test")).metrics
    assert row["reconstruction"] == pytest.approx(metrics["reconstruction"]["psnr_by_subject"], abs=1e-4)
    assert row["swap"] == pytest.approx(metrics["swap"]["psnr_by_subject"], abs=1e-4)
    assert row["gain"] == pytest.approx(row["swap"] - row["unswapped"])


def test_mean_and_spread_over_seeds():
    rows = table1.mean_and_std([dict.fromkeys(table1.METRICS, value) for value in (20.0, 22.0, 24.0)])
    assert rows["swap"] == [22.0, 2.0]
    assert "22.00 ± 2.00" in table1.format_table({"tight": rows})


@pytest.mark.slow
@pytest.mark.long
def test_the_command_trains_every_row_and_writes_the_table(folders, tmp_path, capsys):
    evaluate.table1(tuple(folders), tmp_path / "out", preset="binary", steps=2, seeds=(0,))
    table = json.loads((tmp_path / "out" / "table1.json").read_text())
    assert len(table["rows"]) == 4 and table["pixels"] == 43 and table["steps"] == 2
    assert "margin 0.5, no swap" in capsys.readouterr().out
    runs = sorted(p.name for p in (tmp_path / "out").iterdir() if p.is_dir())
    assert runs == [f"margin{m}-{s}-seed0" for m in ("0", "0.5") for s in ("noswap", "swap")]
