"""One measurement from beginning to end: which servers are asked what, and what came of it."""

import contextlib
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from tools.benchmarking import workload
from tools.benchmarking.children import BARE, TAIL, generate, tiny
from tools.benchmarking.classroom import Run, gather
from tools.endpoints import dialect
from tools.endpoints.endpoint import Busy, Failed
from tools.endpoints.started import Started, ours, say
from tools.serving.server import SetupFailed

CLASS_SECONDS = 1.0
SHORT = {"max_tokens": 8, "min_tokens": 8}
"""Of answers whose first text alone is wanted."""
OVERHEAD = {"max_tokens": 768, "min_tokens": 768, "system_prompt": "Tu es Spinoza."}


@dataclass(frozen=True)
class Plan:
    """What is measured at each server."""

    workloads: Sequence[str]
    levels: Sequence[int]
    rounds: int
    pupils: int = 0
    """Of a class that asks within a second; 0 for none."""
    cold: bool = False


@dataclass
class Session:
    """What has been measured so far; `keep` is called whenever there is more."""

    plan: Plan
    keep: Callable[["Session"], None]
    runs: list[Run] = field(default_factory=list)
    starts: dict[str, float] = field(default_factory=dict)
    """Seconds from the start of a server's process to its first text."""
    faults: list[str] = field(default_factory=list)
    """Servers that could not be measured."""
    log: Path | None = None
    """What the servers started here wrote."""

    def measure(self, name: str, server: contextlib.AbstractContextManager[Started]) -> None:
        """Everything of the plan at one server. One that fails is a fault, and the others go on."""
        with self._part(name), server as started:
            self._warm(started)
            for run in Visit(started, self.plan).runs():
                self._add(run)

    def bare(self, settings: Mapping[str, str]) -> None:
        """Plain `generate`, alone, on the same prompts."""
        with self._part(BARE):
            for name in self.plan.workloads:
                for number in range(self.plan.rounds):
                    self._add(generate(name, workload.inputs(name, number), settings))

    def overhead(self, log: IO[str]) -> None:
        """One long stream of a model so small that it takes next to no time, beside `generate` on it."""
        with self._part("overhead"), tempfile.TemporaryDirectory() as folder:
            settings, inputs = tiny(Path(folder)), {**workload.inputs("chat", 0), **OVERHEAD}
            with ours(settings, log) as started:
                for _ in range(self.plan.rounds):
                    answers = gather(started.endpoint, [inputs])
                    self._add(Run(started.endpoint.name, "overhead", "at once", 1, answers))
            for _ in range(self.plan.rounds):
                self._add(generate("overhead", inputs, settings))

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
            self.keep(self)

    def _warm(self, started: Started) -> None:
        """The first answer of a server: what only the first request pays for, and the persona's prefix."""
        say(f"{started.endpoint.name}: first answer …")
        began = time.monotonic()
        [answer] = gather(started.endpoint, [{**workload.inputs("chat", 0), **SHORT}])
        if answer.failure:
            raise Failed(answer.failure)
        if started.since is not None:
            self.starts[started.endpoint.name] = began - started.since + answer.times[0]

    def _add(self, run: Run) -> None:
        self.runs.append(run)
        failed = [answer.failure for answer in run.answers if answer.failure]
        seconds = max(answer.ended for answer in run.answers)
        shown = f"; {len(failed)} failed: {failed[0]}" if failed else ""
        say(f"{run.server}: {run.workload}, {run.pupils} {run.kind}: {seconds:.1f} s{shown}")

    @property
    def failed(self) -> bool:
        """Whether anything was not answered."""
        return bool(self.faults) or any(answer.failure for run in self.runs for answer in run.answers)


@dataclass
class Visit:
    """The plan at one server; no two of its requests are alike, and every server gets the same."""

    started: Started
    plan: Plan
    asked: int = 1
    """The first pupil came before, to warm the server."""

    def runs(self) -> Iterator[Run]:
        """Run after run, as they are over."""
        for name in self.plan.workloads:
            for level in self.plan.levels:
                for _ in range(self.plan.rounds):
                    yield self._run(name, "at once", self._pupils(name, level))
            for _ in range(self.plan.rounds if self.plan.pupils else 0):
                yield self._run(name, "class", self._pupils(name, self.plan.pupils), CLASS_SECONDS)
            if self.plan.cold:
                yield from self._warm_and_cold(name)

    def _warm_and_cold(self, name: str) -> Iterator[Run]:
        if "system_prompt" not in self.started.endpoint.known:
            say(f"{self.started.endpoint.name}: takes no persona, so there is no cold one")
            return
        for _ in range(self.plan.rounds):
            [given] = self._pupils(name, 1)
            yield self._run(name, "warm", [{**given, **SHORT}])
            [given] = self._pupils(name, 1)
            yield self._run(name, "cold", [{**workload.cold(given, dialect.system(given)), **SHORT}])

    def _pupils(self, name: str, count: int) -> list[dict[str, Any]]:
        self.asked += count
        return [workload.inputs(name, number) for number in range(self.asked - count, self.asked)]

    def _run(self, name: str, kind: str, pupils: list[dict[str, Any]], within: float = 0.0) -> Run:
        endpoint = self.started.endpoint
        return Run(endpoint.name, name, kind, len(pupils), gather(endpoint, pupils, within))
