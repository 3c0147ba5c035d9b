"""TODO."""

from collections.abc import Iterator

from facedisent_jax.data.tf_environment import quiet_tensorflow
from facedisent_jax.data.triplets import Batch, Triplets
from facedisent_jax.errors import UserError

GATHER_TRIPLETS = 128
"""Triplets of several steps that are gathered at once, so that handing them over costs little beside it."""


def batches(
    triplets: Triplets,
    seed: int,
    start: int,
    stop: int,
    batch: int,
    rows: slice = slice(None),
    pictures: bool = True,
) -> Iterator[Batch]:
    """The batches of steps start .. stop - 1, prepared ahead in another thread, in order.

    Step k's batch is `triplets.batch(seed, k, batch, rows, pictures)` however the stream was opened, so a resumed run
    needs no iterator state. Raises RecordError for a picture left on disk that is damaged since the folder was opened.
    """
    quiet_tensorflow()
    import tensorflow as tf

    tf.config.set_visible_devices([], "GPU")  # the GPU is JAX's
    picture = tf.uint8 if pictures else tf.int32
    types = Batch(*[picture if name in ("images", "middle") else tf.float32 for name in Batch._fields])

    faults: list[UserError] = []
    together = max(1, GATHER_TRIPLETS // batch)

    def several(first) -> tuple:
        try:
            return tuple(triplets.batches(seed, range(first, min(first + together, stop)), batch, rows, pictures))
        except UserError as error:
            faults.append(error)  # TensorFlow would make it one of its own, with a traceback for a message
            raise

    def gather(first):
        return tf.numpy_function(several, [first], list(types))

    # In one thread: two take turns at the interpreter, and give a quarter fewer pictures from disk.
    stream = without_autotune(tf.data.Dataset.range(start, stop, together).map(gather).prefetch(2))

    def opened() -> Iterator[Batch]:
        try:
            for fields in stream.as_numpy_iterator():
                yield from map(Batch, *fields)
        except tf.errors.OpError:
            if faults:
                raise faults[0] from None
            raise

    return opened()


def without_autotune(stream):
    """A tf.data.Dataset without TensorFlow's tuner: ours leave it nothing to tune, and their ends would at times wait
    until it wakes, which takes the longer the longer a stream was open (9 s after 11)."""
    import tensorflow as tf

    options = tf.data.Options()
    options.autotune.enabled = False
    return stream.with_options(options)
