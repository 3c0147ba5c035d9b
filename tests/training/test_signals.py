"""SIGTERM and Ctrl-C: the step is finished, and the exit status says what happened. What is saved: test_resume."""

import os
import signal
import socket
import subprocess
import sys
import time

import pytest
from tiny_run import ROOT, person, write_folder

from facedisent_jax.errors import Stopped
from facedisent_jax.training.signals import StopRequest


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
    errors = run.communicate()[1]
    assert run.returncode == status and "Nothing was lost" in errors and "Traceback" not in errors


def raise_signal(number: int) -> None:
    os.kill(os.getpid(), number)
    time.sleep(0.05)


def test_a_signal_that_a_destructor_swallows_is_not_lost(capfd):
    class Swallows:
        def __del__(self):
            raise_signal(signal.SIGINT)

    hook = sys.unraisablehook
    with pytest.raises(Stopped) as error, StopRequest():
        del_me = Swallows()
        del del_me
        time.sleep(5)
    assert error.value.status == 130 and sys.unraisablehook is hook and not capfd.readouterr().err


def test_a_signal_is_noted_in_a_step_and_stops_at_once_elsewhere():
    handlers = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with StopRequest() as stop:
        with stop.after_step():
            assert not stop.requested()
            raise_signal(signal.SIGTERM)
            raise_signal(signal.SIGTERM)  # schedulers repeat themselves
            assert stop.requested()
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == handlers
    has_cleaned_up = False
    with pytest.raises(Stopped) as error, StopRequest():
        try:
            raise_signal(signal.SIGINT)
        finally:
            raise_signal(signal.SIGTERM)  # does not interrupt what the first one has set going
            has_cleaned_up = True
    assert error.value.status == 130 and has_cleaned_up


def test_a_second_ctrl_c_ends_the_process_even_in_native_code():
    code = """if True:
        import ctypes, os, signal, threading
        from facedisent_jax.training.signals import StopRequest
        with StopRequest() as stop, stop.after_step():
            os.kill(os.getpid(), signal.SIGINT)
            assert stop.requested()
            threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
            for k in range(40):
                ctypes.CDLL(None).usleep(500_000)  # as in a compilation: Python's own handlers wait
    """
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert result.returncode == -signal.SIGINT and "SIGINT: stopping after this step" in result.stderr


@pytest.mark.slow
def test_all_processes_of_a_run_stop_after_the_same_step():
    code = """if True:
        import sys, time, jax
        from facedisent_jax.training.signals import StopRequest
        jax.distributed.initialize(sys.argv[1], 2, int(sys.argv[2]))
        with StopRequest() as stop, stop.after_step():
            for step in range(1, 1000):
                time.sleep(0.02 * (1 + int(sys.argv[2])))
                print(step, flush=True)
                if stop.requested():
                    print("stop", step, int(stop.signal_number), flush=True)
                    break
    """
    with socket.socket() as free_socket:
        free_socket.bind(("localhost", 0))
        address = f"localhost:{free_socket.getsockname()[1]}"
    processes = [
        subprocess.Popen([sys.executable, "-c", code, address, str(k)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
        for k in range(2)
    ]
    for process in processes:
        assert process.stdout and process.stdout.readline() == "1\n"
    processes[1].terminate()  # the scheduler tells one of them
    last_lines = [process.communicate(timeout=120)[0].splitlines()[-1] for process in processes]
    assert last_lines[0] == last_lines[1] and last_lines[0].startswith("stop ") and last_lines[0].endswith(" 15")
