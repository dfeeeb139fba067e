"""Time to first token, latency between tokens and throughput of an endpoint, at growing concurrency.

All requests of a run arrive at once. A server that takes no more for now (409) is asked again until it does,
and the wait counts, as it would for a pupil.
"""

import json
import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import local
from server import Server

from snb.settings import ROOT

QUESTIONS = (
    "Suis-je libre de désirer ce que je désire ?",
    "Pourquoi faudrait-il toujours dire la vérité ?",
    "Le bonheur dépend-il de nous ?",
    "Peut-on connaître le monde tel qu’il est ?",
)
PASSAGE = (
    "L’expérience fait voir, aussi clairement que la raison, que nous nous croyons libres parce que nous "
    "avons conscience de nos actions, et que nous ignorons les causes par lesquelles elles sont déterminées. "
)
WORKLOADS: dict[str, dict[str, Any]] = {
    "chat": {"max_tokens": 64},
    "rag": {"max_tokens": 150, "rag_context": "\n\n".join([PASSAGE * 4] * 3)},
}
RETRY = 0.05
"""Seconds between two tries at a full server."""


@dataclass(frozen=True)
class Answer:
    """One request, in seconds since all were sent."""

    first: float
    """First text."""
    last: float
    tokens: int


@dataclass(frozen=True)
class Run:
    """One workload at one concurrency; times in seconds."""

    server: str
    workload: str
    concurrency: int
    ttft_median: float
    ttft_last: float
    between_tokens_median: float
    tokens_per_second: float


def run(workloads: list[str], levels: list[int], against: bool, rounds: int, output: Path | None) -> None:
    """Prints a row for each run, medians over `rounds`, and keeps the raw ones."""
    runs: list[Run] = []
    print(f"{'server':>10} {'load':>5} {'at once':>7} {'TTFT':>7} {'last':>7} {'between':>8} {'tokens/s':>9}")
    for name in ["ours", "reference"] if against else ["ours"]:
        with started(name) as server:
            measure(server, name, "chat", 1)  # warms what the first request would pay for
            for workload in workloads if name == "ours" else ["chat"]:
                for level in levels:
                    raw = [measure(server, name, workload, level) for _ in range(rounds)]
                    runs += raw
                    show(raw)
    if output:
        output.write_text(json.dumps([asdict(run) for run in runs], indent=2) + "\n")


def show(raw: list[Run]) -> None:
    """One row: the medians of some runs that are alike."""
    middle = [
        statistics.median(getattr(run, field) for run in raw)
        for field in ("ttft_median", "ttft_last", "between_tokens_median", "tokens_per_second")
    ]
    first = raw[0]
    print(
        f"{first.server:>10} {first.workload:>5} {first.concurrency:>7} {middle[0]:>7.2f} {middle[1]:>7.2f} "
        f"{middle[2]:>8.3f} {middle[3]:>9.1f}",
        flush=True,
    )


@contextmanager
def started(name: str) -> Iterator[Server]:
    """This package's server, or the reference predictor's, on the same weights."""
    environment = {**local.settings(), "SNB_SLOTS": "32"}
    with tempfile.TemporaryDirectory() as folder, (Path(folder) / "log").open("w") as log:
        directory = ROOT if name == "ours" else Path(folder)
        if name == "reference":
            shutil.copy(ROOT / "cog.yaml", folder)
            shutil.copy(ROOT / "scripts" / "reference_predict.py", directory / "predict.py")
        with Server(environment, log=log, directory=directory) as server:
            server.wait()
            yield server


def measure(server: Server, name: str, workload: str, level: int) -> Run:
    """`level` requests that arrive at once."""
    answers: list[Answer] = []
    begin = time.monotonic()
    pupils = [
        threading.Thread(target=lambda n=n: answers.append(ask(server, inputs_for(name, workload, n), begin)))
        for n in range(level)
    ]
    for pupil in pupils:
        pupil.start()
    for pupil in pupils:
        pupil.join()
    return Run(
        server=name,
        workload=workload,
        concurrency=level,
        ttft_median=statistics.median(answer.first for answer in answers),
        ttft_last=max(answer.first for answer in answers),
        between_tokens_median=statistics.median((a.last - a.first) / (a.tokens - 1) for a in answers),
        tokens_per_second=sum(answer.tokens for answer in answers) / max(answer.last for answer in answers),
    )


def inputs_for(name: str, workload: str, number: int) -> dict[str, Any]:
    """The same length of answer from every server, whatever it would say."""
    inputs = {"user_message": QUESTIONS[number % len(QUESTIONS)], **WORKLOADS[workload]}
    return inputs if name == "reference" else {**inputs, "min_tokens": inputs["max_tokens"], "seed": number}


def ask(server: Server, inputs: dict[str, Any], begin: float) -> Answer:
    """One answer, from a server that may have to be asked again."""
    first = last = 0.0
    while True:
        for event, data in server.stream(**inputs):
            if event == "output" and data["chunk"]:
                last = time.monotonic() - begin
                first = first or last
            elif event == "error" and data.get("http") != 409:
                raise RuntimeError(f"the server answered {data}")
        if last:
            return Answer(first, last, inputs["max_tokens"])
        time.sleep(RETRY)
