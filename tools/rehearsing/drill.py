"""Rehearses the switch: a class asks, the first of two backends is taken away, and nothing may be lost.

scripts/drill                            two on this machine: a Gradio Space of the old kind, which is killed,
                                         and the front (snb.front), which IMAGE-porte runs
scripts/drill --backends URL URL         two that are already running; you are told when to take the first
                                         away. replicate:owner/name is accepted in place of a URL

Pupils ask through the JavaScript client, as in production. Prints a record to keep. Exits with 0 if every
question was answered and each backend has answered, the second after the first was taken away; else with 1.
"""

import contextlib
import itertools
import json
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from snb.front import process_group
from snb.philosophers import names
from snb.settings import ROOT
from tools.benchmarking import workload
from tools.benchmarking.benchmark_record import machine, versions
from tools.command import command_line, say
from tools.endpoints.cog_endpoint import own_key
from tools.endpoints.endpoint import Failed
from tools.endpoints.gradio_endpoint import is_gradio
from tools.rehearsing.course import NEVER, Answer, Course
from tools.serving import local
from tools.serving.server import FRONT, Server

SHARED = {"SNB_SLOTS": "4", "OMP_WAIT_POLICY": "PASSIVE"}
"""Settings of two servers that share a machine, unless the environment says otherwise: few slots, and threads
that do not spin while they wait, which makes a busy machine with few cores many times slower."""
CLIENT = ROOT / "client"
DISTINCT, TOKENS = 6, 32
"""Number of different questions, which are asked again and again; most tokens of an answer."""
FIRST = 2
"""Questions per pupil, on average, that have ended before the first backend is taken away."""
PATIENCE, BOOT = 300.0, 600.0
"""Most seconds that the drill goes on after the first backend is taken away, and that a server here boots."""


@dataclass(frozen=True)
class Backends:
    scene: str
    """What they are, and how the first is taken away, for the record."""
    urls: list[str]
    settings: Mapping[str, str]
    """Environment variables of the client."""
    take: Callable[[], object]
    """Takes the first away."""


def by_hand(urls: list[str]) -> Backends:
    """Two backends that are already running; a person is told when to take the first away."""
    scene = f"{' and '.join(urls)}; the first was taken away by hand"
    settings = {"SNB_API_KEY": key} if (key := own_key()) else {}
    return Backends(scene, urls, settings, lambda: say(f"\a>>> Take the first backend away now: {urls[0]}"))


def here(stack: contextlib.ExitStack, log: IO[str]) -> Backends:
    """Starts the plan's two backends on loopback, with the client settings of the plan; `stack` ends them.

    Raises:
        Failed: one of them does not boot.
    """
    shared = {name: os.environ.get(name, value) for name, value in SHARED.items()}
    # The stand-in, since no card has room for two 14B models.
    settings, key = {**local.settings(real=False), **shared}, secrets.token_hex(16)
    say("two servers boot …")
    first = stack.enter_context(Server(settings, log=log, module="tools.rehearsing.old_space"))
    second = stack.enter_context(Server({**settings, "SNB_API_KEY": key}, log=log, module=FRONT))
    second.wait(BOOT)
    first.wait(BOOT, lambda http: "READY" if is_gradio(http) else "DOWN")
    return Backends(
        f"a Gradio Space of the old kind and python -m {FRONT} with a key; the first was killed",
        [first.url, second.url],
        {"SNB_API_KEY": key, "SNB_API_PREFIX": "/gradio_api"},
        lambda: os.killpg(first.pid, signal.SIGKILL),
    )


def questions() -> list[dict[str, Any]]:
    """The questions as the client takes them, addressed to each philosopher in turn."""
    texts = zip(workload.TEXTS["questions"][:DISTINCT], itertools.cycle(names()), strict=False)
    return [{"philosopher": who, "message": text, "maxTokens": TOKENS} for text, who in texts]


@contextlib.contextmanager
def asking(backends: Backends, pupils: int) -> Iterator[Iterator[Answer]]:
    """Runs a class of `pupils` in a Node program, which ends with the block; yields answers as they come."""
    asked = json.dumps({"pupils": pupils, "questions": questions()})
    environment = {**os.environ, **backends.settings, "SNB_BACKEND_URL": ",".join(backends.urls)}
    program = ["node", str(Path(__file__).with_name("drill.mjs")), asked]
    process = process_group.start(program, stdout=subprocess.PIPE, text=True, env=environment)
    try:
        yield (Answer(**json.loads(line)) for line in process.stdout or ())
    finally:
        process_group.end(process)


def rehearse(course: Course, backends: Backends, pupils: int) -> None:
    """Runs the drill; fills `course` as it goes, so that a drill that fails still has a record."""
    say(f"{pupils} pupils ask …")
    with asking(backends, pupils) as answers:
        for answer in answers:
            course.answers.append(answer)
            if course.taken == NEVER and len(course.answers) >= FIRST * pupils:
                course.taken = time.time()
                backends.take()
            if course.is_over(pupils) or time.time() > course.taken + PATIENCE:
                return
    raise Failed("the client has ended")


def record(course: Course, scene: str) -> str:
    """The record, in Markdown; `scene` says who asked whom, and what was done to the first backend."""
    computer, now = machine(), datetime.now(UTC)
    where = ", ".join(filter(None, [computer["system"], computer["processor"], *computer["gpus"]]))
    return f"""\
# Drill of {now:%Y-%m-%d}

- Date: {now:%Y-%m-%d %H:%M} UTC, project {versions()["project"] or "unknown"}
- Machine: {where}, {computer["cores"]} cores
- {scene}

{course.summary()}"""


def main() -> int:
    parser = command_line(__doc__)
    add = parser.add_argument
    add("--pupils", type=int, choices=range(1, 33), default=6, metavar="N", help="1 to 32 (default 6)")
    add("--backends", nargs=2, metavar="URL", help="two that run already, in order of preference")
    add("--output", type=Path, metavar="FILE", help="also writes the record there")
    asked = parser.parse_args()
    if not (shutil.which("node") and (CLIENT / "node_modules" / "replicate").exists()):
        need = "the drill asks through the JavaScript client, which needs Node 18 or later"
        raise Failed(f"{need} (https://nodejs.org), and then: npm ci --prefix client --omit=dev")
    course = Course()
    with tempfile.TemporaryFile("w+") as log, contextlib.ExitStack() as stack:
        backends = by_hand(asked.backends) if asked.backends else here(stack, log)
        try:
            rehearse(course, backends, asked.pupils)
        finally:
            scene = f"{asked.pupils} pupils asked through the JavaScript client {backends.scene}"
            written = record(course, scene)
            print(written, end="")
            if asked.output:
                asked.output.parent.mkdir(parents=True, exist_ok=True)
                asked.output.write_text(written, encoding="utf-8")
    return 1 if course.faults() else 0
