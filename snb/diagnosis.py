"""Names the faults of a GPU: why torch cannot use it, and when its memory runs out."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from snb.errors import DeviceUnusable, OutOfMemory


@dataclass(frozen=True)
class Evidence:
    """What a machine shows of its GPUs: all that `diagnose` looks at."""

    torch_cuda: str | None
    """The CUDA version that torch was built for; None for a CPU-only build."""
    available: bool
    """Whether torch can use a GPU."""
    devices_visible: bool
    """Whether this process sees a GPU's device file."""
    driver_version: str | None
    """Version of the kernel's NVIDIA driver, which a container sees even without a GPU."""
    torch_error: str
    """torch's error message when it tries to use a GPU; empty when that works."""
    hidden: bool = False
    """Whether CUDA_VISIBLE_DEVICES names no GPU."""

    @classmethod
    def gather(cls) -> "Evidence":
        try:
            torch.cuda.current_device()
            message = ""
        except (RuntimeError, AssertionError) as error:
            message = str(error).strip().rstrip(".")
        module = Path("/proc/driver/nvidia/version")
        version = re.search(r"\b\d{3,}(\.\d+)+", module.read_text() if module.exists() else "")
        return cls(
            torch_cuda=torch.version.cuda,
            available=torch.cuda.is_available(),
            devices_visible=any(Path("/dev").glob("nvidia[0-9]*")),
            driver_version=version.group() if version else None,
            torch_error=message,
            hidden=os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"),
        )


def diagnose(evidence: Evidence, wanted: str) -> str:
    """The kind of device, `cuda` or `cpu`, for a setting of `auto`, `cuda` or `cpu`.

    Raises:
        DeviceUnusable: a GPU was asked for, or is in the machine, and cannot be used; the CPU is no fallback.
    """
    if wanted != "cpu" and evidence.available:
        return "cuda"
    if wanted == "cpu" or (wanted == "auto" and not evidence.devices_visible and not evidence.driver_version):
        return "cpu"
    faults, cures = zip(*_faults(evidence), strict=True)
    raise DeviceUnusable(faults, ". ".join([*cures, "SNB_DEVICE=cpu runs without a GPU"]))


def _faults(evidence: Evidence) -> Iterator[tuple[str, str]]:
    """Each reason why the GPU cannot be used, and what to do about it."""
    driver = f"NVIDIA driver {evidence.driver_version or 'of unknown version'}"
    if evidence.torch_cuda is None:
        yield "the installed torch is a CPU-only build", "Install a torch that is built for CUDA"
    if not evidence.devices_visible and evidence.driver_version:
        fault = f"the machine has {driver}, but no GPU is passed to this process"
        yield fault, "Start the container with its GPU (docker run --gpus all)"
    elif not evidence.devices_visible:
        yield "this machine shows no NVIDIA driver and no GPU", "Take a machine with an NVIDIA GPU"
    elif evidence.hidden:
        yield "CUDA_VISIBLE_DEVICES hides every GPU from this process", "Unset CUDA_VISIBLE_DEVICES"
    elif evidence.torch_cuda:
        fault = f"{driver} does not support this torch, built for CUDA {evidence.torch_cuda}"
        yield f"{fault}: {evidence.torch_error}", "Update the driver, or install a torch for its CUDA"


SHORTAGE = re.compile(r"out of memory|ALLOC_FAILED|can't allocate memory", re.IGNORECASE)
"""Matches the messages of torch's allocators, CUDA and cuBLAS when memory runs out."""


@contextmanager
def out_of_memory_named(what: str) -> Iterator[None]:
    """Turns an out-of-memory error in the block into OutOfMemory, with torch's figures; other errors pass.

    Args:
        what: what is being done, and what it needs where that is known.
    """
    before = _refused_allocations()
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        # The rest of torch's message is advice on its allocator.
        figures = str(error).partition(" Of the allocated memory")[0].partition("\n")[0].rstrip(".")
        if not SHORTAGE.search(figures):
            if not isinstance(error, MemoryError) and _refused_allocations() == before:
                raise
            figures = "an allocation was refused"
        raise OutOfMemory(
            f"{what}: {figures}",
            "End what else uses this device (nvidia-smi lists it), or take fewer SNB_SLOTS, a smaller "
            "SNB_CONTEXT or SNB_PRECISION=nf4",
        ) from error


def _refused_allocations() -> int:
    """How many GPU allocations torch has refused; transformers 5.23 hides one behind another error."""
    return int(torch.cuda.memory_stats().get("num_ooms", 0))
