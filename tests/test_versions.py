"""Versions of Python and JAX train alike, and read each other's checkpoints.

Each version runs this file on one folder: the first leaves its run there, and every later one is compared with it.
"""

import json
import os
import platform
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest

import facedisent_jax as fd
from data_prep.output.build import build_synthetic
from facedisent_jax.config import ModelConfig
from facedisent_jax.data.reading import read_split
from facedisent_jax.presets import PRESETS
from facedisent_jax.training.run import train

STEPS = 5
ROUNDING = 1e-4  # relative, after so many steps of AdamW


@pytest.mark.slow
@pytest.mark.skipif("FACEDISENT_VERSIONS" not in os.environ, reason="needs FACEDISENT_VERSIONS, a folder to compare in")
def test_another_version_trains_alike_and_its_checkpoint_is_read():
    folder = Path(os.environ["FACEDISENT_VERSIONS"])
    name = f"python{platform.python_version()}-jax{jax.__version__}"
    if not (folder / "data").exists():
        folder.mkdir(exist_ok=True)
        build_synthetic(folder / "data", subjects=24, levels=3)
    earlier = [path.parent.name for path in sorted(folder.glob("*/metrics.jsonl"))]
    model = ModelConfig(width=128, blocks=1)
    config = replace(PRESETS["smile"].config, run=str(folder / name), steps=STEPS, batch=8, log_every=1, model=model)
    train(config, [folder / "data"])

    images = np.asarray(read_split(folder / "data", "test").image)
    np.savez(folder / name / "codes.npz", *fd.load(folder / name).encode(images))
    for earlier_name in earlier:
        print(f"{name} is compared with {earlier_name}")
        for line, expected in zip(read_log(folder / name), read_log(folder / earlier_name), strict=True):
            assert line.keys() == expected.keys()
            for term, value in line.items():
                # A triplet term is what a difference of distances, 0.5 or more, leaves above 0: it rounds as they do.
                absolute = 0.5 * ROUNDING if term.endswith("_triplet") else None
                assert value == pytest.approx(expected[term], rel=ROUNDING, abs=absolute), (line["step"], term)
        codes = fd.load(folder / earlier_name).encode(images)
        with np.load(folder / earlier_name / "codes.npz") as expected:
            for code, name_in_file in zip(codes, expected, strict=True):
                np.testing.assert_allclose(code, expected[name_in_file], rtol=ROUNDING, atol=ROUNDING)


def read_log(run: Path) -> list[dict[str, float]]:
    """The terms of each step, without the speed."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "images_per_second"} for line in lines]
