"""The file that keeps a session: raw runs, figures, machine, versions, date; no name of host or user."""

import dataclasses
import json
import math
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from snb.settings import ROOT
from tools.benchmarking.classroom import Run
from tools.benchmarking.figures import Asked, alike, median
from tools.machine import has_gpu, pins


def write(
    file: Path, runs: Sequence[Run], starts: Mapping[str, float], faults: Sequence[str], price: float
) -> None:
    """Writes `file` anew."""
    document = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "versions": versions(),
        "price_per_second": price,
        "start_to_first_text": starts,
        "faults": faults,
        "figures": [summary(*group, price) for group in alike(runs).items()],
        "runs": [dataclasses.asdict(run) for run in runs],
    }
    file.write_text(json.dumps(document, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


def summary(asked: Asked, rounds: Sequence[Run], price: float) -> dict[str, Any]:
    """The medians of alike runs; null where something never came."""
    each = dataclasses.asdict(median(rounds, price))
    shown = {name: value if math.isfinite(value) else None for name, value in each.items()}
    return {**dict(zip(("server", "workload", "kind", "pupils"), asked, strict=True)), **shown}


def machine() -> dict[str, Any]:
    """Of the client, and of every server that it starts."""
    query = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": value("/proc/cpuinfo", "model name"),
        "cores": len(os.sched_getaffinity(0)),
        "threads": os.environ.get("OMP_NUM_THREADS", "all"),
        "memory": value("/proc/meminfo", "MemTotal"),
        "gpus": output(query).splitlines() if has_gpu() else [],
    }


def value(file: str, name: str) -> str:
    """The first value called `name` in a file of the kernel's; empty where there is none."""
    lines = Path(file).read_text().splitlines() if Path(file).exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), "")


def output(command: Sequence[str]) -> str:
    """What a program writes to stdout."""
    return subprocess.run(command, capture_output=True, text=True).stdout.strip()


def versions() -> dict[str, str]:
    """Of this project, of Python, and of every package that is pinned; the peers' are their pins."""
    commit = output(["git", "-C", str(ROOT), "describe", "--always", "--dirty"])
    names = [pin.partition("==")[0] for pin in pins(ROOT / "requirements.txt")]
    peers = {
        file.stem: ", ".join(pins(file)) for file in sorted(ROOT.glob("scripts/requirements-peers-*.txt"))
    }
    return {
        "project": commit,
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in names},
        **{name.removeprefix("requirements-"): pinned for name, pinned in peers.items()},
    }
