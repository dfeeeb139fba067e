"""A class that asks through the JavaScript client, which production uses: a Node program as a child."""

import contextlib
import json
import math
import os
import queue
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.endpoints.endpoint import Failed
from tools.endpoints.started import ROOT, say

PROGRAM = Path(__file__).with_name("drill.mjs")
CLIENT = ROOT / "client"
OLDEST = 18
"""Of Node, as client/package.json has it."""
OWN = ("SNB_BACKEND_URL", "SNB_API_PREFIX", "SNB_TIMEOUT_MS")
"""Settings of the client; a drill names its backends itself, and a server would refuse to boot with them."""
INSTALL = 300.0
"""Seconds for npm."""
MARGIN = 15.0
"""Seconds that an answer may come after the client's own limit."""


@dataclass(frozen=True)
class Question:
    """The same number is the same question with the same seed."""

    number: int
    philosopher: str
    message: str
    tokens: int
    """Of the longest answer."""

    def shown(self) -> dict[str, Any]:
        """For the program."""
        asked = {"number": self.number, "philosopher": self.philosopher, "message": self.message}
        return {**asked, "seed": self.number, "maxTokens": self.tokens}


@dataclass(frozen=True)
class Answer:
    """What came of one question. Times are seconds since the epoch."""

    number: int
    asked: float
    ended: float
    text: str
    failure: str
    attempts: tuple[tuple[int, str], ...]
    """Position of each backend that was asked, and the client's code: `OK` or why not."""

    @property
    def wait(self) -> float:
        """Seconds until the whole answer, or its failure."""
        return self.ended - self.asked

    @property
    def backend(self) -> int | None:
        """Position of the backend that answered."""
        return next((position for position, code in self.attempts if code == "OK"), None)


class Pupils:
    """Starts the program; `close()` ends it.

    Args:
        timeout: seconds for each question, as a caller of the client sets them.

    Raises:
        Failed: there is no Node, or the client cannot be installed.
    """

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._process = subprocess.Popen(
            [node(), str(PROGRAM)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={name: value for name, value in os.environ.items() if name not in OWN},
            start_new_session=True,  # Ctrl-C is for this process to see, which then ends it
        )
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._process.stdout
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put("")

    def round(self, pupils: Sequence[Sequence[Question]], backends: Sequence[str]) -> Iterator[Answer]:
        """Lets each pupil ask its questions one after the other; yields answers as they come.

        Raises:
            Failed: the program ended, or is silent for longer than a question may take.
        """
        shown = [[question.shown() for question in questions] for questions in pupils]
        asked = {"pupils": shown, "backends": list(backends), "timeoutMs": round(1000 * self._timeout)}
        assert self._process.stdin
        try:
            self._process.stdin.write(f"{json.dumps(asked)}\n")
            self._process.stdin.flush()
        except (OSError, ValueError) as error:  # a pipe that nobody reads, or that is closed
            raise Failed("the client has ended") from error
        while not (line := self._next()).get("over"):
            yield read(line)

    def _next(self) -> Mapping[str, Any]:
        try:
            line = self._lines.get(timeout=self._timeout + MARGIN)
        except queue.Empty:
            raise Failed(f"the client is silent for {self._timeout + MARGIN:g} s") from None
        if not line:
            raise Failed("the client has ended")
        found: Mapping[str, Any] = json.loads(line)
        return found

    def close(self) -> None:
        """Ends the program and returns when it is gone."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):  # what was not written yet finds nobody
                pipe and pipe.close()

    def __enter__(self) -> "Pupils":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def moment() -> float:
    """Now, in seconds since the epoch, in whole milliseconds as the program counts them."""
    return math.floor(1000 * time.time()) / 1000


def read(line: Mapping[str, Any]) -> Answer:
    """An answer as the program writes it, in milliseconds."""
    attempts = tuple((position, code) for position, code in line["attempts"])
    asked, ended = line["asked"] / 1000, line["ended"] / 1000
    return Answer(line["number"], asked, ended, line["text"], line["failure"], attempts)


def node() -> str:
    """Node's program, with the client's one dependency in place.

    Raises:
        Failed: Node is absent or too old, or npm fails.
    """
    found = shutil.which("node")
    cure = f"the drill asks through the JavaScript client, which needs Node {OLDEST} or later: https://nodejs.org"
    if not found:
        raise Failed(f"there is no node on PATH; {cure}")
    version = subprocess.run([found, "--version"], capture_output=True, text=True, timeout=30).stdout.strip()
    number = re.match(r"v(\d+)", version)
    if not number or int(number[1]) < OLDEST:
        raise Failed(f"node is {version or 'silent'}; {cure}")
    if not (CLIENT / "node_modules" / "replicate" / "package.json").exists():
        install()
    return found


def install() -> None:
    """What client/package-lock.json says, without what only its tests need."""
    say("installing the client's dependencies …")
    command = ["npm", "ci", "--prefix", str(CLIENT), "--omit=dev", "--no-audit", "--no-fund", "--silent"]
    try:
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=INSTALL)
    except (OSError, subprocess.SubprocessError) as error:
        raise Failed(f"npm failed ({type(error).__name__}); npm ci --prefix client says why") from error
