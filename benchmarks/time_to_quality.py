"""Seconds of training to a given PSNR: `python benchmarks/time_to_quality.py [--psnr DB] [--json FILE]`.

Compares the default model with the poster's network, on the same built-in people with the same batch. The
reconstruction of held-out people is measured every ten steps, with the weights and not their moving average. Only the
steps are timed, neither compilation nor validation.
"""

import argparse
import os
import time
from dataclasses import replace

import numpy as np
import timing

VALIDATE_EVERY = 10  # steps


def train_to(preset: str, target_psnr: float, max_seconds: float, faces, held_out) -> tuple[float, float, int]:
    """Train until the PSNR or the time is reached. Returns seconds of steps, the PSNR, and the number of steps."""
    import jax

    from facedisent_jax.data.triplets import Triplets
    from facedisent_jax.presets import PRESETS
    from facedisent_jax.training.step import init_state, train_step
    from facedisent_jax.training.validation import validate

    config = replace(PRESETS[preset].config, batch=32)
    triplets, state = Triplets(faces, with_middle=False), init_state(config, faces)
    train_step(config, init_state(config, faces), triplets.batch(0, 0, 32))  # compiles
    seconds, step, psnr = 0.0, 0, -np.inf
    while psnr < target_psnr and seconds < max_seconds:
        batches = [triplets.batch(0, step + k, 32) for k in range(VALIDATE_EVERY)]
        start = time.perf_counter()
        for batch in batches:
            state, metrics = train_step(config, state, batch)
        jax.block_until_ready(metrics)
        seconds, step = seconds + time.perf_counter() - start, step + VALIDATE_EVERY
        psnr = validate(config, state.params, held_out)["validation/reconstruction_psnr"]
    return seconds, psnr, step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--psnr", type=float, default=22.0, help="quality to reach, dB (default: 22)")
    parser.add_argument("--most", type=float, default=240.0, help="seconds after which to give up (default: 240)")
    parser.add_argument("--json", default="", metavar="FILE")
    options = parser.parse_args()
    timing.settle_environment()

    from data_prep.synthetic.faces import records
    from facedisent_jax.data.record import Faces
    from facedisent_jax.data.triplets import Triplets

    load_before = os.getloadavg()[0]
    all_records = [record for _, record in records(220)]
    held_out_subjects = set(sorted({record.subject for record in all_records})[-20:])
    faces = Faces.of(record for record in all_records if record.subject not in held_out_subjects)
    held_out = Triplets(
        Faces.of(record for record in all_records if record.subject in held_out_subjects), with_middle=False
    )
    rows, result = [("network", "seconds", "steps", "PSNR reached")], {}
    for preset in ("smile", "poster"):
        seconds, psnr, steps = train_to(preset, options.psnr, options.most, faces, held_out)
        rows.append((preset, f"{seconds:.1f}", str(steps), f"{psnr:.2f}"))
        result[preset] = {"seconds": seconds, "steps": steps, "psnr": psnr}
    print(timing.table(rows))
    print(f"To {options.psnr:g} dB on 20 people held out of 220; load average {load_before:.1f} before.")
    timing.write_json(options.json, result | {"psnr": options.psnr, "load_average": load_before})


if __name__ == "__main__":
    main()
