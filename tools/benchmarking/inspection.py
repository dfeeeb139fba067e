"""What scripts/gpu-report runs on a machine, in order of worth, and how many seconds each part takes.

Those of GPU are computed from what an H200 showed on 2026-11-26: 30 to make the weights, 16 to 22 from a
process's start to a boot that is ready (45 in int8), 34 to the first text over HTTP, 28 to prepare nf4.
Together they stay below nine minutes; a slower card does less of it in that time.
"""

import json
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from snb.settings import ROOT
from tools.benchmarking.ballast import ballast
from tools.benchmarking.figures import speeds
from tools.benchmarking.parts import Failed, Parts, Tables, lines, result

SCRIPTS = ROOT / "scripts"
TABLES = ("answers", "rag", "memory", "steps", "prefill", "rounding", "generate")


@dataclass(frozen=True)
class Task:
    """One part: a boot in which some tables are measured, or the method of `Inspection` of that name."""

    name: str
    seconds: float
    """How long it takes."""
    precision: str = "auto"
    count: int = 1
    """Slots of a boot, pupils at a server, texts to compare."""
    tables: tuple[str, ...] = ()
    """Methods of `measures.Measures`."""
    free: float = 0.0
    """GiB that are left free on the card; 0 takes it as it is."""
    prepared: bool = False
    """Whether the weights are prepared first."""


GPU = (
    Task("device", 6),
    Task("weights", 35),
    Task("bf16", 65, "bf16", 32, TABLES),
    Task("nf4", 45, "nf4", 16, ("answers", "memory", "steps", "prefill", "rounding")),
    Task("T4", 28, "nf4", 16, ("full", "memory"), free=14.6),
    Task("24GB", 33, "nf4", 16, ("full", "memory"), free=22.0),
    Task("tests", 85),
    Task("server", 52, count=32),
    Task("fp16", 26, "fp16", 16, ("answers", "memory")),
    Task("prepared", 45, "nf4", 4, ("answers", "memory"), prepared=True),
    Task("int8", 55, "int8", 1, ("answers", "memory")),
    Task("quality", 38, "bf16", 12),
)
CPU = (
    Task("device", 5),
    Task("weights", 5),
    Task("fp32", 10, "fp32", 2, TABLES),
    Task("tests", 5),
    Task("server", 10, count=2),
    Task("prepared", 10, "nf4", 2, ("full", "memory"), prepared=True),
    Task("quality", 10, "fp32", 1),
)
PARTS = tuple(dict.fromkeys(task.name for task in (*GPU, *CPU)))
OUTCOME = re.compile(r"::(\S+) (PASSED|FAILED|ERROR|SKIPPED)(?: \((.*)\))?")
REASON = re.compile(r"(?:FAILED|ERROR) \S+::(\S+) - (.*)")


@dataclass
class Inspection:
    """One machine, part by part."""

    tasks: Sequence[Task]
    parts: Parts
    folder: Path
    """For what is made on the way; prepared weights are large."""
    settings: dict[str, str]
    """The environment of every program."""
    random: Sequence[str] | None
    """Arguments of random_weights.py; none takes the weights that the settings name."""
    rates: Mapping[str, Any] = field(default_factory=dict)
    """What device.py found."""

    def run(self) -> None:
        """Every task in its order; without weights only the tests."""
        ready = True
        for task in self.tasks:
            if ready or task.name == "tests":
                work = self._boot if task.tables else getattr(self, f"_{task.name}")
                tables = self.parts.run(task.name, task.seconds, partial(work, task))
                ready &= task.name != "weights" or bool(tables)

    def _device(self, _: Task, until: float) -> Iterator[Tables]:
        tables = result(["-m", "tools.benchmarking.device"], self.settings, until)
        [self.rates] = tables["device"]
        yield tables

    def _weights(self, _: Task, until: float) -> Iterator[Tables]:
        if self.random is not None:
            yield result(["-m", "tools.benchmarking.random_weights", *self.random], self.settings, until)
            return
        began = time.monotonic()  # a download takes what there is
        list(lines([SCRIPTS / "download-weights"], self.settings, self.parts.deadline))
        yield {"weights": [{"seconds": time.monotonic() - began}]}

    def _boot(self, task: Task, until: float) -> Iterator[Tables]:
        settings = {**self.settings, "SNB_PRECISION": task.precision, "SNB_SLOTS": str(task.count)}
        if task.prepared:
            began, settings["SNB_PREPARED"] = time.monotonic(), str(self.folder / "prepared")
            options = ["--precision", task.precision, "--skip-quality", "--output", settings["SNB_PREPARED"]]
            list(lines([SCRIPTS / "prepare-weights", *options], self.settings, until))
            yield {"preparing": [{"seconds": time.monotonic() - began}]}
        with ballast(task.free) if task.free else nullcontext():
            command = ["-m", "tools.benchmarking.boot", json.dumps(self.rates), *task.tables]
            yield from map(json.loads, lines(command, settings, until))

    def _tests(self, _: Task, until: float) -> Iterator[Tables]:
        """Each test that needs a GPU; reasons of failures come at the end."""
        options = ["-v", "-m", "gpu", "-p", "no:cacheprovider"]
        command = ["-u", "-m", "pytest", *options, ROOT / "tests" / "test_gpu.py"]
        rows: dict[str, dict[str, str]] = {}
        for line in lines(command, {**self.settings, "COLUMNS": "200"}, until, codes=(0, 1)):
            if ended := OUTCOME.search(line):
                rows[ended[1]] = {"test": ended[1], "outcome": ended[2].lower(), "reason": ended[3] or ""}
            if (reason := REASON.match(line)) and reason[1] in rows:
                rows[reason[1]]["reason"] = reason[2]
            yield {"tests": list(rows.values())}
        if failed := [name for name, row in rows.items() if row["outcome"] in ("failed", "error")]:
            raise Failed(f"failed: {', '.join(failed)}")

    def _server(self, task: Task, until: float) -> Iterator[Tables]:
        """The package behind the real server, one run of each level."""
        folder = self.folder / "benchmark"
        levels = [str(level) for level in dict.fromkeys((1, max(1, task.count // 2), task.count))]
        command = [SCRIPTS / "benchmark", "--concurrency", *levels, "--rounds", "1", "--output", folder]
        settings = {**self.settings, "SNB_SLOTS": str(task.count)}
        list(lines(command, settings, until, codes=(0, 1)))
        kept = json.loads((folder / "benchmark.json").read_text(encoding="utf-8"))
        yield {"server": [speeds(figures["pupils"], figures) for figures in kept["figures"]]}
        if kept["faults"]:
            raise Failed("; ".join(kept["faults"]))
        yield {"start": [{"to_first_text_s": kept["start_to_first_text"]["ours"]}]}

    def _quality(self, task: Task, until: float) -> Iterator[Tables]:
        """How far nf4 is from another precision on French texts."""
        file, rows = self.folder / "scores.pt", []
        for how, precision in (("write", task.precision), ("compare", "nf4")):
            settings = {**self.settings, "SNB_PRECISION": precision, "SNB_SLOTS": "1"}
            command = ["-m", "tools.preparing.quality", how, file, f"--texts={task.count}"]
            rows.append({"precision": precision, **result(command, settings, until)})
            yield {"quality": rows}
