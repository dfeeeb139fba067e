"""The device here, and the rates that it reaches, as JSON; or, given GiB, holds all of a card but so much."""

import json
import sys
import time
from collections.abc import Callable
from importlib import metadata
from typing import Any

import torch

from snb.card import FLOATS, GIB, Device
from snb.diagnosis import Evidence
from snb.settings import Settings

TRIES = 5
BYTES = {"cuda": 2**30, "cpu": 2**28}
"""Of a tensor that is copied; far more than any cache holds."""
WIDTH = {"cuda": 8192, "cpu": 1024}
"""Of square matrices that are multiplied."""


def describe(wanted: str) -> dict[str, Any]:
    """The device for a setting of `auto`, `cuda` or `cpu`, versions, and measured rates."""
    device, evidence = Device.find(wanted), Evidence.gather()
    dtype = FLOATS[device.half if device.kind == "cuda" else "fp32"]
    return {
        "name": device.name,
        "capability": ".".join(map(str, device.capability)),
        "free_gib": device.free / GIB,
        "total_gib": device.total / GIB,
        "driver": evidence.driver_version,
        "cuda": evidence.torch_cuda,
        **{name: metadata.version(name) for name in ("torch", "transformers", "bitsandbytes")},
        "copy_gb_per_second": copied(device.kind) / 1e9,
        "product_tflops": multiplied(device.kind, dtype) / 1e12,
    }


def copied(kind: str) -> float:
    """Bytes read and written a second, by the best of some copies."""
    source = torch.ones(BYTES[kind], dtype=torch.uint8, device=kind)
    target = torch.empty_like(source)
    return 2 * BYTES[kind] / min(seconds(kind, lambda: target.copy_(source), TRIES))


def multiplied(kind: str, dtype: torch.dtype) -> float:
    """Floating-point operations a second, by the best of some products."""
    left, right = (torch.randn(WIDTH[kind], WIDTH[kind], device=kind).to(dtype) for _ in range(2))
    return 2 * WIDTH[kind] ** 3 / min(seconds(kind, lambda: left @ right, TRIES))


def seconds(kind: str, work: Callable[[], object], tries: int) -> list[float]:
    """What each of some tries took, after one that is not counted."""
    taken = []
    for _ in range(tries + 1):
        began = time.perf_counter()
        work()
        if kind == "cuda":
            torch.cuda.synchronize()
        taken.append(time.perf_counter() - began)
    return taken[1:]


def hold(gib: float) -> None:
    """Leaves `gib` GiB free on the card until stdin closes, as it does with whoever started this."""
    spare = torch.cuda.mem_get_info()[0] - int(gib * GIB)
    held = torch.empty(spare, dtype=torch.uint8, device="cuda")
    print("held", held.nbytes, flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    if sys.argv[1:]:
        hold(float(sys.argv[1]))
    else:
        print(json.dumps({"device": [describe(Settings.from_environment().device)]}))
