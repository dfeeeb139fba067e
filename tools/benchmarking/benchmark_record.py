"""What something was measured on: machine and versions, without the name of a host or user."""

import os
import platform
from pathlib import Path
from typing import Any

from snb.settings import ROOT
from tools.machine import has_gpu, installed, output, pins


def machine() -> dict[str, Any]:
    """This machine, on which the client runs, and every server that it starts."""
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
    """The first value of a `name: value` line in a file of /proc; empty if there is none."""
    lines = Path(file).read_text().splitlines() if Path(file).exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), "")


def versions() -> dict[str, str]:
    """Versions of this project, Python, and every package that the image pins; empty for an absent one."""
    names = [pin.partition("==")[0] for pin in pins(ROOT / "requirements.txt")]
    project = output("git", "-C", str(ROOT), "describe", "--always", "--dirty")
    packages = {name: installed(name) for name in names}
    return {"project": project, "python": platform.python_version(), **packages}
