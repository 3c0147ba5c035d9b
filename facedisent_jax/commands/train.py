"""`python train.py [PRESET] [--data OUT ...] [--run RUN] [options]`: train a network and write its report."""

import os
import sys
from contextlib import nullcontext
from importlib.util import find_spec
from pathlib import Path

from facedisent_jax import config as configs
from facedisent_jax import presets
from facedisent_jax.config import Config
from facedisent_jax.data.tf_environment import TF_ENVIRONMENT
from facedisent_jax.errors import Stopped, UserError

BUILTIN_FACES = Path("data/builtin")  # data folder of the built-in faces, drawn on first use
BUILTIN_SUBJECTS, BUILTIN_LEVELS = 1000, 11  # people, and intensities of each

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


def run(arguments: list[str]) -> None:
    """Carry out a command line. A mistake of the user ends in one sentence."""
    try:
        config = parse(arguments)
        settle_environment()
        main(config)
    except UserError as error:
        sys.exit(f"train.py: {error}")
    except Stopped as stopped:
        print(f"\ntrain.py: {stopped}", file=sys.stderr)
        sys.exit(stopped.status)
    except KeyboardInterrupt:
        sys.exit(130)


def parse(arguments: list[str]) -> Config:
    """The config of a command line: the name of a preset, then options that change it."""
    import tyro

    preset, options = presets.split_arguments(arguments)
    description = presets.describe(preset.preset)
    return tyro.cli(Config, prog=f"train.py {preset.preset}", description=description, default=preset, args=options)


def main(config: Config) -> Path:
    """Train or continue the run of `config`, write its report, and return the run folder.

    Raises UserError; Stopped after SIGTERM or Ctrl-C, once the step is finished and saved.
    """
    configs.validate(config)
    from facedisent_jax.training import distributed
    from facedisent_jax.training.run import train
    from facedisent_jax.training.signals import StopRequest

    run = Path(config.run)
    processes = (
        distributed.distributed_run(config.coordinator, config.processes, config.process)
        if config.distributed
        else nullcontext()
    )
    with processes:
        with StopRequest():
            folders = [Path(folder) for folder in config.data] or [builtin_faces()]
        step = train(config, folders)
        writes_report = config.report and distributed.is_main_process()
        print(f"{run}: {step} steps done{f' before, --steps asks for {config.steps}' if step > config.steps else ''}.")
    if writes_report:
        with StopRequest():
            write_report(run, folders)
    return run


def write_report(run: Path, folders: list[Path]) -> None:
    """Write the report of a run, if there are test images."""
    from facedisent_jax.data import reading
    from facedisent_jax.reporting import report

    if any(reading.read_info(folder)["splits"].get("test") for folder in folders):
        report.write(run, folders)
        print(f"Report: {run / 'report' / 'index.html'}")
    else:
        print("No report: the data has no test images.")


def builtin_faces() -> Path:
    """The data folder of the built-in faces, drawn if it is not there yet."""
    from data_prep.output import build
    from facedisent_jax.training import distributed

    if distributed.is_main_process() and not BUILTIN_FACES.exists():
        print(f"Drawing {BUILTIN_SUBJECTS} built-in people into {BUILTIN_FACES}")
        build.build_synthetic(BUILTIN_FACES, subjects=BUILTIN_SUBJECTS, levels=BUILTIN_LEVELS)
    distributed.barrier("built-in faces drawn")
    return BUILTIN_FACES


def settle_environment() -> None:
    """Restart this script in the environment in which training is fastest. Call before heavy imports."""
    flags = os.environ.get("XLA_FLAGS", "")
    # A plugin for an accelerator reads the flags too, and would fail at one that it does not have.
    if not any(map(find_spec, ("jax_plugins", "libtpu"))) and XLA_CONVOLUTIONS.split("=")[0] not in flags:
        flags = f"{flags} {XLA_CONVOLUTIONS}".strip()
    settled = TF_ENVIRONMENT | MALLOC_ENVIRONMENT | os.environ | ({"XLA_FLAGS": flags} if flags else {})
    if sys.platform == "linux" and settled != os.environ:
        os.execve(sys.executable, [sys.executable, *sys.argv], settled)
