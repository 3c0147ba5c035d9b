"""Starts the linear path of the hybrid network at principal components of the training images."""

from typing import NamedTuple

import numpy as np

from facedisent_jax.models.codes import PIXELS, Params
from facedisent_jax.models.pca import principal_components


def init_from_pca(
    params: Params, images: np.ndarray, subject: np.ndarray, pixel_weight: np.ndarray, label_dims: int
) -> Params:
    """Set the linear path of a "hybrid" or "warp" network to principal components of images and their mirror images.

    images: [n, 64, 64, 3] uint8.
    subject: [n] names, "" where unknown.
    pixel_weight: [64, 64], of the pixels in the components of the expression.
    label_dims: the first `label_dims` dimensions of the expression code will be trained towards the label. They get the
        smallest principal components, because the label overwrites them.

    The identity code starts as the scores, at unit variance, of components of the subjects' mean images: how people
    differ. The expression logits start as those of components of what is left within a subject: how the images of
    one person differ. The decoded image is then nearly the reconstruction from both, which training can only improve
    on: the dense blocks of the decoder start at nothing. With `expression_rank`, this holds for the identity code
    alone: the bottleneck of the expression code starts at random.
    """
    mean, subject_means, residuals = _split_by_subject(images, subject)
    code_dims = len(params["encoder"]["identity"]["bias"])
    identity = _components(subject_means, code_dims)
    residuals -= (residuals @ identity.basis.T) @ identity.basis
    sqrt_weight = np.repeat(np.sqrt(pixel_weight, dtype=np.float32).ravel(), 3)
    residuals *= sqrt_weight
    expression = _Components(*(np.roll(part, label_dims, axis=0) for part in _components(residuals, code_dims)))

    encode_basis = expression.basis * sqrt_weight
    encode_basis -= (encode_basis @ identity.basis.T) @ identity.basis
    encoder_columns = [(identity.basis / identity.scale[:, None]).T, (encode_basis / expression.scale[:, None]).T]
    # The decoder sees 2 sigmoid(logit) - 1, which is logit / 2 for small logits.
    decode_basis = 2 * expression.basis / sqrt_weight * expression.scale[:, None]
    decoder_columns = [(identity.basis * identity.scale[:, None]).T, decode_basis.T]

    encoder, decoder = params["encoder"], params["decoder"]
    encoder_kernel, decoder_kernel = np.array(encoder["pixel_kernel"]), np.zeros_like(decoder["pixel_kernel"])
    # The network divides its inputs by these roots.
    encoder_kernel[:, -2 * code_dims :] = np.concatenate(encoder_columns, axis=1) * PIXELS**0.5
    decoder_kernel[:, -2 * code_dims :] = np.concatenate(decoder_columns, axis=1) * (2 * code_dims) ** 0.5
    return params | {
        "encoder": encoder | {"pixel_kernel": encoder_kernel, "mean": mean},
        "decoder": decoder | {"pixel_kernel": decoder_kernel, "mean": mean},
    }


class _Components(NamedTuple):
    """basis: [code_dims, pixels], orthonormal rows, zeros where there are fewer components.
    scale: [code_dims], standard deviations, 1 there."""

    basis: np.ndarray
    scale: np.ndarray


def _components(rows: np.ndarray, code_dims: int) -> _Components:
    """The first `code_dims` principal components of the rows [n, pixels], about 0."""
    leading, norms = principal_components(rows, code_dims, tolerance=1e-5)
    basis, scale = np.zeros((code_dims, rows.shape[1]), np.float32), np.ones(code_dims, np.float32)
    basis[: len(leading)] = leading
    scale[: len(leading)] = norms / np.sqrt(len(rows))
    return _Components(basis, scale)


def _split_by_subject(images: np.ndarray, subject: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The mean of images and their mirror images [pixels], the subjects' means about it [subjects, pixels], and what
    is left of every image [2n, pixels]."""
    n = len(images)
    x = np.concatenate([images, images[:, :, ::-1]]).reshape(2 * n, -1).astype(np.float32) / 255
    mean = x.mean(axis=0)
    x -= mean
    # An image of an unknown subject counts as a subject. So does a mirror image: it has its own light and parting.
    name = np.where(subject == "", np.char.add("?", np.arange(n).astype(str)), subject)
    subject_id = np.unique(np.concatenate([name, np.char.add(name, "/mirrored")]), return_inverse=True)[1]
    order, count = np.argsort(subject_id, kind="stable"), np.bincount(subject_id)
    subject_means = np.empty((len(count), x.shape[1]), np.float32)
    for k, rows in enumerate(np.split(order, np.cumsum(count)[:-1])):  # in place: x is large
        subject_means[k] = x[rows].mean(axis=0)
        x[rows] -= subject_means[k]
    return mean, subject_means, x
