"""A class that asks through the JavaScript client, which production uses: a Node program as a child."""

import contextlib
import json
import math
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from snb.settings import ROOT
from tools.endpoints.endpoint import Failed
from tools.endpoints.started import say

PROGRAM = Path(__file__).with_name("drill.mjs")
CLIENT = ROOT / "client"
OWN = ("SNB_BACKEND_URL", "SNB_API_PREFIX", "SNB_TIMEOUT_MS")
"""Settings of the client, which a drill makes itself."""
Question = Mapping[str, Any]
"""number, philosopher, message, seed and maxTokens; the same number is the same question and seed."""


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
        timeout: seconds for each question, as a caller of the client sets them; the client keeps to them.

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

    def round(self, pupils: Sequence[Sequence[Question]], backends: Sequence[str]) -> Iterator[Answer]:
        """Lets each pupil ask its questions one after the other; yields answers as they come.

        Raises:
            Failed: the program has ended.
        """
        assert self._process.stdin
        assert self._process.stdout
        asked = {"pupils": pupils, "backends": backends, "timeoutMs": round(1000 * self._timeout)}
        with contextlib.suppress(OSError, ValueError):  # a pipe that nobody reads, or that is closed
            print(json.dumps(asked), file=self._process.stdin, flush=True)
            for line in self._process.stdout:
                answer = json.loads(line)
                if answer.get("over"):
                    return
                yield read(answer)
        raise Failed("the client has ended")

    def close(self) -> None:
        """Ends the program and returns when it is gone."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):  # what was not written yet finds nobody
                pipe and pipe.close()


def moment() -> float:
    """Now, in seconds since the epoch, in whole milliseconds as the program counts them."""
    return math.floor(1000 * time.time()) / 1000


def read(line: Mapping[str, Any]) -> Answer:
    """An answer as the program writes it, in milliseconds."""
    attempts = tuple((position, code) for position, code in line["attempts"])
    asked, ended = line["asked"] / 1000, line["ended"] / 1000
    return Answer(line["number"], asked, ended, line["text"], line["failure"], attempts)


def node() -> str:
    """Node's program, with the client's one dependency in place. Raises Failed where that cannot be."""
    program = shutil.which("node")
    if not program:
        raise Failed(
            "the drill asks through the JavaScript client, which needs Node 18 or later: https://nodejs.org"
        )
    if not (CLIENT / "node_modules" / "replicate" / "package.json").exists():
        say("installing the client's dependencies …")
        command = ["npm", "ci", "--prefix", str(CLIENT), "--omit=dev", "--no-audit", "--no-fund", "--silent"]
        if subprocess.run(command, stdout=subprocess.DEVNULL).returncode:
            raise Failed("npm wrote the reason above")
    return program
