"""What surrounds the process: environment variables, the restart that sets them, and folders of cached files."""

import atexit
import io
import os
import shutil
import sys
import tempfile
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

# TensorFlow only reads and writes files here. These settings keep its notices off the screen.
TF_ENVIRONMENT = {
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "TF_ENABLE_ONEDNN_OPTS": "0",  # oneDNN prints at every log level
    "TF_USE_LEGACY_KERAS": "1",  # otherwise TensorFlow imports Keras, which takes seconds and is not used
}
# glibc returns large buffers to the system after each step. A step is faster on CPU when it keeps them.
MALLOC_ENVIRONMENT = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "100000000000",
    "MALLOC_TOP_PAD_": "268435456",
    "MALLOC_ARENA_MAX": "1",
}
# By default XLA on CPU gives convolutions to YNNPACK, which takes 2 to 4 times as long for the gradient of a kernel.
XLA_CONVOLUTIONS = (
    "--xla_cpu_experimental_ynn_fusion_type=LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT,LIBRARY_FUSION_TYPE_REDUCE"
)
# Versions of jaxlib that know this flag. XLA ends the process at a flag that it does not know.
XLA_CONVOLUTIONS_VERSIONS = ("0.10.", "0.11.", "0.12.")


def start_command() -> None:
    """Call first in every command: says on which systems it runs, and prints in any terminal, ASCII or Latin-1."""
    if sys.platform == "win32":
        sys.exit("facedisent-jax runs on Linux, macOS and WSL2. On Windows, install it in WSL2.")
    if isinstance(sys.stdout, io.TextIOWrapper):  # not in a notebook
        sys.stdout.reconfigure(errors="backslashreplace")


def quiet_tensorflow() -> None:
    """Call before TensorFlow is imported. Does not change what the user has set."""
    for name, value in TF_ENVIRONMENT.items():
        os.environ.setdefault(name, value)


def import_tensorflow() -> Any:
    """TensorFlow, quiet and without the GPU, which belongs to JAX: here it only reads and writes files.

    Its first operation would take nearly all memory of the GPU, and after that it can no longer be told.
    """
    quiet_tensorflow()
    import tensorflow as tf

    with suppress(RuntimeError):  # somebody has used it in this process before
        tf.config.set_visible_devices([], "GPU")
    return tf


def import_matplotlib() -> None:
    """Import matplotlib even where MPLBACKEND names a backend that is not installed here, such as a notebook's.

    Figures are drawn with Agg, whatever the backend.
    """
    if "matplotlib" not in sys.modules:
        backend = os.environ.pop("MPLBACKEND", None)
        import matplotlib

        if backend is not None:
            os.environ["MPLBACKEND"] = backend
            with suppress(ValueError):  # not installed
                matplotlib.rcParams["backend"] = backend


def cache_folder() -> Path:
    """The user's folder for files that can be made again: below XDG_CACHE_HOME or HOME, or else a temporary one."""
    home = os.environ.get("HOME")
    for folder in (os.environ.get("XDG_CACHE_HOME"), f"{home}/.cache" if home else None):
        if folder and Path(folder).is_absolute():
            return Path(folder) / "facedisent_jax"
    return _temporary_folder()


@cache
def _temporary_folder() -> Path:
    folder = tempfile.mkdtemp(prefix="facedisent_jax-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


def settle_environment() -> None:
    """Restart the script in the environment in which training is fastest. Call first of all, in a script.

    Only a plain start (`python -u train.py`) is repeated, with all its options. Where a debugger, a profiler or a
    notebook runs the script, it goes on, with a note that a step may be slower.
    """
    environment = _fast_environment()
    if sys.platform != "linux" or environment == os.environ:
        return
    if is_plain_start(sys.orig_argv, sys.argv) and sys.gettrace() is None and sys.getprofile() is None:
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)
    print("Note: memory allocator and convolutions are not set for speed, as a plain start does.", file=sys.stderr)


def is_plain_start(command: list[str], arguments: list[str]) -> bool:
    """Whether a process was started as `python [options] script [arguments]`.

    command: `sys.orig_argv`. arguments: `sys.argv`, the script and what follows it.
    """
    count = len(command) - len(arguments)
    if count < 1 or command[count:] != arguments:
        return False
    options = iter(command[1:count])
    for option in options:
        if option in ("-W", "-X"):
            next(options, None)  # its value
        elif not option.startswith("-") or option.startswith(("-m", "-c")):
            return False
    return True


def _fast_environment() -> dict[str, str]:
    flags = os.environ.get("XLA_FLAGS", "")
    # A plugin for an accelerator reads the flags too, and would fail at one that it does not have.
    has_plugin = any(map(find_spec, ("jax_plugins", "libtpu")))
    is_known = version("jaxlib").startswith(XLA_CONVOLUTIONS_VERSIONS)
    if is_known and not has_plugin and XLA_CONVOLUTIONS.split("=")[0] not in flags:
        flags = f"{flags} {XLA_CONVOLUTIONS}".strip()
    return TF_ENVIRONMENT | MALLOC_ENVIRONMENT | os.environ | ({"XLA_FLAGS": flags} if flags else {})
