"""The encoder and the decoder. The rest of the library sees `init`, `encode`, `decode` and `Codes`; Flax stays here."""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from facedisent_jax import warp
from facedisent_jax.align import head_motion
from facedisent_jax.config import CODE, ModelConfig
from facedisent_jax.layers import ConvBlock, DenseBlock, conv, dense, depth_to_space, matmul, space_to_depth
from facedisent_jax.warp import Shown, Source

SIZE = 64
PIXELS = SIZE * SIZE * 3
SMALL = nn.initializers.normal(0.002)
"""Heads begin near the linear path alone."""
Params = Any


class Codes(NamedTuple):
    """Latent codes of a batch of faces.

    identity:   [batch, 64], unbounded.
    expression: [batch, 64], in [0, 1]; moves along a line from neutral (label vector 0) to the full expression (1).
    """

    identity: Float[Array, "batch 64"]
    expression: Float[Array, "batch 64"]


class Encoded(NamedTuple):
    """What training sees: the identity code and the logits of the expression code, [batch, 64] each."""

    identity: Float[Array, "batch 64"]
    logits: Float[Array, "batch 64"]

    @property
    def codes(self) -> Codes:
        return Codes(self.identity, nn.sigmoid(self.logits))


class HybridEncoder(nn.Module):
    """Dense blocks for identity, convolutions for expression, beside a linear path: [n, 64, 64, 3] -> `Encoded`.

    The two heads share no layer: what the label asks of the expression does not disturb the identity. A smile is local
    and looks alike wherever the mouth is, which convolutions learn from fewer people than dense layers (measured).
    The inputs of the widest layers are divided by the root of their number, and the weights larger by as much: a step
    of Adam changes all weights alike, and thousands of changes at once would undo what was learnt (muP, Yang et al.
    2022). The linear path and the first dense layer are one matrix with a row a pixel, as the decoder's last are: its
    gradient costs half of that of its transpose, and one large product less than two (measured with XLA on CPU).
    """

    config: ModelConfig

    @nn.compact
    def __call__(self, x):
        compute, width = self.config.compute, self.config.width
        mean = self.param("mean", nn.initializers.constant(0.5), (PIXELS,))
        pixels = self.param("pixels", nn.initializers.normal(1.0), (PIXELS, width + 2 * CODE))
        # The mean is not trained: the heads have biases, and its gradient would cost as much as another layer.
        flat = (x.reshape(len(x), -1) - jax.lax.stop_gradient(mean)[None]) / PIXELS**0.5
        y = matmul(compute, flat, pixels)
        y, straight = y[:, :width], y[:, width:]

        for _ in range(self.config.blocks):
            y = DenseBlock(compute)(y)
        identity = dense(compute, CODE, kernel_init=SMALL, name="identity")(nn.LayerNorm()(y))

        y = conv(compute, width // 16)(space_to_depth(x - 0.5, 4))
        y = nn.silu(nn.GroupNorm(num_groups=8)(y))
        y = ConvBlock(compute)(conv(compute, width // 8)(space_to_depth(y, 2)))
        y = nn.silu(nn.GroupNorm(num_groups=8)(y)).reshape(len(y), -1)
        y = dense(compute, width // 4, kernel_init=nn.initializers.normal(1.0))(y / y.shape[-1] ** 0.5)
        y = nn.silu(nn.LayerNorm()(y))
        expression = dense(compute, CODE, kernel_init=SMALL, name="expression")(y)

        return Encoded(identity + straight[:, :CODE], expression + straight[:, CODE:])


class HybridDecoder(nn.Module):
    """Dense blocks beside a linear path: identity and expression code -> [n, 64, 64, 3]. Both end in one matrix.

    Without convolutions: it runs on eight codes for each triplet, and a matrix product makes a picture in a fraction of
    the time of convolutions with few channels (measured with XLA on CPU).
    """

    config: ModelConfig

    @nn.compact
    def __call__(self, identity, expression):
        compute, width = self.config.compute, self.config.width
        codes = jnp.concatenate([identity, 2 * expression - 1], axis=-1)
        y = dense(compute, width)(codes)
        for _ in range(self.config.blocks):
            y = DenseBlock(compute)(y)
        bent, straight = nn.LayerNorm()(y) / width**0.5, codes / (2 * CODE) ** 0.5
        y = jnp.concatenate([bent, straight], axis=-1)
        mean = self.param("mean", nn.initializers.constant(0.5), (PIXELS,))
        pixels = self.param("pixels", nn.initializers.normal(0.1), (PIXELS, width + 2 * CODE))
        picture = matmul(compute, y, pixels, axis=1) + mean[None]
        return picture.reshape(-1, SIZE, SIZE, 3)


class PlainEncoder(nn.Module):
    """The poster's kind of network: four halving convolutions, 64x64 -> 4x4, and a dense layer."""

    config: ModelConfig

    @nn.compact
    def __call__(self, x):
        compute = self.config.compute
        y = x - 0.5
        for scale in range(4):
            # Space-to-depth and a dense convolution: the gradient of a strided one is dilated, and slow in XLA on CPU.
            y = conv(compute, self.config.width << scale)(space_to_depth(y, 2))
            y = nn.relu(nn.GroupNorm(num_groups=8)(y))
        y = dense(compute, 2 * CODE)(y.reshape(len(y), -1))
        return Encoded(y[:, :CODE], y[:, CODE:])


class PlainDecoder(nn.Module):
    """A dense layer to 4x4, then four doubling sub-pixel convolutions (Shi et al. 2016) instead of transposed ones."""

    config: ModelConfig

    @nn.compact
    def __call__(self, identity, expression):
        compute = self.config.compute
        width = self.config.width << 3
        y = dense(compute, 16 * width)(jnp.concatenate([identity, 2 * expression - 1], axis=-1))
        y = y.reshape(-1, 4, 4, width)
        for scale in (2, 1, 0):
            y = nn.relu(nn.GroupNorm(num_groups=8)(y))
            y = depth_to_space(conv(compute, 4 * (self.config.width << scale))(y), 2)
        y = nn.relu(nn.GroupNorm(num_groups=8)(y))
        return depth_to_space(conv(compute, 12)(y), 2) + 0.5


def _networks(config: ModelConfig) -> tuple[nn.Module, nn.Module]:
    encoder, decoder = (PlainEncoder, PlainDecoder) if config.kind == "plain" else (HybridEncoder, HybridDecoder)
    return encoder(config), decoder(config)


def init(config: ModelConfig, key: Array) -> Params:
    """New weights as a plain pytree {"encoder": ..., "decoder": ...}, float32, from a random key; "warp" besides."""
    encoder, decoder = _networks(config)
    code = jnp.zeros((1, CODE))
    first, second = jax.random.split(key)
    params = {
        "encoder": encoder.init(first, jnp.zeros((1, SIZE, SIZE, 3)))["params"],
        "decoder": decoder.init(second, code, code)["params"],
    }
    return params | {"warp": warp.init(config, jax.random.fold_in(key, 2))} if config.kind == "warp" else params


def begin_at_principal_components(
    params: Params, images: np.ndarray, subject: np.ndarray, weight: np.ndarray, label_numbers: int
) -> Params:
    """Set the linear path of a "hybrid" or "warp" network to principal components of pictures and their mirror images.

    images: [n, 64, 64, 3] uint8; subject: [n] names, "" where not known. The identity code begins as the scores, at
    unit variance, of 64 components of the subjects' mean pictures: how people differ. The expression logits begin as
    those of 64 components of what is left within a subject: how one person's pictures differ. The decoded picture is
    then nearly the reconstruction from both, which training can only improve on: the decoder's dense blocks begin at
    nothing.
    weight: [64, 64] of the pixels in the expression's components. label_numbers: so many numbers of the expression
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
    within, within_scale = (np.roll(part, label_numbers, axis=0) for part in _components(x))
    reading = within * root
    reading -= (reading @ between.T) @ between
    encode = np.concatenate([(between / between_scale[:, None]).T, (reading / within_scale[:, None]).T], axis=1)
    # 2 sigmoid(x) - 1, which the decoder sees of a logit, is x / 2 for small x.
    shown = 2 * within / root * within_scale[:, None]
    decode = np.concatenate([(between * between_scale[:, None]).T, shown.T], axis=1)
    encode, decode = encode * PIXELS**0.5, decode * (2 * CODE) ** 0.5  # the network divides by them
    encoder, decoder = params["encoder"], params["decoder"]
    first, last = np.array(encoder["pixels"]), np.zeros_like(decoder["pixels"])
    first[:, -2 * CODE :], last[:, -2 * CODE :] = encode, decode
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
    order = np.argsort(values)[::-1][:CODE]
    order = order[values[order] > 1e-5 * max(float(values[order[0]]), 1e-12)]
    norm = np.sqrt(values[order])
    basis = np.zeros((CODE, x.shape[1]), np.float32)
    basis[: len(order)] = (x.T @ vectors[:, order] / norm).T
    scale = np.ones(CODE, np.float32)
    scale[: len(order)] = norm / np.sqrt(len(x))
    return basis, scale


def encode_logits(config: ModelConfig, params: Params, images: Float[Array, "batch 64 64 3"]) -> Encoded:
    """images: [batch, 64, 64, 3] float in [0, 1] -> identity code and expression logits, [batch, 64] float32 each."""
    return _networks(config)[0].apply({"params": params["encoder"]}, images)  # type: ignore[return-value]


def encode(config: ModelConfig, params: Params, images: Float[Array, "batch 64 64 3"]) -> Codes:
    """images: [batch, 64, 64, 3] float in [0, 1] -> Codes."""
    return encode_logits(config, params, images).codes


def source(config: ModelConfig, params: Params, pictures: Float[Array, "batch 64 64 3"]) -> Source:
    """Pictures as `decode` takes them: [batch, 64, 64, 3] float in [0, 1] with their codes and what these show."""
    codes = encode(config, params, pictures)
    return Source(pictures, *codes, decode(config, params, codes))


def show(
    config: ModelConfig, params: Params, codes: Codes, *sources: Source, place: Any = None, sharp: bool = False
) -> Shown:
    """`decode` with one or two sources (kind "warp"), and what was done to them. sharp: as decode, at a higher cost."""
    if len(sources) == 2:  # the identity code says where the head is, and of two pictures `place` does
        share = jnp.clip(place, 0, 1)[:, None]
        codes = codes._replace(identity=(1 - share) * sources[0].identity + share * sources[1].identity)
    # What the codes alone show is learnt from its own terms of the loss.
    decoded = jax.lax.stop_gradient(decode(config, params, codes))
    sources = tuple(source._replace(decoded=jax.lax.stop_gradient(source.decoded)) for source in sources)
    head = _head(decoded, sources, place)
    return warp.show(config, params["warp"], codes.expression, decoded, sources, head, place, sharp)


def _head(decoded: Float[Array, "batch 64 64 3"], sources: tuple[Source, ...], place: Any) -> Array:
    """What moves the head of each source to where the codes have it, [sources, batch, 64, 64, 2]: no expression, and
    found without learning. Between two pictures it goes evenly; of one, the pictures decoded from its own codes and
    from those asked for tell it, as both are blurred alike."""
    if len(sources) == 2:
        first, second = sources
        share = jnp.clip(place, 0, 1)[:, None, None, None]
        found = head_motion(first.pictures, second.pictures)
        return jnp.stack([share * found, (share - 1) * found])
    (only,) = sources
    return head_motion(only.decoded, decoded)[None]


def decode(
    config: ModelConfig, params: Params, codes: Codes, *sources: Source, place: Any = None
) -> Float[Array, "batch 64 64 3"]:
    """Codes -> pictures [batch, 64, 64, 3] float32; meant for [0, 1], and not clipped to it.

    sources: none, or (kind "warp") a picture of each person, or two between which the codes lie: they tell who is
    shown, and the codes what moves. Of one picture both codes say where the head is, and the identity code must be
    that of a picture of this person: another's is painted over it. Of two `place` says it, and the identity code is not
    read. place: [batch] where between two, 0 at the first, 1 at the second.
    """
    if sources:
        return show(config, params, codes, *sources, place=place, sharp=True).pictures
    return _networks(config)[1].apply({"params": params["decoder"]}, *codes)  # type: ignore[return-value]
