"""Principal components of rows of pixel values, and of images."""

from typing import Any, NamedTuple

import numpy as np

MAX_IMAGES = 4000  # that `fit_pca` uses (their mirror images come on top), so that it takes seconds
MAX_EXACT_ROWS = 1500  # above it `fit_pca` uses subspace iteration


class PCA(NamedTuple):
    """mean:     [h, w, c].
    basis:    [k, h * w * c], orthonormal rows, largest variance first.
    n_images: the number of images it was fitted on, without mirror images.
    """

    mean: np.ndarray
    basis: np.ndarray
    n_images: int


def principal_components(
    rows: np.ndarray, count: int, tolerance: float, dtype: Any = np.float32
) -> tuple[np.ndarray, np.ndarray]:
    """The first `count` principal components of centred rows [n, pixels], largest first.

    tolerance: components with less than this share of the largest variance are rounding, and left out.
    dtype: precision of the inner products.

    Returns orthonormal rows [k, pixels], k <= count, and the root of their sum of squares over the rows, [k].
    """
    # By the Gram matrix: there are far fewer rows than the 12,288 pixel values.
    values, vectors = np.linalg.eigh(rows.astype(dtype, copy=False) @ rows.T)
    order = np.argsort(values)[::-1][:count]
    order = order[values[order] > tolerance * max(float(values[order[0]]), 1e-12)]
    norms = np.sqrt(values[order])
    return np.ascontiguousarray((rows.T @ vectors[:, order] / norms).T), norms


def fit_pca(images: Any, components: int, seed: int = 0) -> PCA:
    """Principal components of images and their mirror images.

    images: [n, h, w, c] uint8, or a `MappedImages`. Of more than MAX_IMAGES, that many are drawn from the seed.
    components: how many; fewer where the images have fewer.
    """
    rows = np.arange(len(images))
    if len(rows) > MAX_IMAGES:
        rows = np.sort(np.random.default_rng(seed).choice(rows, MAX_IMAGES, replace=False))
    sample = np.asarray(images[rows], np.float32) / 255
    data = np.concatenate([sample, sample[:, :, ::-1]]).reshape(2 * len(sample), -1)
    mean = data.mean(0)
    data -= mean
    if len(data) > MAX_EXACT_ROWS:
        data = _leading_subspace(data, components + 32, seed)
    basis, _ = principal_components(data, components, 1e-10, np.float64)
    return PCA(mean.reshape(sample.shape[1:]), basis.astype(np.float32), len(sample))


def _leading_subspace(data: np.ndarray, dims: int, seed: int, iterations: int = 4) -> np.ndarray:
    """[dims, pixels] with the leading components of `data`, by subspace iteration (Halko et al. 2011, alg. 4.4)."""
    start = np.random.default_rng(seed).standard_normal((data.shape[1], dims), np.float32)
    basis = _orthonormalize(data @ start)
    for _ in range(iterations):
        basis = _orthonormalize(data @ (data.T @ basis))
    return basis.T @ data


def _orthonormalize(columns: np.ndarray) -> np.ndarray:
    """An orthonormal basis of the span of the columns, by their Gram matrix: numpy's QR takes ten times as long."""
    values, vectors = np.linalg.eigh(columns.T.astype(np.float64) @ columns)
    keep = values > 1e-12 * values.max()
    return columns @ (vectors[:, keep] / np.sqrt(values[keep])).astype(np.float32)


def reconstruct(pca: PCA, images: np.ndarray, components: int) -> np.ndarray:
    """Images in [0, 1], reconstructed from the mean and the first components. 0 components give the mean."""
    basis = pca.basis[:components]
    flat = images.reshape(len(images), -1) - pca.mean.reshape(-1)
    return np.clip(flat @ basis.T @ basis + pca.mean.reshape(-1), 0, 1).reshape(images.shape)
