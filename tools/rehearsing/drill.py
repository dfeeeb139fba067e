"""Rehearses the switch: a class asks, the first of two backends is taken away, and nothing may be lost.

scripts/drill                            two on this machine: a Gradio Space of the old kind, which is killed,
                                         and the program that the image with a door runs
scripts/drill --how hang                 it stays there and says nothing more; stop: it is shut down in order
scripts/drill --backends URL URL         two that run already; you are told when to take the first away and
                                         when to bring it back. replicate:owner/name will do for a URL

Pupils ask through the JavaScript client, as production does. Prints a record to keep. Ends with 0 when every
question was answered whole, by the second backend while the first was away, and by the first afterwards.
"""

import argparse
import contextlib
import itertools
import json
import math
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from queue import SimpleQueue
from typing import IO, Any

from snb.front import process_group
from snb.philosophers import names
from snb.settings import ROOT
from tools.benchmarking import workload
from tools.benchmarking.benchmark_record import machine, versions
from tools.command import say
from tools.endpoints.cog_endpoint import own_key
from tools.endpoints.endpoint import Failed, Http
from tools.endpoints.gradio_endpoint import is_gradio
from tools.rehearsing.course import NEVER, Answer, Course
from tools.serving import local
from tools.serving.server import FRONT, Server

SIGNALS = {"kill": signal.SIGKILL, "stop": signal.SIGTERM, "hang": signal.SIGSTOP}
"""`kill`: the host is gone from one moment to the next; `stop`: it is shut down in order; `hang`: it is
there, and says nothing any more."""
SHARED = {"SNB_SLOTS": "4", "OMP_WAIT_POLICY": "PASSIVE"}
"""For two servers on one machine, unless the environment says otherwise: few slots, and threads that do not
spin while they wait for each other, which on few cores makes a busy machine many times slower."""
CLIENT = ROOT / "client"
DISTINCT, TOKENS = 6, 32
"""Questions that are asked again and again, so that their answers can be compared; tokens of an answer."""
FIRST = 2
"""Questions of each pupil before anything happens."""
PATIENCE, BOOT = 300.0, 600.0
"""Seconds for the second backend to answer, or for callers to return; and for a server here to be ready."""


class ByHand:
    """Two backends that run already, of which a person takes the first away when asked to."""

    deed = "by hand"

    def __init__(self, urls: list[str]) -> None:
        self.urls, self.names = urls, urls
        self.settings = {"SNB_API_KEY": key} if (key := own_key()) else {}

    def take(self) -> None:
        """The first is taken away."""
        say(f"\a>>> Take the first backend away now: {self.urls[0]}")

    def give(self) -> None:
        """The first is brought back."""
        say(f"\a>>> Bring the first backend back now: {self.urls[0]}")


class OldSpace(Server):
    """The usual first address: a Gradio Space of the old kind, with its model behind it."""

    def __init__(self, settings: Mapping[str, str], port: int, log: IO[str]) -> None:
        super().__init__(settings, port=port, log=log, module="tools.rehearsing.old_space")

    def status(self) -> str:
        """Gradio knows no state but to be there."""
        return "READY" if is_gradio(Http(self.url, silence=10)) else "DOWN"


class Local:
    """The two of the plan on loopback, as `ByHand`, and its settings of the client; `stack` ends them.

    Raises:
        SetupFailed: one of them does not boot.
    """

    def __init__(self, stack: contextlib.ExitStack, log: IO[str], how: str) -> None:
        self.deed = f"{SIGNALS[how].name} to its process group"
        self._signal, self._stack, self._log = SIGNALS[how], stack, log
        shared = {name: os.environ.get(name, value) for name, value in SHARED.items()}
        self._settings, key = {**local.settings(), **shared}, secrets.token_hex(16)
        self._first = self._start()
        second = Server({**self._settings, "SNB_API_KEY": key}, log=log, module=FRONT)
        stack.enter_context(second)
        for server in (self._first, second):
            server.wait(BOOT)
        self.urls = [self._first.url, second.url]
        self.names = ["a Gradio Space of the old kind", f"python -m {FRONT} with a key"]
        self.settings = {"SNB_API_KEY": key, "SNB_API_PREFIX": "/gradio_api"}

    def take(self) -> None:
        """The first and its worker get the signal."""
        os.killpg(self._first.pid, self._signal)

    def give(self) -> None:
        """A new server boots on the port of the first, as after a restart of its host."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._first.pid, signal.SIGKILL)
        self._first.close()
        self._first = self._start(self._first.port)
        self._first.wait(BOOT)

    def _start(self, port: int = 0) -> OldSpace:
        return self._stack.enter_context(OldSpace(self._settings, port, self._log))


def questions() -> list[dict[str, Any]]:
    """What is asked, in turn of each philosopher."""
    texts = zip(workload.TEXTS["questions"][:DISTINCT], itertools.cycle(names()), strict=False)
    return [
        {"number": n, "seed": n, "philosopher": who, "message": text, "maxTokens": TOKENS}
        for n, (text, who) in enumerate(texts)
    ]


@contextlib.contextmanager
def asking(
    urls: list[str], settings: Mapping[str, str], pupils: int, rounds: int | None = None
) -> Iterator[Iterator[Answer]]:
    """The answers to a class, as they come: a Node program, which ends with the block."""
    asked = {"pupils": pupils, "rounds": rounds, "questions": questions()}
    environment = {**os.environ, **settings, "SNB_BACKEND_URL": ",".join(urls)}
    program = ["node", str(Path(__file__).with_name("drill.mjs")), json.dumps(asked)]
    process = process_group.start(program, stdout=subprocess.PIPE, text=True, env=environment)
    lines = SimpleQueue[str]()

    def read() -> None:
        """In a thread: a full pipe would keep pupils waiting while a server boots."""
        for line in process.stdout or ():
            lines.put(line)
        lines.put("")

    threading.Thread(target=read, daemon=True).start()
    try:
        yield (Answer(**json.loads(line)) for line in iter(lines.get, ""))
    finally:
        process_group.end(process)


def references(backends: ByHand | Local) -> dict[int, str]:
    """The text of each answer, of either backend alone.

    Raises:
        Failed: one of them is down from the start; a drill would show nothing.
    """
    texts: dict[int, str] = {}
    for which, url, pupils in zip(("second", "first"), reversed(backends.urls), (1, DISTINCT), strict=True):
        with asking([url], backends.settings, pupils, rounds=1) as answers:
            for answer in answers:
                if answer.failure:
                    raise Failed(f"the {which} backend does not answer before the drill: {answer.failure}")
                texts[answer.number] = answer.text
    return texts


def rehearse(course: Course, backends: ByHand | Local, pupils: int) -> None:
    """The whole drill; fills `course` as it goes, so that one that fails has something to show."""
    say(f"{pupils} pupils ask …")
    with asking(backends.urls, backends.settings, pupils) as answers:

        def hear(over: Callable[[], bool]) -> None:
            """Keeps answers until something has come true, or for PATIENCE; then one more of each pupil."""
            until, more = time.time() + PATIENCE, pupils
            for answer in answers:
                course.answers.append(answer)
                more -= over()
                if not more or time.time() > until:
                    return
            raise Failed("the client has ended")

        hear(lambda: len(course.answers) > (FIRST - 1) * pupils)
        course.taken = moment()
        backends.take()
        say(f"the first backend is taken away after {len(course.answers)} answers …")
        hear(lambda: course.switched < NEVER)
        say("the first backend is brought back …")
        course.given = moment()
        backends.give()
        course.ready = moment()
        hear(lambda: course.returned < NEVER)


def moment() -> float:
    """Now, in seconds since the epoch, in whole milliseconds as JavaScript counts them."""
    return math.floor(1000 * time.time()) / 1000


def record(course: Course, scene: str) -> str:
    """In Markdown; `scene` says who asked whom, and what was done to the first backend."""
    here, now = machine(), datetime.now(UTC)
    where = ", ".join(filter(None, [here["system"], here["processor"], *here["gpus"]]))
    return f"""\
# Drill of {now:%Y-%m-%d}

- Date: {now:%Y-%m-%d %H:%M} UTC, project {versions()["project"] or "unknown"}
- Machine: {where}, {here["cores"]} cores
- {scene}

{course.summary()}"""


def check_client() -> None:
    """Raises Failed where the client cannot run."""
    if not (shutil.which("node") and (CLIENT / "node_modules" / "replicate").exists()):
        need = "the drill asks through the JavaScript client, which needs Node 18 or later"
        raise Failed(f"{need} (https://nodejs.org), and then: npm ci --prefix client --omit=dev")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--pupils", type=int, choices=range(1, 33), default=6, metavar="N", help="1 to 32 (default 6)")
    add("--how", choices=SIGNALS, default="kill", help="what befalls the first backend (default kill)")
    add("--backends", nargs=2, metavar="URL", help="two that run already, in order of preference")
    add("--output", type=Path, metavar="FILE", help="also writes the record there")
    options = parser.parse_args()
    check_client()
    with tempfile.TemporaryFile("w+") as log, contextlib.ExitStack() as stack:
        if not options.backends:
            say("two servers boot …")
        two = ByHand(options.backends) if options.backends else Local(stack, log, options.how)
        course = Course(references(two))
        try:
            rehearse(course, two, options.pupils)
        finally:
            asked = f"{options.pupils} pupils asked {' and '.join(two.names)} through the JavaScript client"
            written = record(course, f"{asked}; the first was taken away: {two.deed}")
            print(written, end="")
            if options.output:
                options.output.parent.mkdir(parents=True, exist_ok=True)
                options.output.write_text(written, encoding="utf-8")
    return 1 if course.faults() else 0
