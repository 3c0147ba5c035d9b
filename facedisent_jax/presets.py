"""The settings that runs begin with, by name. Imports config."""

import difflib
from dataclasses import replace

from facedisent_jax.config import AugmentConfig, Config, LossConfig, ModelConfig, OptimConfig

DISENTANGLING = LossConfig(
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
"""All the poster's terms. Mean squared errors of pictures in [0, 1] are about 0.003, so the terms on the codes are
weighted to a like size."""

ABOUT = {
    "smile": "the built-in faces and all the poster's losses (the default)",
    "binary": "the poster's experiment, neutral and smiling pictures, with our best network",
    "poster": "the same with the poster's plain network and no augmentation",
    "intensity": "frames between neutral and smile: label vectors filled with the intensity, with our best network",
    "ranking": "the same with the order of a take's frames in place of their intensities, anchored at both ends",
    "warp": "as intensity, with a decoder that sees a picture of the person, bends it and paints over it",
    "rotation": "the poster's reference Worrall et al. 2017: expression codes turned by an angle, no label",
    "clamping": "the poster's reference Kulkarni et al. 2015: batches vary in one factor, the other's code is clamped",
    "autoencoder": "the plain network trained on reconstruction alone: the poster's baseline",
}
"""What each preset is, for the command's help."""

_CLIPS = replace(DISENTANGLING, reconstruction=4.0, label=0.1, label_numbers=16, expression_l1=0.01)
_PLAIN = ModelConfig(kind="plain", width=32)
_UNCHANGED = AugmentConfig(enabled=False)

PRESETS = {
    # Drawn people are as many as one wants, and all in one pose and light: nothing to make up for by augmentation, and
    # intensities that are exact, so that their labels may weigh more.
    "smile": Config(
        steps=700,
        optim=OptimConfig(schedule=700),
        loss=replace(DISENTANGLING, label=0.1, expression_l1=0.01),
        augment=AugmentConfig(mix=0, warp=0, shift=0, light=0.02, colour=0.01),
    ),
    "binary": Config(
        preset="binary",
        run="runs/binary",
        steps=800,
        validate_every=100,
        optim=OptimConfig(schedule=800),
        loss=replace(DISENTANGLING, reconstruction=4.0),
    ),
    "intensity": Config(
        preset="intensity",
        run="runs/intensity",
        steps=1200,
        validate_every=200,
        loss=_CLIPS,
        optim=OptimConfig(schedule=1200),
    ),
    # `python train.py warp --data DATA --run RUN`
    "warp": Config(
        preset="warp",
        run="runs/warp",
        steps=1800,
        batch=8,
        validate_every=200,
        model=ModelConfig(kind="warp", width=256),
        loss=replace(_CLIPS, source=1.0, between=1.0, smooth=0.01, paint=0.01, cycle=0.01, mouth=8.0),
        augment=AugmentConfig(motion=1.0),
        optim=OptimConfig(lr=2e-3, warmup=30, schedule=1800),
    ),
    "ranking": Config(
        preset="ranking",
        run="runs/ranking",
        steps=1200,
        validate_every=200,
        loss=replace(_CLIPS, ranking=0.1, label_between=False),
        optim=OptimConfig(schedule=1200),
    ),
    "rotation": Config(
        preset="rotation",
        run="runs/rotation",
        steps=1200,
        validate_every=200,
        loss=LossConfig(reconstruction=4.0, swap=0.0, rotation=2.0),
        optim=OptimConfig(schedule=1200),
    ),
    "clamping": Config(
        preset="clamping",
        run="runs/clamping",
        steps=1200,
        validate_every=200,
        loss=LossConfig(reconstruction=0.0, swap=0.0, clamping=4.0),
        optim=OptimConfig(schedule=1200),
    ),
    "poster": Config(preset="poster", run="runs/poster", loss=DISENTANGLING, model=_PLAIN, augment=_UNCHANGED),
    "autoencoder": Config(
        preset="autoencoder",
        run="runs/autoencoder",
        loss=LossConfig(reconstruction=1.0, swap=0.0),
        model=_PLAIN,
        augment=_UNCHANGED,
    ),
}


def preset_of(arguments: list[str]) -> tuple[Config, list[str]]:
    """The preset that a command line begins with ("smile" where it begins with an option), and the other arguments."""
    if not arguments or arguments[0].startswith("-"):
        return PRESETS["smile"], arguments
    name, rest = arguments[0], arguments[1:]
    if name not in PRESETS:
        near = difflib.get_close_matches(name, PRESETS, 1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise SystemExit(f"There is no preset {name!r}.{hint} Presets: {', '.join(PRESETS)}.")
    return PRESETS[name], rest
