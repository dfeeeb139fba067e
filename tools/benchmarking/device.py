"""The rates that a device reaches. Run as a program, holds all of a card's memory but the given GiB."""

import sys
import time
from collections.abc import Callable

import torch

from snb.card import GIB
from tools.benchmarking.bounds import Rates

SIZES = {"cuda": (2**28, 8192), "cpu": (2**28, 1024)}
"""Bytes of a tensor that is copied, far more than any cache holds; width of square matrices to multiply."""


def rates(kind: str, dtype: torch.dtype) -> Rates:
    """Measures the device: bytes/s of a copy, reads and writes counted, and operations/s of a product."""
    size, width = SIZES[kind]
    source = torch.ones(size, dtype=torch.uint8, device=kind)
    target = torch.empty_like(source)
    matrix = torch.randn(width, width, device=kind).to(dtype)
    copying = min(seconds(kind, lambda: target.copy_(source), 5))
    multiplying = min(seconds(kind, lambda: matrix @ matrix, 5))
    return Rates(2 * size / copying, 2 * width**3 / multiplying)


def seconds(kind: str, work: Callable[[], object], tries: int) -> list[float]:
    """Seconds of each of `tries` runs of `work`, after one that is not counted."""
    taken = []
    for _ in range(tries + 1):
        began = time.perf_counter()
        work()
        if kind == "cuda":
            torch.cuda.synchronize()
        taken.append(time.perf_counter() - began)
    return taken[1:]


def hold(gib: float) -> None:
    """Leaves `gib` GiB free on the card until stdin closes, at the latest when the parent process ends."""
    spare = torch.cuda.mem_get_info()[0] - int(gib * GIB)
    held = torch.empty(spare, dtype=torch.uint8, device="cuda")
    print("held", held.nbytes, flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    hold(float(sys.argv[1]))
