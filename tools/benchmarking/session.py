"""One measurement from beginning to end: which servers are asked what, and what came of it."""

import contextlib
import itertools
import json
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from tools.benchmarking import figures, report, workload
from tools.benchmarking.benchmark_record import machine, versions
from tools.benchmarking.classroom import Answer, Run, gather
from tools.benchmarking.programs import TAIL, lines, result
from tools.command import say
from tools.endpoints import dialect
from tools.endpoints.endpoint import Busy, Endpoint, Failed
from tools.endpoints.started import Started, ours
from tools.serving.server import SetupFailed

BARE = "generate"
CLASS_SECONDS = 1.0
SHORT = {"max_tokens": 8, "min_tokens": 8}
"""Of answers whose first text alone is wanted."""
OVERHEAD = {"max_tokens": 768, "min_tokens": 768, "system_prompt": "Tu es Spinoza."}
TITLE = "# Benchmark"


@dataclass
class Session:
    """The first six fields are the plan for every server; the others what has been measured so far."""

    workloads: Sequence[str]
    levels: Sequence[int]
    rounds: int
    pupils: int = 0  # of a class that asks within a second; 0 for none
    cold: bool = False
    output: Path | None = None  # the folder of benchmark.json and benchmark.md, rewritten after each server
    log: Path | None = None  # what the servers started here wrote
    runs: list[Run] = field(default_factory=list)
    starts: dict[str, float] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)  # servers that could not be measured

    def measure(self, name: str, server: contextlib.AbstractContextManager[Started]) -> None:
        """Everything of the plan at one server. One that fails is a fault, and the others go on."""
        with self._part(name), server as started:
            self._warm(started)
            self._visit(started.endpoint)

    def bare(self, settings: Mapping[str, str]) -> None:
        """Plain `generate`, alone, on the same prompts."""
        with self._part(BARE):
            for name, number in itertools.product(self.workloads, range(self.rounds)):
                self._generate(name, workload.inputs(name, number), settings)

    def overhead(self, log: IO[str]) -> None:
        """One long stream of a model so small that it takes next to no time, beside `generate` on it."""
        with self._part("overhead"), tempfile.TemporaryDirectory() as folder:
            list(lines(["-m", "tools.benchmarking.random_weights", folder, "--small"], {}))
            settings = {"SNB_BASE_MODEL": f"{folder}/base", "SNB_ADAPTER": "none", "SNB_PREPARED": "none"}
            inputs = {**workload.inputs("chat", 0), **OVERHEAD}
            with ours(settings, log) as started:
                for _ in range(self.rounds):
                    answers = gather(started.endpoint, [inputs])
                    self._add(Run(started.endpoint.name, "overhead", "at once", 1, answers))
            for _ in range(self.rounds):
                self._generate("overhead", inputs, settings)

    @property
    def failed(self) -> bool:
        """Whether anything was not answered."""
        return bool(self.faults) or any(answer.failure for run in self.runs for answer in run.answers)

    @property
    def tables(self) -> report.Tables:
        """Of the report."""
        starts = [{"server": name, "to_first_text_s": seconds} for name, seconds in self.starts.items()]
        return {
            "figures": figures.rows(self.runs),
            "start": starts,
            "faults": [{"fault": fault} for fault in self.faults],
        }

    @contextlib.contextmanager
    def _part(self, name: str) -> Iterator[None]:
        try:
            yield
        except (SetupFailed, Failed, Busy, subprocess.CalledProcessError) as error:
            self.faults.append(f"{name}: {error}")
            if self.log and isinstance(error, SetupFailed):
                say(self.log.read_text(errors="replace")[-TAIL:])
            say(self.faults[-1])
        finally:
            self._keep()

    def _keep(self) -> None:
        """Writes what there is so far, so that an interrupted session is not lost."""
        if self.output:
            document = {
                "date": datetime.now(UTC).isoformat(timespec="seconds"),
                "machine": machine(),
                "versions": versions(),
                "tables": self.tables,
                "runs": [asdict(run) for run in self.runs],
            }
            report.write(self.output / "benchmark.json", TITLE, document)

    def _warm(self, started: Started) -> None:
        """The first answer of a server: what only the first request pays for, and the persona's prefix."""
        say(f"{started.endpoint.name}: first answer …")
        began = time.monotonic()
        [answer] = gather(started.endpoint, [{**workload.inputs("chat", 0), **SHORT}])
        if answer.failure:
            raise Failed(answer.failure)
        if started.since is not None:
            self.starts[started.endpoint.name] = began - started.since + answer.times[0]

    def _visit(self, endpoint: Endpoint) -> None:
        """Run after run; no two requests are alike, and every server gets the same."""
        numbers = itertools.count(1)  # the first pupil came before, to warm the server
        kinds: list[tuple[str, int, float, Mapping[str, Any]]]
        kinds = [("at once", level, 0.0, {}) for level in self.levels]
        if self.pupils:
            kinds.append(("class", self.pupils, CLASS_SECONDS, {}))
        if self.cold and "system_prompt" in getattr(endpoint, "known", ()):
            kinds += [("warm", 1, 0.0, SHORT), ("cold", 1, 0.0, SHORT)]
        elif self.cold:
            say(f"{endpoint.name}: takes no persona, so there is no cold one")
        for name, (kind, count, within, changed), _ in itertools.product(
            self.workloads, kinds, range(self.rounds)
        ):
            pupils = [{**workload.inputs(name, next(numbers)), **changed} for _ in range(count)]
            if kind == "cold":
                pupils = [workload.cold(one, dialect.system(one)) for one in pupils]
            self._add(Run(endpoint.name, name, kind, count, gather(endpoint, pupils, within)))

    def _generate(self, name: str, inputs: Mapping[str, Any], settings: Mapping[str, str]) -> None:
        """One answer by plain `generate`, as a run of one pupil."""
        times = result(["-m", "tools.benchmarking.child", "generate", json.dumps(inputs)], settings)
        answer = Answer(0.0, times[-1], inputs["max_tokens"], times, len(times))
        self._add(Run(BARE, name, "at once", 1, [answer]))

    def _add(self, run: Run) -> None:
        self.runs.append(run)
        failed = [answer.failure for answer in run.answers if answer.failure]
        seconds = max(answer.ended for answer in run.answers)
        shown = f"; {len(failed)} failed: {failed[0]}" if failed else ""
        say(f"{run.server}: {run.workload}, {run.pupils} {run.kind}: {seconds:.1f} s{shown}")
