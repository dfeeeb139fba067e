"""How long each way out of the fallback plan takes, by step, from the sizes of the weights as they are."""

from collections.abc import Sequence
from pathlib import Path

from snb.card import Footprint
from snb.settings import Settings
from snb.weights import fetch, prepared
from tools.benchmarking.bounds import QWEN_14B
from tools.publishing.layers import CODE
from tools.table import number, table

HERE, HOST = (100e6, 1e9), (1e9, 2e9)
"""Bits a second of a school's line, and of a host's to registries and hubs: slow and fast; assumptions."""
PACKAGES = 4.1e9
"""Bytes of the large wheels that a GPU's machine installs, CUDA's and torch's above all; PyPI, 2026-11-27."""
START, MERGE = 34, 9.5 + 3 * 2.0
"""Seconds from the process's start to the first text over HTTP; and to merge and quantise to nf4, and to hash
three times the bytes of prepared weights. Of the 14B's shape, from memory, on one H200, 2026-11-26."""
LIMIT = 10
"""Minutes that the plan promises."""
Step = tuple[str, float, float | None]
"""Its name, bytes on the line, and seconds beside the line; None: nobody has timed it."""
Way = tuple[str, tuple[float, float], Sequence[Step]]
"""Steps one after the other, on a slow or a fast line."""


def ways(ready: float, source: float) -> list[Way]:
    """What is done the week before, then each way to the first answer.

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
    """On a line of so many bits a second, of all that is known."""
    return sum(8 * size / rate + (seconds or 0) for _, size, seconds in steps) / 60


def rows(way: Way) -> list[list[str]]:
    """Of the table; the rehearsal's column is empty."""
    name, rates, steps = way
    lines = [[name, "", *(number(minutes(rate, *steps), 1) for rate in rates), ""]]
    for step in steps:
        times = ["–" if step[2] is None else number(minutes(rate, step), 1) for rate in rates]
        lines.append([f"· {step[0]}", number(step[1] / 1e9, 1) if step[1] else "", *times, ""])
    return lines


def verdict(way: Way) -> str:
    """What the sum says of ten minutes."""
    name, rates, steps = way
    slow, fast = (LIMIT - minutes(rate, *steps) for rate in rates)
    if slow > 0:
        return f"{name}: {LIMIT} minutes, if the dashes take no more than {slow:.1f} (fast {fast:.1f})"
    return f"{name}: not in {LIMIT} minutes" + (" on the slow line" if fast > 0 else "")


def sizes(settings: Settings) -> tuple[float, float, str]:
    """Bytes of prepared weights, and of base and adapter, as they are here, else computed; and which."""
    footprint, merged = Footprint(QWEN_14B), prepared.named(settings)
    ready = _size(merged.folder) if merged and merged.folder else 0
    folders = [one.folder or fetch.stored(one, settings.weights_dir) for one in fetch.sources(settings)]
    source = sum(_size(folder) for folder in folders if folder) if all(folders) else 0
    origins = ("as here" if size else "computed" for size in (ready, source))
    return ready or footprint.weights("nf4"), source or footprint.weights("bf16"), ", ".join(origins)


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.iterdir() if file.is_file())


def report() -> str:
    """The sizes, the table, and what it says of ten minutes."""
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
