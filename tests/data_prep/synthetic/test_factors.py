"""The factors of the drawn faces: exact, named, within their ranges, and independent where that is asked for."""

from dataclasses import fields

import numpy as np
import pytest

from data_prep.output import build, verify
from data_prep.synthetic import faces
from data_prep.synthetic.factors import RANGES, independent_identity, person_identity
from data_prep.synthetic.identity import Identity, random_identity
from facedisent_jax.data.factors import read_factors, values_of, write_factors
from facedisent_jax.data.reading import read_split
from facedisent_jax.data.record import FACTORS_FILE, MOUTH
from facedisent_jax.errors import UserError

BOUNDS = {name: bounds for ranges in RANGES.values() for name, bounds in ranges.items()}
BALD = {"hairline": -12.0, "hair_side": -6.0}


def test_the_mouths_that_are_drawn_by_default_never_change():
    """Presets and figures depend on them. Processors round differently, so the mouth's mean colours are compared."""
    images = [record.image for subject in range(2) for _, record in faces.subject_records(subject, levels=3)]
    expected = [
        [[181.2, 135.9, 114.0], [178.1, 134.1, 112.8], [177.6, 135.1, 114.4]],
        [[146.2, 99.3, 70.6], [144.8, 100.1, 72.8], [145.7, 103.2, 77.2]],
    ]
    colours = [image[MOUTH].mean((0, 1)) for image in images]
    assert np.array(colours) == pytest.approx(np.reshape(expected, (6, 3)), abs=0.2)


def test_every_parameter_of_a_face_is_a_factor_and_lies_in_its_range():
    assert list(BOUNDS) == [*(field.name for field in fields(Identity)), "intensity"]
    for draw in (random_identity, independent_identity):
        for subject in range(200):
            for name, value in vars(draw(0, subject)).items():
                low, high = BOUNDS[name]
                assert low <= value <= high or (draw is random_identity and value == BALD.get(name)), name


def test_independent_factors_do_not_go_together():
    def correlation(independent: bool) -> np.ndarray:
        people = [person_identity(0, subject, independent) for subject in range(400)]
        return np.corrcoef([[getattr(person, name) for person in people] for name in BOUNDS if name != "intensity"])

    between = ~np.eye(len(BOUNDS) - 1, dtype=bool)
    assert np.abs(correlation(False)[between]).max() > 0.6
    assert np.abs(correlation(True)[between]).max() < 0.25  # 5 standard errors


def test_a_picture_is_drawn_again_from_its_row(tmp_path):
    build.build_synthetic(tmp_path / "out", subjects=3, levels=3, clips=1, independent=True, workers=1)
    factors, test = read_factors(tmp_path / "out"), read_split(tmp_path / "out", "test")
    assert factors is not None and factors.value.shape[1] == len(factors.name) == 51
    for row in (0, len(test) - 1):
        values = dict(zip(factors.name.tolist(), values_of(factors, test)[row].tolist(), strict=True))
        intensity = values.pop("intensity")
        assert intensity == pytest.approx(test.intensity[row])
        assert np.array_equal(faces.draw(Identity(**values), intensity), test.image[row])


def test_factors_are_replaced_and_verified_with_their_folder(tmp_path):
    folder = tmp_path / "out"
    for levels in (3, 2):
        build.build_synthetic(folder, subjects=3, levels=levels, workers=1, overwrite=True)
    assert verify.verify_folder(folder).counts["test"][0] == 2
    whole = (folder / FACTORS_FILE).read_bytes()
    write_factors(folder, faces.factors(1, 0, True, 0, 2, False))
    with pytest.raises(UserError, match=r"factors.npz must have a row for each record, got none for p000[12]/[01]"):
        verify.verify_folder(folder)
    (folder / FACTORS_FILE).write_bytes(whole[:200])
    with pytest.raises(UserError, match=r"factors.npz is damaged \(.*\)\. Prepare the folder again"):
        verify.verify_folder(folder)
