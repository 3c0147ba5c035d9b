"""What a network has to beat: the mean face and principal components of the training pictures. Imports none of ours."""

import numpy as np


def cross_fade(a: np.ndarray, b: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """(1 - alpha) a + alpha b, what a viewer calls ghosting. a, b: [h, w, 3]; alpha: [k] -> [k, h, w, 3]."""
    weight = np.asarray(alpha, np.float32)[:, None, None, None]
    return (1 - weight) * a + weight * b


def morph(a: np.ndarray, b: np.ndarray, points_a: np.ndarray, points_b: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Landmark morph: both pictures warped to the shape in between, and cross-faded there.

    a, b: [h, w, 3] float; points_a, points_b: [p, 2] landmarks in their pixels (x, y); alpha: [k] -> [k, h, w, 3]. The
    warp is linear within each Delaunay triangle of the landmarks and of fixed points on the border.
    """
    import cv2
    from matplotlib.tri import LinearTriInterpolator, Triangulation

    height, width = a.shape[:2]
    border = np.array([(x, y) for x in np.linspace(0, 1, 5) for y in np.linspace(0, 1, 5) if {x, y} & {0, 1}])
    border = border * (width, height) - 0.5
    inside = ((np.minimum(points_a, points_b) > 0) & (np.maximum(points_a, points_b) < (width - 1, height - 1))).all(1)
    source, target = (np.concatenate([points[inside], border]) for points in (points_a, points_b))
    y, x = np.mgrid[:height, :width]
    way, beyond = cv2.INTER_LINEAR, cv2.BORDER_REPLICATE
    out = np.empty((len(alpha), *a.shape), np.float32)
    for k, weight in enumerate(np.asarray(alpha, np.float64)):
        between = (1 - weight) * source + weight * target
        mesh = Triangulation(*between.T)
        finder = mesh.get_trifinder()
        # where each pixel of the picture in between comes from: x and y in a, x and y in b
        columns = np.concatenate([source, target], axis=1).T
        from_x_y = [LinearTriInterpolator(mesh, column, finder)(x, y) for column in columns]
        places = np.stack(from_x_y, axis=-1).astype(np.float32)
        from_a, from_b = (
            cv2.remap(np.asarray(image, np.float32), place, np.empty(0), way, borderMode=beyond)
            for image, place in ((a, places[..., :2].copy()), (b, places[..., 2:].copy()))
        )
        out[k] = (1 - weight) * from_a + weight * from_b
    return out


def nearest(images, pictures: np.ndarray) -> np.ndarray:
    """For each picture the row of the image with the least squared error. images: [n, ...], pictures: [m, ...] -> [m].

    images: uint8; pictures: float in [0, 1].
    """
    wanted = pictures.reshape(len(pictures), -1).astype(np.float32)
    best, found = np.full(len(pictures), np.inf), np.zeros(len(pictures), int)
    for start in range(0, len(images), 512):
        some = np.asarray(images[start : start + 512], np.float32).reshape(-1, wanted.shape[1]) / 255
        distance = np.square(some).sum(1)[:, None] - 2 * some @ wanted.T
        row, least = distance.argmin(0), distance.min(0)
        found, best = np.where(least < best, start + row, found), np.minimum(least, best)
    return found
