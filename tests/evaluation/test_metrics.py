"""Figures of merit and baselines against hand-computed values and planted codes."""

import numpy as np
import pytest

from facedisent_jax.data.labels import read_intensity
from facedisent_jax.evaluation import metrics

RNG = np.random.default_rng(0)


def test_psnr_of_a_constant_error_is_twenty_decibels_at_a_tenth():
    images = np.zeros((2, 64, 64, 3))
    assert metrics.psnr(images, images + np.array([0.1, 0.01])[:, None, None, None]) == pytest.approx([20, 40])


def test_psnr_is_of_each_picture_then_averaged_not_of_the_mean_error():
    real = np.zeros((2, 4, 4, 3))
    images = real + np.array([0.1, 1.0])[:, None, None, None]
    assert metrics.psnr(images, real).mean() == pytest.approx(10)  # the mean error would give 2.97


def test_equal_pictures_have_a_finite_psnr_and_ssim_one():
    picture = RNG.random((3, 64, 64, 3))
    assert np.isfinite(metrics.psnr(picture, picture)).all()
    assert metrics.ssim(picture, picture) == pytest.approx(1)


def test_ssim_of_two_flat_pictures_is_the_luminance_term():
    a, b = np.full((1, 64, 64, 3), 0.4), np.full((1, 64, 64, 3), 0.6)
    c1 = 0.01**2
    assert metrics.ssim(a, b) == pytest.approx((2 * 0.4 * 0.6 + c1) / (0.4**2 + 0.6**2 + c1), abs=1e-4)


def test_ssim_is_symmetric_falls_with_noise_and_penalises_lost_contrast():
    y, x = np.mgrid[:64, :64]
    real = np.repeat((0.5 + 0.3 * np.sin(x / 3) * np.cos(y / 4))[None, ..., None], 3, axis=-1)
    noise = RNG.standard_normal(real.shape)
    low_noise, high_noise = metrics.ssim(real, real + 0.02 * noise)[0], metrics.ssim(real, real + 0.2 * noise)[0]
    assert 1 > low_noise > high_noise > 0
    assert metrics.ssim(real, real + 0.2 * noise) == pytest.approx(metrics.ssim(real + 0.2 * noise, real))
    assert metrics.ssim(real, 0.5 + 0.2 * (real - 0.5))[0] < 0.6


def test_interval_over_subjects_weighs_people_alike_and_holds_the_mean():
    subject = np.array(["a"] * 90 + ["b"] * 5 + ["c"] * 5 + [""] * 50)
    values = np.r_[np.full(90, 1.0), np.full(5, 2.0), np.full(5, 6.0), np.full(50, 99.0)]
    half = 4.3027 * np.sqrt(7 / 3)  # t of 2 degrees of freedom; the variance of 1, 2 and 6 is 7
    assert metrics.subject_mean(values, subject) == pytest.approx((3, 3 - half, 3 + half), abs=1e-4)
    assert np.isnan(metrics.subject_mean(values[:90], subject[:90])[1:]).all()


def _columns(*rows):
    """subject, take, expression, intensity as columns."""
    subject, take, expression, intensity = zip(*rows, strict=True)
    return np.array(subject), np.array(take), np.array(expression), np.array(intensity, np.float32)


def test_swaps_take_identity_from_the_same_take_and_expression_from_another_person():
    columns = _columns(
        ("a", 0, "neutral", 0), ("a", 0, "smile", 1), ("a", 1, "smile", 1),
        ("b", 2, "neutral", 0), ("b", 2, "smile", 0.96), ("b", 2, "smile", 0.5),
        ("c", 3, "surprise", 1), ("c", 3, "neutral", 0),
        ("", 4, "neutral", 0), ("", 4, "smile", 1), ("d", 5, "", np.nan), ("d", 5, "smile", np.nan),
    )  # fmt: skip
    swaps = metrics.swaps(*columns, donors=5)
    triples = {(int(s), int(d), int(t)) for s, d, t in zip(*swaps, strict=True)}
    # to a's neutral from the smile of the same take, with the neutral of b or c; to a's smile with b's, ...
    assert triples == {(1, 3, 0), (1, 7, 0), (0, 4, 1), (0, 2, 1)} - {(0, 2, 1)} | {
        (4, 0, 3), (4, 7, 3), (3, 1, 4), (3, 2, 4), (6, 0, 7), (6, 3, 7)
    }  # fmt: skip


def test_swaps_start_from_the_picture_farthest_in_expression():
    columns = _columns(
        *[("a", 0, "smile", y) for y in (0.0, 0.2, 1.0)], *[("b", 1, "smile", y) for y in (0.0, 0.2, 1.0)],
        *[("c", 2, e, 1.0) for e in ("smile", "surprise")], ("b", 3, "surprise", 1.0),
    )  # fmt: skip
    source = {int(t): int(s) for s, _, t in zip(*metrics.swaps(*columns), strict=True)}
    assert source[0] == 2 and source[1] == 2 and source[2] == 0
    assert source[7] == 6  # another action is as far as both intensities together


def test_swaps_are_limited_and_the_same_each_time():
    rows = [(f"p{p}", p, "smile", y) for p in range(20) for y in (0.0, 1.0)]
    columns = _columns(*rows)
    swaps = metrics.swaps(*columns, donors=5, max_swaps=80)
    assert len(swaps.target) == 80 and len(set(swaps.target.tolist())) == 40
    assert len(metrics.swaps(*columns, donors=5, max_swaps=10).target) == 10
    assert all((a == b).all() for a, b in zip(swaps, metrics.swaps(*columns, donors=5, max_swaps=80), strict=True))
    assert (columns[0][swaps.donor] != columns[0][swaps.target]).all()


def test_swaps_of_a_single_person_or_a_single_intensity_are_none():
    assert len(metrics.swaps(*_columns(("a", 0, "smile", 0), ("a", 0, "smile", 1))).target) == 0
    assert len(metrics.swaps(*_columns(("a", 0, "smile", 1), ("b", 1, "smile", 1))).target) == 0


def test_spearman_sees_order_alone_and_its_ceiling_knows_ties():
    truth = np.array([0, 0, 1, 1.0])
    assert metrics.spearman(np.arange(9.0), np.arange(9.0) ** 3) == pytest.approx(1)
    assert metrics.spearman(np.arange(9.0), -np.arange(9.0)) == pytest.approx(-1)
    assert metrics.spearman_ceiling(truth) == pytest.approx(metrics.spearman(truth, np.array([0.1, 0.2, 0.8, 0.9])))
    assert metrics.spearman_ceiling(np.repeat([0.0, 1.0], 500)) == pytest.approx(np.sqrt(3) / 2, abs=1e-3)
    assert np.isnan(metrics.spearman(np.ones(5), np.arange(5.0)))


def test_projection_is_the_mean_for_a_smile_and_one_at_any_label_vector():
    code = RNG.random((5, 64))
    assert read_intensity(code, np.ones(64)) == pytest.approx(code.mean(1))
    label = (np.arange(64) % 3 == 0).astype(float)
    assert read_intensity(0.3 * label[None], label) == pytest.approx([0.3])
    assert read_intensity(code, np.ones(8)) == pytest.approx(code[:, :8].mean(1))  # the other numbers are free


def test_leakage_of_planted_codes():
    subject = np.repeat(["a", "b", "c", "d"], 50)
    person = np.repeat(np.eye(4), 50, axis=0)
    assert metrics.leakage(person, subject) == pytest.approx(0)
    expression = np.tile([-1.0, 1.0], 100)[:, None]  # variance 1 within each person, 0.75 between people
    assert metrics.leakage(np.hstack([person, expression]), subject) == pytest.approx(1 / 0.75)
    assert np.isnan(metrics.leakage(person[:50], subject[:50]))


def _planted(people: int, frames: int):
    number, frame = np.repeat(np.arange(people), frames), np.tile(np.arange(frames), people)
    return np.char.mod("p%d", number), frame, number


def test_probes_find_what_was_planted():
    subject, frame, number = _planted(12, 20)
    fit = metrics.even_frames(number, frame)
    identity = RNG.standard_normal((12, 64))[number] + 0.01 * RNG.standard_normal((240, 64))
    y = frame / 19
    expression = np.outer(y, RNG.standard_normal(64)) + 0.01 * RNG.standard_normal((240, 64))
    assert metrics.subject_probe(identity, subject, fit, ~fit) == (1.0, pytest.approx(1 / 12))
    probe = metrics.intensity_probe(expression, y, [(fit, ~fit)])
    assert probe["spearman"] > 0.99 and probe["mae"] < 0.02 < 0.2 < probe["chance_mae"]


def test_probes_of_random_codes_are_at_chance():
    subject, frame, number = _planted(12, 20)
    fit, code = metrics.even_frames(number, frame), RNG.standard_normal((240, 64))
    accuracy, chance = metrics.subject_probe(code, subject, fit, ~fit)
    assert accuracy < chance + 4 * np.sqrt(chance / 120)
    probe = metrics.intensity_probe(code, frame / 19, [(fit, ~fit)])
    assert abs(probe["spearman"]) < 0.35 and probe["mae"] > 0.9 * probe["chance_mae"]


def test_probes_of_nothing_are_nan_not_an_error():
    no_rows = np.zeros(4, bool)
    assert np.isnan(metrics.subject_probe(np.zeros((4, 8)), np.array(["a"] * 4), ~no_rows, ~no_rows)[0])
    assert np.isnan(metrics.intensity_probe(np.zeros((4, 8)), np.zeros(4), [(no_rows, no_rows)])["spearman"])


def test_even_frames_count_within_each_take_in_the_order_of_frames():
    take, frame = np.array([0, 0, 0, 1, 1, 1]), np.array([14, 10, 12, 3, 5, 7])
    assert metrics.even_frames(take, frame).tolist() == [True, True, False, True, False, True]
