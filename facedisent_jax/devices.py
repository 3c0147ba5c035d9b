"""The devices of a run as one mesh: batches are split over them, weights are on each. Imports none of ours."""

from functools import cache
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

AXIS = "data"


@cache
def mesh() -> Mesh:
    """All devices of all processes in a row, those of a process side by side."""
    ordered = sorted(jax.devices(), key=lambda device: (device.process_index, device.id))
    return Mesh(np.array(ordered), (AXIS,))


def everywhere() -> NamedSharding:
    """The whole array on each device."""
    return NamedSharding(mesh(), PartitionSpec())


def rows(batch: int) -> slice:
    """The rows of a batch that are this process's to read. The batch must divide by the number of devices."""
    share = batch // jax.process_count()
    return slice(jax.process_index() * share, (jax.process_index() + 1) * share)


def split(tree: Any, axis: int = 0) -> Any:
    """Arrays of `rows` of a batch -> the arrays of the whole batch, split along `axis` over the devices."""
    sharding = NamedSharding(mesh(), PartitionSpec(*[None] * axis, AXIS))
    return jax.tree.map(lambda a: jax.make_array_from_process_local_data(sharding, a), tree)


def replicated(tree: Any) -> Any:
    """The same arrays on each device; every process has to give the same."""
    return jax.tree.map(lambda a: jax.make_array_from_process_local_data(everywhere(), np.asarray(a), a.shape), tree)


def agreed(tree: Any) -> Any:
    """The arrays of process 0, in all processes: machines may round differently."""
    from jax.experimental import multihost_utils

    return multihost_utils.broadcast_one_to_all(tree) if jax.process_count() > 1 else tree
