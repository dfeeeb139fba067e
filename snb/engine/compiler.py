"""Whether Triton can compile kernels for a GPU here."""

import os
import shutil
from collections.abc import Iterator
from importlib.util import find_spec

import torch


def capability(device: torch.device) -> tuple[int, int]:
    """Compute capability of a GPU; (0, 0) for a CPU."""
    return torch.cuda.get_device_capability(device) if device.type == "cuda" else (0, 0)


def lacking(capability: tuple[int, int]) -> Iterator[str]:
    """What Triton needs and does not have here, for a GPU of that compute capability."""
    if capability < (8, 0):
        yield "a GPU of compute capability 8.0 or later"
    if not find_spec("triton"):
        yield "Triton, which comes with PyTorch's builds for a GPU"
    if not (os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")):
        yield "a C compiler, with which Triton makes what launches its kernels"
