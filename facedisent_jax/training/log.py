"""The log of a run: metrics.jsonl, TensorBoard events and a progress bar."""

import json
import os
import time
from pathlib import Path

from facedisent_jax.config import Config
from facedisent_jax.environment import import_tensorflow
from facedisent_jax.errors import UserError
from facedisent_jax.files import write_atomically


class MetricsLog:
    """The log of process 0. `rewind` comes before anything else."""

    def __init__(self, config: Config):
        from tqdm import tqdm

        tf = import_tensorflow()
        self.path = Path(config.run) / "metrics.jsonl"
        self._bar = tqdm(total=config.steps, unit="step", dynamic_ncols=True)
        self._events, self._scalar = tf.summary.create_file_writer(config.run), tf.summary.scalar
        self._event_error = tf.errors.OpError
        self._images_per_step = 3 * config.batch

    def rewind(self, step: int) -> None:
        """Drop the lines after a step: a continued run writes them again."""
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        write_atomically(self.path, "".join(f"{line}\n" for line in lines if _step(line) <= step))
        self._bar.n = self._bar.initial = self._step = step
        self._time = time.perf_counter()

    def training(self, step: int, terms: dict[str, float], wait_seconds: float) -> None:
        """Log terms that are averaged over the steps since the last call, and the time spent waiting for data."""
        now = time.perf_counter()
        seconds, n = now - self._time, step - self._step
        rate = n * self._images_per_step / seconds
        self._bar.set_postfix_str(
            f"loss {terms['loss']:.4f} {rate:.0f} images/s, {wait_seconds / seconds:.1%} waiting for data",
            refresh=False,
        )
        self._bar.update(n)
        self._write(step, terms | {"images_per_second": round(rate, 1)})
        self._time, self._step = now, step

    def validation(self, step: int, metrics: dict[str, float]) -> None:
        """Log validation metrics. Their time does not count in images per second."""
        psnr = {name: value for name, value in metrics.items() if name.endswith("_psnr")}
        names = {name: name.removeprefix("validation/").removesuffix("_psnr") for name in psnr}
        self._bar.write(
            f"step {step}: validation " + ", ".join(f"{names[name]} {value:.2f} dB" for name, value in psnr.items())
        )
        self._write(step, metrics)
        self._time = time.perf_counter()

    def close(self) -> None:
        self._bar.close()
        try:
            self._events.close()
        except self._event_error:
            pass  # the same numbers are in metrics.jsonl

    def _write(self, step: int, values: dict[str, float]) -> None:
        try:
            with self.path.open("a") as file:
                file.write(json.dumps({"step": step} | values) + "\n")
                file.flush()
                os.fsync(file.fileno())  # a checkpoint is never ahead of the log
        except OSError as error:
            raise UserError(f"{self.path} cannot be written ({error.strerror}).") from error
        try:
            with self._events.as_default(step=step):
                for name, value in values.items():
                    self._scalar(name, value)
        except self._event_error:
            pass  # the same numbers are in metrics.jsonl


class NullLog:
    """The log of every other process: nothing."""

    def rewind(self, *_) -> None:
        pass

    training = validation = close = rewind


def _step(line: str) -> float:
    """The step of a line of metrics.jsonl; infinity for a line that a crash or a full disk has cut short."""
    try:
        return json.loads(line)["step"]
    except (ValueError, TypeError, KeyError):
        return float("inf")
