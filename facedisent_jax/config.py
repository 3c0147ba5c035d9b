"""What a run is made of: one tree of frozen dataclasses. Imports none of ours."""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from facedisent_jax.errors import UserError

IMAGE_SIZE = 64
"""Height and width of an image, in pixels."""
CODE_DIMS = 64
"""Dimensions of each of the two codes (the poster's)."""


@dataclass(frozen=True)
class ModelConfig:
    """The encoder and decoder."""

    kind: Literal["hybrid", "plain", "warp"] = "hybrid"
    """hybrid: convolutions (encoder) and dense blocks, beside a linear path that begins at the principal components of
    the training pictures. plain: the poster's stack of convolutions. warp: as hybrid, and with a picture of the person
    given the decoder bends it and paints over it."""
    width: int = 512
    """hybrid: units of a dense layer, with a sixteenth as many channels at 16x16 and an eighth at 8x8 (a multiple of
    128). plain: channels at the finest scale, doubled at each coarser one (a multiple of 8)."""
    blocks: int = 2
    """Dense blocks of the encoder and of the decoder (hybrid and warp)."""
    parts: Literal["both", "displacement", "paint"] = "both"
    """What may be done to a picture that is given (warp only); for the ablation."""
    compute: Literal["float32", "bfloat16"] = "float32"
    """What matrix products and convolutions take; sums, all other layers, parameters, codes and losses are float32."""


@dataclass(frozen=True)
class LossConfig:
    """Weights of the terms, and their margins. A weight of 0 switches a term off; it is still logged."""

    reconstruction: float = 1.0
    swap: float = 1.0
    identity_cosine: float = 0.0
    identity_triplet: float = 0.0
    identity_l1: float = 0.0
    expression_cosine: float = 0.0
    expression_triplet: float = 0.0
    expression_l1: float = 0.0
    label: float = 0.0
    label_numbers: int = CODE_DIMS
    """The first so many numbers of the expression code say how much is shown: the label, the ranking and the terms
    between codes hold them. The others are free to say how this person does it; reconstruction and swap hold them."""
    label_between: bool = True
    """False: the label holds neutral and apex alone, as anchors of the ranking."""
    ranking: float = 0.0
    """Of two pictures of one take, the one that shows more has the larger expression code."""
    source: float = 0.0
    """warp: pictures decoded from another picture of the person."""
    between: float = 0.0
    """warp: a frame of the take made from the two pictures at its sides, its code halfway on the straight line."""
    smooth: float = 0.0
    """warp: total variation of the displacement, the head's own motion apart."""
    paint: float = 0.0
    """warp: mean of the mask. Without it a little blurred paint covers the whole face, where motion is uncertain."""
    cycle: float = 0.0
    """warp: pictures decoded from a source are encoded again; their codes must be those asked for."""
    rotation: float = 0.0
    """A picture decoded from another of its take, the expression code turned in proportion to the change of intensity
    (Worrall et al. 2017)."""
    clamping: float = 0.0
    """Reconstruction in batches that vary in one factor, the other factor's code replaced by its mean (Kulkarni et al.
    2015). A weight above 0 also draws such batches."""
    mouth: float = 1.0
    """Weight of the mouth region of a tight crop, 1 elsewhere, in reconstruction, swap, source and between, and in the
    principal components that the expression code begins with."""
    ranking_margin: float = 1.0
    """How much larger at an intensity difference of 1; in proportion below, 0 where only the order is known."""
    identity_margin: float = 1.0
    """Margin of the identity triplet loss, in units of the code's distance divided by sqrt(64)."""
    expression_margin: float = 0.5
    """Margin of the expression triplet loss at an intensity difference of 1; in proportion below."""


@dataclass(frozen=True)
class AugmentConfig:
    """Random changes of the training pictures, alike for the three pictures of a triplet. 0 switches one off."""

    enabled: bool = True
    mix: float = 0.5
    """Share of the triplets whose people are put together from parts of two."""
    flip: bool = True
    """Mirror half of the triplets."""
    shift: float = 1.0
    """Standard deviation of a shift, in pixels of 64."""
    motion: float = 0.0
    """Standard deviation of a random motion of b against a, in pixels of 64; of frames between in proportion."""
    warp: float = 1.0
    """Standard deviation of a smooth random displacement, in pixels of 64."""
    light: float = 0.05
    """Standard deviation of brightness and of contrast, as a factor."""
    colour: float = 0.03
    """Standard deviation of each colour channel's factor."""


@dataclass(frozen=True)
class OptimConfig:
    """AdamW with warm-up and cosine decay, gradient clipping, and an average of the weights for use."""

    lr: float = 1e-3
    warmup: int = 100
    """Steps of linear warm-up."""
    schedule: int = 3000
    """Steps until the learning rate has fallen to its hundredth. Independent of --steps, so that a run can be
    stopped early and continued without change."""
    weight_decay: float = 1e-4
    clip: float = 1.0
    """Largest global norm of the gradient."""
    average: float = 0.998
    """Decay of the moving average of the weights, which is what checkpoints are judged and loaded by."""


@dataclass(frozen=True)
class Config:
    """One run."""

    preset: str = "smile"
    data: tuple[str, ...] = ()
    """Data folders made by `python -m data_prep`; none: the built-in faces, drawn on first use."""
    run: str = "runs/smile"
    """The run's folder: created, or continued if it is there."""
    steps: int = 3000
    """Steps in all, over all starts of the run."""
    batch: int = 32
    """Triplets a step."""
    seed: int = 0
    init_from: str = ""
    """A run whose weights this one begins with."""
    intensity_step: float = 0.1
    """Label vectors are filled with the intensity in steps of this; pictures in one step count as equal."""
    ends_only: bool = False
    """Train on neutral and full expressions alone (intensity below 0.05 or above 0.95): clips as binary data."""
    memory: float = 8.0
    """GiB of pictures to hold in memory; larger data sets are read from disk as they are needed."""
    log_every: int = 50
    validate_every: int = 500
    """Steps between validations, each followed by a checkpoint."""
    when_saving_fails: Literal["stop", "go-on"] = "stop"
    """On a full disk, a read-only or a vanished folder: stop, or go on with a warning and try again at the next
    checkpoint. The checkpoints that are there are kept either way."""
    when_not_finite: Literal["stop", "skip"] = "stop"
    """On a loss that is NaN or infinite: stop, or start again from the last checkpoint and leave that batch out."""
    report: bool = True
    """Write the report when training ends."""
    steps_per_call: int = 1
    """Steps that are sent to the devices at once. Where a step takes a millisecond (GPU, TPU), to send it takes as
    long."""
    resident: bool = False
    """Keep the training pictures on the devices (12 kB each, all of them on each): only row numbers are sent."""
    profile: int = 0
    """Steps to trace, after the first call: RUN/profile, for TensorBoard and Perfetto."""
    distributed: bool = False
    """This process is one of several (hosts, or GPUs) of the run. SLURM, MPI, GKE and TPU pods tell which."""
    coordinator: str = ""
    """Where nothing tells: HOST:PORT of process 0, a port that is free there; with --processes and --process."""
    processes: int = 0
    """How many they are."""
    process: int = -1
    """Which one this is, from 0."""
    model: ModelConfig = field(default_factory=ModelConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)


def validate(config: Config) -> None:
    """Raises ConfigError, naming the option, what was given and what was expected."""
    least = {
        "steps": (config.steps, 1),
        "batch": (config.batch, 1),
        "seed": (config.seed, 0),
        "log-every": (config.log_every, 1),
        "validate-every": (config.validate_every, 1),
        "steps-per-call": (config.steps_per_call, 1),
        "profile": (config.profile, 0),
        "model.blocks": (config.model.blocks, 0),
        "loss.label-numbers": (config.loss.label_numbers, 8),
        "optim.warmup": (config.optim.warmup, 0),
        "optim.schedule": (config.optim.schedule, config.optim.warmup + 1),
    }
    for option, (value, lowest) in least.items():
        if value < lowest:
            also = f" (--optim.warmup is {config.optim.warmup})" if option == "optim.schedule" else ""
            raise UserError(f"--{option} is {value}: a whole number of at least {lowest} was expected{also}.")
    multiple = 8 if config.model.kind == "plain" else 128
    if config.model.width < multiple or config.model.width % multiple:
        raise UserError(
            f"--model.width is {config.model.width}: a {config.model.kind} network's is a multiple of {multiple}."
        )
    if config.loss.label_numbers > CODE_DIMS:
        raise UserError(f"--loss.label-numbers is {config.loss.label_numbers}: the code has {CODE_DIMS}.")
    if not config.loss.mouth > 0:
        raise UserError(f"--loss.mouth is {config.loss.mouth:g}: above 0 was expected.")
    told = bool(config.coordinator), config.processes > 0, config.process >= 0
    if any(told) and not (all(told) and config.distributed and config.process < config.processes):
        raise UserError(
            "--distributed --coordinator HOST:PORT --processes N --process K (0 to N - 1) go together; "
            "--distributed alone asks SLURM, MPI, GKE or the TPU pod."
        )
    if not 0 < config.intensity_step <= 1:
        raise UserError(f"--intensity-step is {config.intensity_step:g}: above 0 and at most 1 was expected.")


def to_dict(config: Config) -> dict[str, Any]:
    """Plain numbers, strings, lists and dicts, for JSON."""
    return json.loads(json.dumps(dataclasses.asdict(config)))


def from_dict(values: Mapping[str, Any]) -> Config:
    """The inverse of `to_dict`. A key that is missing has its default; one that is not known, or a value of another
    kind, is a ConfigError."""
    return _build(Config, values, "")


def _build(cls, values: Any, where: str):
    if not isinstance(values, Mapping):
        raise UserError(f"The settings {where.rstrip('.') or 'of the run'} are {values!r}: names and values expected.")
    defaults = cls()
    known = {f.name for f in dataclasses.fields(cls)}
    if unknown := sorted(set(values) - known):
        raise UserError(f"Unknown setting {where}{unknown[0]} in the run's config: it was made by another version.")
    made = {}
    for name, value in values.items():
        default = getattr(defaults, name)
        if dataclasses.is_dataclass(default):
            value = _build(type(default), value, f"{where}{name}.")
        elif isinstance(default, tuple):
            value = tuple(value) if isinstance(value, list) else value
        # JSON writes 1.0 as 1 where somebody has edited it; a bool is no number.
        wanted = (int, float) if isinstance(default, float) else type(default)
        if not isinstance(value, wanted) or isinstance(value, bool) != isinstance(default, bool):
            raise UserError(f"The setting {where}{name} is {value!r} in the run's config: {default!r} is its default.")
        made[name] = value
    return cls(**made)


def differences(here: Config, there: Config, where: str = "there") -> list[str]:
    """What differs between two configs, as `model.width 96 here, 64 there`."""

    def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
        out: dict[str, Any] = {}
        for name, value in values.items():
            out |= flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
        return out

    a, b = flat(to_dict(here)), flat(to_dict(there))
    return [f"{name} {a[name]} here, {b[name]} {where}" for name in a if a[name] != b[name]]


IMAGE_SIZE = 64


IMAGE_SIZE = 64
"""Height and width of a stored picture, in pixels."""
