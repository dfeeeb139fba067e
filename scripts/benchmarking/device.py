"""The device here: what it is, and the rates that it reaches. Runs as a program and writes JSON to stdout."""

import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from snb.precision import FLOATS, Device, Evidence
from snb.settings import Settings

TRIES = 5
BYTES = {"cuda": 2**30, "cpu": 2**28}
"""Of a tensor that is copied; far more than any cache holds."""
WIDTH = {"cuda": 8192, "cpu": 1024}
"""Of square matrices that are multiplied."""


def describe(wanted: str) -> dict[str, Any]:
    """The device for a setting of `auto`, `cuda` or `cpu`, versions, and measured rates."""
    device = Device.find(wanted)
    evidence = Evidence.gather()
    return {
        **asdict(device),
        "torch": torch.__version__,
        "cuda": evidence.torch_cuda,
        "driver": evidence.driver_version,
        "bandwidth": copied(device.kind),
        "flops": multiplied(device.kind, FLOATS[device.half if device.kind == "cuda" else "fp32"]),
    }


def copied(kind: str) -> float:
    """Bytes read and written a second, by the best of some copies."""
    source = torch.ones(BYTES[kind], dtype=torch.uint8, device=kind)
    target = torch.empty_like(source)
    return 2 * BYTES[kind] / best(kind, lambda: target.copy_(source))


def multiplied(kind: str, dtype: torch.dtype) -> float:
    """Floating-point operations a second, by the best of some products."""
    left, right = (torch.randn(WIDTH[kind], WIDTH[kind], device=kind).to(dtype) for _ in range(2))
    return 2 * WIDTH[kind] ** 3 / best(kind, lambda: left @ right)


def best(kind: str, work: Callable[[], object]) -> float:
    """The fewest seconds of some tries, after one that is not counted."""
    seconds = []
    for _ in range(TRIES + 1):
        began = time.perf_counter()
        work()
        if kind == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
    return min(seconds[1:])


if __name__ == "__main__":
    print(json.dumps(describe(Settings.from_environment().device)))
