"""Measures on an NVIDIA machine what a CPU cannot show, and writes one report to send back.

scripts/gpu-report                           the model that the settings name; what is absent is downloaded
scripts/gpu-report --random --minutes 9      random weights of the true shape: no hub, in under ten minutes
scripts/gpu-report --cpu --random            the parts that a CPU can run, with a tiny shape

AS_IS=1 in front takes the packages of this Python, where the pinned ones cannot be installed. Parts, most
important first: boots in bf16, by the fused step and in nf4, with full slots, memory, steps, prefill, tokens
in process, seeds alone and in company, plain generate and rounding; the card made as small as a T4 and as one
of 24 GB; the GPU tests; the server; boots in fp8, int8 and prepared nf4; the server again by the fused step,
in bf16 and fp8, for which nine minutes are too few. A part that fails, hangs or does not fit is recorded with
its reason. report.json and report.md are rewritten after every table; they name no host, user, folder, token.
"""

import argparse
import json
import math
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from snb.settings import ROOT
from tools.benchmarking import report
from tools.benchmarking.bars import bars
from tools.benchmarking.benchmark_record import machine, versions
from tools.benchmarking.programs import GRACE, PATIENCE, lines
from tools.benchmarking.report import Row, Tables
from tools.command import command_line, say
from tools.endpoints.endpoint import Failed
from tools.machine import has_gpu
from tools.serving import local

SCRIPTS, MEMORY = ROOT / "scripts", Path("/dev/shm")
ROOM = 45 * 10**9
"""Bytes of the 14B, its adapter and prepared nf4 together."""
SLOWER, COLD = 2, 30.0
"""With a deadline, a part may take SLOWER times its expected time and COLD seconds more."""
FULL = ("full", "memory")
TABLES = (*FULL, "speed", "steps", "prefill", "throughput", "company", "generate", "rounding")


@dataclass(frozen=True)
class Task:
    """A part: a boot in which `tables` are measured, or the method of `Inspection` its first word names."""

    name: str
    seconds: float  # how long it is expected to take
    precision: str = "auto"
    count: int = 1  # slots of a boot, pupils at a server
    tables: tuple[str, ...] = ()  # methods of `measures.Measures`
    path: str = ""  # SNB_PATH; by default that of the environment
    free: float = 0.0  # GiB to leave free on the card; 0 takes it as it is
    prepared: bool = False  # whether the weights are prepared first

    @property
    def settings(self) -> dict[str, str]:
        """Environment variables of the boot."""
        path = {"SNB_PATH": self.path} if self.path else {}
        return {"SNB_PRECISION": self.precision, "SNB_SLOTS": str(self.count), **path}


# Seconds are computed from what was measured on an H200 on 2026-11-26: 30 to make the weights, 16 to 22 from
# process start to ready, 34 to the first text over HTTP, 28 to prepare nf4, 0.05 per chunk of a prompt, and
# 2.3 per answer of plain generate.
GPU = (
    Task("weights", 35),
    Task("bf16", 75, "bf16", 32, TABLES),
    Task("fused", 45, "bf16", 32, ("steps", "prefill", "throughput", "company"), path="fused"),
    Task("nf4", 48, "nf4", 16, (*FULL, "steps", "prefill", "throughput", "rounding")),
    Task("T4", 28, "nf4", 16, FULL, free=14.6),
    Task("24GB", 33, "nf4", 16, FULL, free=22.0),
    Task("tests", 85),
    Task("server", 65, count=32),
    Task("fp8", 40, "fp8", 32, ("memory", "steps", "throughput"), path="fused"),
    Task("int8", 28, "int8", 16, ("steps",)),
    Task("prepared", 45, "nf4", 4, FULL, prepared=True),
    # From here on it takes more than nine minutes.
    Task("server fused", 65, "bf16", 32, path="fused"),
    Task("server fp8", 65, "fp8", 32, path="fused"),
)
CPU = (
    Task("weights", 5),
    Task("fp32", 10, "fp32", 2, TABLES),
    Task("tests", 5),
    Task("server", 20, count=2),
    Task("prepared", 10, "nf4", 2, FULL, prepared=True),
)
PARTS = tuple(dict.fromkeys(task.name for task in (*GPU, *CPU)))


@dataclass
class Inspection:
    """Measures one machine, part by part; rewrites both files of the report whenever there is more."""

    output: Path
    command: str
    settings: Mapping[str, str] = field(default_factory=dict)
    """Environment variables of every program."""
    scratch: Path = Path()
    """Folder for intermediate files; prepared weights are large."""
    random: Sequence[str] = ()
    """Arguments of random_weights.py; empty takes the weights that the settings name."""
    deadline: float = math.inf
    """In monotonic seconds."""
    failures: dict[str, str] = field(default_factory=dict)
    tables: dict[str, list[Row]] = field(default_factory=lambda: {"machine": [machine()], "parts": []})

    def run(self, tasks: Sequence[Task]) -> None:
        """Runs every task, in order."""
        for task in tasks:
            work = self._boot if task.tables else getattr(self, f"_{task.name.split()[0]}")
            self.part(task.name, task.seconds, partial(work, task))

    def part(self, name: str, expected: float, work: Callable[[float], Iterable[Tables]]) -> None:
        """Adds the rows of `work(until)` as they come; leaves it out if there is less time than `expected`.

        Args:
            expected: seconds that it takes.
            work: ends by `until`, in monotonic seconds; may raise Failed, OSError or ValueError.
        """
        say(f"{name} …")
        began = time.monotonic()
        left = self.deadline - began
        outcome = {"part": name, "seconds": 0.0, "outcome": "not done"}
        self.tables["parts"].append(outcome)
        try:
            if left < expected:
                raise Failed(f"left out: it takes about {expected:.0f} s, and {max(0, left):.0f} are left")
            for tables in work(began + min(left, PATIENCE if left == math.inf else SLOWER * expected + COLD)):
                for table, rows in tables.items():
                    self.tables.setdefault(table, []).extend({"part": name, **row} for row in rows)
                self._keep()
            outcome["outcome"] = "done"
        except (Failed, OSError, ValueError) as error:
            self.failures[name] = str(error) or type(error).__name__
            outcome["outcome"] = self.failures[name].rpartition("\n")[2]
            say(self.failures[name])
        outcome["seconds"] = round(time.monotonic() - began, 1)
        self._keep()

    def _keep(self) -> None:
        date = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
        title = f"# What this machine shows\n\n`{self.command}`, {date}."
        if held := list(bars(self.tables)):
            self.tables["bars"] = held
        record = {"command": self.command, "date": date, "versions": versions()}
        document = {**record, "tables": self.tables, "failures": self.failures}
        report.write(self.output / "report.json", title, document)

    def _weights(self, _: Task, until: float) -> Iterator[Tables]:
        if self.random:
            command = ["-m", "tools.benchmarking.random_weights", *self.random]
            yield from map(json.loads, lines(command, self.settings, until))
        else:  # a download may take all the time that is left
            list(lines([SCRIPTS / "download-weights"], self.settings, self.deadline))

    def _boot(self, task: Task, until: float) -> Iterator[Tables]:
        settings = {**self.settings, **task.settings}
        if task.prepared:
            settings["SNB_PREPARED"] = str(self.scratch / "prepared")
            options = ["--precision", task.precision, "--skip-quality", "--output", settings["SNB_PREPARED"]]
            list(lines([SCRIPTS / "prepare-weights", *options], self.settings, until))
        with ballast(task.free) if task.free else nullcontext():
            command = ["-m", "tools.benchmarking.measures", str(time.time()), *task.tables]
            yield from map(json.loads, lines(command, settings, until))

    def _tests(self, _: Task, until: float) -> Iterator[Tables]:
        """pytest's own lines on the tests that need a GPU. Raises Failed with those that failed."""
        options = ["-v", "-m", "gpu", "-p", "no:cacheprovider", str(ROOT / "tests" / "test_gpu.py")]
        settings, failed = {**self.settings, "COLUMNS": "200"}, []
        for line in lines(["-u", "-m", "pytest", *options], settings, until, codes=(0, 1)):
            if "::" in line:
                yield {"tests": [{"test": line}]}
                failed += [line] if line.startswith(("FAILED", "ERROR")) else []
        if failed:
            raise Failed("; ".join(failed))

    def _server(self, task: Task, until: float) -> Iterator[Tables]:
        """This package behind the real server, one run of each number of requests at once."""
        levels = [str(level) for level in dict.fromkeys((1, max(1, task.count // 2), task.count))]
        options = ["--rounds", "1", "--class", str(min(30, task.count)), "--output", str(self.scratch)]
        options += ["--concurrency", *levels]
        settings = {**self.settings, **task.settings}
        list(lines([SCRIPTS / "benchmark", *options], settings, until, codes=(0, 1)))
        tables = json.loads((self.scratch / "benchmark.json").read_text(encoding="utf-8"))["tables"]
        yield {"server": tables["figures"], "start": tables["start"]}
        if tables["faults"]:
            raise Failed("; ".join(row["fault"] for row in tables["faults"]))


@contextmanager
def ballast(gib: float) -> Iterator[None]:
    """Leaves `gib` GiB free on the card while the block runs. Raises Failed if less is free already."""
    command = [sys.executable, "-m", "tools.benchmarking.device", str(gib)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        if holder.stdout and not holder.stdout.readline():
            raise Failed(f"the card has less than {gib} GiB free")
        yield


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = command_line(__doc__)
    add = parser.add_argument
    add("--minutes", type=float, default=math.inf, help="when to be done (default: no limit)")
    add("--output", default=Path("report"), type=Path, metavar="FOLDER", help="default: report")
    add("--parts", nargs="+", choices=PARTS, default=PARTS, metavar="PART", help=f"of {', '.join(PARTS)}")
    add("--cpu", action="store_true", help="without a GPU, with small numbers; the stand-in or --random")
    add("--random", action="store_true", help="weights of the true shape with random values")
    return parser.parse_args()


def chosen_settings(options: argparse.Namespace, scratch: Path) -> dict[str, str]:
    """Environment variables of every program. Base and adapter are merged at each boot, in each precision."""
    settings = {"HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    if options.random:
        settings |= {"SNB_BASE_MODEL": str(scratch / "base"), "SNB_ADAPTER": str(scratch / "adapter")}
    elif options.cpu:
        settings |= local.settings()
    return {**settings, "SNB_DEVICE": "cpu" if options.cpu else "cuda", "SNB_PREPARED": "none"}


def main() -> int:
    began, options = time.monotonic(), arguments()
    if not options.cpu and not has_gpu():
        print("This needs an NVIDIA GPU; --cpu runs what a CPU can.", file=sys.stderr)
        return 1
    roomy = MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > ROOM
    with tempfile.TemporaryDirectory(dir=MEMORY if roomy else None) as folder:
        inspection = Inspection(
            output=options.output,
            command=shlex.join(["scripts/gpu-report", *sys.argv[1:]]),
            settings=chosen_settings(options, Path(folder)),
            scratch=Path(folder),
            random=[folder, *(["--small"] if options.cpu else [])] if options.random else [],
            deadline=began + 60 * options.minutes - GRACE,
        )
        wanted = {*options.parts, "weights"}
        inspection.run([task for task in (CPU if options.cpu else GPU) if task.name in wanted])
    print(f"Send back report.md and report.json of {options.output}.")
    return int(bool(inspection.failures))
