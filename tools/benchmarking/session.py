"""One measurement from beginning to end: which servers are asked what, and what came of it."""

import contextlib
import json
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from tools.benchmarking import workload
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
CHILD = ("-m", "tools.benchmarking.child")


@dataclass(frozen=True)
class Plan:
    """What is measured at each server."""

    workloads: Sequence[str]
    levels: Sequence[int]
    rounds: int
    pupils: int = 0  # of a class that asks within a second; 0 for none
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
            for run in visit(started.endpoint, self.plan):
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
            list(lines(["-m", "tools.benchmarking.random_weights", folder, "--small"], {}))
            settings = {"SNB_BASE_MODEL": f"{folder}/base", "SNB_ADAPTER": "none", "SNB_PREPARED": "none"}
            inputs = {**workload.inputs("chat", 0), **OVERHEAD}
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


def visit(endpoint: Endpoint, plan: Plan) -> Iterator[Run]:
    """The plan at one server, run after run; no two requests are alike, and every server gets the same."""
    asked = 1  # the first pupil came before, to warm the server

    def run(name: str, kind: str, count: int = 1, within: float = 0.0, **changed: Any) -> Run:
        nonlocal asked
        pupils = [workload.inputs(name, number) for number in range(asked, asked + count)]
        asked += count
        if kind == "cold":
            pupils = [workload.cold(one, dialect.system(one)) for one in pupils]
        answers = gather(endpoint, [{**one, **changed} for one in pupils], within)
        return Run(endpoint.name, name, kind, count, answers)

    takes_persona = "system_prompt" in getattr(endpoint, "known", ())
    if plan.cold and not takes_persona:
        say(f"{endpoint.name}: takes no persona, so there is no cold one")
    for name in plan.workloads:
        yield from (run(name, "at once", level) for level in plan.levels for _ in range(plan.rounds))
        if plan.pupils:
            yield from (run(name, "class", plan.pupils, CLASS_SECONDS) for _ in range(plan.rounds))
        if plan.cold and takes_persona:
            yield from (run(name, kind, **SHORT) for _ in range(plan.rounds) for kind in ("warm", "cold"))


def generate(name: str, inputs: Mapping[str, Any], settings: Mapping[str, str]) -> Run:
    """One answer by plain `generate`, as a run of one pupil."""
    times = result([*CHILD, "generate", json.dumps(inputs)], settings)
    tokens = len(times)
    answer = Answer(0.0, times[-1], inputs["max_tokens"], times, list(range(1, tokens + 1)), tokens)
    return Run(BARE, name, "at once", 1, [answer])


def merged(settings: Mapping[str, str], folder: Path) -> Path:
    """Base and adapter as one model in `folder`, made once."""
    if not (folder / "tokenizer.json").exists():  # written last
        say("merging the weights into one folder …")
        list(lines([*CHILD, "merge", folder], settings))
    return folder
