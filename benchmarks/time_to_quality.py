"""Seconds of training to a given quality, of the default model and of the poster-like plain network:
`python benchmarks/time_to_quality.py [--psnr DB] [--json FILE]`.

Both train on the same built-in people with the same batch; every ten steps the reconstruction of people held out is
judged (by the weights themselves, not their average). Only the steps are timed: not compilation, not the judging.
"""

import argparse
import os
import time
from dataclasses import replace

import numpy as np
import timing

EVERY = 10


def seconds_to(preset: str, psnr: float, most: float, faces, held_out) -> tuple[float, float, int]:
    """Seconds of steps until the PSNR is reached or `most` seconds are over; the PSNR then; the number of steps."""
    import jax

    from facedisent_jax.data.triplets import Triplets
    from facedisent_jax.presets import PRESETS
    from facedisent_jax.training.step import init_state, train_step
    from facedisent_jax.training.validation import validate

    config = replace(PRESETS[preset].config, batch=32)
    triplets, state = Triplets(faces, with_middle=False), init_state(config, faces)
    train_step(config, init_state(config, faces), triplets.batch(0, 0, 32))  # compiles
    taken, step, reached = 0.0, 0, -np.inf
    while reached < psnr and taken < most:
        batches = [triplets.batch(0, step + k, 32) for k in range(EVERY)]
        start = time.perf_counter()
        for batch in batches:
            state, metrics = train_step(config, state, batch)
        jax.block_until_ready(metrics)
        taken, step = taken + time.perf_counter() - start, step + EVERY
        reached = validate(config, state.params, held_out)["validation/reconstruction_psnr"]
    return taken, reached, step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--psnr", type=float, default=22.0, help="quality to reach, dB (default: 22)")
    parser.add_argument("--most", type=float, default=240.0, help="seconds after which to give up (default: 240)")
    parser.add_argument("--json", default="", metavar="FILE")
    given = parser.parse_args()
    timing.settle_environment()

    from data_prep.synthetic.faces import records
    from facedisent_jax.data.record import Faces
    from facedisent_jax.data.triplets import Triplets

    before = os.getloadavg()[0]
    people = [record for _, record in records(220)]
    held = set(sorted({record.subject for record in people})[-20:])
    faces = Faces.of(record for record in people if record.subject not in held)
    held_out = Triplets(Faces.of(record for record in people if record.subject in held), with_middle=False)
    rows, result = [("network", "seconds", "steps", "PSNR reached")], {}
    for preset in ("smile", "poster"):
        taken, reached, step = seconds_to(preset, given.psnr, given.most, faces, held_out)
        rows.append((preset, f"{taken:.1f}", str(step), f"{reached:.2f}"))
        result[preset] = {"seconds": taken, "steps": step, "psnr": reached}
    print(timing.table(rows))
    print(f"To {given.psnr:g} dB on 20 people held out of 220; load average {before:.1f} before.")
    timing.write(given.json, result | {"psnr": given.psnr, "load_average": before})


if __name__ == "__main__":
    main()
