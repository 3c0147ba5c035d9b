"""Baselines that a model has to beat: cross-fade, landmark morph, nearest training image."""

from typing import Any

import numpy as np
from jaxtyping import Float, Int

from facedisent_jax.environment import import_matplotlib


def cross_fade(
    a: Float[np.ndarray, "h w 3"], b: Float[np.ndarray, "h w 3"], alpha: Float[np.ndarray, "k"]
) -> Float[np.ndarray, "k h w 3"]:
    """(1 - alpha) a + alpha b, which looks like ghosting."""
    weight = np.asarray(alpha, np.float32)[:, None, None, None]
    return (1 - weight) * a + weight * b


def morph(
    a: Float[np.ndarray, "h w 3"],
    b: Float[np.ndarray, "h w 3"],
    points_a: Float[np.ndarray, "p 2"],
    points_b: Float[np.ndarray, "p 2"],
    alpha: Float[np.ndarray, "k"],
) -> Float[np.ndarray, "k h w 3"]:
    """Landmark morph: both images warped to the shape in between, and cross-faded there.

    points_a, points_b: landmarks in pixels (x, y). The warp is linear within each Delaunay triangle of the landmarks
    and of fixed points on the border.
    """
    import_matplotlib()
    from matplotlib.tri import LinearTriInterpolator, Triangulation

    height, width = a.shape[:2]
    border = np.array([(x, y) for x in np.linspace(0, 1, 5) for y in np.linspace(0, 1, 5) if {x, y} & {0, 1}])
    border = border * (width, height) - 0.5
    inside = ((np.minimum(points_a, points_b) > 0) & (np.maximum(points_a, points_b) < (width - 1, height - 1))).all(1)
    corners_a, corners_b = (np.concatenate([points[inside], border]) for points in (points_a, points_b))
    y, x = np.mgrid[:height, :width]
    out = np.empty((len(alpha), *a.shape), np.float32)
    for k, weight in enumerate(np.asarray(alpha, np.float64)):
        mesh = Triangulation(*((1 - weight) * corners_a + weight * corners_b).T)
        triangles = mesh.get_trifinder()
        # For each output pixel its position in a and in b: columns x, y of each.
        columns = np.concatenate([corners_a, corners_b], axis=1).T
        positions = [LinearTriInterpolator(mesh, column, triangles)(x, y) for column in columns]
        positions = np.stack(positions, axis=-1).astype(np.float32)
        out[k] = (1 - weight) * _sample(a, positions[..., :2]) + weight * _sample(b, positions[..., 2:])
    return out


def _sample(image: np.ndarray, positions: Float[np.ndarray, "h w 2"]) -> np.ndarray:
    """The image at positions (x, y), bilinearly; the border is repeated outside."""
    import cv2

    image, positions = np.asarray(image, np.float32), positions.copy()  # a slice is not contiguous
    return cv2.remap(image, positions, np.empty(0), cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def nearest(candidates: Any, images: Float[np.ndarray, "m h w 3"]) -> Int[np.ndarray, "m"]:
    """For each image the row of the candidate with the least squared error.

    candidates: [n, h, w, 3] uint8, in memory or mapped; read in chunks.
    """
    queries = images.reshape(len(images), -1).astype(np.float32)
    rows, least_distance = np.zeros(len(images), int), np.full(len(images), np.inf)
    for start in range(0, len(candidates), 512):
        chunk = np.asarray(candidates[start : start + 512], np.float32).reshape(-1, queries.shape[1]) / 255
        distance = np.square(chunk).sum(1)[:, None] - 2 * chunk @ queries.T  # without |query|^2, which is constant
        row, least = distance.argmin(0), distance.min(0)
        rows = np.where(least < least_distance, start + row, rows)
        least_distance = np.minimum(least, least_distance)
    return rows
