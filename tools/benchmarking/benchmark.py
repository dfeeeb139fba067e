"""Measures answers under load: of a Cog server, a model on Replicate, or this package, started here.

scripts/benchmark https://host                   a server that speaks Cog's HTTP API
scripts/benchmark replicate:owner/name           with REPLICATE_API_TOKEN; also owner/name:version and
                                                 deployments/owner/name
scripts/benchmark --against vllm                 this package and vLLM, on this machine's weights in fp32
"""
# guidellm generates load too, but only through OpenAI's API: it reads neither Cog's stream nor Replicate's.

import argparse
import contextlib
import itertools
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tools.benchmarking import peers, report, workload
from tools.benchmarking.benchmark_record import machine, versions
from tools.benchmarking.classroom import Run, gather
from tools.benchmarking.figures import rows
from tools.benchmarking.programs import TAIL, lines
from tools.command import command_line, say
from tools.endpoints.endpoint import Busy, Endpoint, Failed
from tools.endpoints.started import OURS, Started, ours, remote
from tools.serving import local
from tools.serving.server import SetupFailed

CLASS_SECONDS = 1.0
SHORT = {"max_tokens": 8, "min_tokens": 8}
"""Length of the first answer, which warms a server."""
TITLE = "# Benchmark"


@dataclass
class Session:
    """What has been measured so far; a server that could not be measured is a fault."""

    plan: argparse.Namespace
    runs: list[Run] = field(default_factory=list)
    starts: list[report.Row] = field(default_factory=list)
    faults: list[report.Row] = field(default_factory=list)

    def measure(self, name: str, server: contextlib.AbstractContextManager[Started]) -> None:
        """Runs the whole plan at one server. If the server fails, that is recorded as a fault, not raised."""
        try:
            with server as started:
                self._warm(started)
                self._visit(started.endpoint)
        except (SetupFailed, Failed, Busy) as error:
            self.faults.append({"fault": f"{name}: {error}"})
            say(f"{name}: {error}")
        if self.plan.output:  # rewritten after each server
            date = datetime.now(UTC).isoformat(timespec="seconds")
            record = {"date": date, "machine": machine(), "versions": versions(), "tables": self.tables}
            document = {**record, "runs": [asdict(run) for run in self.runs]}
            report.write(self.plan.output / "benchmark.json", TITLE, document)

    @property
    def failed(self) -> bool:
        return bool(self.faults) or any(answer.failure for run in self.runs for answer in run.answers)

    @property
    def tables(self) -> report.Tables:
        return {"figures": rows(self.runs), "start": self.starts, "faults": self.faults}

    def _warm(self, started: Started) -> None:
        """Asks for a first answer, which pays for what only a first request costs and warms the persona."""
        name = started.endpoint.name
        say(f"{name}: first answer …")
        began = time.monotonic()
        [answer] = gather(started.endpoint, [{**workload.inputs("chat", 0), **SHORT}])
        if answer.failure:
            raise Failed(answer.failure)
        if started.since is not None:
            self.starts.append({"server": name, "to_first_text_s": began - started.since + answer.times[0]})

    def _visit(self, endpoint: Endpoint) -> None:
        """Every run of the plan. No two requests are alike, and every server gets the same ones."""
        numbers = itertools.count(1)  # pupil 0 has warmed the server
        kinds = [("at once", level, 0.0) for level in self.plan.concurrency]
        if self.plan.pupils:
            kinds.append(("class", self.plan.pupils, CLASS_SECONDS))
        rounds = range(self.plan.rounds)
        for name, (kind, count, within), _ in itertools.product(self.plan.workload, kinds, rounds):
            pupils = [workload.inputs(name, next(numbers)) for _ in range(count)]
            answers = gather(endpoint, pupils, within)
            self.runs.append(Run(endpoint.name, name, kind, count, answers))
            failed = [answer.failure for answer in answers if answer.failure]
            seconds = max(answer.ended for answer in answers)
            shown = f"; {len(failed)} failed: {failed[0]}" if failed else ""
            say(f"{endpoint.name}: {name}, {count} {kind}: {seconds:.1f} s{shown}")


def measure_here(session: Session, settings: Mapping[str, str]) -> None:
    """Measures this package, then the server that it is compared with."""
    against = session.plan.against
    # Installed first: without a network this fails, and what had been measured by then would be lost.
    binaries = peers.install(peers.VLLM, *peers.UNWANTED) if against else None
    with tempfile.NamedTemporaryFile("w+", suffix=".log") as log, tempfile.TemporaryDirectory() as merged:
        session.measure(OURS, ours(settings, log))
        if binaries:
            say("merging the weights into one folder …")
            whole = {**settings, "SNB_PREPARED": "none", "SNB_PRECISION": "fp32"}
            list(lines(["-m", "tools.benchmarking.peers", merged], whole))
            session.measure(peers.VLLM, peers.vllm(binaries, Path(merged), log))
        if session.faults:
            say(Path(log.name).read_text(errors="replace")[-TAIL:])


def arguments() -> argparse.Namespace:
    parser = command_line(__doc__)
    add = parser.add_argument
    add("endpoint", nargs="?", help="what to measure (default: this package, started here)")
    add("--workload", nargs="+", choices=workload.TOKENS, default=["chat"])
    some: Any = {"type": int, "choices": range(1, 1001), "metavar": "N"}
    add("--concurrency", nargs="+", **some, default=[1, 2, 4, 8, 16, 32], help="requests at once")
    add("--rounds", **some, default=3, help="runs of each kind, whose medians are shown (default 3)")
    add("--class", dest="pupils", **some, default=0, help="also N pupils within one second")
    add("--output", type=Path, metavar="FOLDER", help="keeps benchmark.json and benchmark.md there")
    add("--against", choices=[peers.VLLM], help="another server here, on the same weights")
    options = parser.parse_args()
    if options.endpoint and options.against:
        parser.error("--against starts servers here; leave the endpoint out")
    return options


def main() -> int:
    options = arguments()
    session = Session(options)
    if options.endpoint:
        session.measure(options.endpoint, remote(options.endpoint))
    else:
        measure_here(session, local.settings())
    print(report.markdown(TITLE, session.tables), end="")
    return 1 if session.failed else 0
