"""The presets of `train.py`: what each is for, what it costs, and how it differs from the defaults."""

from dataclasses import replace
from typing import NamedTuple

from facedisent_jax.config import AugmentConfig, Config, LossWeights, ModelConfig, ObjectiveConfig, OptimConfig
from facedisent_jax.errors import UserError, did_you_mean

POSTER_LOSS = LossWeights(
    reconstruction=2.0,
    swap=1.0,
    identity_cosine=0.001,
    identity_triplet=0.001,
    identity_l1=0.001,
    expression_cosine=0.001,
    expression_triplet=0.001,
    expression_l1=0.001,
    label=0.003,
)
"""All terms of the poster. Squared errors of images in [0, 1] are about 0.003, hence the small weights on codes."""
CLIP_LOSS = replace(POSTER_LOSS, reconstruction=4.0, label=0.1, expression_l1=0.01)
CLIP_OBJECTIVE = ObjectiveConfig(label_dims=16)
PLAIN_NETWORK = ModelConfig(kind="plain", width=32)


class Preset(NamedTuple):
    """One entry of the table below.

    about: what it is, in one line.
    cost:  minutes on which machine, and the result to expect (PSNR on people never seen in training).
    """

    about: str
    cost: str
    config: Config


def _preset(name: str, about: str, cost: str, steps: int, optim: OptimConfig | None = None, **changes) -> Preset:
    """A preset whose run folder is runs/NAME and whose learning rate decays over its own steps."""
    optim = replace(optim or OptimConfig(), decay_steps=steps)
    return Preset(about, cost, Config(preset=name, run=f"runs/{name}", steps=steps, optim=optim, **changes))


_ALL = [
    # Drawn people share one pose and light, so there is little to augment. Their intensities are exact, so labels may
    # weigh more.
    _preset(
        "smile",
        "the built-in faces with all losses of the poster (the default)",
        "About 2.8 minutes on 2 AMD EPYC cores. Held-out people: reconstruction 32.0 dB, swap 30.7 dB, Spearman 0.98.",
        steps=850,
        loss=replace(POSTER_LOSS, label=0.1, expression_l1=0.01),
        augment=AugmentConfig(face_mix_prob=0, warp=0, shift=0, light=0.02, colour=0.01),
    ),
    _preset(
        "binary",
        "the poster's experiment on neutral and smiling photographs: codes alone, with our best network",
        "Minutes not measured. 66 London people: reconstruction 26.7 dB, swap 22.6 dB on 8 held-out ones.",
        steps=800,
        validate_every=100,
        loss=replace(POSTER_LOSS, reconstruction=4.0),
    ),
    _preset(
        "poster",
        "the poster's experiment with the poster's plain network and no augmentation",
        "0.54 s a step on 2 AMD EPYC cores. After 240 steps on 66 London people: reconstruction 20.6 dB, swap 20.2 dB.",
        steps=3000,
        model=PLAIN_NETWORK,
        augment=AugmentConfig(enabled=False),
        loss=POSTER_LOSS,
    ),
    _preset(
        "autoencoder",
        "the plain network trained on reconstruction alone: the poster's baseline",
        "Minutes not measured. After 240 steps on 66 London people: reconstruction 19.6 dB, swap 19.3 dB.",
        steps=3000,
        model=PLAIN_NETWORK,
        augment=AugmentConfig(enabled=False),
        loss=LossWeights(reconstruction=1.0, swap=0.0),
    ),
    _preset(
        "intensity",
        "frames between neutral and smile, labelled with their intensity",
        "Minutes not measured. After 500 steps on the London clips: path 25.9 dB, Spearman in a clip 0.99.",
        steps=1200,
        validate_every=200,
        loss=CLIP_LOSS,
        objective=CLIP_OBJECTIVE,
    ),
    _preset(
        "ranking",
        "frames between neutral and smile, ranked by their order instead of labelled",
        "Minutes not measured. After 500 steps on the London clips: Spearman in a clip 0.99.",
        steps=1200,
        validate_every=200,
        loss=replace(CLIP_LOSS, ranking=0.1),
        objective=replace(CLIP_OBJECTIVE, label_intermediate=False),
    ),
    _preset(
        "warp",
        "for photographs and clips of real people: a decoder that warps and paints an image of the person",
        "About 15 minutes on 2 AMD EPYC cores. From one photograph of 16 held-out people: 1.0 of the real smile.",
        steps=4500,
        batch=8,
        validate_every=400,
        full_changes=0.5,
        model=ModelConfig(kind="warp", width=256),
        loss=replace(CLIP_LOSS, one_source=1, texture=20, two_sources=1, flow_tv=0.01, mask_area=0.02, cycle=0.01),
        objective=replace(CLIP_OBJECTIVE, mouth_weight=8.0, style_dims=8),
        augment=AugmentConfig(motion=1.0, tone=0.4),
        optim=OptimConfig(warmup_steps=50),
    ),
    _preset(
        "rotation",
        "the poster's reference Worrall et al. 2017: expression codes rotated with the intensity, no label loss",
        "Minutes not measured. After 500 steps on the London clips: path 25.7 dB, R2 of the smile 0.81.",
        steps=1200,
        validate_every=200,
        method="rotation",
        loss=LossWeights(reconstruction=4.0, swap=0.0, rotation=2.0),
    ),
    _preset(
        "clamping",
        "the poster's reference Kulkarni et al. 2015: batches vary in one factor, the other code is clamped",
        "Minutes not measured. After 500 steps on the London clips: path 24.8 dB, R2 of the smile 0.82.",
        steps=1200,
        validate_every=200,
        method="clamping",
        loss=LossWeights(reconstruction=0.0, swap=0.0, clamping=4.0),
    ),
]
PRESETS: dict[str, Preset] = {preset.config.preset: preset for preset in _ALL}


def split_arguments(arguments: list[str]) -> tuple[Config, list[str]]:
    """The config of the preset at the start of a command line ("smile" if there is none), and the other arguments.

    Raises UserError for an unknown preset.
    """
    if not arguments or arguments[0].startswith("-"):
        return PRESETS["smile"].config, arguments
    name, rest = arguments[0], arguments[1:]
    if name not in PRESETS:
        raise UserError(f"The preset must be one of {', '.join(PRESETS)}, got {name!r}.{did_you_mean(name, PRESETS)}")
    return PRESETS[name].config, rest


def describe(name: str) -> str:
    """The text above the options in `train.py --help`."""
    lines = [f"  {preset_name:12} {preset.about}" for preset_name, preset in PRESETS.items()]
    about = f"Train a network. Preset {name}: {PRESETS[name].about}. {PRESETS[name].cost}"
    return "\n".join([about, "", "Presets:", *lines])
