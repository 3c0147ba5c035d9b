"""Commands and figures work in whatever surroundings they are called."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest
from tiny_run import ROOT, person, write_folder

from facedisent_jax import environment
from facedisent_jax.training.run import _use_compilation_cache

PYTHON = "/usr/bin/python"
SETTLE = """
import os, sys
from facedisent_jax.environment import settle_environment
settle_environment()
print(os.environ.get("MALLOC_ARENA_MAX"), sys.flags.utf8_mode, sys.flags.optimize, sys.warnoptions, sys.argv[1:])
"""


def run_python(*arguments: object, **variables: str) -> subprocess.CompletedProcess:
    """Python in this project, with these environment variables and nothing that speeds up training."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "XLA_"))}
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(
        command, env=clean | {"PYTHONPATH": str(ROOT)} | variables, capture_output=True, text=True, timeout=60
    )


@pytest.mark.parametrize(
    "options, is_plain",
    [
        ([], True),
        (["-u", "-O", "-W", "error", "-X", "dev", "-Xutf8"], True),
        (["-m", "cProfile", "-o", "out"], False),
        (["-m", "pdb"], False),
        (["-mtrace"], False),
        (["/usr/bin/ipython"], False),
        (["-u", "debugpy/launcher.py", "50000", "--"], False),
    ],
)
def test_a_start_is_plain_if_python_runs_the_script_itself(options, is_plain):
    script = ["train.py", "smile", "--steps", "3"]
    assert environment.is_plain_start([PYTHON, *options, *script], script) == is_plain


def test_a_script_in_a_notebook_is_not_a_plain_start():
    assert not environment.is_plain_start([PYTHON, "-m", "ipykernel_launcher", "-f", "kernel.json"], ["train.py"])


@pytest.mark.skipif(sys.platform != "linux", reason="the allocator is set on Linux only")
def test_a_plain_start_is_repeated_with_all_its_options(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SETTLE)
    result = run_python("-O", "-W", "ignore", "-X", "utf8", script, "--steps", "3")
    assert result.stdout == "1 1 1 ['ignore'] ['--steps', '3']\n" and not result.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="the allocator is set on Linux only")
def test_a_profiled_script_goes_on_with_a_note(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SETTLE)
    result = run_python("-m", "cProfile", "-o", tmp_path / "profile", script)
    assert result.stdout.startswith("None") and result.stderr.count("Note: ") == 1
    assert (tmp_path / "profile").stat().st_size


@pytest.mark.parametrize("backend", ["module://notebook.of.somebody", "nonsense"])
def test_a_figure_is_drawn_whatever_the_backend(backend):
    code = (
        "import os\n"
        "from facedisent_jax.reporting import figures\n"
        "line = figures.Line('a', [0, 1], [0, 1], 'black')\n"
        "print(figures.line_charts([('title', [line])], 'x', 'y').size[0] > 100, os.environ['MPLBACKEND'])"
    )
    result = run_python("-c", code, MPLBACKEND=backend)
    assert result.stdout.split() == ["True", backend], result.stderr


@pytest.mark.parametrize(
    "variables, folder",
    [
        ({"XDG_CACHE_HOME": "/x", "HOME": "/home/me"}, "/x/facedisent_jax"),
        ({"XDG_CACHE_HOME": "", "HOME": "/home/me"}, "/home/me/.cache/facedisent_jax"),
        ({"XDG_CACHE_HOME": "relative", "HOME": "/home/me"}, "/home/me/.cache/facedisent_jax"),
    ],
)
def test_caches_are_in_the_first_absolute_folder(monkeypatch, variables, folder):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert environment.cache_folder() == Path(folder)


def test_compiled_programs_are_kept_where_the_user_says_and_else_in_the_cache_folder(monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/caches")
    before = jax.config.values["jax_compilation_cache_dir"]
    try:
        for folder, expected in (("/mine", "/mine"), (None, "/caches/facedisent_jax/xla")):
            jax.config.update("jax_compilation_cache_dir", folder)
            _use_compilation_cache()
            assert jax.config.values["jax_compilation_cache_dir"] == expected
    finally:
        jax.config.update("jax_compilation_cache_dir", before)


def test_without_a_home_caches_are_temporary(monkeypatch):
    for name in ("XDG_CACHE_HOME", "HOME"):
        monkeypatch.setenv(name, "")
    folder = environment.cache_folder()
    assert folder.is_absolute() and folder.is_dir() and folder == environment.cache_folder()
    assert Path.cwd() not in (folder, *folder.parents)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
@pytest.mark.parametrize("script", ["train.py", "eval.py", "-mdata_prep"])
def test_help_is_printed_in_any_terminal(encoding, script):
    script = script if script.startswith("-") else ROOT / script
    result = run_python(script, "--help", PYTHONIOENCODING=encoding)
    assert result.returncode == 0 and "usage: " in result.stdout, result.stderr


def test_a_letter_that_the_terminal_lacks_is_escaped():
    code = "from facedisent_jax.environment import start_command; start_command(); print('Jos\\u00e9 \\u0394')"
    assert run_python("-c", code, PYTHONIOENCODING="ascii").stdout == r"Jos\xe9 \u0394" + "\n"


def test_a_device_that_is_not_there_is_named_in_a_sentence():
    code = "from facedisent_jax.training import distributed; distributed.check_devices()"
    result = run_python("-c", code, JAX_PLATFORMS="cuda")
    assert result.returncode and result.stderr.splitlines()[-1].endswith(
        "JAX finds no device for JAX_PLATFORMS=cuda: unset it, or install JAX for that device."
    )


def test_windows_is_answered_in_a_sentence(monkeypatch):
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(SystemExit, match="Linux, macOS and WSL2"):
        environment.start_command()


TELLING = """
import sys
import tensorflow as tf

def note_when_told(devices, kind):
    try:
        tf.config.threading.set_inter_op_parallelism_threads(2)  # refused once TensorFlow has begun to compute
    except RuntimeError:
        print("told too late")
    else:
        print("told in time", devices, kind)

tf.config.set_visible_devices = note_when_told
"""
READ = "from facedisent_jax.data.reading import read_split; read_split(sys.argv[1], 'train')"
STREAM = """
from facedisent_jax.data.stream import batches
from facedisent_jax.data.triplets import Triplets
from tiny_run import person
from facedisent_jax.data.record import Faces
next(batches(Triplets(Faces.of(person(0)), with_middle=False), 0, 0, 1, 2))
"""
LOG = """
from facedisent_jax.config import Config
from facedisent_jax.training.log import MetricsLog
MetricsLog(Config(run=sys.argv[1]))
"""
WRITE = """
from pathlib import Path
from data_prep.output.writer import write_shards
from tiny_run import person
write_shards(Path(sys.argv[1]) / "written", {"train": lambda: enumerate(person(0))})
"""


@pytest.mark.parametrize(
    "use", [READ, *(pytest.param(code, marks=[pytest.mark.slow, pytest.mark.long]) for code in (STREAM, LOG, WRITE))]
)
def test_tensorflow_is_told_to_leave_the_gpu_alone_before_it_could_take_memory(tmp_path, use):
    folder = write_folder(tmp_path / "data", {"train": person(0)})
    result = run_python("-c", TELLING + use, folder, PYTHONPATH=f"{ROOT}:{ROOT / 'tests'}")
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[0] == "told in time [] GPU"
