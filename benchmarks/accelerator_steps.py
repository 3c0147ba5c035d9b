"""Piece "steps" of accelerator.py: milliseconds a step and images a second, one factor varied at a time.

The base is the preset `smile` with 256 triplets, TF32 products, one step a call, and images streamed by a thread of
the host. Each row is a program of its own. All are compiled together after the first, which is compiled alone.
"""

import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from copy import copy
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple
from unittest import mock

import accelerator_pictures as pictures
import floor
import jax
import jax.numpy as jnp
import numpy as np
from accelerator_figures import START, Piece, report

from facedisent_jax.data.record import Faces
from facedisent_jax.data.triplets import Batch
from facedisent_jax.models import cpu as rewrites
from facedisent_jax.training import distributed
from facedisent_jax.training.step import TrainState, init_state, train_step, train_steps

TF32, FLOAT32 = "tensorfloat32", "highest"
ROUNDS = 5
ROUND_SECONDS = 0.5  # of each row
SECONDS = 4  # with less time left, the next row is left out
TIMING_SECONDS = 45  # kept from the compiler for timing
MATRIX = 8192
COPY_BYTES = 1 << 30


class Row(NamedTuple):
    """What is timed. dtype, precision: of matrix products. resident: images on the device. twins: without the CPU
    workarounds. on_disk: images mapped on disk."""

    name: str
    preset: str = "smile"
    batch: int = 256
    steps_per_call: int = 1
    dtype: str = "float32"
    precision: str = TF32
    resident: bool = False
    twins: bool = False
    on_disk: bool = False


BASE = Row("smile, 256 triplets, TF32, one step a call, streamed")
SMALL = Row("32 triplets", batch=32)
SMALL_RESIDENT = Row("32 triplets, K = 50, resident", batch=32, steps_per_call=50, resident=True)
LARGE = Row("2,048 triplets", batch=2048)
LARGE_BFLOAT16 = Row("2,048 triplets, bfloat16", batch=2048, dtype="bfloat16")
TWINS = Row("plain twins of models/cpu.py", twins=True)
WARP = Row("warp", preset="warp")
ON_DISK = Row("images mapped on disk", on_disk=True)
ROWS = [  # most important first
    TWINS,
    SMALL,
    SMALL_RESIDENT,
    Row("resident", resident=True),
    LARGE,
    LARGE_BFLOAT16,
    Row("bfloat16", dtype="bfloat16"),
    Row("K = 50", steps_per_call=50),
    WARP,
    Row("float32", precision=FLOAT32),
    Row("K = 10", steps_per_call=10),
    Row("intensity", preset="intensity"),
    Row("poster", preset="poster"),
]
REHEARSAL = [TWINS, SMALL_RESIDENT, LARGE_BFLOAT16, WARP]


class Rates(NamedTuple):
    """What the device reaches alone. products: FLOP/s by (dtype, precision). copy: bytes/s, read and written."""

    products: dict[tuple[str, str], float]
    copy: float


def measure(piece: Piece) -> None:
    faces, _ = pictures.load(piece.pictures)
    states: dict[str, TrainState] = {}
    base = Program(piece, BASE, faces, states)
    base.compile()
    base.run(1)
    report("from the start to the end of the first step", time.monotonic() - START, "s", at_most=30)
    report("compiling the default step", base.compile_seconds, "s", f"tracing it before: {base.trace_seconds:.1f} s")
    report_memory()
    rates = measure_rates(piece)
    seconds = {BASE: base.report(rates)}
    with ThreadPoolExecutor(8) as pool, tempfile.TemporaryDirectory() as folder:
        on_disk = base.with_faces(ON_DISK, pictures.map_images(faces, Path(folder) / "images"))
        seconds[ON_DISK] = on_disk.report(rates)
        programs = {}
        for row in REHEARSAL if piece.rehearse else ROWS:
            with plain_twins() if row.twins else ExitStack():
                programs[row] = Program(piece, row, faces, states)
            programs[row].compiling = pool.submit(programs[row].compile)
        # The compiler tries kernels on the device, which would disturb what is timed.
        wait([program.compiling for program in programs.values()], max(0.0, piece.left() - TIMING_SECONDS))
        compare_twins(base, programs.pop(TWINS))
        for row, program in programs.items():
            if not piece.has(SECONDS):
                report(f"step, {row.name}", None, note="no time left")
                continue
            try:
                seconds[row] = program.report(rates)
            except Exception as error:  # such as too little memory for 2,048 triplets: the other rows go on
                report(f"step, {row.name}", None, note=str(error).strip().splitlines()[0][:200])
    report_ratio("K = 50 and resident / K = 1 and streamed, 32 triplets", seconds, SMALL, SMALL_RESIDENT, at_least=3)
    report_ratio("bfloat16 / TF32, 2,048 triplets", seconds, LARGE, LARGE_BFLOAT16, at_least=1)


class Program:
    """The step of a row, with its state and its stream of batches."""

    def __init__(self, piece: Piece, row: Row, faces: Faces, states: dict[str, TrainState]):
        """Traces the step. states: those before the first step, on the host, by preset; filled as needed."""
        self.row, self.rehearse = row, piece.rehearse
        changes = {"batch": row.batch, "steps_per_call": row.steps_per_call, "dataset_on_device": row.resident}
        self.config = pictures.preset_config(row.preset, piece.rehearse, dtype=row.dtype, **changes)
        if row.preset not in states:
            states[row.preset] = jax.device_get(init_state(self.config, faces))
        self.state = distributed.replicated(states[row.preset])
        self.images = distributed.replicated(faces.image) if row.resident else None
        self.batches = pictures.stream(self.config, pictures.triplets_of(self.config, faces))
        self.in_flight: list[dict] = []
        self.wait_seconds = 0.0
        self.compiling: Future | None = None
        step = train_step if self.config.steps_per_call == 1 else train_steps
        start = time.perf_counter()
        with jax.default_matmul_precision(row.precision):
            traced = step.trace(self.config, self.state, self._next_batch(), self.images)
            self.lowered = traced.lower()
        self.trace_seconds = time.perf_counter() - start
        self.flops = floor.count_flops(traced.jaxpr.jaxpr) / self.config.steps_per_call

    def compile(self) -> None:
        start = time.perf_counter()
        self.executable = self.lowered.compile()
        self.compile_seconds = time.perf_counter() - start

    def with_faces(self, row: Row, faces: Faces) -> "Program":
        """The same program, which gets its batches from elsewhere."""
        program = copy(self)
        program.row, program.wait_seconds, program.in_flight = row, 0.0, []
        program.state = jax.tree.map(jnp.copy, self.state)
        program.batches = pictures.stream(self.config, pictures.triplets_of(self.config, faces))
        return program

    def _next_batch(self) -> Batch:
        return distributed.shard_batch(next(self.batches), leading_axes=int(self.config.steps_per_call > 1))

    def run(self, calls: int) -> None:
        """Make calls as the training loop does, and wait for the last. Adds to `wait_seconds` what the device waits."""
        for _ in range(calls):
            start = time.perf_counter()
            batch = self._next_batch()
            if not self.in_flight or self.in_flight[-1]["loss"].is_ready():
                self.wait_seconds += time.perf_counter() - start
            if len(self.in_flight) > 1:
                jax.block_until_ready(self.in_flight.pop(0))
            self.state, metrics = self.executable(self.state, batch, self.images)
            self.in_flight.append(metrics)
        jax.block_until_ready((self.state, self.in_flight))

    def round(self) -> tuple[float, float]:
        """Seconds of a step in one round, and the share of them in which the device waited for a batch."""
        calls = self.calls
        self.run(1)  # other programs have run since
        self.wait_seconds, start = 0.0, time.perf_counter()
        self.run(calls)
        seconds = time.perf_counter() - start
        return seconds / calls / self.config.steps_per_call, self.wait_seconds / seconds

    def prepare(self) -> None:
        """Wait for the compiler, and find out how many calls make a round."""
        if self.compiling:
            self.compiling.result()
        self.calls = 1
        seconds = min(self.round()[0] for _ in range(2)) * self.config.steps_per_call
        self.calls = 2 if self.rehearse else max(2, int(ROUND_SECONDS / seconds))

    def report(self, rates: Rates) -> float:
        """Time the row and report it. Returns seconds of a step."""
        self.prepare()
        rounds = [self.round() for _ in range(ROUNDS)]
        seconds, waiting_share = (median(values) for values in zip(*rounds, strict=True))
        batch, product_rate = self.config.batch, rates.products[self.row.dtype, self.row.precision]
        memory, cost = self.executable.memory_analysis(), self.executable.cost_analysis() or {}
        details: dict[str, Any] = {
            "images_per_second": 3 * batch / seconds,
            "share_of_product_rate": self.flops / seconds / product_rate,
            "flops": self.flops,
            "compile_seconds": self.compile_seconds,
            "waiting_share": waiting_share,
            "least_ms": 1e3 * min(value for value, _ in rounds),
            "most_ms": 1e3 * max(value for value, _ in rounds),
        }
        note = f"{3 * batch / seconds:,.0f} images/s; {details['share_of_product_rate']:.0%} of the product rate"
        if self.config.steps_per_call == 1 and "bytes accessed" in cost:  # of a loop they are counted once
            details["bytes"] = cost["bytes accessed"]
            details["share_of_copy_rate"] = cost["bytes accessed"] / seconds / rates.copy
            note += f"; {details['share_of_copy_rate']:.0%} of the copy rate"
        if memory:
            details["program_bytes"] = memory.temp_size_in_bytes + memory.argument_size_in_bytes
            note += f"; {details['program_bytes'] / 1e9:.2f} GB"
        note += f"; compiled in {self.compile_seconds:.1f} s"
        report(f"step, {self.row.name}", 1e3 * seconds, "ms", note, **details)
        if self.row in (BASE, ON_DISK):
            place = "mapped on disk" if self.row.on_disk else "in memory"
            report(f"share of time waiting for images {place}", waiting_share, "", at_most=0.05)
        return seconds


def compare_twins(base: Program, twins: Program) -> None:
    """Time the step and the one without the CPU workarounds in turn."""
    base.prepare()
    twins.prepare()
    rounds = [(base.round()[0], twins.round()[0]) for _ in range(ROUNDS)]
    seconds, twin_seconds = (median(values) for values in zip(*rounds, strict=True))
    note = f"{1e3 * twin_seconds:.2f} ms with the twins; {ROUNDS} rounds in turn"
    report("step / step with the plain twins of models/cpu.py", seconds / twin_seconds, "times", note, at_most=1.03)


def report_ratio(what: str, seconds: dict[Row, float], slow: Row, fast: Row, at_least: float) -> None:
    """Report how many times as fast `fast` is as `slow`, if both were timed."""
    if slow in seconds and fast in seconds:
        report(what, seconds[slow] / seconds[fast], "times as fast", at_least=at_least)


def report_memory() -> None:
    """Report the most memory that the device has used so far, by the default step alone."""
    statistics = jax.devices()[0].memory_stats() or {}
    peak = statistics.get("peak_bytes_in_use")
    note = "" if peak else "this device does not say"
    report("peak memory after the default step", peak and peak / 1e9, "GB", note)


def measure_rates(piece: Piece) -> Rates:
    """Time large products and copies alone, and report them."""
    size, copy_bytes = (256, 1 << 20) if piece.rehearse else (MATRIX, COPY_BYTES)
    products = {}
    for dtype, precision, name in (
        ("float32", TF32, "TF32"),
        ("float32", FLOAT32, "float32"),
        ("bfloat16", TF32, "bfloat16"),
    ):
        a, b = (jax.random.normal(jax.random.key(k), (size, size)).astype(dtype) for k in range(2))
        with jax.default_matmul_precision(precision):
            multiply = jax.jit(lambda a, b: jax.lax.dot(a, b, preferred_element_type=jnp.float32)).lower(a, b).compile()
        products[dtype, precision] = 2 * size**3 / call_seconds(lambda: multiply(a, b))  # noqa: B023  (called here)
        report(f"product of {size}x{size} matrices, {name}", products[dtype, precision] / 1e12, "TFLOP/s")
    values = jnp.zeros(copy_bytes // 4)
    negate = jax.jit(jnp.negative)
    copy_rate = 2 * copy_bytes / call_seconds(lambda: negate(values))
    report("copies on the device, read and written", copy_rate / 1e9, "GB/s", f"of {copy_bytes / 1e6:.0f} MB")
    host_values = np.zeros(copy_bytes // 4, np.float32)
    host_rate = copy_bytes / call_seconds(lambda: jax.device_put(host_values))
    report("copies from the host", host_rate / 1e9, "GB/s", f"of {copy_bytes / 1e6:.0f} MB")
    return Rates(products, copy_rate)


def call_seconds(call: Callable[[], Any], calls: int = 10) -> float:
    """Median seconds of a call over some rounds of calls."""
    jax.block_until_ready(call())
    rounds = []
    for _ in range(3):
        start = time.perf_counter()
        for _ in range(calls):
            result = call()
        jax.block_until_ready(result)
        rounds.append((time.perf_counter() - start) / calls)
    return median(rounds)


@contextmanager
def plain_twins() -> Iterator[None]:
    """Within, the plain twins stand in for the rewrites of models/cpu.py, wherever these are imported."""
    names = [name for name in vars(rewrites) if hasattr(rewrites, f"plain_{name}")]
    modules = [module for name, module in sys.modules.items() if name.startswith("facedisent_jax.")]
    with ExitStack() as stack:
        for module in modules:
            for name in names:
                rewrite = getattr(rewrites, name)
                if module is not rewrites and getattr(module, name, None) is rewrite:
                    stack.enter_context(mock.patch.object(module, name, getattr(rewrites, f"plain_{name}")))
        jax.clear_caches()  # or the step would not be traced again
        yield
    jax.clear_caches()
