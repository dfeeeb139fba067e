"""What this machine has: GPU, packages, programs, network. Standard library only: it runs before installs."""

import os
import shutil
import socket
import subprocess
from importlib import metadata
from pathlib import Path

NOWHERE = ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1"))
"""Addresses reserved for documentation (RFC 5737 and 3849). Nothing is sent to them."""


def has_gpu() -> bool:
    """Whether an NVIDIA driver is present; asks without torch, which takes seconds to import."""
    return shutil.which("nvidia-smi") is not None or Path("/proc/driver/nvidia").exists()


def pins(file: Path) -> list[str]:
    """Every `name==version` of a requirements file."""
    lines = (line.split("#")[0].strip() for line in file.read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line]


def installed(name: str) -> str:
    """The installed version of a package, named with or without extras; empty if it is absent."""
    try:
        return metadata.version(name.split("[")[0])
    except metadata.PackageNotFoundError:
        return ""


def output(*command: str) -> str:
    """What a program prints to stdout; empty if it is absent, fails or takes over 30 s."""
    quiet = {**os.environ, "COG_NO_UPDATE_CHECK": "1"}  # cog would ask its release page first
    try:
        return subprocess.check_output(
            command, env=quiet, stderr=subprocess.DEVNULL, text=True, timeout=30
        ).strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def offline() -> bool:
    """Whether the system's routing table has no route out of this machine."""
    return not any(_route(family, address) for family, address in NOWHERE)


def _route(family: socket.AddressFamily, address: str) -> bool:
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((address, 9))
    except OSError:
        return False
    return True
