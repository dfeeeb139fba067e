"""Measures on an NVIDIA machine what a CPU cannot show, and writes one report to send back.

scripts/gpu-report                           the model that the settings name; what is absent is downloaded
scripts/gpu-report --random --minutes 9      random weights of the true shape: no hub, and ten minutes will do
scripts/gpu-report --cpu --random            every part on a CPU, with a tiny shape

AS_IS=1 in front takes the packages of this Python, where the pinned ones cannot be installed. In order of
worth: device; boots in bf16 and nf4 with answers, memory, steps, prefill and rounding; the card made as small
as a T4 and as one of 24 GB; the GPU tests; the server; boots in fp16, prepared nf4 and int8; quality. A part
that fails, hangs or does not fit the time is recorded with its reason. After every table report.json and
report.md are rewritten; they name no host, user, folder or token.
"""

import argparse
import json
import math
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from snb.settings import ROOT
from tools.benchmarking.figures import speeds
from tools.benchmarking.programs import GRACE, lines, result
from tools.benchmarking.report import Report, Tables
from tools.endpoints.endpoint import Failed
from tools.machine import has_gpu
from tools.serving import local

SCRIPTS, MEMORY = ROOT / "scripts", Path("/dev/shm")
ROOM = 45 * 10**9
"""Bytes of the 14B, its adapter and prepared nf4."""
TABLES = ("answers", "rag", "memory", "steps", "prefill", "rounding", "generate")
OUTCOME = re.compile(r"::(\S+) (PASSED|FAILED|ERROR|SKIPPED)(?: \((.*)\))?")
REASON = re.compile(r"(?:FAILED|ERROR) \S+::(\S+) - (.*)")


@dataclass(frozen=True)
class Task:
    """One part: a boot in which some tables are measured, or the method of `Inspection` of that name."""

    name: str
    seconds: float  # how long it takes
    precision: str = "auto"
    count: int = 1  # slots of a boot, pupils at a server, texts to compare
    tables: tuple[str, ...] = ()  # methods of `measures.Measures`
    free: float = 0.0  # GiB that are left free on the card; 0 takes it as it is
    prepared: bool = False  # whether the weights are prepared first


# Seconds are computed from what an H200 showed on 2026-11-26: 30 to make the weights, 16 to 22 from a
# process's start to a boot that is ready (45 in int8), 34 to the first text over HTTP, 28 to prepare nf4.
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


@dataclass
class Inspection:
    """One machine, part by part."""

    report: Report
    folder: Path
    """For what is made on the way; prepared weights are large."""
    settings: Mapping[str, str]
    """Of every program."""
    random: Sequence[str] | None
    """Arguments of random_weights.py; none takes the weights that the settings name."""
    rates: Mapping[str, float] = field(default_factory=dict)
    """What device.py found."""

    def run(self, tasks: Sequence[Task]) -> None:
        """Every task in its order; without rates or weights only the tests."""
        ready = True
        for task in tasks:
            if ready or task.name == "tests":
                work = self._boot if task.tables else getattr(self, f"_{task.name}")
                tables = self.report.run(task.name, task.seconds, partial(work, task))
                ready &= task.name not in ("device", "weights") or bool(tables)

    def _device(self, _: Task, until: float) -> Iterator[Tables]:
        tables = result(["-m", "tools.benchmarking.device"], self.settings, until)
        [self.rates] = tables["device"]
        yield tables

    def _weights(self, _: Task, until: float) -> Iterator[Tables]:
        if self.random is not None:
            yield result(["-m", "tools.benchmarking.random_weights", *self.random], self.settings, until)
            return
        began = time.monotonic()  # a download takes what there is
        list(lines([SCRIPTS / "download-weights"], self.settings, self.report.deadline))
        yield {"weights": [{"seconds": time.monotonic() - began}]}

    def _boot(self, task: Task, until: float) -> Iterator[Tables]:
        settings = {**self.settings, "SNB_PRECISION": task.precision, "SNB_SLOTS": str(task.count)}
        if task.prepared:
            began, settings["SNB_PREPARED"] = time.monotonic(), str(self.folder / "prepared")
            options = ["--precision", task.precision, "--skip-quality", "--output", settings["SNB_PREPARED"]]
            list(lines([SCRIPTS / "prepare-weights", *options], self.settings, until))
            yield {"preparing": [{"seconds": time.monotonic() - began}]}
        with ballast(task.free) if task.free else nullcontext():
            given = str(time.time()), json.dumps(self.rates), *task.tables
            yield from map(json.loads, lines(["-m", "tools.benchmarking.measures", *given], settings, until))

    def _tests(self, _: Task, until: float) -> Iterator[Tables]:
        """Each test that needs a GPU; reasons of failures come at the end."""
        options = ["-v", "-m", "gpu", "-p", "no:cacheprovider", str(ROOT / "tests" / "test_gpu.py")]
        settings = {**self.settings, "COLUMNS": "200"}
        rows: dict[str, dict[str, str]] = {}
        for line in lines(["-u", "-m", "pytest", *options], settings, until, codes=(0, 1)):
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
        options = ["--rounds", "1", "--output", str(folder), "--concurrency", *levels]
        settings = {**self.settings, "SNB_SLOTS": str(task.count)}
        list(lines([SCRIPTS / "benchmark", *options], settings, until, codes=(0, 1)))
        kept = json.loads((folder / "benchmark.json").read_text(encoding="utf-8"))
        yield {"server": [speeds(figures["pupils"], figures) for figures in kept["figures"]]}
        if kept["faults"]:
            raise Failed("; ".join(kept["faults"]))
        yield {"start": [{"to_first_text_s": kept["start_to_first_text"]["ours"]}]}

    def _quality(self, task: Task, until: float) -> Iterator[Tables]:
        """How far nf4 is from another precision on French texts."""
        options, rows = (str(self.folder / "scores.pt"), f"--texts={task.count}"), []
        for how, precision in (("write", task.precision), ("compare", "nf4")):
            settings = {**self.settings, "SNB_PRECISION": precision, "SNB_SLOTS": "1"}
            figures = result(["-m", "tools.preparing.quality", how, *options], settings, until)
            rows.append({"precision": precision, **figures})
            yield {"quality": rows}


@contextmanager
def ballast(gib: float) -> Iterator[None]:
    """Leaves `gib` GiB free on the card. Raises Failed where less is free already."""
    command = [sys.executable, "-m", "tools.benchmarking.device", str(gib)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        if holder.stdout and not holder.stdout.readline():
            raise Failed(f"the card has less than {gib} GiB free")
        yield


def arguments() -> argparse.Namespace:
    """The command line."""
    style = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=style)
    add = parser.add_argument
    add("--minutes", type=float, default=math.inf, help="when to be done (default: no limit)")
    add("--output", default=Path("report"), type=Path, metavar="FOLDER", help="default: report")
    add("--parts", nargs="+", choices=PARTS, default=PARTS, metavar="PART", help=f"of {', '.join(PARTS)}")
    add("--cpu", action="store_true", help="without a GPU, with small numbers; the stand-in or --random")
    add("--random", action="store_true", help="weights of the true shape with random values")
    add("--layers", help="of --random (default 48)")
    add("--tokenizer", metavar="FOLDER", help="of --random, with tokenizer.json (default: one is made)")
    add("--weights", type=Path, metavar="FOLDER", help="keeps those of --random (default: only for this run)")
    return parser.parse_args()


def random_weights(options: argparse.Namespace, folder: Path) -> list[str] | None:
    """The arguments of random_weights.py."""
    if not options.random:
        return None
    given = {"--layers": options.layers, "--tokenizer": options.tokenizer}
    chosen = [str(folder), *(f"{name}={value}" for name, value in given.items() if value)]
    return [*chosen, "--small"] if options.cpu else chosen


def chosen_settings(options: argparse.Namespace, weights: Path) -> dict[str, str]:
    """Of every program. Every precision is measured, so base and adapter are merged at each boot."""
    settings = {"HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    if options.random:
        settings |= {"SNB_BASE_MODEL": str(weights / "base"), "SNB_ADAPTER": str(weights / "adapter")}
    elif options.cpu:
        settings |= local.settings()
    return {**settings, "SNB_DEVICE": "cpu" if options.cpu else "cuda", "SNB_PREPARED": "none"}


def main() -> int:
    began, options = time.monotonic(), arguments()
    if not options.cpu and not has_gpu():
        print("This needs an NVIDIA GPU; --cpu runs what a CPU can.", file=sys.stderr)
        return 1
    command = shlex.join(["scripts/gpu-report", *sys.argv[1:]])
    report = Report(options.output, command, began + 60 * options.minutes - GRACE)
    roomy = MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > ROOM
    wanted = {*options.parts, "device", "weights"}
    with tempfile.TemporaryDirectory(dir=MEMORY if roomy else None) as scratch:
        weights = (options.weights or Path(scratch)).resolve()
        settings, made = chosen_settings(options, weights), random_weights(options, weights)
        inspection = Inspection(report, Path(scratch), settings, made)
        inspection.run([task for task in (CPU if options.cpu else GPU) if task.name in wanted])
    print(f"Send back report.md and report.json of {options.output}.")
    return int(any(part.failure for part in report.parts))
