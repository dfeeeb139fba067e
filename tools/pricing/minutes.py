"""How long each way out of the fallback plan takes, by step, from the sizes of the weights as they are."""

from pathlib import Path
from typing import NamedTuple

from snb.card import Footprint
from snb.settings import Settings
from snb.weights import fetch, prepared
from tools.benchmarking.bounds import QWEN_14B
from tools.table import number, table

HERE, HOST = (100e6, 1e9), (1e9, 2e9)
"""Bits a second of a school's line, and of a host's to registries and hubs: slow and fast; assumptions."""
IMAGE = 9.0e9
"""Bytes of the image without weights: its packages, and CUDA with the system, which are assumed."""
PACKAGES = 4.1e9
"""Bytes of the large wheels of scripts/packages-gpu.txt, CUDA's and torch's above all; PyPI, 2026-11-27."""
START, MERGE = 34, 9.5 + 3 * 2.0
"""Seconds from the process's start to the first text over HTTP; and to merge and quantise to nf4, and to hash
three times the bytes of prepared weights. Of the 14B's shape, from memory, on one H200, 2026-11-26."""
LIMIT = 10
"""Minutes that the plan promises."""


class Step(NamedTuple):
    """What is moved or done."""

    name: str
    size: float = 0
    """Bytes on the line."""
    seconds: float | None = 0
    """Beside the line; None: nobody has timed it."""

    def minutes(self, rate: float) -> float:
        """On a line of so many bits a second; 0 of what nobody has timed."""
        return (8 * self.size / rate + (self.seconds or 0)) / 60


class Way(NamedTuple):
    """Steps one after the other, on a slow or a fast line."""

    name: str
    rates: tuple[float, float]
    steps: tuple[Step, ...]

    @property
    def total(self) -> list[float]:
        """Minutes, slow and fast, of all that is known."""
        return [sum(step.minutes(rate) for step in self.steps) for rate in self.rates]

    def rows(self) -> list[list[str]]:
        """Of the table; the rehearsal's column is empty."""
        rows = [[self.name, "", "", *(number(total, 1) for total in self.total), ""]]
        for step in self.steps:
            times = [number(step.minutes(rate), 1) for rate in self.rates]
            size = number(step.size / 1e9, 1) if step.size else ""
            rows.append(["", step.name, size, *(["–", "–"] if step.seconds is None else times), ""])
        return rows

    def verdict(self) -> str:
        """What the sum says of ten minutes."""
        slow, fast = (LIMIT - total for total in self.total)
        if slow > 0:
            return (
                f"{self.name}: {LIMIT} minutes, if the dashes take no more than {slow:.1f} (fast {fast:.1f})"
            )
        return f"{self.name}: not in {LIMIT} minutes" + (" on the slow line" if fast > 0 else "")


def ways(ready: float, source: float) -> list[Way]:
    """What is done the week before, then each way to the first answer.

    Args:
        ready: bytes of prepared weights.
        source: bytes of base and adapter.
    """
    machine = Step("a machine is found and starts", seconds=None)
    download = Step("download base and adapter", source)
    pull, unpack = Step("pull the image", IMAGE + ready), Step("unpack it", seconds=None)
    end = Step("start to first text", seconds=START), Step("tell the site, deploy it", seconds=None)
    install = Step("download the packages", PACKAGES), Step("install them", seconds=None)
    merge = Step("hash, merge, quantise", seconds=MERGE)
    return [
        Way("the week before", HERE, (download, Step("push the image", IMAGE + ready))),
        Way("(a) image in a registry", HOST, (machine, pull, unpack, *end)),
        Way("(a) the same on a line as here", HERE, (pull, unpack, *end)),
        Way("(a) image pulled, or a volume", HOST, (machine, Step("read the weights", ready), *end)),
        Way("(b) stock pod and a clone", HOST, (machine, *install, download, merge, *end)),
        Way("(c) a public model", HOST, (Step("an account and its token", seconds=None), end[1])),
    ]


def sizes(settings: Settings) -> tuple[tuple[float, str], tuple[float, str]]:
    """Bytes of prepared weights, and of base and adapter, each with where the figure is from."""
    footprint, source = Footprint(QWEN_14B), prepared.named(settings)
    if source and source.folder:
        ready = _size(source.folder), f"as in {source.folder}"
    else:
        ready = footprint.weights("nf4"), "computed for nf4: not here"
    folders = {s.role: s.folder or fetch.stored(s, settings.weights_dir) for s in fetch.sources(settings)}
    whole = sum(_size(folder) for folder in folders.values() if folder)
    if all(folders.values()):
        return ready, (whole, "as they are here")
    if folders["base"]:
        return ready, (whole, "the base as it is here; the adapter is not and is left out")
    return ready, (
        whole + footprint.weights("bf16"),
        "the base computed in bf16, an adapter only if it is here",
    )


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.iterdir() if file.is_file())


def report() -> str:
    """The sizes, the table, and what it says of ten minutes."""
    (ready, of_ready), (source, of_source) = sizes(Settings.from_environment())
    before, *urgent = ways(ready, source)
    rows = [row for way in (before, *urgent) for row in way.rows()]
    header = ["way", "step", "GB", "min, slow", "min, fast", "rehearsal"]
    lines = (
        f"Prepared weights: {ready / 1e9:.2f} GB, {of_ready}",
        f"Base and adapter: {source / 1e9:.2f} GB, {of_source}",
        f"Image without weights: {IMAGE / 1e9:.1f} GB, more than half of it assumed",
        "Slow: 100 Mbit/s here, 1 Gbit/s at a host. Fast: 1 Gbit/s here, 2 Gbit/s at a host.",
        table(header, rows),
        "Computed; start and merge as measured on one H200, 2026-11-26. A dash: nobody has timed it.",
    )
    return "\n".join((*lines, *(way.verdict() for way in urgent)))
