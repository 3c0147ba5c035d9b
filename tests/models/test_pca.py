"""Principal components of images, and reconstructions from them."""

import numpy as np
import pytest

from facedisent_jax.models import pca
from facedisent_jax.models.pca import fit_pca, reconstruct

RNG = np.random.default_rng(0)


def test_components_are_orthonormal_and_their_norms_are_those_of_the_data():
    rows = RNG.normal(size=(6, 40)).astype(np.float32) * 5
    basis, norms = pca.principal_components(rows, 3, tolerance=1e-5)
    np.testing.assert_allclose(basis @ basis.T, np.eye(3), atol=1e-5)
    np.testing.assert_allclose(norms, np.linalg.svd(rows, compute_uv=False)[:3], rtol=1e-4)
    np.testing.assert_allclose(np.linalg.norm(rows @ basis.T, axis=0), norms, rtol=1e-4)


def test_what_rounding_leaves_is_no_component():
    rows = np.outer([1.0, 2.0, 3.0], np.arange(8.0)).astype(np.float32)
    assert len(pca.principal_components(rows, 3, tolerance=1e-5)[0]) == 1


def test_reconstruction_is_exact_with_as_many_components_as_the_rank():
    images = RNG.integers(0, 255, (10, 16, 16, 3), np.uint8)
    pca_fit = fit_pca(images, 64)
    assert len(pca_fit.basis) == 19 and pca_fit.n_images == 10  # images and mirror images, minus the mean
    assert reconstruct(pca_fit, images / 255, 64) == pytest.approx(images / 255, abs=1e-4)
    mirror_images = images[:, :, ::-1] / 255
    assert reconstruct(pca_fit, mirror_images, 64) == pytest.approx(mirror_images, abs=1e-4)


def test_no_component_gives_the_mean_face_and_more_components_are_nearer():
    images = RNG.integers(0, 255, (30, 16, 16, 3), np.uint8)
    pca_fit, real = fit_pca(images, 40), images / 255
    mean = np.concatenate([real, real[:, :, ::-1]]).mean(0)
    assert reconstruct(pca_fit, real, 0) == pytest.approx(np.broadcast_to(mean, real.shape), abs=1e-5)
    errors = [np.mean((reconstruct(pca_fit, real, k) - real) ** 2) for k in (0, 5, 20, 40)]
    assert errors == sorted(errors, reverse=True) and errors[0] > errors[-1]


def test_subspace_iteration_fits_many_images_as_exactly_as_few(monkeypatch):
    factors = RNG.standard_normal((200, 12)) * np.linspace(3, 1, 12)
    images = np.clip(127 + 8 * factors @ RNG.standard_normal((12, 768)), 0, 255).reshape(-1, 16, 16, 3).astype(np.uint8)
    exact_pca = fit_pca(images, 8)
    monkeypatch.setattr(pca, "MAX_EXACT_ROWS", 10)
    iterated_pca = fit_pca(images, 8)
    a, b = (np.mean((reconstruct(p, images / 255, 8) - images / 255) ** 2) for p in (exact_pca, iterated_pca))
    assert b == pytest.approx(a, rel=0.0023)  # 0.01 dB
