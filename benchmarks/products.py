"""The matrix products of dense layers, alone: what a step cannot be without, whatever is done around them."""

import math
from collections import Counter
from collections.abc import Callable
from typing import Any

Shape = tuple[int, int, int]
"""m, k, n of a product [m, k] x [k, n]."""


def of(run: Callable[[], Any]) -> Counter[Shape]:
    """How often which product is taken by a function of PyTorch, forwards and backwards; convolutions are left out."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    found: Counter[Shape] = Counter()

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if func.overloadpacket in (torch.ops.aten.mm, torch.ops.aten.addmm):
                a, b = args[-2:]
                found[(*a.shape, b.shape[1])] += 1
            return func(*args, **(kwargs or {}))

    with Watch():
        run()
    return found


def operations(products: Counter[Shape]) -> int:
    """Floating-point operations; a multiplication and an addition are two."""
    return sum(2 * math.prod(shape) * count for shape, count in products.items())


def alone(products: Counter[Shape], library: str) -> Callable[[int], None]:
    """All of them and nothing else, by "XLA" (one compiled function) or "PyTorch", as `timing.serve` calls it."""
    import jax
    import numpy as np
    import torch

    rng = np.random.default_rng(0)

    def drawn(*shape):
        return rng.normal(size=shape).astype(np.float32)

    # No two alike, or XLA would take one product for both.
    pairs = [(drawn(m, k), drawn(k, n)) for (m, k, n), count in products.items() for _ in range(count)]
    held = jax.device_put(pairs) if library == "XLA" else [(torch.from_numpy(a), torch.from_numpy(b)) for a, b in pairs]
    every = jax.jit(lambda pairs: [a @ b for a, b in pairs])

    def run(calls: int) -> None:
        for _ in range(calls):
            if library == "XLA":
                jax.block_until_ready(every(held))
            else:
                for a, b in held:
                    torch.mm(a, b)

    return run
