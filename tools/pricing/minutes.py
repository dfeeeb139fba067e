"""How long each way out of the fallback plan takes, step by step, computed from the sizes of the weights."""

from collections.abc import Sequence
from pathlib import Path

from snb.card import Footprint
from snb.settings import Settings
from snb.weights import fetch, prepared
from tools.benchmarking.bounds import QWEN_14B
from tools.publishing.layers import CODE
from tools.table import number, table

HERE, HOST = (100e6, 1e9), (1e9, 2e9)
"""Bits/s of a school's line, and of a host's line to registries and hubs, slow and fast; assumptions."""
PACKAGES = 4.1e9
"""Bytes of the large wheels that a machine with a GPU installs, mostly CUDA and torch; PyPI, 2026-11-27."""
START, MERGE = 34, 9.5 + 3 * 2.0
"""Seconds from process start to the first text over HTTP; and to merge, quantise to nf4 and hash three times
the bytes of prepared weights. For the 14B's shape, from memory, on one H200, 2026-11-26."""
LIMIT = 10
"""Minutes that the plan promises."""
Step = tuple[str, float, float | None]
"""Name, bytes to transfer, and seconds besides the transfer, or None if nobody has timed them."""
Way = tuple[str, tuple[float, float], Sequence[Step]]
"""Name, bits/s of the slow and the fast line, and steps, which follow one another."""


def ways(ready: float, source: float) -> list[Way]:
    """What is done the week before, then each way to a first answer.

    Args:
        ready: bytes of prepared weights.
        source: bytes of base and adapter.
    """
    image = sum(CODE) + ready
    machine: Step = ("a machine is found and starts", 0, None)
    download: Step = ("download base and adapter", source, 0)
    pull: list[Step] = [("pull the image", image, 0), ("unpack it", 0, None)]
    install: list[Step] = [("download the packages", PACKAGES, 0), ("install them", 0, None)]
    tell: Step = ("tell the site, deploy it", 0, None)
    end: list[Step] = [("start to first text", 0, START), tell]
    return [
        ("the week before", HERE, [download, ("push the image", image, 0)]),
        ("(a) image in a registry", HOST, [machine, *pull, *end]),
        ("(a) the same on a line as here", HERE, [*pull, *end]),
        ("(a) image pulled, or a volume", HOST, [machine, ("read the weights", ready, 0), *end]),
        (
            "(b) stock pod and a clone",
            HOST,
            [machine, *install, download, ("hash, merge, quantise", 0, MERGE), *end],
        ),
        ("(c) a public model", HOST, [("an account and its token", 0, None), tell]),
    ]


def minutes(rate: float, *steps: Step) -> float:
    """Minutes that all known parts of the steps take on a line of `rate` bits/s."""
    return sum(8 * size / rate + (seconds or 0) for _, size, seconds in steps) / 60


def rows(way: Way) -> list[list[str]]:
    """The table's rows for a way: its sum, then its steps. The last column is left empty, for a rehearsal."""
    name, rates, steps = way
    lines = [[name, "", *(number(minutes(rate, *steps), 1) for rate in rates), ""]]
    for step in steps:
        times = ["–" if step[2] is None else number(minutes(rate, step), 1) for rate in rates]
        lines.append([f"· {step[0]}", number(step[1] / 1e9, 1) if step[1] else "", *times, ""])
    return lines


def verdict(way: Way) -> str:
    """Whether the way can take LIMIT minutes, and how many that leaves for the steps nobody has timed."""
    name, rates, steps = way
    slow, fast = (LIMIT - minutes(rate, *steps) for rate in rates)
    if slow > 0:
        return f"{name}: {LIMIT} minutes, if the dashes take no more than {slow:.1f} (fast {fast:.1f})"
    return f"{name}: not in {LIMIT} minutes" + (" on the slow line" if fast > 0 else "")


def sizes(settings: Settings) -> tuple[float, float, str]:
    """Bytes of prepared weights, and of base and adapter, as they are here or computed; and which it is."""
    footprint, merged = Footprint(QWEN_14B), prepared.named(settings)
    ready = _size(merged.folder) if merged and merged.folder else 0
    folders = [one.folder or fetch.stored(one, settings.weights_dir) for one in fetch.sources(settings)]
    source = sum(_size(folder) for folder in folders if folder) if all(folders) else 0
    origins = ("as here" if size else "computed" for size in (ready, source))
    return ready or footprint.weights("nf4"), source or footprint.weights("bf16"), ", ".join(origins)


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.iterdir() if file.is_file())


def report() -> str:
    """The sizes, the table, and the verdict on each way."""
    ready, source, origins = sizes(Settings.from_environment())
    before, *urgent = ways(ready, source)
    lines = (
        f"Prepared weights {ready / 1e9:.2f} GB, base and adapter {source / 1e9:.2f} GB: {origins}.",
        f"Image without weights {sum(CODE) / 1e9:.1f} GB, more than half of it assumed.",
        "Slow: 100 Mbit/s here, 1 Gbit/s at a host. Fast: 1 Gbit/s here, 2 Gbit/s at a host.",
        table(
            ["way", "GB", "min, slow", "min, fast", "rehearsal"],
            [row for way in (before, *urgent) for row in rows(way)],
        ),
        "Computed; start and merge as measured on one H200, 2026-11-26. A dash: nobody has timed it.",
    )
    return "\n".join((*lines, *map(verdict, urgent)))
