"""Train a network: `python train.py [PRESET] [--data OUT ...] [--run RUN] [options]`.

Files, clock and printing are here; the work is in facedisent_jax. `main(config)` can be imported.
"""

import os
import sys
from contextlib import nullcontext
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

from facedisent_jax import config as configs
from facedisent_jax import presets
from facedisent_jax.config import Config
from facedisent_jax.errors import UserError
from facedisent_jax.training.signals import Stopped, StopRequest

BUILTIN = Path("data/builtin")
"""Where the built-in faces are drawn when no --data is given."""
BUILTIN_SUBJECTS, BUILTIN_LEVELS = 1000, 11

# glibc gives large buffers back to the system after each step; kept, a step is faster on CPU. TensorFlow is quiet, and
# does not import Keras, which nothing here uses (it would look for an older one, and goes on without).
ENVIRONMENT = {
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "TF_ENABLE_ONEDNN_OPTS": "0",
    "TF_USE_LEGACY_KERAS": "1",
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "100000000000",
    "MALLOC_TOP_PAD_": "268435456",
    "MALLOC_ARENA_MAX": "1",
}

# XLA on CPU otherwise gives convolutions to YNNPACK, which takes two to four times as long for a kernel's gradient.
CONVOLUTIONS = "--xla_cpu_experimental_ynn_fusion_type=LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT,LIBRARY_FUSION_TYPE_REDUCE"


def main(config: Config) -> Path:
    """Train or continue the run of `config`, write its report, and return its folder.

    Raises preemption.Stopped after SIGTERM or Ctrl-C, once the step is finished and saved.
    """
    configs.validate(config)
    from facedisent_jax.training import distributed

    run = Path(config.run)
    several = distributed.distributed_run(config.coordinator, config.processes, config.process)
    with several if config.distributed else nullcontext(), StopRequest() as stop:
        folders = [Path(folder) for folder in config.data] or [builtin_faces()]
        step, writes = train(config, folders, stop), distributed.is_main_process()
        print(f"{run}: {step} steps done{f' before, --steps asks for {config.steps}' if step > config.steps else ''}.")
    if config.report and writes:  # the other processes need not wait for it
        from facedisent_jax.data import reading
        from facedisent_jax.reporting import report

        if not any(reading.read_info(folder)["splits"].get("test") for folder in folders):
            print("No report: there is no test picture to judge by.")
            return run
        with StopRequest():
            report.write(run, folders)
        print(f"Report: {run / 'report' / 'index.html'}")
    return run


def train(config: Config, folders: list[Path], stop: StopRequest) -> int:
    """Read the data, train, and return the step that the run is at."""
    import jax

    from facedisent_jax.data import reading
    from facedisent_jax.data.one_factor import OneFactor
    from facedisent_jax.data.triplets import Triplets
    from facedisent_jax.errors import UserError
    from facedisent_jax.training.run import check_config_unchanged, train

    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "facedisent_jax" / "xla"
    jax.config.update("jax_compilation_cache_dir", str(cache))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)

    check_config_unchanged(config, Path(config.run))
    print(f"Reading {', '.join(map(str, folders))}")
    faces = reading.read_faces(folders, "train", config.memory, config.ends_only)
    drawn = OneFactor if config.method == "clamping" else Triplets
    triplets = drawn(faces, config.intensity_step, with_middle=config.model.kind == "warp")
    if not len(triplets):
        raise UserError(f"No training picture in {', '.join(map(str, folders))}: see `python -m data_prep inspect`.")
    held_out = Triplets(
        reading.read_faces(folders, "validation", config.memory), config.intensity_step, with_middle=False
    )
    if not len(held_out):
        print("No validation picture: checkpoints are judged on training pictures.")
        held_out = triplets
    subjects = sorted(set(triplets.faces.subject.tolist()) - {""})
    print(f"{len(triplets)} training pictures of {len(subjects)} subjects, {len(held_out)} for validation.")
    print("".join(f"  {sentence}\n" for sentence in triplets.describe_missing_partners()), end="")
    crop = reading.crop_of(folders)
    begun = weights_of(config, crop, reading.held_out_subjects(folders)) if config.init_from else None
    if begun:
        subjects = sorted({*subjects, *begun.info["train_subjects"]})
    info = {"data": [str(folder) for folder in folders], "crop": crop, "train_subjects": subjects}

    return train(config, triplets, held_out, info, begun and begun.params, stop)


def weights_of(config: Config, crop: dict, held_out: set[str]):
    """The checkpoint that the run begins with; refused where it does not fit, or knows who is to be held out."""
    from facedisent_jax.errors import UserError
    from facedisent_jax.training import checkpoint

    begun = checkpoint.load(config.init_from)
    if config.model != begun.config.model:
        there = replace(config, model=begun.config.model)
        raise UserError(f"{config.init_from} has another network: {'; '.join(configs.differences(config, there))}.")
    if crop["margin"] != begun.info["crop"]["margin"]:
        margins = f"{crop['margin']:g} here, {begun.info['crop']['margin']:g} there"
        raise UserError(
            f"{config.init_from} was trained on pictures of another margin ({margins}): prepare them alike."
        )
    if known := sorted(held_out & set(begun.info["train_subjects"])):
        some = f"{', '.join(known[:5])}{', ...' if len(known) > 5 else ''}"
        raise UserError(
            f"{config.init_from} was trained on {len(known)} people who are held out here ({some}): prepare the data "
            f"with `--split-like {begun.info['data'][0]}`, so that nobody is judged who was trained on."
        )
    print(f"Beginning with the weights of {config.init_from}, step {begun.step}.")
    return begun


def builtin_faces() -> Path:
    """The folder of the built-in faces, drawn if it is not there yet."""
    from data_prep.output import build
    from facedisent_jax.training import distributed

    if distributed.is_main_process() and not BUILTIN.exists():
        print(f"Drawing {BUILTIN_SUBJECTS} built-in people into {BUILTIN}")
        build.synthetic(BUILTIN, subjects=BUILTIN_SUBJECTS, levels=BUILTIN_LEVELS)
    distributed.barrier("the built-in faces are drawn")
    return BUILTIN


def parse(arguments: list[str]) -> Config:
    """The config of a command line: a preset's name, then options that change it."""
    import tyro

    preset, rest = presets.split_arguments(arguments)
    listed = "\n".join(f"  {name:12} {preset.about}" for name, preset in presets.PRESETS.items())
    text = f"Train the network of a preset (without one: smile).\n\nPresets:\n{listed}"
    return tyro.cli(Config, prog=f"train.py {preset.preset}", description=text, default=preset, args=rest)


def settle_environment() -> None:
    """Start this script once again, in the environment in which training is fastest; before heavy imports."""
    flags = os.environ.get("XLA_FLAGS", "")
    # A plugin for an accelerator reads the flags too, and would end at one that it does not know.
    if not any(map(find_spec, ("jax_plugins", "libtpu"))) and CONVOLUTIONS.split("=")[0] not in flags:
        flags = f"{flags} {CONVOLUTIONS}".strip()
    settled = ENVIRONMENT | os.environ | ({"XLA_FLAGS": flags} if flags else {})
    if sys.platform == "linux" and settled != os.environ:
        os.execve(sys.executable, [sys.executable, *sys.argv], settled)


if __name__ == "__main__":
    chosen = parse(sys.argv[1:])
    settle_environment()
    from facedisent_jax.errors import UserError

    try:
        main(chosen)
    except UserError as error:
        raise SystemExit(f"train.py: {error}") from None
    except Stopped as stopped:
        print(f"\ntrain.py: {stopped}", file=sys.stderr)
        raise SystemExit(stopped.status) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None
