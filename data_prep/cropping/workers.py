"""Worker processes that may die or be stopped at any time: each has a pipe of its own, so nothing waits for the dead.

(ProcessPoolExecutor can hang if a process dies while another starts, and its processes outlive a main process that is
killed.) Imports none of ours.
"""

import contextlib
import multiprocessing
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable, Generator
from multiprocessing import connection
from multiprocessing.process import BaseProcess
from typing import Generic, NamedTuple, TypeVar

Job = TypeVar("Job")
Answer = TypeVar("Answer")
STOPPING = (signal.SIGINT, signal.SIGTERM)


class Lost(NamedTuple):
    """In place of an answer: what became of the process that was at work on the job."""

    why: str


class Worker(NamedTuple):
    process: BaseProcess
    pipe: connection.Connection


class _Busy(NamedTuple, Generic[Job]):
    worker: Worker
    job: Job
    until: float


def run_jobs(
    work: Callable[[Job], Answer],
    next_job: Callable[[], Job | None],
    count: int,
    patience: Callable[[Job], float],
    kept: "list[Worker] | None" = None,
) -> Generator[tuple[Job, Answer | Lost], None, None]:
    """Jobs and what `work` (a function that can be pickled) made of them, as they are done by `count` processes.

    next_job: gives a job, or None if there is none now; it is asked again whenever an answer has been taken.
    patience: seconds that a job may take; a process that takes longer is killed.
    kept: idle processes with the same `work`, to be used before new ones start; those that are left go back there.
    The answer is Lost where the process died or was killed. Raises whatever `work` raises. When the generator ends,
    all other processes are gone.
    """
    idle: list[Worker] = [] if kept is None else kept
    busy: list[_Busy[Job]] = []

    def give(worker: Worker, job: Job) -> None:
        with contextlib.suppress(OSError):  # it died meanwhile: its pipe will say so
            worker.pipe.send(job)
        busy.append(_Busy(worker, job, time.monotonic() + patience(job)))

    try:
        while True:
            while (idle or len(busy) < count) and (job := next_job()) is not None:
                give(idle.pop() if idle else _start(work), job)
            if not busy:
                return
            rest = min(entry.until for entry in busy) - time.monotonic()
            ready = connection.wait([entry.worker.pipe for entry in busy], max(0.0, rest))
            late = time.monotonic()
            for entry in [entry for entry in busy if entry.worker.pipe in ready or entry.until <= late]:
                came = entry.worker.pipe in ready
                answer = _receive(entry.worker) if came else Lost(f"took more than {patience(entry.job):.0f} seconds")
                busy.remove(entry)
                if isinstance(answer, Lost):
                    stop_worker(entry.worker)
                elif (following := next_job()) is None:
                    idle.append(entry.worker)
                else:  # before the answer is used: the process need not wait for that
                    give(entry.worker, following)
                yield entry.job, answer
    finally:
        for worker in [*([] if kept is not None else idle), *(entry.worker for entry in busy)]:
            stop_worker(worker)


def stop_worker(worker: Worker) -> None:
    worker.process.kill()
    worker.process.join()
    worker.pipe.close()


def _receive(worker: Worker):
    try:
        answer, error = worker.pipe.recv()
    except (EOFError, OSError):
        return Lost("died")
    if error is not None:
        raise error
    return answer


def _start(work: Callable) -> Worker:
    # spawn: a fork of a process with threads (TensorFlow's, a notebook's) can hang
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(work, theirs), daemon=True)
    with _unstopped():
        process.start()
    theirs.close()
    return Worker(process, ours)


@contextlib.contextmanager
def _unstopped():
    """Ctrl-C and SIGTERM wait until the block is done, and processes that start in it are deaf to them.

    A process that is cut off while it starts would print a traceback. The mask alone would not do: another thread (the
    progress bar's) may take the signal, and Python then handles it in the main thread all the same.
    """
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "pthread_sigmask"):
        yield
        return
    from multiprocessing import resource_tracker

    resource_tracker.ensure_running()  # starts with the first process, and lifts the mask when it does
    came: list[int] = []
    handlers = {number: signal.signal(number, lambda got, _: came.append(got)) for number in STOPPING}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)  # inherited by new processes
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for number, handler in handlers.items():
            signal.signal(number, handler or signal.SIG_DFL)
        for number in came:
            signal.raise_signal(number)


def _serve(work: Callable, pipe: connection.Connection) -> None:
    """In a worker process: answer jobs until the main process is gone."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # decoders complain there, past Python: a hundred lines a bad TIFF
    with contextlib.suppress(EOFError, OSError):
        while True:
            job = pipe.recv()
            try:
                reply = work(job), None
            except Exception as error:
                error.add_note(traceback.format_exc())
                reply = None, error
            pipe.send(reply)
