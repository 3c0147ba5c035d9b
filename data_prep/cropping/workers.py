"""Worker processes that may die or be killed at any time.

Each has its own pipe, so nothing waits for a dead one. (ProcessPoolExecutor can hang if a process dies while another
one starts, and its processes outlive a main process that is killed.)
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
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Lost(NamedTuple):
    """In place of an answer: what happened to the process with the job."""

    reason: str


class Worker(NamedTuple):
    process: BaseProcess
    pipe: connection.Connection


class _Busy(NamedTuple, Generic[Job]):
    worker: Worker
    job: Job
    deadline: float  # on the monotonic clock


def run_jobs(
    work: Callable[[Job], Answer],
    next_job: Callable[[], Job | None],
    n_workers: int,
    time_limit: Callable[[Job], float],
    idle_workers: "list[Worker] | None" = None,
) -> Generator[tuple[Job, Answer | Lost], None, None]:
    """Run jobs in `n_workers` processes and yield each with its answer, in the order in which they finish.

    work:         turns a job into an answer; it must be picklable.
    next_job:     returns a job, or None if there is none now. It is called again after every answer.
    time_limit:   seconds that a job may take; a process that takes longer is killed.
    idle_workers: processes with the same `work`, used before new ones start. The idle ones go back there at the end;
                  all others are stopped.

    The answer is Lost if the process died or was killed. Raises whatever `work` raises.
    """
    idle: list[Worker] = [] if idle_workers is None else idle_workers
    busy: list[_Busy[Job]] = []

    def send(worker: Worker, job: Job) -> None:
        with contextlib.suppress(OSError):  # it has died: reading its pipe will tell
            worker.pipe.send(job)
        busy.append(_Busy(worker, job, time.monotonic() + time_limit(job)))

    try:
        while True:
            while (idle or len(busy) < n_workers) and (job := next_job()) is not None:
                send(idle.pop() if idle else _start(work), job)
            if not busy:
                return
            seconds_left = min(entry.deadline for entry in busy) - time.monotonic()
            ready = connection.wait([entry.worker.pipe for entry in busy], max(0.0, seconds_left))
            now = time.monotonic()
            for entry in [entry for entry in busy if entry.worker.pipe in ready or entry.deadline <= now]:
                if entry.worker.pipe in ready:
                    answer = _receive(entry.worker)
                else:
                    answer = Lost(f"took more than {time_limit(entry.job):.0f} seconds")
                busy.remove(entry)
                if isinstance(answer, Lost):
                    stop_worker(entry.worker)
                elif (following := next_job()) is None:
                    idle.append(entry.worker)
                else:  # sent before the answer is used, so that the process need not wait for that
                    send(entry.worker, following)
                yield entry.job, answer
    finally:
        for worker in [*([] if idle_workers is not None else idle), *(entry.worker for entry in busy)]:
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
    pipe, worker_pipe = context.Pipe()
    process = context.Process(target=_serve, args=(work, worker_pipe), daemon=True)
    with _signals_deferred():
        process.start()
    worker_pipe.close()
    return Worker(process, pipe)


@contextlib.contextmanager
def _signals_deferred():
    """Defer Ctrl-C and SIGTERM to the end of the block. Processes that start in it ignore them.

    A process that is interrupted while it starts would print a traceback. Blocking the signals alone is not enough:
    another thread (the progress bar's) may receive one, and Python then handles it in the main thread.
    """
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "pthread_sigmask"):
        yield
        return
    from multiprocessing import resource_tracker

    resource_tracker.ensure_running()  # else it starts with the first process, and unblocks the signals
    deferred: list[int] = []
    handlers = {s: signal.signal(s, lambda received, _: deferred.append(received)) for s in STOP_SIGNALS}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)  # inherited by new processes
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for signal_number, handler in handlers.items():
            signal.signal(signal_number, handler or signal.SIG_DFL)
        for signal_number in deferred:
            signal.raise_signal(signal_number)


def _serve(work: Callable, pipe: connection.Connection) -> None:
    """In a worker process: answer jobs until the main process is gone."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # decoders write to stderr past Python: 100 lines for a bad TIFF
    with contextlib.suppress(EOFError, OSError):
        while True:
            job = pipe.recv()
            try:
                reply = work(job), None
            except Exception as error:
                error.add_note(traceback.format_exc())
                reply = None, error
            pipe.send(reply)
