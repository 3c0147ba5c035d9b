"""Piece "repeat" of accelerator.py: whether two runs of one seed are equal bit for bit.

The default preset, in two processes with `--xla_gpu_deterministic_ops` and in two without, each twice in one process.
"""

import hashlib
import os
import subprocess
import sys

from accelerator_figures import Piece, parse_piece, report

FLAG = "--xla_gpu_deterministic_ops=true"
STEPS = {False: 20, True: 2}
"""By whether it is a rehearsal."""
PROCESSES = {False: 2, True: 1}
"""With and without the flag each, by whether it is a rehearsal."""


def measure(piece: Piece) -> None:
    count = PROCESSES[piece.rehearse]
    processes = {flag: [start(piece, flag) for _ in range(count)] for flag in (False, True)}
    for flag, pair in processes.items():
        outputs = [process.communicate()[0] for process in pair]
        digests = [line.split()[1] for output in outputs for line in output.splitlines() if line.startswith("digest ")]
        title = f"runs of one seed, {'with' if flag else 'without'} {FLAG.partition('=')[0]}"
        if len(digests) < 2 * count:
            report(title, None, note="a process failed")
            continue
        equal_inside = all(digests[2 * k] == digests[2 * k + 1] for k in range(count))
        note = f"of {len(digests)}, after {STEPS[piece.rehearse]} steps; two runs of a process are "
        report(title, len(set(digests)), "different", note + ("equal" if equal_inside else "different"))


def start(piece: Piece, with_flag: bool) -> subprocess.Popen:
    flags = f"{os.environ.get('XLA_FLAGS', '')} {FLAG if with_flag else ''}".strip()
    environment = os.environ | ({"XLA_FLAGS": flags} if flags else {})
    command = [sys.executable, __file__, *piece.arguments()]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


def print_digests(piece: Piece) -> None:
    """Print the digest of the weights after some steps, twice from the same seed."""
    import accelerator_pictures as pictures
    import jax
    import numpy as np

    from facedisent_jax.training import distributed
    from facedisent_jax.training.step import init_state, train_step

    faces, _ = pictures.load(piece.pictures)
    config = pictures.preset_config("smile", piece.rehearse)
    draw = pictures.draw_call(config, pictures.triplets_of(config, faces))
    first_state = jax.device_get(init_state(config, faces))
    for _ in range(2):
        state = distributed.replicated(first_state)
        for step in range(STEPS[piece.rehearse]):
            state, _ = train_step(config, state, distributed.shard_batch(draw(step)))
        digest = hashlib.sha256()
        for leaf in jax.tree.leaves(jax.device_get(state.params)):
            digest.update(np.ascontiguousarray(leaf).tobytes())
        print("digest", digest.hexdigest(), flush=True)


if __name__ == "__main__":
    print_digests(parse_piece()[0])
