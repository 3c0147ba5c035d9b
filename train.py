"""Train a network: `python train.py [PRESET] [--data OUT ...] [--run RUN] [options]`.

Files, clock and printing are here; the work is in facedisent_jax. `main(config)` can be imported.
"""

import json
import os
import sys
import time
from dataclasses import replace
from pathlib import Path

from facedisent_jax import config as configs
from facedisent_jax.config import Config

BUILTIN = Path("data/builtin")
"""Where the built-in faces are drawn when no --data is given."""
BUILTIN_SUBJECTS, BUILTIN_LEVELS = 1000, 11
FREE_TO_CHANGE = {"steps", "log_every", "validate_every", "report", "memory", "run"}
"""Settings that may differ when a run is continued; any other would make it another run."""

# glibc gives large buffers back to the system after each step; kept, a step is faster on CPU. TensorFlow is quiet.
ENVIRONMENT = {
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "TF_ENABLE_ONEDNN_OPTS": "0",
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "100000000000",
    "MALLOC_TOP_PAD_": "268435456",
    "MALLOC_ARENA_MAX": "1",
}


class RunError(ValueError):
    """A run that cannot be started or continued; the message is a sentence for the person at the keyboard."""


def main(config: Config) -> Path:
    """Train or continue the run of `config`, write its report, and return its folder."""
    configs.check(config)
    import jax

    from facedisent_jax import checkpoint, data, training
    from facedisent_jax.triplets import Triplets

    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "facedisent_jax" / "xla"
    jax.config.update("jax_compilation_cache_dir", str(cache))

    folders = [Path(folder) for folder in config.data] or [builtin_faces()]
    run = Path(config.run)
    check_same_run(config, run)
    print(f"Reading {', '.join(map(str, folders))}")
    faces = data.read_faces(folders, "train", config.memory)
    triplets = Triplets(data.ends(faces) if config.ends_only else faces, config.intensity_step)
    if not len(triplets):
        raise RunError(f"No training picture in {', '.join(map(str, folders))}: see `python -m data_prep inspect`.")
    held_out = Triplets(data.read_faces(folders, "validation", config.memory), config.intensity_step)
    if not len(held_out):
        print("No validation picture: checkpoints are judged on training pictures.")
        held_out = triplets
    subjects = sorted(set(triplets.faces.subject.tolist()) - {""})
    print(f"{len(triplets)} training pictures of {len(subjects)} subjects, {len(held_out)} for validation.")
    print("".join(f"  {sentence}\n" for sentence in triplets.shortage()), end="")
    crop = data.crop_of(folders)
    begun = weights_of(config, crop, data.held_out_subjects(folders)) if config.init_from else None
    if begun:
        subjects = sorted({*subjects, *begun.info["train_subjects"]})
    info = {"data": [str(folder) for folder in folders], "crop": crop, "train_subjects": subjects}

    run.mkdir(parents=True, exist_ok=True)
    write_atomically(run / "config.json", json.dumps(configs.to_dict(config), indent=2))
    with checkpoint.manager(run) as checkpoints:
        state = training.init_state(config, triplets.faces, begun and begun.params)
        if checkpoints.latest_step() is not None:
            state = checkpoint.restore(checkpoints, state)
            print(f"Continuing {run} from step {int(state.step)}.")
        start = int(state.step)
        log = MetricsLog(config, start)

        def save(state: training.TrainState) -> None:
            figures = training.validate(config, state.average, held_out)
            log.validation(int(state.step), figures)
            checkpoint.save(checkpoints, state, config, info, figures)

        if start < config.steps:
            stream = data.batches(triplets, config.seed, start, config.steps, config.batch)
            training.fit(config, state, stream, log.training, save)
        checkpoints.wait_until_finished()
        log.close()
    print(f"{run}: {max(start, config.steps)} steps done.")
    if config.report:
        from facedisent_jax import report

        report.write(run, folders)
        print(f"Report: {run / 'report' / 'index.html'}")
    return run


def weights_of(config: Config, crop: dict, held_out: set[str]):
    """The checkpoint that the run begins with; refused where it does not fit, or knows who is to be held out."""
    from facedisent_jax import checkpoint

    begun = checkpoint.load(config.init_from)
    if config.model != begun.config.model:
        there = replace(config, model=begun.config.model)
        raise RunError(f"{config.init_from} has another network: {'; '.join(configs.differences(config, there))}.")
    if crop["margin"] != begun.info["crop"]["margin"]:
        margins = f"{crop['margin']:g} here, {begun.info['crop']['margin']:g} there"
        raise RunError(f"{config.init_from} was trained on pictures of another margin ({margins}): prepare them alike.")
    if known := sorted(held_out & set(begun.info["train_subjects"])):
        some = f"{', '.join(known[:5])}{', ...' if len(known) > 5 else ''}"
        raise RunError(
            f"{config.init_from} was trained on {len(known)} people who are held out here ({some}): prepare the data "
            f"with `--split-like {begun.info['data'][0]}`, so that nobody is judged who was trained on."
        )
    print(f"Beginning with the weights of {config.init_from}, step {begun.step}.")
    return begun


class MetricsLog:
    """The run's metrics.jsonl, TensorBoard events and progress bar."""

    def __init__(self, config: Config, start: int):
        import tensorflow as tf
        from tqdm import tqdm

        self.path = Path(config.run) / "metrics.jsonl"
        # Lines after the checkpoint that is continued from will be written again.
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        write_atomically(self.path, "".join(f"{line}\n" for line in lines if json.loads(line)["step"] <= start))
        self.bar = tqdm(total=config.steps, initial=start, unit="step", dynamic_ncols=True)
        self.events, self.scalar = tf.summary.create_file_writer(config.run), tf.summary.scalar
        self.pictures, self.time, self.step = 3 * config.batch, time.perf_counter(), start

    def training(self, step: int, terms: dict[str, float]) -> None:
        """Terms averaged over the steps since the last call."""
        now = time.perf_counter()
        rate = (step - self.step) * self.pictures / (now - self.time)
        self.bar.set_postfix_str(f"loss {terms['loss']:.4f} {rate:.0f} images/s", refresh=False)
        self.bar.update(step - self.step)
        self.write(step, terms | {"images_per_second": round(rate, 1)})
        self.time, self.step = now, step

    def validation(self, step: int, figures: dict[str, float]) -> None:
        said = ", ".join(f"{k.removeprefix('validation/').removesuffix('_psnr')} {v:.2f} dB" for k, v in figures.items()
                         if k.endswith("_psnr"))  # fmt: skip
        self.bar.write(f"step {step}: validation {said}")
        self.write(step, figures)
        self.time = time.perf_counter()  # the time of validation is not the training's

    def write(self, step: int, values: dict[str, float]) -> None:
        with self.path.open("a") as file:
            file.write(json.dumps({"step": step} | values) + "\n")
        with self.events.as_default(step=step):
            for name, value in values.items():
                self.scalar(name, value)

    def close(self) -> None:
        self.bar.close()
        self.events.close()


def check_same_run(config: Config, run: Path) -> None:
    """Refuse to continue a run with other settings than it was begun with."""
    if not (run / "config.json").exists():
        if run.is_dir() and any(run.iterdir()):
            raise RunError(f"{run} exists and is not a run (it has no config.json): choose another --run.")
        return
    there = configs.from_dict(json.loads((run / "config.json").read_text()))
    differing = [d for d in configs.differences(config, there) if d.split()[0] not in FREE_TO_CHANGE]
    if differing:
        raise RunError(f"{run} was begun with other settings ({'; '.join(differing)}): choose another --run.")


def builtin_faces() -> Path:
    """The folder of the built-in faces, drawn if it is not there yet."""
    from data_prep import build

    if not BUILTIN.exists():
        print(f"Drawing {BUILTIN_SUBJECTS} built-in people into {BUILTIN}")
        build.synthetic(BUILTIN, subjects=BUILTIN_SUBJECTS, levels=BUILTIN_LEVELS)
    return BUILTIN


def write_atomically(path: Path, text: str) -> None:
    """Write a file so that a reader, or a kill, never finds half of it."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text)
    partial.replace(path)


def parse(arguments: list[str]) -> Config:
    """The config of a command line: a preset's name, then options that change it."""
    import tyro

    preset, rest = configs.preset_of(arguments)
    listed = "\n".join(f"  {name:12} {about}" for name, about in configs.ABOUT.items())
    text = f"Train the network of a preset (without one: smile).\n\nPresets:\n{listed}"
    return tyro.cli(Config, prog=f"train.py {preset.preset}", description=text, default=preset, args=rest)


def settle_environment() -> None:
    """Start this script once again, in the environment in which training is fastest; before heavy imports."""
    if sys.platform == "linux" and not ENVIRONMENT.keys() <= os.environ.keys():
        os.execve(sys.executable, [sys.executable, *sys.argv], ENVIRONMENT | os.environ)


if __name__ == "__main__":
    chosen = parse(sys.argv[1:])
    settle_environment()
    from data_prep.sources import PrepError
    from facedisent_jax.checkpoint import CheckpointError
    from facedisent_jax.records import RecordError
    from facedisent_jax.report import ReportError
    from facedisent_jax.training import NonFiniteError

    try:
        main(chosen)
    except (
        RunError,
        configs.ConfigError,
        PrepError,
        RecordError,
        CheckpointError,
        NonFiniteError,
        ReportError,
    ) as error:
        raise SystemExit(f"train.py: {error}") from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None
