"""Reads the intensity of an expression from the edges of the lower face, to find the code that shows it in full.

Edges and not pixels: in pixels, half a closed and half an open mouth are half a smile. To people, and to the face mesh,
they are less.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float

from facedisent_jax.data.labels import draw_labelled

MAX_FITTED = 1000  # images
REGION = slice(32, 64), slice(8, 56)  # rows and columns: the lower face
CELL = 4  # pixels
DIRECTIONS = 8  # of an edge, over half a turn
RIDGE = 0.3  # in mean squared norms


def fit(images: Any, intensity: np.ndarray, seed: int) -> Callable[[np.ndarray], Float[np.ndarray, "n"]]:
    """Ridge regression of the intensity on `edges`.

    images:    [n, 64, 64, 3] uint8, in memory or mapped. Of more than MAX_FITTED, that many are drawn by seed.
    intensity: [n], NaN where unknown.

    Returns a function of float images [k, 64, 64, 3] -> [k].
    """
    rows = draw_labelled(intensity, MAX_FITTED, seed)
    x, target = edges(np.asarray(images[rows], np.float32) / 255), intensity[rows]
    x_mean, target_mean = x.mean(0), float(target.mean())
    x = (x - x_mean).astype(np.float64)
    gram = x @ x.T
    ridge = RIDGE * max(np.trace(gram) / len(gram), 1e-9)
    weight = x.T @ np.linalg.solve(gram + ridge * np.eye(len(gram)), target - target_mean)
    return lambda images: (edges(images) - x_mean) @ weight + target_mean


def edges(images: Float[np.ndarray, "n 64 64 3"]) -> Float[np.ndarray, "n features"]:
    """How strong the edges of each direction are in each cell of the lower face, relative to the whole lower face's.

    Dalal and Triggs 2005, with one block: an edge that fades counts less, but a decoded mouth that is more blurred than
    a real one does not.
    """
    rows, columns = (part[:, *REGION] for part in np.gradient(images.mean(-1), axis=(1, 2)))
    strength = np.hypot(rows, columns)
    strength /= strength.mean((1, 2), keepdims=True) + 1e-6
    direction = (np.arctan2(rows, columns) % np.pi) * DIRECTIONS / np.pi
    lower = np.floor(direction).astype(int)
    one_hot = np.eye(DIRECTIONS, dtype=np.float32)
    share = (direction - lower)[..., None]
    histogram = (1 - share) * one_hot[lower % DIRECTIONS] + share * one_hot[(lower + 1) % DIRECTIONS]
    histogram *= strength[..., None]
    n, height, width, _ = histogram.shape
    cells = histogram.reshape(n, height // CELL, CELL, width // CELL, CELL, DIRECTIONS).mean((2, 4))
    return cells.reshape(n, -1)
