"""Rehearses the switch: a class asks, the first of two backends is taken away, and nothing may be lost.

scripts/drill                            two Cog servers on this machine, the first of which is killed
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
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from snb.philosophers import names
from snb.settings import ROOT
from tools.benchmarking import workload
from tools.command import say
from tools.endpoints.endpoint import Failed
from tools.rehearsing.course import NEVER, Answer, Course
from tools.serving import local
from tools.serving.server import Server

SIGNALS = {"kill": signal.SIGKILL, "stop": signal.SIGTERM, "hang": signal.SIGSTOP}
"""`kill`: the host is gone from one moment to the next; `stop`: it is shut down in order; `hang`: it is
there, and says nothing any more."""
SHARED = {"SNB_SLOTS": "4", "OMP_WAIT_POLICY": "PASSIVE"}
"""For two servers on one machine, unless the environment says otherwise: few slots, and threads that do not
spin while they wait for each other, which on few cores makes a busy machine many times slower."""
OWN = ("SNB_BACKEND_URL", "SNB_API_PREFIX", "SNB_TIMEOUT_MS")
"""Settings of the client, which a drill makes itself."""
CLIENT = ROOT / "client"
DISTINCT = 6
"""Questions that are asked again and again, so that their answers can be compared."""
PAUSE = 2.0
"""Seconds between two looks whether the first backend is asked again."""


class ByHand:
    """Two backends that run already, of which a person takes the first away when asked to."""

    deed = "by hand"

    def __init__(self, urls: list[str]) -> None:
        self.urls = urls

    def take(self) -> None:
        """The first is taken away."""
        say(f"\a>>> Take the first backend away now: {self.urls[0]}")

    def give(self) -> None:
        """The first is brought back."""
        say(f"\a>>> Bring the first backend back now: {self.urls[0]}")


class Local:
    """Two real Cog servers on loopback, as `ByHand`; `stack` ends them.

    Raises:
        SetupFailed: one of them does not boot.
    """

    def __init__(self, stack: contextlib.ExitStack, log: IO[str], how: str, boot: float) -> None:
        shared = {name: os.environ.get(name, value) for name, value in SHARED.items()}
        self._settings, self._stack, self._boot = {**local.settings(), **shared}, stack, boot
        self._signal, self.deed = SIGNALS[how], f"{SIGNALS[how].name} to its process group"
        self._log = log
        self._first, self._second = self._server(), self._server()
        self._first.wait(boot)
        self._second.wait(boot)
        self.urls = [self._first.url, self._second.url]

    def take(self) -> None:
        """The first and its worker get the signal."""
        os.killpg(self._first.pid, self._signal)

    def give(self) -> None:
        """A new server boots on the port of the first, as after a restart of its host."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._first.pid, signal.SIGKILL)
        self._first.close()
        self._first = self._server(self._first.port)
        self._first.wait(self._boot)

    def _server(self, port: int = 0) -> Server:
        return self._stack.enter_context(Server(self._settings, port=port, log=self._log))


class Drill:
    """A class behind the JavaScript client: a Node program as a child, which `close()` ends.

    `course` is filled as it goes, so that there is something to show of a drill that fails.
    """

    def __init__(self, options: argparse.Namespace, backends: ByHand | Local) -> None:
        self.course = Course()
        self._options, self._backends = options, backends
        texts = zip(workload.TEXTS["questions"][:DISTINCT], itertools.cycle(names()), strict=False)
        self._questions = [
            {"number": n, "seed": n, "philosopher": who, "message": text, "maxTokens": options.tokens}
            for n, (text, who) in enumerate(texts)
        ]
        self._class = subprocess.Popen(
            ["node", str(Path(__file__).with_name("drill.mjs"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={name: value for name, value in os.environ.items() if name not in OWN},
            start_new_session=True,  # Ctrl-C is for this process to see, which then ends it
        )

    def run(self) -> None:
        """The whole drill. Raises Failed when it cannot go on."""
        course, pupils, total = (
            self.course,
            self._options.pupils,
            self._options.pupils * self._options.questions,
        )
        self._refer()
        say(f"{pupils} pupils ask {self._options.questions} questions each …")
        for count, _ in enumerate(self._ask(pupils, self._options.questions), start=1):
            if count == max(1, total // 3):
                course.taken = moment()
                self._backends.take()
                say(f"the first backend is taken away after {count} of {total} answers …")
        self._ask_until("switched", course.taken + self._options.away, pupils)
        list(self._ask(pupils))
        say("the first backend is brought back …")
        course.given = moment()
        self._backends.give()
        course.ready = moment()
        self._ask_until("returned", course.ready + self._options.back, 1)
        list(self._ask(pupils))

    def close(self) -> None:
        """Ends the class."""
        self._class.kill()
        with contextlib.suppress(OSError):  # what was not written yet finds nobody
            self._class.communicate()

    def _refer(self) -> None:
        """Asks each backend alone: a drill in which one of them is down from the start shows nothing."""
        for which, url, count in zip(("first", "second"), self._backends.urls, (DISTINCT, 1), strict=True):
            for answer in self._round([[question] for question in self._questions[:count]], [url]):
                if answer.failure:
                    raise Failed(f"the {which} backend does not answer before the drill: {answer.failure}")
                self.course.references.setdefault(answer.number, answer.text)

    def _ask_until(self, event: str, limit: float, pupils: int) -> None:
        while getattr(self.course, event) == NEVER and time.time() < limit:
            list(self._ask(pupils))
            time.sleep(PAUSE)

    def _ask(self, pupils: int, questions: int = 1) -> Iterator[Answer]:
        """A round, in which neighbours ask different questions; its answers are kept."""
        asked = [[self._questions[(p + n) % DISTINCT] for n in range(questions)] for p in range(pupils)]
        for answer in self._round(asked, self._backends.urls):
            self.course.answers.append(answer)
            yield answer

    def _round(self, pupils: list[list[dict[str, Any]]], backends: list[str]) -> Iterator[Answer]:
        """Lets each pupil ask its questions one after the other; yields answers as they come.

        Raises:
            Failed: the program has ended.
        """
        assert self._class.stdin
        assert self._class.stdout
        asked = {"pupils": pupils, "backends": backends, "timeoutMs": round(1000 * self._options.timeout)}
        with contextlib.suppress(OSError):  # a pipe that nobody reads
            print(json.dumps(asked), file=self._class.stdin, flush=True)
            for line in self._class.stdout:
                answer = json.loads(line)
                if answer.get("over"):
                    return
                yield Answer(**answer)
        raise Failed("the client has ended")


def moment() -> float:
    """Now, in seconds since the epoch, in whole milliseconds as JavaScript counts them."""
    return math.floor(1000 * time.time()) / 1000


def install_client() -> None:
    """Installs the client's one dependency. Raises Failed where that cannot be."""
    if not shutil.which("node"):
        need = "the drill asks through the JavaScript client, which needs Node 18 or later"
        raise Failed(f"{need}: https://nodejs.org")
    if not (CLIENT / "node_modules" / "replicate" / "package.json").exists():
        say("installing the client's dependencies …")
        command = ["npm", "ci", "--prefix", str(CLIENT), "--omit=dev", "--no-audit", "--no-fund", "--silent"]
        if subprocess.run(command, stdout=subprocess.DEVNULL).returncode:
            raise Failed("npm wrote the reason above")


def scene(options: argparse.Namespace, backends: ByHand | Local) -> str:
    """Who asked whom, as a line of the record."""
    each = f"{options.questions} questions each, at most {options.tokens} tokens an answer"
    return (
        f"{options.pupils} pupils asked {' and '.join(backends.urls)} through the client's callSNB, {each}; "
        f"the first was taken away: {backends.deed}"
    )


def main() -> int:
    options = arguments()
    install_client()
    for name in OWN:
        os.environ.pop(name, None)  # a server here is no client
    with tempfile.TemporaryFile("w+") as log, contextlib.ExitStack() as stack:
        if not options.backends:
            say("two servers boot …")
        two = ByHand(options.backends) if options.backends else Local(stack, log, options.how, options.boot)
        drill = stack.enter_context(contextlib.closing(Drill(options, two)))
        try:
            drill.run()
        except Failed as error:
            say(str(error))
            return 1
        finally:
            if drill.course.answers:
                record = drill.course.record(scene(options, two))
                print(record, end="")
                if options.output:
                    options.output.parent.mkdir(parents=True, exist_ok=True)
                    options.output.write_text(record, encoding="utf-8")
    return 1 if drill.course.faults() else 0


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--pupils", type=int, default=6, metavar="N", help="who ask at once (default 6, at most 32)")
    add("--questions", type=int, default=4, metavar="N", help="of each pupil (default 4)")
    add("--tokens", type=int, default=32, metavar="N", help="of the longest answer (default 32)")
    add("--how", choices=SIGNALS, default="kill", help="what befalls the first backend (default kill)")
    add("--backends", nargs=2, metavar="URL", help="two that run already, in order of preference")
    add("--output", type=Path, metavar="FILE", help="also writes the record there")
    add("--timeout", type=float, default=55, help="seconds for each question (default 55)")
    add("--boot", type=float, default=600, help="seconds for a server here to be ready (default 600)")
    add("--away", type=float, default=300, help="seconds for the second backend to answer (default 300)")
    add("--back", type=float, default=300, help="seconds for callers to return to the first (default 300)")
    options = parser.parse_args()
    if options.pupils > 32 or min(options.pupils, options.questions, options.tokens) < 1:
        parser.error(
            "--pupils is 1 to 32, as a server takes at once; --questions and --tokens are at least 1"
        )
    return options
