"""What this machine has: an NVIDIA card, and the packages that a file pins; standard library only."""

import shutil
from pathlib import Path


def has_gpu() -> bool:
    """Whether an NVIDIA driver is present; asks without torch, which takes seconds to import."""
    return shutil.which("nvidia-smi") is not None or Path("/proc/driver/nvidia").exists()


def pins(file: Path) -> list[str]:
    """Every `name==version` of a requirements file."""
    lines = (line.split("#")[0].strip() for line in file.read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line]
