"""Batches of triplets, prepared ahead of the training step by tf.data."""

from collections.abc import Iterator

from facedisent_jax.data.triplets import Batch, Triplets
from facedisent_jax.environment import import_tensorflow
from facedisent_jax.errors import UserError

GATHER_TRIPLETS = 128  # triplets gathered at once, over several steps: handing them over then costs little


def batches(
    triplets: Triplets,
    seed: int,
    start: int,
    stop: int,
    batch: int,
    rows: slice = slice(None),
    with_images: bool = True,
) -> Iterator[Batch]:
    """The batches of steps start .. stop - 1 in order, prepared ahead in another thread.

    Step k always gets `triplets.batch(seed, k, batch, rows, with_images)`, wherever the stream starts, so a resumed
    run needs no iterator state. Raises UserError for an image on disk that was damaged after the folder was opened.
    """
    tf = import_tensorflow()
    image_type = tf.uint8 if with_images else tf.int32
    types = Batch(*[image_type if name in ("images", "middle") else tf.float32 for name in Batch._fields])
    errors: list[UserError] = []
    steps_per_gather = max(1, GATHER_TRIPLETS // batch)

    def gather_steps(first) -> tuple:
        steps = range(first, min(first + steps_per_gather, stop))
        try:
            return tuple(triplets.batches(seed, steps, batch, rows, with_images))
        except UserError as error:
            errors.append(error)  # TensorFlow replaces it by its own, with a traceback as its message
            raise

    def gather(first):
        return tf.numpy_function(gather_steps, [first], list(types))

    # In one thread: two take turns at the interpreter, and give a quarter fewer images from disk.
    stream = without_autotune(tf.data.Dataset.range(start, stop, steps_per_gather).map(gather).prefetch(2))

    def iterate() -> Iterator[Batch]:
        try:
            for fields in stream.as_numpy_iterator():
                yield from map(Batch, *fields)
        except tf.errors.OpError:
            if errors:
                raise errors[0] from None
            raise

    return iterate()


def without_autotune(dataset):
    """A tf.data.Dataset without TensorFlow's autotuner.

    Our datasets leave it nothing to tune, and closing one would wait until the tuner wakes up: the longer the longer
    the dataset was open (9 s after 11).
    """
    tf = import_tensorflow()
    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.with_options(options)
