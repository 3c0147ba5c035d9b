"""The devices of a run as one mesh: batches are split over them, weights are on each. Imports none of ours."""

import atexit
import os
import secrets
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from functools import cache
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from facedisent_jax.data.triplets import BATCH_AXIS, Batch
from facedisent_jax.errors import UserError
from facedisent_jax.training.signals import Stopped

AXIS = "data"


@cache
def mesh() -> Mesh:
    """All devices of all processes in a row, those of a process side by side."""
    ordered = sorted(jax.devices(), key=lambda device: (device.process_index, device.id))
    return Mesh(np.array(ordered), (AXIS,))


def replicated_sharding() -> NamedSharding:
    """The whole array on each device."""
    return NamedSharding(mesh(), PartitionSpec())


def local_rows(batch: int) -> slice:
    """The rows of a batch that are this process's to read. The batch must divide by the number of devices."""
    share = batch // jax.process_count()
    return slice(jax.process_index() * share, (jax.process_index() + 1) * share)


def shard_batch(batch: Batch, leading_axes: int = 0) -> Batch:
    """This process's rows of a batch -> the whole batch, its triplets split over the devices.

    leading_axes: 1 where the fields have an axis of steps in front.
    """

    def shard(array: np.ndarray, axis: int) -> jax.Array:
        sharding = NamedSharding(mesh(), PartitionSpec(*[None] * (leading_axes + axis), AXIS))
        return jax.make_array_from_process_local_data(sharding, array)

    return jax.tree.map(shard, batch, BATCH_AXIS)


def replicated(tree: Any) -> Any:
    """The same arrays on each device; every process has to give the same."""
    return jax.tree.map(
        lambda a: jax.make_array_from_process_local_data(replicated_sharding(), np.asarray(a), a.shape), tree
    )


def broadcast_from_process_0(tree: Any) -> Any:
    """The arrays of process 0, in all processes: machines may round differently."""
    from jax.experimental import multihost_utils

    return multihost_utils.broadcast_one_to_all(tree) if jax.process_count() > 1 else tree


START = 300
"""Seconds that the processes wait for each other at the start."""
SILENCE = 30
"""Seconds after which a machine that has vanished (no power, no network) is taken for gone. JAX waits twice as long."""
SETTLE = 3
"""Seconds for an error of the network to turn out as the end of another process."""


@contextmanager
def distributed_run(coordinator: str, processes: int, process: int) -> Iterator[None]:
    """This process as one of a run's. Only process 0 prints to stdout.

    coordinator: HOST:PORT of process 0, where all can reach it; "" where SLURM, MPI, GKE or a TPU pod tells all three.
    When another one ends before it has left this block, this one ends too, with status 1. Arrays made in the block are
    gone after it.
    """
    import jax
    from jax._src import distributed  # its address and key-value store have no public name (Orbax takes them so too)

    given = (coordinator, processes, process) if coordinator else (None, None, None)
    where = f"at {coordinator}" if coordinator else "whom the scheduler names"
    print(f"Waiting for the other processes {where}, {START} seconds at most.", file=sys.stderr, flush=True)
    try:
        jax.distributed.initialize(*given, initialization_timeout=START, heartbeat_timeout_seconds=2 * SILENCE)
    except Exception as error:  # ValueError, RuntimeError, and the system's, by what is missing
        here = f"as process {process} of {processes} at {coordinator}" if coordinator else "by themselves"
        raise UserError(
            f"The processes did not find each other {here} ({str(error).splitlines()[0]}): give each "
            "--coordinator HOST:PORT of process 0, --processes N and --process K (from 0)."
        ) from error
    bonds = Bonds(distributed.global_state)
    try:
        with open(os.devnull, "w") as nowhere, redirect_stdout(sys.stdout if is_main_process() else nowhere):
            yield
    except BaseException as error:
        if not isinstance(error, Stopped):
            time.sleep(SETTLE)  # it may be that another one is gone: then that is what is said
            atexit.register(_leave, 130 if isinstance(error, KeyboardInterrupt) else 1)
            raise
        _part(bonds)
        raise
    _part(bonds)


def _part(bonds: "Bonds") -> None:
    """Leave in good order; afterwards this process is one of its own, with its own devices."""
    import jax
    from jax._src import distributed
    from jax.extend.backend import clear_backends

    bonds.close()
    jax.distributed.shutdown()
    distributed.global_state = distributed.State()
    clear_backends()
    mesh.cache_clear()


def _leave(status: int) -> None:
    """The end of a process that has failed: at once, since JAX would wait for the others, and they for this one."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def is_main_process() -> bool:
    """Whether this process is the one that writes."""
    import jax

    return jax.process_index() == 0


def barrier(name: str) -> None:
    """Wait until all processes are here."""
    import jax
    from jax.experimental import multihost_utils

    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


class Bonds:
    """Connections between process 0 and all others, each watched by a thread.

    What is sent: "done" by one that leaves in good order, "K is gone" by process 0 to all that are left.
    """

    def __init__(self, state):
        """state: JAX's of the processes; it holds the address of process 0 and a store that all can read."""
        self.process, self.number = state.process_id, state.num_processes
        self.ending = threading.Lock()
        if self.process:
            port, token = state.client.blocking_key_value_get("facedisent/bonds", START * 1000).split()
            host = state.coordinator_address.rsplit(":", 1)[0].strip("[]")
            connection = socket.create_connection((host, int(port)), START)
            connection.sendall(f"{token} {self.process}\n".encode())
            self.others = {0: connection}
        else:
            both = socket.has_dualstack_ipv6()
            family = socket.AF_INET6 if both else socket.AF_INET
            with socket.create_server(("", 0), family=family, dualstack_ipv6=both, backlog=self.number) as server:
                token = secrets.token_hex(16)
                state.client.key_value_set("facedisent/bonds", f"{server.getsockname()[1]} {token}")
                self.others = self._accept(server, token)
        for other, connection in self.others.items():
            _keep_alive(connection)
            threading.Thread(target=self._watch, args=(other, connection), daemon=True).start()

    def _accept(self, server: socket.socket, token: str) -> dict[int, socket.socket]:
        server.settimeout(START)
        others: dict[int, socket.socket] = {}
        while len(others) < self.number - 1:
            connection = server.accept()[0]
            connection.settimeout(10)
            said = _line(connection).split()
            if len(said) == 2 and said[0] == token:
                others[int(said[1])] = connection
            else:
                connection.close()  # a stranger's
        return others

    def _watch(self, other: int, connection: socket.socket) -> None:
        said = _line(connection)
        if said != "done":
            self._end(int(said.split()[0]) if said else other)

    def _end(self, gone: int) -> None:
        with self.ending:
            for connection in self.others.values() if not self.process else ():
                try:
                    connection.sendall(f"{gone} is gone\n".encode())
                except OSError:
                    pass  # that one, or one more
            sentence = (
                f"process {gone} of {self.number} is gone, so process {self.process} ends too. Started again, all "
                "go on from the last checkpoint."
            )
            os.write(2, f"\n{os.path.basename(sys.argv[0])}: {sentence}\n".encode())
            os._exit(1)

    def close(self) -> None:
        """Leave in good order."""
        for connection in self.others.values():
            connection.sendall(b"done\n")


def _line(connection: socket.socket) -> str:
    """What comes before the next end of line; "" where the connection ends first."""
    said = b""
    try:
        while not said.endswith(b"\n"):
            byte = connection.recv(1)
            if not byte:
                return ""
            said += byte
    except OSError:
        return ""
    return said.decode(errors="replace").strip()


def _keep_alive(connection: socket.socket) -> None:
    """A machine that vanishes without closing the connection is noticed after `SILENCE` seconds."""
    connection.settimeout(None)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", SILENCE // 2), ("TCP_KEEPINTVL", SILENCE // 6), ("TCP_KEEPCNT", 3)):
        if hasattr(socket, name):  # Linux
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
