"""One run on several devices and in several processes: batches are split over the devices, weights are on each."""

import atexit
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from functools import cache
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.extend.backend import clear_backends
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from facedisent_jax.data.triplets import BATCH_AXIS, Batch
from facedisent_jax.errors import Stopped, UserError

AXIS = "data"
START_TIMEOUT = 300  # seconds that the processes wait for each other at the start
HEARTBEAT_TIMEOUT = 30  # seconds after which JAX ends the other processes when one has vanished


@cache
def mesh() -> Mesh:
    """All devices of all processes in a row, those of one process next to each other."""
    devices = sorted(jax.devices(), key=lambda device: (device.process_index, device.id))
    return Mesh(np.array(devices), (AXIS,))


def replicated_sharding() -> NamedSharding:
    """The whole array on each device."""
    return NamedSharding(mesh(), PartitionSpec())


def local_rows(batch: int) -> slice:
    """The rows of a batch that this process reads."""
    n = batch // jax.process_count()
    return slice(jax.process_index() * n, (jax.process_index() + 1) * n)


def check_devices() -> None:
    """Raises UserError where JAX finds no device, as with JAX_PLATFORMS=cuda on a machine without one."""
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:  # the second is JAX 0.12's
        platforms = os.environ.get("JAX_PLATFORMS", "")
        raise UserError(
            f"JAX finds no device for JAX_PLATFORMS={platforms}: unset it, or install JAX for that device."
        ) from error


def check_batch(batch: int) -> None:
    """Raises UserError unless the devices can share a batch equally."""
    if batch % jax.device_count():
        raise UserError(f"--batch must be a multiple of the number of devices, {jax.device_count()}, got {batch}.")


def shard_batch(batch: Batch, leading_axes: int = 0) -> Batch:
    """This process's rows of a batch -> the whole batch, its triplets split over the devices.

    leading_axes: 1 where the fields have an axis of steps in front.
    """

    def shard(array: np.ndarray, axis: int) -> jax.Array:
        sharding = NamedSharding(mesh(), PartitionSpec(*[None] * (leading_axes + axis), AXIS))
        return jax.make_array_from_process_local_data(sharding, array)

    return jax.tree.map(shard, batch, BATCH_AXIS)


def replicated(tree: Any) -> Any:
    """The same arrays on each device. Every process must pass equal arrays."""
    return jax.tree.map(
        lambda a: jax.make_array_from_process_local_data(replicated_sharding(), np.asarray(a), a.shape), tree
    )


def broadcast_from_process_0(tree: Any) -> Any:
    """The arrays of process 0, in all processes: machines may round differently."""
    return multihost_utils.broadcast_one_to_all(tree) if jax.process_count() > 1 else tree


def is_main_process() -> bool:
    """Whether this is process 0, the one that writes."""
    return jax.process_index() == 0


def barrier(name: str) -> None:
    """Wait until all processes are here."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


@contextmanager
def distributed_run(coordinator: str, processes: int, process: int) -> Iterator[None]:
    """Within, this process is one of several that train one run. Only process 0 prints to stdout.

    coordinator: HOST:PORT of process 0. "": SLURM, MPI, GKE or a TPU pod says all three.

    If another process ends early, JAX ends this one. After a normal end, each process is on its own again and can
    compute without the others; arrays made in the block are gone.
    """
    address = (coordinator, processes, process) if coordinator else (None, None, None)
    location = f"at {coordinator}" if coordinator else "named by the scheduler"
    print(f"Waiting for the other processes {location}, at most {START_TIMEOUT} seconds.", file=sys.stderr, flush=True)
    try:
        jax.distributed.initialize(
            *address, initialization_timeout=START_TIMEOUT, heartbeat_timeout_seconds=HEARTBEAT_TIMEOUT
        )
    except Exception as error:  # ValueError, RuntimeError or OSError, depending on what is missing
        raise UserError(
            f"The processes did not find each other ({str(error).splitlines()[0]}). Give each of them --coordinator "
            "HOST:PORT of process 0, --processes N and --process K (from 0)."
        ) from error
    try:
        with open(os.devnull, "w") as devnull, redirect_stdout(sys.stdout if is_main_process() else devnull):
            yield
    except Stopped:  # all processes stop after the same step
        _shutdown()
        raise
    except BaseException as error:
        error.add_note("If another process has ended, see its output. Started again, all continue the run.")
        # JAX would wait at exit for the others, and they for this one. Python prints the error before this exit.
        atexit.register(_exit_now, 130 if isinstance(error, KeyboardInterrupt) else 1)
        raise
    _shutdown()


def _shutdown() -> None:
    jax.distributed.shutdown()
    clear_backends()
    mesh.cache_clear()


def _exit_now(status: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
