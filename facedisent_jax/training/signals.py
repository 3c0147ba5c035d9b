"""SIGTERM and Ctrl-C: finish the step, save, stop with the status that says so. Imports none of ours."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Stopped(BaseException):
    """A signal has stopped the run, and nothing is lost; the message says where it stands.

    status: what the process is to exit with: 143 after SIGTERM, 130 after Ctrl-C. A scheduler that saw 0 would take
    the work for done.
    """

    def __init__(self, number: int, message: str = "Nothing was lost: the same command starts again."):
        super().__init__(message)
        self.status = 128 + number


class StopRequest:
    """Whether a signal has asked the run to stop, while this is open (`with StopRequest() as stop`).

    The first signal raises Stopped at once, but within `after_step` it is only noted. Where Python swallows what is
    raised (a destructor; JAX's callback after a garbage collection) Stopped is raised once more. The second Ctrl-C ends
    the process there and then, even in the middle of a compilation: a thread of its own listens, for Python itself
    would not look at signals before the compilation ends.

    In a thread that is not the main one it hears nothing. Of several processes (jax.distributed) it hears nothing
    either: there JAX listens to SIGTERM, and `asked` tells all processes at the same step.
    """

    def __init__(self):
        self.number: int | None = None
        self._times = 0
        self._swallowed = 0
        self._at_once = True
        self._before: dict = {}

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is not threading.main_thread() or _distributed():
            return self
        reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)
        self._wakeup = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        self._before = {number: signal.signal(number, self._hear) for number in (signal.SIGTERM, signal.SIGINT)}
        self._hook = sys.unraisablehook
        sys.unraisablehook = self._unraisable
        threading.Thread(target=self._listen, args=(reader,), daemon=True).start()
        return self

    def __exit__(self, *_) -> None:
        if self._before:
            for number, handler in self._before.items():
                signal.signal(number, handler)
            sys.unraisablehook = self._hook
            signal.set_wakeup_fd(self._wakeup)
            os.close(self._writer)  # ends the listening thread

    @contextmanager
    def after_step(self) -> Iterator[None]:
        """Within, a signal does not interrupt: `asked` tells of it."""
        self._at_once = False
        try:
            yield
        finally:
            self._at_once = True

    def asked(self) -> bool:
        """Whether to stop after this step. Of several processes, each must ask after the same steps."""
        self._times += 1
        if _distributed():
            from jax.experimental import multihost_utils

            if multihost_utils.reached_preemption_sync_point(self._times):
                self.number = signal.SIGTERM
        return self.number is not None

    def _hear(self, number: int, frame) -> None:
        first, self.number = self.number is None, self.number or number
        if first and self._at_once:
            raise Stopped(number)

    def _unraisable(self, about) -> None:
        if not isinstance(about.exc_value, Stopped):
            return self._hook(about)
        self.number = None
        self._swallowed += 1
        again = threading.main_thread().ident, about.exc_value.status - 128
        threading.Timer(0.01, signal.pthread_kill, again).start()

    def _listen(self, reader: int) -> None:
        heard, wanted = 0, {signal.SIGTERM, signal.SIGINT}
        while byte := os.read(reader, 1):
            if heard > self._swallowed and byte[0] == signal.SIGINT:
                os._exit(128 + signal.SIGINT)
            if not heard and byte[0] in wanted and not self._at_once:
                name = signal.Signals(byte[0]).name
                os.write(2, f"\n{name}: stopping after this step, once it is saved (Ctrl-C: at once).\n".encode())
            heard += byte[0] in wanted
        os.close(reader)


def _distributed() -> bool:
    import jax

    return jax.distributed.is_initialized()
