"""All settings of a run, as one tree of frozen dataclasses. Their docstrings are the help of `train.py`."""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from facedisent_jax.errors import UserError

IMAGE_SIZE = 64  # height and width of an image, in pixels
LABEL_DIMS = 64  # length of a label vector, as on the poster
VERSION = "0.2"  # written into every run folder and checkpoint; runs of another version are refused


@dataclass(frozen=True)
class ModelConfig:
    """The encoder and the decoder."""

    kind: Literal["hybrid", "plain", "warp"] = "hybrid"
    """hybrid: convolutions, dense blocks and a linear path. plain: the poster's. warp: hybrid, warps a source image."""
    width: int = 512
    """hybrid, warp: units of a dense layer, a multiple of 128. plain: channels at the finest scale, a multiple of 8."""
    blocks: int = 2
    """Dense blocks in the encoder and in the decoder (hybrid and warp)."""
    code_dims: int = 64
    """Dimensions of the identity code, and of the expression code."""
    expression_rank: int = 0
    """hybrid, plain: numbers that make an expression code. Few tell little of the person. 0: no bottleneck."""
    warp_ablation: Literal["both", "flow", "paint"] = "both"
    """What the warp decoder may do to the source image. For ablations."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Precision of the inputs of matrix products and convolutions. Everything else is float32."""


@dataclass(frozen=True)
class LossWeights:
    """Weight of each term of the loss. 0 switches a term off; it is still logged."""

    reconstruction: float = 1.0
    """Squared error of each image decoded from its own codes."""
    swap: float = 1.0
    """Squared error of the five swaps of a triplet that have a target."""
    identity_cosine: float = 0.0
    """Identity codes point the same way for one person, and not for two people."""
    identity_triplet: float = 0.0
    """Identity codes of one person are nearer to each other than to another person's, by a margin."""
    identity_l1: float = 0.0
    """Identity codes of one person are equal."""
    expression_cosine: float = 0.0
    """Expression codes point the same way for one expression, and the opposite way for neutral and full."""
    expression_triplet: float = 0.0
    """Expression codes of one intensity are nearer to each other than to another intensity's, by a margin."""
    expression_l1: float = 0.0
    """Expression codes of one intensity are equal."""
    label: float = 0.0
    """Cross-entropy of the expression code with the label vector."""
    ranking: float = 0.0
    """The frame of a take that shows more must have the larger expression code."""
    one_source: float = 0.0
    """warp: error of images decoded from one other image of the person."""
    texture: float = 0.0
    """warp: error of the strength of edges, wherever in a block of 4x4 pixels. Without it, teeth are blurred."""
    two_sources: float = 0.0
    """warp: error of the middle frame, decoded from the two frames beside it."""
    flow_tv: float = 0.0
    """warp: total variation of the flow, without the head pose."""
    mask_area: float = 0.0
    """warp: mean of the paint mask: most of a face needs no paint."""
    cycle: float = 0.0
    """warp: a decoded image, encoded again, must have the codes it was decoded from."""
    rotation: float = 0.0
    """--method rotation: error of a frame decoded from a rotated expression code (Worrall et al. 2017)."""
    clamping: float = 0.0
    """--method clamping: reconstruction with the inactive code clamped to its batch mean (Kulkarni et al. 2015)."""


@dataclass(frozen=True)
class ObjectiveConfig:
    """What the terms of the loss compare, and their margins."""

    label_dims: int = LABEL_DIMS
    """Leading dimensions of the expression code that labels and code losses constrain."""
    style_dims: int = LABEL_DIMS
    """Dimensions after these that say how a person smiles: at most all that are left. Any beyond are details of one
    image, which `warp` leaves as they are when it changes an expression."""
    label_intermediate: bool = True
    """Label the intensities between 0 and 1 too. If not, only neutral and full expression have labels."""
    mouth_weight: float = 1.0
    """Weight of the mouth region, relative to the rest, in image errors and in the PCA that starts the network."""
    ranking_margin: float = 1.0
    """Margin at an intensity difference of 1, in proportion below. 0 where only the order is known."""
    identity_margin: float = 1.0
    """Margin of the identity triplet loss, in units of the L2 distance of two codes."""
    expression_margin: float = 0.5
    """Margin of the expression triplet loss at an intensity difference of 1, in proportion below."""


@dataclass(frozen=True)
class AugmentConfig:
    """Random changes of the training images, the same for all images of a triplet. 0 switches one off."""

    enabled: bool = True
    """Augment at all."""
    face_mix_prob: float = 0.5
    """Probability that the person of a triplet is mixed from parts of two people."""
    flip: bool = True
    """Mirror half of the triplets."""
    shift: float = 1.0
    """Standard deviation of a shift, in pixels."""
    motion: float = 0.0
    """Standard deviation, in pixels, of a random head motion between two images of a person."""
    warp: float = 1.0
    """Standard deviation of a smooth random warp, in pixels."""
    light: float = 0.05
    """Standard deviation of brightness and of contrast, as a factor."""
    colour: float = 0.03
    """Standard deviation of each colour channel, as a factor."""
    tone: float = 0.0
    """Standard deviation of the logarithm of gamma: darker and lighter skin, while white stays white."""


@dataclass(frozen=True)
class OptimConfig:
    """AdamW with warm-up, cosine decay and gradient clipping, and a moving average of the weights."""

    lr: float = 1e-3
    """Peak of the learning rate."""
    warmup_steps: int = 100
    """Steps of linear warm-up."""
    decay_steps: int = 3000
    """Steps until the learning rate has fallen to a hundredth of its peak. Does not follow --steps."""
    weight_decay: float = 1e-4
    """Of all matrices but those of the linear path."""
    grad_clip_norm: float = 1.0
    """Largest global norm of the gradient."""
    ema_decay: float = 0.998
    """Decay of the moving average of the weights, which is what is validated, saved and loaded."""


@dataclass(frozen=True)
class RuntimeConfig:
    """What may change when a run is continued. Every other setting would make it another run."""

    run: str = "runs/smile"
    """The run folder. Created, or continued if it exists."""
    steps: int = 3000
    """Total number of steps, over all starts of the run."""
    log_every: int = 50
    """Steps between two lines of the log."""
    validate_every: int = 500
    """Steps between two validations. Each is followed by a checkpoint."""
    report: bool = True
    """Write the report when training ends."""
    memory: float = 8.0
    """GiB of training images to hold in memory. Larger data sets are read from disk as needed."""
    dataset_on_device: bool = False
    """Keep all training images on every device (12 kB each), so that a step sends only indices."""
    steps_per_call: int = 1
    """Steps per call to the devices. More than 1 can be faster on a GPU or TPU, where a step is short."""
    profile: int = 0
    """Steps to trace after the first call, into RUN/profile, for TensorBoard and Perfetto."""
    distributed: bool = False
    """Train in several processes, of which this is one. SLURM, MPI, GKE and TPU pods tell which."""
    coordinator: str = ""
    """HOST:PORT of process 0, if no scheduler tells it. Needs --processes and --process."""
    processes: int = 0
    """Number of processes."""
    process: int = -1
    """Index of this process, from 0."""


@dataclass(frozen=True)
class Config(RuntimeConfig):
    """One run."""

    preset: str = "smile"
    """Name of the preset the settings came from."""
    method: Literal["triplet", "rotation", "clamping"] = "triplet"
    """triplet: the poster's. rotation: Worrall et al. 2017. clamping: Kulkarni et al. 2015 (DC-IGN)."""
    data: tuple[str, ...] = ()
    """Data folders made by `python -m data_prep`. None: the built-in faces, drawn on first use."""
    batch: int = 32
    """Triplets per step."""
    seed: int = 0
    """Random seed of the weights, the triplets and the augmentation."""
    init_from: str = ""
    """Run folder whose weights this run starts from."""
    intensity_step: float = 0.1
    """Label vectors hold the intensity rounded to this step. Images with equal rounded intensities count as equal."""
    ends_only: bool = False
    """Train on neutral and full expression alone (intensity below 0.05 or above 0.95): clips as binary data."""
    full_changes: float = 0.0
    """Share of the triplets whose a and b are a neutral and a full expression, at least."""
    model: ModelConfig = field(default_factory=ModelConfig)
    loss: LossWeights = field(default_factory=LossWeights)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)

    @property
    def label_dims(self) -> int:
        """How many dimensions of the expression code the labels constrain."""
        return min(self.objective.label_dims, self.model.code_dims)


def validate(config: Config) -> None:
    """Raises UserError for settings that no run can have."""
    warmup = config.optim.warmup_steps
    minimum = {
        "steps": (config.steps, 1),
        "batch": (config.batch, 1),
        "seed": (config.seed, 0),
        "log-every": (config.log_every, 1),
        "validate-every": (config.validate_every, 1),
        "steps-per-call": (config.steps_per_call, 1),
        "profile": (config.profile, 0),
        "model.blocks": (config.model.blocks, 0),
        "model.code-dims": (config.model.code_dims, 8),
        "objective.label-dims": (config.objective.label_dims, 8),
        "objective.style-dims": (config.objective.style_dims, 1),
        "optim.warmup-steps": (warmup, 0),
        "optim.decay-steps": (config.optim.decay_steps, warmup + 1),
    }
    for option, (value, lowest) in minimum.items():
        if value < lowest:
            reason = f" (--optim.warmup-steps is {warmup})" if option == "optim.decay-steps" else ""
            raise UserError(f"--{option} must be at least {lowest}{reason}, got {value}.")
    multiple = 8 if config.model.kind == "plain" else 128
    if config.model.width < multiple or config.model.width % multiple:
        raise UserError(
            f"--model.width must be a multiple of {multiple} for --model.kind {config.model.kind}, "
            f"got {config.model.width}."
        )
    if not 0 <= config.model.expression_rank <= config.model.code_dims:
        raise UserError(
            f"--model.expression-rank must be at least 0 and at most --model.code-dims ({config.model.code_dims}), "
            f"got {config.model.expression_rank}."
        )
    if config.model.expression_rank and config.model.kind == "warp":
        raise UserError(f"--model.expression-rank must be 0 for --model.kind warp, got {config.model.expression_rank}.")
    if config.objective.label_dims > LABEL_DIMS:
        raise UserError(f"--objective.label-dims must be at most {LABEL_DIMS}, got {config.objective.label_dims}.")
    if not config.objective.mouth_weight > 0:
        raise UserError(f"--objective.mouth-weight must be above 0, got {config.objective.mouth_weight:g}.")
    if not 0 < config.intensity_step <= 1:
        raise UserError(f"--intensity-step must be above 0 and at most 1, got {config.intensity_step:g}.")
    address = bool(config.coordinator), config.processes > 0, config.process >= 0
    if any(address) and not (all(address) and config.distributed and config.process < config.processes):
        raise UserError(
            "--coordinator HOST:PORT, --processes N and --process K (0 to N - 1) must be given together, with "
            "--distributed. --distributed alone is enough with SLURM, MPI, GKE or a TPU pod."
        )


def to_dict(config: Config) -> dict[str, Any]:
    """Plain numbers, strings, lists and dicts, for JSON, with the version of this project."""
    return {"version": VERSION} | json.loads(json.dumps(dataclasses.asdict(config)))


def from_dict(values: Mapping[str, Any]) -> Config:
    """The inverse of `to_dict`; missing keys get their defaults.

    Raises UserError for a config of another version, an unknown key, or a value of another type.
    """
    version = values.get("version") if isinstance(values, Mapping) else None
    if version != VERSION:
        saved_version = "one without a version" if version is None else f"one of {version}"
        raise UserError(f"The run must be of facedisent-jax version {VERSION}, got {saved_version}. Train it again.")
    return _build(Config, {name: value for name, value in values.items() if name != "version"}, "")


def _build(cls, values: Any, prefix: str):
    if not isinstance(values, Mapping):
        raise UserError(f"Settings {prefix.rstrip('.') or 'of the run'} must be names and values, got {values!r}.")
    defaults = cls()
    if unknown := sorted(set(values) - {f.name for f in fields(cls)}):
        raise UserError(f"Unknown setting {prefix}{unknown[0]} in the run's config. Train the run again.")
    kwargs = {}
    for name, value in values.items():
        default = getattr(defaults, name)
        if dataclasses.is_dataclass(default):
            value = _build(type(default), value, f"{prefix}{name}.")
        elif isinstance(default, tuple):
            value = tuple(value) if isinstance(value, list) else value
        # JSON writes 1.0 as 1 where somebody has edited it. A bool is no number.
        expected = (int, float) if isinstance(default, float) else type(default)
        if not isinstance(value, expected) or isinstance(value, bool) != isinstance(default, bool):
            raise UserError(f"Setting {prefix}{name} in the run's config must be like {default!r}, got {value!r}.")
        kwargs[name] = value
    return cls(**kwargs)


def differences(config: Config, saved: Config, location: str = "there") -> list[str]:
    """Settings that differ and would make another run, as `model.width 96 here, 64 there`.

    Settings of `RuntimeConfig` may differ and are left out. location: how the message calls `saved`.
    """

    def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
        flat: dict[str, Any] = {}
        for name, value in values.items():
            flat |= flatten(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
        return flat

    a, b = flatten(to_dict(config)), flatten(to_dict(saved))
    may_change = {f.name for f in fields(RuntimeConfig)}
    return [f"{k} {a[k]} here, {b[k]} {location}" for k in a if a[k] != b[k] and k not in may_change]
