"""`python train.py [PRESET] [--data OUT ...] [--run RUN] [options]`: train a network and write its report."""

import os
import sys
from contextlib import nullcontext
from pathlib import Path

from facedisent_jax import config as configs
from facedisent_jax import presets
from facedisent_jax.config import Config
from facedisent_jax.environment import start_command
from facedisent_jax.errors import Stopped, UserError

BUILTIN_FACES = Path("data/builtin")  # data folder of the built-in faces, drawn on first use
BUILTIN_SUBJECTS, BUILTIN_LEVELS = 2000, 6  # people, and intensities of each


def run(arguments: list[str], program: str = "train.py") -> None:
    """Carry out a command line. A mistake of the user ends in one sentence."""
    start_command()
    try:
        main(parse(arguments, program))
    except UserError as error:
        sys.exit(f"{program}: {error}")
    except Stopped as stopped:
        print(f"\n{program}: {stopped}", file=sys.stderr)
        sys.exit(stopped.status)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # as in `train.py --help | head`
        os._exit(1)


def parse(arguments: list[str], program: str = "train.py") -> Config:
    """The config of a command line: the name of a preset, then options that change it."""
    import tyro

    preset, options = presets.split_arguments(arguments)
    description = presets.describe(preset.preset)
    return tyro.cli(Config, prog=f"{program} {preset.preset}", description=description, default=preset, args=options)


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
        distributed.check_devices()
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
