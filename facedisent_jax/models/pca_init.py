"""TODO."""

import numpy as np

from facedisent_jax.config import CODE_DIMS
from facedisent_jax.models.codes import PIXELS, Params


def init_from_pca(
    params: Params, images: np.ndarray, subject: np.ndarray, weight: np.ndarray, label_dims: int
) -> Params:
    """Set the linear path of a "hybrid" or "warp" network to principal components of pictures and their mirror images.

    images: [n, 64, 64, 3] uint8; subject: [n] names, "" where not known. The identity code begins as the scores, at
    unit variance, of 64 components of the subjects' mean pictures: how people differ. The expression logits begin as
    those of 64 components of what is left within a subject: how one person's pictures differ. The decoded picture is
    then nearly the reconstruction from both, which training can only improve on: the decoder's dense blocks begin at
    nothing.
    weight: [64, 64] of the pixels in the expression's components. label_dims: so many numbers of the expression
    code, its first, are to say how much is shown; they begin with the smallest components, as what they held is lost.
    """
    n = len(images)
    x = np.concatenate([images, images[:, :, ::-1]]).reshape(2 * n, -1).astype(np.float32) / 255
    mean = x.mean(axis=0)
    x -= mean
    # A picture of nobody known is a person of its own; so is a mirror image, which has its own light and parting.
    who = np.where(subject == "", np.char.add("?", np.arange(n).astype(str)), subject)
    person = np.unique(np.concatenate([who, np.char.add(who, "/mirrored")]), return_inverse=True)[1]
    order, count = np.argsort(person, kind="stable"), np.bincount(person)
    people = np.empty((len(count), x.shape[1]), np.float32)
    for k, rows in enumerate(np.split(order, np.cumsum(count)[:-1])):  # in place: x is large
        people[k] = x[rows].mean(axis=0)
        x[rows] -= people[k]
    between, between_scale = _components(people)
    x -= (x @ between.T) @ between
    root = np.repeat(np.sqrt(weight, dtype=np.float32).ravel(), 3)
    x *= root
    within, within_scale = (np.roll(part, label_dims, axis=0) for part in _components(x))
    reading = within * root
    reading -= (reading @ between.T) @ between
    encode = np.concatenate([(between / between_scale[:, None]).T, (reading / within_scale[:, None]).T], axis=1)
    # 2 sigmoid(x) - 1, which the decoder sees of a logit, is x / 2 for small x.
    shown = 2 * within / root * within_scale[:, None]
    decode = np.concatenate([(between * between_scale[:, None]).T, shown.T], axis=1)
    encode, decode = encode * PIXELS**0.5, decode * (2 * CODE_DIMS) ** 0.5  # the network divides by them
    encoder, decoder = params["encoder"], params["decoder"]
    first, last = np.array(encoder["pixels"]), np.zeros_like(decoder["pixels"])
    first[:, -2 * CODE_DIMS :], last[:, -2 * CODE_DIMS :] = encode, decode
    return params | {
        "encoder": encoder | {"pixels": first, "mean": mean},
        "decoder": decoder | {"pixels": last, "mean": mean},
    }


def _components(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The first 64 principal components of the rows of x, about 0.

    x: [n, pixels] -> orthonormal [64, pixels] (rows of zeros where x has fewer) and standard deviations [64].
    """
    # By way of the small matrix of inner products: n is far below the 12,288 pixels.
    values, vectors = np.linalg.eigh(x @ x.T)
    order = np.argsort(values)[::-1][:CODE_DIMS]
    order = order[values[order] > 1e-5 * max(float(values[order[0]]), 1e-12)]
    norm = np.sqrt(values[order])
    basis = np.zeros((CODE_DIMS, x.shape[1]), np.float32)
    basis[: len(order)] = (x.T @ vectors[:, order] / norm).T
    scale = np.ones(CODE_DIMS, np.float32)
    scale[: len(order)] = norm / np.sqrt(len(x))
    return basis, scale
