"""The matrix products of dense layers, alone: the part of a step that no implementation can avoid."""

import math
from collections import Counter
from collections.abc import Callable
from typing import Any

Shape = tuple[int, int, int]
"""m, k, n of a product [m, k] x [k, n]."""


def count_products(run: Callable[[], Any]) -> Counter[Shape]:
    """Count the matrix products in a PyTorch function, forwards and backwards, without convolutions."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    counts: Counter[Shape] = Counter()

    class ProductCounter(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if func.overloadpacket in (torch.ops.aten.mm, torch.ops.aten.addmm):
                a, b = args[-2:]
                counts[(*a.shape, b.shape[1])] += 1
            return func(*args, **(kwargs or {}))

    with ProductCounter():
        run()
    return counts


def count_flops(counts: Counter[Shape]) -> int:
    """Floating-point operations of the products; a multiplication and an addition are two."""
    return sum(2 * math.prod(shape) * count for shape, count in counts.items())


def multiply(counts: Counter[Shape], library: str) -> Callable[[int], None]:
    """A function that computes the products a number of times, with "XLA" (in one compiled function) or "PyTorch"."""
    import jax
    import numpy as np
    import torch

    rng = np.random.default_rng(0)

    def random(*shape):
        return rng.normal(size=shape).astype(np.float32)

    # No two are equal, or XLA would compute one product for both.
    pairs = [(random(m, k), random(k, n)) for (m, k, n), count in counts.items() for _ in range(count)]
    matrices = (
        jax.device_put(pairs) if library == "XLA" else [(torch.from_numpy(a), torch.from_numpy(b)) for a, b in pairs]
    )
    multiply_all = jax.jit(lambda pairs: [a @ b for a, b in pairs])

    def run(calls: int) -> None:
        for _ in range(calls):
            if library == "XLA":
                jax.block_until_ready(multiply_all(matrices))
            else:
                for a, b in matrices:
                    torch.mm(a, b)

    return run
