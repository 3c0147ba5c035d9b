"""Reads the intensity of an expression from the mouth region: a judge that needs no extra."""

from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float

from facedisent_jax.data.labels import draw_labelled
from facedisent_jax.data.record import MOUTH
from facedisent_jax.models.pca import fit_pca

KERNEL_WIDTH = 0.25  # in mean squared norms
RIDGE = 1e-2
MAX_FITTED = 4000  # images
COMPONENTS = 96


def fit(images: Any, intensity: np.ndarray, seed: int) -> Callable[[np.ndarray], Float[np.ndarray, "n"]]:
    """Kernel ridge regression of the intensity on the mouth region.

    images:    [n, 64, 64, 3] uint8, in memory or mapped. Of more than MAX_FITTED, that many are drawn by seed.
    intensity: [n], NaN where unknown.

    Returns a function of float images [k, 64, 64, 3] -> [k].
    """
    rows = draw_labelled(intensity, MAX_FITTED, seed)
    mouths, target = mouth_region(np.asarray(images[rows])), intensity[rows]
    pca = fit_pca(mouths, COMPONENTS, seed)

    def project(mouths: np.ndarray) -> np.ndarray:
        return (mouths.reshape(len(mouths), -1) - pca.mean.reshape(-1)) @ pca.basis.T

    x, mean = project(mouths.astype(np.float32) / 255).astype(np.float64), float(target.mean())
    scale = KERNEL_WIDTH / max(np.square(x).sum(1).mean(), 1e-9)

    def kernel(a: np.ndarray) -> np.ndarray:
        distance = np.square(a).sum(1)[:, None] + np.square(x).sum(1) - 2 * a @ x.T
        return np.exp(-scale * np.maximum(distance, 0))

    weight = np.linalg.solve(kernel(x) + RIDGE * np.eye(len(x)), target - mean)
    return lambda images: kernel(project(mouth_region(images)).astype(np.float64)) @ weight + mean


def mouth_region(images: np.ndarray) -> np.ndarray:
    """[n, 64, 64, 3] -> the mouth region, [n, 22, 36, 3]."""
    return images[:, MOUTH[0], MOUTH[1]]
