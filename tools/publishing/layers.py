"""The size of an image, layer by layer, and what it needs of a disk, a line and a registry; all computed."""

import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from snb.settings import ROOT
from tools.machine import output
from tools.publishing.finding import Finding

CODE = (4.8e9, 4.2e9)
"""Bytes of the layers below the project's own files, compressed as in a registry: CUDA with its compilers
and the system, an assumption; and Python's packages, the sum of the wheels of requirements.txt on PyPI."""
UNPACKED = 2
"""Those layers on a disk, in multiples of that size, an assumption; weights do not compress."""
COPIES = 3
"""Copies of weights on the disk of Docker's engine: the context, the layer, the layer as pushed."""
LARGEST = 10e9
"""Limits of ghcr.io, in bytes of a layer, and with LONGEST in seconds of an upload:
https://docs.github.com/packages/working-with-a-github-packages-registry/working-with-the-container-registry"""
LONGEST = 600
AT_ONCE = 5
"""Layers that Docker uploads at once: `max-concurrent-uploads` of dockerd."""
RATES = {"100 Mbit/s": 100e6 / 8, "1 Gbit/s": 1e9 / 8}
"""Bytes a second of an upload."""


def of_weights(folder: Path) -> list[int]:
    """Bytes of each layer into which deploy/Dockerfile copies the shards of a folder."""
    text = (ROOT / "deploy" / "Dockerfile").read_text(encoding="utf-8")
    patterns = re.findall(r"^COPY .* (model-\S+)", text, re.MULTILINE)
    sizes = (sum(shard.stat().st_size for shard in folder.glob(pattern)) for pattern in patterns)
    return [size for size in sizes if size]


def build(weights: Sequence[int]) -> Iterator[Finding]:
    """Whether code and layers of weights of these sizes fit the disk, and how long a first push takes."""
    (place, free), needed = _free(), UNPACKED * sum(CODE) + COPIES * sum(weights)
    whole = sum(CODE) + sum(weights)
    times = " and ".join(f"{whole / rate / 60:.0f} min at {name}" for name, rate in RATES.items())
    text = f"computed: {shown(needed)} of disk to build, of {shown(free)} free at {place}"
    if free < needed:
        cure = "Free some, as docker system prune does, or move the engine's data-root to a larger disk"
        yield Finding("error", "DISK_FULL", text, cure)
    else:
        yield Finding("ok", "BUILD", f"{text}; a first push of {shown(whole)} takes {times}")


def registry(weights: Sequence[int]) -> Iterator[Finding]:
    """Whether ghcr.io takes the layers, and at least which bandwidth that takes."""
    sizes = sorted([*CODE, *weights])
    text = f"{len(weights)} layers of weights; the largest of all has {shown(sizes[-1])}"
    if sizes[-1] > LARGEST:
        cure = "Prepare the weights with --precision nf4, or from a base in smaller shards"
        yield Finding("error", "LAYER_TOO_LARGE", f"{text}, and registries take {shown(LARGEST)}", cure)
        return
    together, alone = (sum(sizes[-count:]) * 8 / LONGEST / 1e6 for count in (AT_ONCE, 1))
    limit = f"ghcr.io ends an upload after {LONGEST / 60:.0f} minutes, so it takes {together:.0f} Mbit/s"
    option = 'with "max-concurrent-uploads": 1 in /etc/docker/daemon.json'
    yield Finding("ok", "LAYERS", f"{text}; {limit}, or {alone:.0f} {option}")


def _free() -> tuple[str, int]:
    """Where Docker's engine keeps images, and the bytes free there; the project's disk if that is unknown."""
    asked = output("docker", "info", "--format", "{{.DockerRootDir}}")
    folder = asked if asked.startswith("/") and Path(asked).is_dir() else str(ROOT)
    return folder, shutil.disk_usage(folder).free


def shown(size: float) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"
