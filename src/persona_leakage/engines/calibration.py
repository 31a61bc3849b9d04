"""How fast this processor multiplies matrices, so that times measured on another one can be carried over to it."""

import time

_ROWS, _IN, _OUT = 512, 576, 1536  # a training step's rows through an MLP of the small model


def measure_gflops(dtype: str, seconds: float = 1.0) -> float:
    """Multiply matrices on the CPU for so long, and return the speed in GFLOP/s."""
    import torch

    left, right = torch.rand(_ROWS, _IN).to(getattr(torch, dtype)), torch.rand(_IN, _OUT).to(getattr(torch, dtype))
    left @ right  # the first one also prepares
    done, started = 0, time.perf_counter()
    while (taken := time.perf_counter() - started) < seconds:
        left @ right
        done += 1
    return done * 2 * _ROWS * _IN * _OUT / taken / 1e9
