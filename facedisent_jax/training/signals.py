"""SIGTERM and Ctrl-C: finish the step, save, and exit with the status that says so."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import jax

from facedisent_jax.errors import Stopped


class StopRequest:
    """Handles SIGTERM and Ctrl-C while it is open (`with StopRequest() as stop`).

    The first signal raises Stopped at once. Within `after_step` it is only noted, for `stop.requested()`. After the
    first signal, Ctrl-C has the system's own effect: it ends the process at once, even inside native code.

    Only the main thread receives signals, so in another thread this does nothing. In a distributed run JAX itself
    handles SIGTERM, and `requested` is true in all processes after the same step.
    """

    def __init__(self):
        self.signal_number: int | None = None
        self._raises = True
        self._checks = 0
        self._handlers: dict = {}  # before this was opened

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread() and not jax.distributed.is_initialized():
            self._handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
            self._listen()
            self._unraisablehook = sys.unraisablehook
            sys.unraisablehook = self._raise_again
        return self

    def __exit__(self, *_) -> None:
        if self._handlers:
            for number, handler in self._handlers.items():
                signal.signal(number, handler)
            sys.unraisablehook = self._unraisablehook

    @contextmanager
    def after_step(self) -> Iterator[None]:
        """Within, a signal does not interrupt: `requested` reports it."""
        self._raises = False
        try:
            yield
        finally:
            self._raises = True

    def requested(self) -> bool:
        """Whether to stop after this step. In a distributed run, every process must ask after the same steps."""
        self._checks += 1
        if jax.distributed.is_initialized():
            from jax.experimental import multihost_utils

            if multihost_utils.reached_preemption_sync_point(self._checks):
                self.signal_number = signal.SIGTERM
        return self.signal_number is not None

    def _listen(self) -> None:
        self.signal_number = None
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, _) -> None:
        if self.signal_number is not None:
            return  # schedulers repeat SIGTERM
        self.signal_number = number
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        if self._raises:
            raise Stopped(number)
        name = signal.Signals(number).name
        os.write(2, f"\n{name}: stopping after this step, once it is saved (Ctrl-C: at once).\n".encode())

    def _raise_again(self, unraisable) -> None:
        """Python swallows what is raised in a destructor, or in JAX's callback after a garbage collection. A Stopped
        that was swallowed there is raised once more, by the same signal a moment later."""
        if not isinstance(unraisable.exc_value, Stopped):
            return self._unraisablehook(unraisable)
        self._listen()
        main_thread, number = threading.main_thread().ident, unraisable.exc_value.status - 128
        threading.Timer(0.01, signal.pthread_kill, (main_thread, number)).start()
