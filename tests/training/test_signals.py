"""SIGTERM and Ctrl-C: the step is finished and saved, the exit status says what happened, and the run that goes on from
there is the run left alone, line by line of its log and checkpoint by checkpoint."""

import os
import signal
import socket
import subprocess
import sys
import time

import pytest
from killed import ROOT, check_equal, perform
from tiny_run import person, terms, write_folder

from facedisent_jax.training import checkpoint
from facedisent_jax.training.signals import Stopped, StopRequest

TERM, INTERRUPT = {"signals": ["SIGTERM"]}, {"signals": ["SIGINT"]}


@pytest.mark.slow
def test_sigterm_saves_at_that_step_and_nothing_of_it_is_seen_later(work):
    stopped, again = perform(work, "term", TERM | {"at": ["step", 5]}, {})
    assert stopped["status"] == 143
    assert "stopped by SIGTERM after step 5, saved in" in stopped["said"] and "checkpoints/5" in stopped["said"]
    check_equal(work, "term", again)


@pytest.mark.slow
def test_many_stops_are_as_good_as_none(work):
    """Also where they come between two lines of the log, whose means are over the steps of both starts."""
    first, second = TERM | {"at": ["step", 1]}, INTERRUPT | {"at": ["step", 2]}
    one, two, again = perform(work, "stops", first, second, {})
    assert (one["status"], two["status"]) == (143, 130)
    check_equal(work, "stops", again)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SIGTERM", pytest.param("SIGINT", marks=pytest.mark.long)])
@pytest.mark.parametrize("where", ["read", "compile", "validate"])
def test_whatever_is_being_done(work, where, name):
    run = f"{where}-{name}"
    stopped, again = perform(work, run, {"at": [where, 1], "signals": [name]}, {})
    assert stopped["status"] == {"SIGTERM": 143, "SIGINT": 130}[name]
    assert ("saved in" in stopped["said"]) == (where != "read")
    check_equal(work, run, again)


@pytest.mark.slow
def test_in_the_report(work):
    stopped, again = perform(work, "shown-later", TERM | {"at": ["report/", 3]}, {}, report=True)
    assert stopped["status"] == 143
    check_equal(work, "shown-later", again)
    assert (work / "shown-later/report/index.html").stat().st_size > 1000


@pytest.mark.slow
def test_a_stop_is_not_judged_and_so_never_the_best(work):
    perform(work, "judged", TERM | {"at": ["step", 4]})
    assert checkpoint.steps(work / "judged") == [3, 4] and checkpoint.load(work / "judged").step == 3
    assert [line["step"] for line in terms(work / "judged")] == [2, 3, 3, 4]


@pytest.mark.slow
def test_a_second_ctrl_c_does_not_wait_for_the_compiler(work):
    stopped, again = perform(work, "twice-c", {"at": ["compile", 1], "signals": ["SIGINT", "SIGINT"]}, {})
    assert stopped["status"] == 130 and "saved" not in stopped["said"]
    assert checkpoint.steps(work / "twice-c") == [6]  # of the second start
    check_equal(work, "twice-c", again)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_the_command_exits_with_the_status_that_says_so(tmp_path, number, status):
    data = write_folder(tmp_path / "data", {"train": person(0), "validation": person(1), "test": person(2)})
    command = [sys.executable, "train.py", "--data", str(data), "--run", str(tmp_path / "run")]
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    run = subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert run.stdout and run.stdout.readline().startswith("Reading")
    run.send_signal(number)
    said = run.communicate()[1]
    assert run.returncode == status and "Nothing was lost" in said and "Traceback" not in said


def raise_signal(number: int) -> None:
    os.kill(os.getpid(), number)
    time.sleep(0.05)


def test_a_signal_that_a_destructor_swallows_is_not_lost(capfd):
    class Swallows:
        def __del__(self):
            raise_signal(signal.SIGINT)

    before = sys.unraisablehook
    with pytest.raises(Stopped) as stopped, StopRequest():
        del_me = Swallows()
        del del_me
        time.sleep(5)
    assert stopped.value.status == 130 and sys.unraisablehook is before and not capfd.readouterr().err


def test_a_signal_is_noted_in_a_step_and_stops_at_once_elsewhere():
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with StopRequest() as stop:
        with stop.after_step():
            assert not stop.asked()
            raise_signal(signal.SIGTERM)
            raise_signal(signal.SIGTERM)  # schedulers repeat themselves
            assert stop.asked()
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before
    cleaned = False
    with pytest.raises(Stopped) as stopped, StopRequest():
        try:
            raise_signal(signal.SIGINT)
        finally:
            raise_signal(signal.SIGTERM)  # does not interrupt what the first one has set going
            cleaned = True
    assert stopped.value.status == 130 and cleaned


def test_a_second_ctrl_c_ends_the_process_even_where_python_does_not_listen():
    code = """if True:
        import os, signal, threading, time
        from facedisent_jax.preemption import StopRequest
        with StopRequest() as stop, stop.after_step():
            for k in range(2):
                threading.Timer(0.3 * (k + 1), os.kill, (os.getpid(), signal.SIGINT)).start()
            threading.Timer(20, os._exit, (1,)).start()
            def main_is_busy():  # as in a compilation: Python's own handlers wait
                sigs = {signal.SIGINT}
                import ctypes
                while True:
                    ctypes.CDLL(None).usleep(100_000)
            main_is_busy()
    """
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 130 and "SIGINT: stopping after this step" in done.stderr


@pytest.mark.slow
def test_of_several_processes_all_stop_at_the_same_step():
    code = """if True:
        import sys, time, jax
        from facedisent_jax.preemption import StopRequest
        jax.distributed.initialize(sys.argv[1], 2, int(sys.argv[2]))
        with StopRequest() as stop, stop.after_step():
            for step in range(1, 1000):
                time.sleep(0.02 * (1 + int(sys.argv[2])))
                print(step, flush=True)
                if stop.asked():
                    print("stop", step, int(stop.number), flush=True)
                    break
    """
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    both = [
        subprocess.Popen([sys.executable, "-c", code, address, str(k)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
        for k in range(2)
    ]
    for process in both:
        assert process.stdout and process.stdout.readline() == "1\n"
    both[1].terminate()  # the scheduler tells one of them
    said = [process.communicate(timeout=120)[0].splitlines()[-1] for process in both]
    assert said[0] == said[1] and said[0].startswith("stop ") and said[0].endswith(" 15")
