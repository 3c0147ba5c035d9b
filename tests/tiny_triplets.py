"""Records and batches of triplets small enough for tests."""

import jax.numpy as jnp
import numpy as np

from facedisent_jax.data.record import Record
from facedisent_jax.data.triplets import Batch


def face(subject="", expression="", intensity=float("nan"), sequence="", condition="", value=0) -> Record:
    """A record whose image has one value."""
    return Record(np.full((64, 64, 3), value, np.uint8), subject, expression, sequence, condition, 0, intensity)


def pairs(subjects=3) -> list[Record]:
    """A neutral and a smiling image of each subject."""
    return [
        face(f"s{k}", "smile" if y else "neutral", float(y), value=10 * k + y) for k in range(subjects) for y in (0, 1)
    ]


def batch_of(n=4, **changes) -> Batch:
    """Triplets whose images show their own subject (red) and intensity (green)."""
    rng = np.random.default_rng(0)
    subject = rng.permutation(200)[: 2 * n].reshape(n, 2)[:, [0, 0, 1]].T
    intensity = (rng.integers(0, 2, n)[:, None] ^ np.array([0, 1, 0])).T
    images = np.zeros((3, n, 64, 64, 3), np.uint8)
    images[..., 0], images[..., 1] = subject[:, :, None, None], 200 * intensity[:, :, None, None]
    ones = np.ones(n, np.float32)
    batch = Batch(
        images=images,
        intensity=intensity.astype(np.float32),
        label=np.repeat(intensity[:, :, None], 64, axis=2).astype(np.float32),
        is_labelled=np.ones((3, n), np.float32),
        has_b=ones,
        has_c=ones,
        order=np.sign(intensity[1] - intensity[0]).astype(np.float32),
        action_label=np.ones((n, 64), np.float32),
        middle=images[:1],
        alpha=0 * ones,
        has_middle=0 * ones,
    )
    return Batch(*map(jnp.asarray, batch._replace(**changes)))


def floats(batch: Batch):
    """The images of a batch in [0, 1], [3, batch, 64, 64, 3]."""
    return jnp.asarray(batch.images, jnp.float32) / 255
