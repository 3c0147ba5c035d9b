"""TODO."""

from typing import Any, NamedTuple

import numpy as np

MOST_PICTURES = 4000
"""Most training pictures the components are fitted on (their flips come on top), so that it takes seconds."""


EXACT = 1500
"""Up to so many rows the components are exact; beyond, by subspace iteration."""


class Components(NamedTuple):
    """mean: [h, w, c]; basis: [k, h * w * c], orthonormal rows, largest variance first; fitted: pictures used."""

    mean: np.ndarray
    basis: np.ndarray
    fitted: int


def fit_pca(images: Any, components: int, seed: int = 0) -> Components:
    """Principal components of pictures and their mirror images.

    Of more than MOST_PICTURES, so many drawn by seed. There are fewer components where the pictures have fewer.
    """
    rows = np.arange(len(images))
    if len(rows) > MOST_PICTURES:
        rows = np.sort(np.random.default_rng(seed).choice(rows, MOST_PICTURES, replace=False))
    chosen = np.asarray(images[rows], np.float32) / 255
    data = np.concatenate([chosen, chosen[:, :, ::-1]]).reshape(2 * len(chosen), -1)
    mean = data.mean(0)
    data -= mean
    if len(data) > EXACT:
        data = _leading(data, components + 32, seed)
    # By way of the small matrix of inner products: there are far fewer rows than the 12,288 pixels.
    values, vectors = np.linalg.eigh(data.astype(np.float64) @ data.T)
    order = np.argsort(values)[::-1][:components]
    order = order[values[order] > 1e-10 * values.max()]  # what rounding leaves is no direction
    basis = vectors[:, order].T @ data / np.sqrt(values[order])[:, None]
    return Components(mean.reshape(chosen.shape[1:]), basis.astype(np.float32), len(chosen))


def _leading(data: np.ndarray, rows: int, seed: int, rounds: int = 4) -> np.ndarray:
    """[rows, pixels] with the leading components of `data`, by subspace iteration (Halko et al. 2011, alg. 4.4)."""
    start = np.random.default_rng(seed).standard_normal((data.shape[1], rows), np.float32)
    basis = _orthonormal(data @ start)
    for _ in range(rounds):
        basis = _orthonormal(data @ (data.T @ basis))
    return basis.T @ data


def _orthonormal(columns: np.ndarray) -> np.ndarray:
    """An orthonormal basis of the columns' span, by way of their inner products: numpy's QR takes ten times as long."""
    values, vectors = np.linalg.eigh(columns.T.astype(np.float64) @ columns)
    keep = values > 1e-12 * values.max()
    return columns @ (vectors[:, keep] / np.sqrt(values[keep])).astype(np.float32)


def reconstruct(pca: Components, images: np.ndarray, components: int) -> np.ndarray:
    """Pictures rebuilt from the mean and the first `components`; 0 gives the mean face. In [0, 1] -> in [0, 1]."""
    basis = pca.basis[:components]
    flat = images.reshape(len(images), -1) - pca.mean.reshape(-1)
    return np.clip(flat @ basis.T @ basis + pca.mean.reshape(-1), 0, 1).reshape(images.shape)
