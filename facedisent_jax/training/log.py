"""What a run writes as it goes: its log, and files that are whole or not there. Imports config.

TensorFlow is imported for the TensorBoard events alone.
"""

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from facedisent_jax.config import Config
from facedisent_jax.errors import UserError


class MetricsLog:
    """The run's metrics.jsonl, TensorBoard events and progress bar.

    Lines that cannot be written (a full disk) are kept and written as soon as they can; `flush` raises RunError while
    they cannot. `rewind` comes before all else.
    """

    def __init__(self, config: Config):
        import tensorflow as tf
        from tqdm import tqdm

        self.path = Path(config.run) / "metrics.jsonl"
        self.bar = tqdm(total=config.steps, unit="step", dynamic_ncols=True)
        self.events, self.scalar = tf.summary.create_file_writer(config.run), tf.summary.scalar
        self.event_error = tf.errors.OpError
        self.pictures = 3 * config.batch

    def rewind(self, step: int) -> None:
        """Go back to a step: the lines after it will be written again."""
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        kept = "".join(f"{line}\n" for line in lines if _step(line) <= step)
        write_atomically(self.path, kept)
        self.size, self.unwritten = len(kept.encode()), ""
        self.bar.n = self.bar.initial = self.step = step
        self.time = time.perf_counter()

    def training(self, step: int, terms: dict[str, float], waited: float) -> None:
        """Terms averaged over the steps since the last call, and the seconds of waiting for data."""
        now = time.perf_counter()
        rate = (step - self.step) * self.pictures / (now - self.time)
        self.bar.set_postfix_str(
            f"loss {terms['loss']:.4f} {rate:.0f} images/s, {waited / (now - self.time):.1%} waiting for data",
            refresh=False,
        )
        self.bar.update(step - self.step)
        self.write(step, terms | {"images_per_second": round(rate, 1)})
        self.time, self.step = now, step

    def validation(self, step: int, figures: dict[str, float]) -> None:
        said = ", ".join(f"{k.removeprefix('validation/').removesuffix('_psnr')} {v:.2f} dB" for k, v in figures.items()
                         if k.endswith("_psnr"))  # fmt: skip
        self.say(f"step {step}: validation {said}")
        self.write(step, figures)
        self.time = time.perf_counter()  # the time of validation is not the training's

    def say(self, sentence: str) -> None:
        """Print without breaking the progress bar."""
        self.bar.write(sentence)

    def write(self, step: int, values: dict[str, float]) -> None:
        self.unwritten += json.dumps({"step": step} | values) + "\n"
        with suppress(UserError):  # the next flush tries again
            self.flush()
        try:
            with self.events.as_default(step=step):
                for name, value in values.items():
                    self.scalar(name, value)
        except self.event_error:
            pass  # the same numbers are in metrics.jsonl

    def flush(self) -> None:
        """Write all lines to the disk. Raises RunError; what was written in part is written again the next time."""
        with _writing(self.path), self.path.open("r+b") as file:
            file.truncate(self.size)
            file.seek(self.size)
            text = self.unwritten.encode()
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        self.size, self.unwritten = self.size + len(text), ""

    def close(self) -> None:
        self.bar.close()
        try:
            self.events.close()
        except self.event_error:
            pass


class NullLog:
    """What the processes besides the first have for a log."""

    def rewind(self, *_) -> None:
        """Nothing is written."""

    training = validation = say = flush = close = rewind


def _step(line: str) -> float:
    """The step of a line of metrics.jsonl; of one cut short by a kill, later than all."""
    try:
        return json.loads(line)["step"]
    except (ValueError, TypeError, KeyError):
        return float("inf")


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror}).") from error
