"""On what something was measured: machine and versions; no name of host or user."""

import os
import platform
from pathlib import Path
from typing import Any

from snb.settings import ROOT
from tools.machine import has_gpu, installed, output, pins


def machine() -> dict[str, Any]:
    """Of the client, and of every server that it starts."""
    query = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": value("/proc/cpuinfo", "model name"),
        "cores": len(os.sched_getaffinity(0)),
        "threads": os.environ.get("OMP_NUM_THREADS", "all"),
        "memory": value("/proc/meminfo", "MemTotal"),
        "gpus": output(*query).splitlines() if has_gpu() else [],
    }


def value(file: str, name: str) -> str:
    """The first value called `name` in a file of the kernel's; empty where there is none."""
    lines = Path(file).read_text().splitlines() if Path(file).exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), "")


def versions() -> dict[str, str]:
    """Of this project, of Python, and of every package that is pinned; empty for an absent one."""
    names = [pin.partition("==")[0] for pin in pins(ROOT / "requirements.txt")]
    project = output("git", "-C", str(ROOT), "describe", "--always", "--dirty")
    packages = {name: installed(name) for name in names}
    return {"project": project, "python": platform.python_version(), **packages}
