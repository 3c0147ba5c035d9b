"""The parameters of a built-in face, and random ones for person number n of a population."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Identity:
    """How a person looks and smiles, and how the photograph was taken.

    Lengths are pixels of the 64x64 image; rows count from its top. An amount runs from 0 (none) to 1 (full).
    """

    # skin, hair and their colours
    skin_tone: float  # 0 very fair to 1 very dark
    skin_warmth: float  # -1 rosy to 1 golden
    blush: float  # amount
    age: float  # amount of lines at rest: folds beside the nose, shade below the eyes
    beard: float  # amount of stubble or beard
    hair_tone: float  # 0 black, 0.5 brown, 1 blond
    hair_red: float  # amount
    hair_grey: float  # amount
    hairline: float  # row of the hairline at the parting; well below 0: bald
    hair_temple: float  # rows by which the hairline is lower at the temples than at the parting
    hair_parting: float  # where the hair parts, -1 (left) to 1 (right)
    hair_side: float  # thickness of the hair over the sides of the face
    hair_length: float  # row that the hair reaches beside the face
    hair_volume: float  # how far the hair stands off the head
    # shape of the head
    face_width: float  # half width at the cheekbones
    chin_y: float  # row of the chin
    jaw_square: float  # 0 pointed to 1 square
    jaw_taper: float  # amount by which the jaw is narrower than the cheekbones
    cheekbones: float  # height of the relief
    chin_relief: float  # height of the relief
    # eyes and brows
    eye_width: float  # half width of the opening
    eye_open: float  # half height of the opening
    eye_tilt: float  # rows by which the outer corner is higher than the inner one
    eye_colour: float  # 0 dark brown, 0.5 hazel, 1 blue
    brow_y: float  # rows above the eye
    brow_thick: float  # rows
    brow_arch: float  # rows
    brow_tilt: float  # rows by which the outer end is higher than the inner one
    glasses: float  # 0 none, 1 full
    # nose and mouth
    nose_y: float  # row of the tip
    nose_width: float  # half width over the wings
    nose_relief: float  # height of the tip
    mouth_y: float  # row of the line between the lips
    mouth_width: float  # half width at rest
    lip_upper: float  # thickness
    lip_lower: float
    lip_colour: float  # 0 like the skin to 1 red
    mouth_bend: float  # rows by which the corners are higher than the middle, at rest
    # the smile at intensity 1
    smile_lift: float  # rows by which the corners rise
    smile_widen: float  # fraction by which the mouth widens
    smile_open: float  # rows between the lips
    smile_squint: float  # amount by which the eyes narrow
    # the photograph
    roll: float  # degrees by which the head leans towards its left shoulder
    turn: float  # pixels by which the middle of the face is moved to the right, as by a slight turn of the head
    light_x: float  # where the light comes from, -1 (left) to 1 (right)
    light_y: float  # height of the light, 0 (level) to 1 (above)
    light_hard: float  # 0 (overcast) to 1 (a single lamp)
    exposure: float
    background: float  # 0 dark to 1 bright
    background_hue: float  # -1 warm to 1 cool


def random_identity(seed: int, subject: int) -> Identity:
    """Person number `subject` of population `seed`: a pure function of the two."""
    rng = np.random.default_rng((seed, subject))

    def spread(low: float, high: float) -> float:
        """A value from low to high, more often near the middle."""
        return float(low + (high - low) * rng.beta(1.6, 1.6))

    def amount(chance: float, low: float = 0.4, high: float = 1.0) -> float:
        """A value from low to high with probability `chance`, else 0."""
        present, value = rng.random() < chance, rng.uniform(low, high)
        return float(value) if present else 0.0

    man = rng.random() < 0.5
    tone = float(rng.random())
    grey = amount(0.15, 0.3, 0.9)
    long_hair = rng.random() < (0.1 if man else 0.8)
    bald = man and rng.random() < 0.15
    return Identity(
        skin_tone=tone,
        skin_warmth=spread(-1, 1),
        blush=spread(0.1, 0.8),
        age=float(np.clip(spread(0, 0.7) + 0.5 * grey, 0, 1)),
        beard=amount(0.5 if man else 0.0, 0.25, 1.0),
        hair_tone=float(np.clip(spread(0, 1.1) * (1 - 0.85 * tone), 0, 1)),
        hair_red=amount(0.3 * (1 - tone), 0.3, 1.0),
        hair_grey=grey,
        hairline=-12.0 if bald else spread(1.0, 10.5) if long_hair else spread(-1.0, 8.5),
        hair_temple=spread(2, 12) if long_hair else spread(-4, 4),
        hair_parting=spread(-1, 1),
        hair_side=-6.0 if bald else spread(1.0, 4.5) if long_hair else spread(0.0, 2.5),
        hair_length=spread(42, 78) if long_hair else spread(18, 30),
        hair_volume=spread(2.0, 7.0) if long_hair else spread(0.5, 3.5),
        face_width=spread(24.0, 28.8) + (0.6 if man else -0.3),
        chin_y=spread(58.5, 66) + (0.5 if man else -0.5),
        jaw_square=spread(0, 0.8) + (0.2 if man else 0),
        jaw_taper=spread(0, 0.85) + (0 if man else 0.15),
        cheekbones=spread(0.6, 2.4),
        chin_relief=spread(0.5, 2.5),
        eye_width=spread(4.2, 6.0),
        eye_open=spread(1.6, 2.7) + (0 if man else 0.25),
        eye_tilt=spread(-1.0, 2.0),
        eye_colour=float(np.clip(spread(0, 1.4) * (1 - tone) ** 0.6, 0, 1)),
        brow_y=spread(4.4, 6.6) + (0 if man else 0.6),
        brow_thick=spread(1.4, 3.0) + (0.4 if man else -0.2),
        brow_arch=spread(0.0, 2.0),
        brow_tilt=spread(-1.6, 0.9),
        glasses=amount(0.12, 0.8, 1.0),
        nose_y=spread(33.8, 39.5),
        nose_width=spread(4.0, 6.8) + 0.6 * tone,
        nose_relief=spread(3.5, 6.5),
        mouth_y=spread(45.5, 50.0),
        mouth_width=spread(8.0, 11.0),
        lip_upper=spread(1.2, 2.8) + 0.5 * tone,
        lip_lower=spread(1.8, 3.4) + 0.5 * tone,
        lip_colour=spread(0, 0.5) if man else spread(0.2, 1.0),
        mouth_bend=spread(-0.1, 1.3),
        smile_lift=spread(2.2, 4.0),
        smile_widen=spread(0.18, 0.36),
        smile_open=spread(1.4, 5.2),
        smile_squint=spread(0.4, 1.0),
        roll=spread(-5, 5),
        turn=spread(-2.2, 2.2),
        light_x=spread(-1, 1),
        light_y=spread(0, 1),
        light_hard=spread(0, 1),
        exposure=spread(0.9, 1.25),
        background=float(rng.random()),
        background_hue=spread(-1, 1),
    )
