"""The factors of the built-in faces with their ranges, and people whose factors are independent of each other."""

from collections.abc import Sequence

import numpy as np

from data_prep.synthetic.identity import Identity, random_identity
from facedisent_jax.data.factors import Factors
from facedisent_jax.data.record import Record

RANGES = {
    "identity": {
        "skin_tone": (0.0, 1.0),
        "skin_warmth": (-1.0, 1.0),
        "blush": (0.1, 0.8),
        "age": (0.0, 1.0),
        "beard": (0.0, 1.0),
        "hair_tone": (0.0, 1.0),
        "hair_red": (0.0, 1.0),
        "hair_grey": (0.0, 0.9),
        "hairline": (-1.0, 10.5),  # -12 for the bald people of `random_identity`
        "hair_temple": (-4.0, 12.0),
        "hair_parting": (-1.0, 1.0),
        "hair_side": (0.0, 4.5),  # -6 for the bald people of `random_identity`
        "hair_length": (18.0, 78.0),
        "hair_volume": (0.5, 7.0),
        "face_width": (23.7, 29.4),
        "chin_y": (58.0, 66.5),
        "jaw_square": (0.0, 1.0),
        "jaw_taper": (0.0, 1.0),
        "cheekbones": (0.6, 2.4),
        "chin_relief": (0.5, 2.5),
        "eye_width": (4.2, 6.0),
        "eye_open": (1.6, 2.95),
        "eye_tilt": (-1.0, 2.0),
        "eye_colour": (0.0, 1.0),
        "brow_y": (4.4, 7.2),
        "brow_thick": (1.2, 3.4),
        "brow_arch": (0.0, 2.0),
        "brow_tilt": (-1.6, 0.9),
        "glasses": (0.0, 1.0),
        "nose_y": (33.8, 39.5),
        "nose_width": (4.0, 7.4),
        "nose_relief": (3.5, 6.5),
        "mouth_y": (45.5, 50.0),
        "mouth_width": (8.0, 11.0),
        "lip_upper": (1.2, 3.3),
        "lip_lower": (1.8, 3.9),
        "lip_colour": (0.0, 1.0),
        "mouth_bend": (-0.1, 1.3),
    },
    "smile": {
        "smile_lift": (2.2, 4.0),
        "smile_widen": (0.18, 0.36),
        "smile_open": (1.4, 5.2),
        "smile_squint": (0.4, 1.0),
    },
    "photograph": {
        "roll": (-5.0, 5.0),
        "turn": (-2.2, 2.2),
        "light_x": (-1.0, 1.0),
        "light_y": (0.0, 1.0),
        "light_hard": (0.0, 1.0),
        "exposure": (0.9, 1.25),
        "background": (0.0, 1.0),
        "background_hue": (-1.0, 1.0),
    },
    "intensity": {"intensity": (0.0, 1.0)},
}
"""Group -> factor -> lowest and highest value. `Identity` says what each factor means."""


def person_identity(seed: int, subject: int, independent: bool = False) -> Identity:
    """Person number `subject` of population `seed`; `independent`: with factors drawn independently of each other."""
    return independent_identity(seed, subject) if independent else random_identity(seed, subject)


def independent_identity(seed: int, subject: int) -> Identity:
    """A person each of whose factors is drawn evenly from its range, whatever the others are."""
    rng = np.random.default_rng((seed, subject))
    ranges = {name: bounds for group in RANGES.values() for name, bounds in group.items() if name != "intensity"}
    return Identity(**{name: float(rng.uniform(low, high)) for name, (low, high) in ranges.items()})


def factors_of(records: Sequence[Record], identities: Sequence[Identity]) -> Factors:
    """The factors of records; identities: of each record's person."""
    table = [(name, group, *bounds) for group, ranges in RANGES.items() for name, bounds in ranges.items()]
    names, groups, low, high = map(np.array, zip(*table, strict=True))
    values = [
        [*(getattr(identity, name) for name in names[:-1]), record.intensity]
        for record, identity in zip(records, identities, strict=True)
    ]
    subject, sequence, frame = (
        np.array([getattr(record, field) for record in records]) for field in ("subject", "sequence", "frame")
    )
    return Factors(subject, sequence, frame, names, groups, low, high, np.array(values))
