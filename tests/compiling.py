"""Compiles each kernel to machine code for GPUs that are not here. Arguments: capabilities, such as 80.

Prints a line for each: the kernel, the capability, and the bytes of shared memory that a block takes.
"""

import sys
from typing import Any

import torch
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

from snb.engine import kernels, rowwise_kernel

HEADS, KV_HEADS, HEAD_DIM, WIDTH, CONTEXT = 40, 8, 128, 13824, 4096
"""Shape of Qwen2.5-14B, and the default context."""


class Absent:
    """A GPU of some compute capability: as much of a driver as Triton needs to compile."""

    def __init__(self, capability: int) -> None:
        self._capability = capability

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", self._capability, 32)

    def get_current_device(self) -> int:
        return self._capability

    def get_current_stream(self, device: int) -> int:
        return 0


def compiled(self: Any, *given: Any, grid: object, warmup: bool, **how: Any) -> None:
    """Replaces `JITFunction.run`: compiles, prints the line, and launches nothing."""
    kernel = run(self, *given, grid=grid, warmup=True, **how)
    target = kernel.metadata.target.arch
    assert kernel.asm["cubin"]
    print(self.fn.__name__, target, kernel.metadata.shared)


run, JITFunction.run = JITFunction.run, compiled


def layer(rows: int, dtype: torch.dtype, fp8: bool) -> None:
    """Calls all kernels of one layer."""
    states = torch.zeros(rows, 1, HEADS * HEAD_DIM, dtype=dtype)
    kernels.add_norm(states, states, states[0, 0], 1e-6)
    projected = torch.zeros(rows, 1, (HEADS + 2 * KV_HEADS) * HEAD_DIM, dtype=dtype)
    table, positions = projected[0, 0, :HEAD_DIM], torch.zeros(rows, 1, dtype=torch.int64)
    cache = torch.zeros(1, dtype=dtype).expand(rows, KV_HEADS, CONTEXT + 1, HEAD_DIM)
    queries = kernels.rotate_and_store(projected, (table, table), positions, cache, cache)
    kernels.attend(queries, cache, cache, positions)
    both = torch.zeros(rows, 1, 2 * WIDTH, dtype=dtype)
    kernels.gated(both)
    if fp8:
        kernels.add_norm(states, states, states[0, 0], 1e-6, fp8=True)
        kernels.gated(both, fp8=True)


def products(dtype: torch.dtype) -> None:
    """Calls the product of int8 weights with few tokens and with many."""
    weight, scales = (
        torch.zeros(1, dtype=torch.int8).expand(2 * WIDTH, HEADS * HEAD_DIM),
        torch.zeros(2 * WIDTH),
    )
    for tokens in (16, 512):
        rowwise_kernel.product(torch.zeros(tokens, HEADS * HEAD_DIM, dtype=dtype), weight, scales, None)


if __name__ == "__main__":
    for capability in map(int, sys.argv[1:]):
        driver.set_active(Absent(capability))
        layer(32, torch.bfloat16, fp8=capability >= 89)
        products(torch.bfloat16)
