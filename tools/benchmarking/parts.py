"""Parts of a report: programs that each have their time; one that fails or hangs leaves the others alone."""

import json
import math
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tools.benchmarking.children import TAIL
from tools.endpoints.endpoint import Failed
from tools.endpoints.started import say
from tools.serving.process_group import end, start

PATIENCE = 3600.0
"""Seconds of one program where there is no deadline; a kernel that hangs must not hold up the rest."""
SLOWER, COLD = 2, 30.0
"""Where there is one: a part may take so many times as long as expected, and so many seconds more."""
GRACE = 10.0
"""Seconds that a program gets to end what it started."""

Tables = Mapping[str, Any]
"""Rows of figures by the name of their table; a row is a flat object."""


@dataclass
class Part:
    """One part, and what it has measured so far."""

    name: str
    seconds: float = 0.0
    tables: dict[str, Any] = field(default_factory=dict)
    failure: str = ""


@dataclass
class Parts:
    """All that has been run; `keep` is called whenever there is more."""

    keep: Callable[["Parts"], None]
    deadline: float = math.inf
    """Monotonic seconds."""
    done: list[Part] = field(default_factory=list)

    def run(self, name: str, expected: float, work: Callable[[float], Iterable[Tables]]) -> dict[str, Any]:
        """What `work(until)` measures, kept as it comes; left out where there is less time than `expected`.

        Args:
            expected: seconds.
            work: ends by `until`, in monotonic seconds; raises Failed, OSError or ValueError.
        """
        say(f"{name} …")
        part, began = Part(name), time.monotonic()
        self.done.append(part)
        left = self.deadline - began
        try:
            if left < expected:
                raise Failed(f"left out: it takes about {expected:.0f} s, and {max(0, left):.0f} are left")
            patience = PATIENCE if left == math.inf else min(left, SLOWER * expected + COLD)
            for tables in work(began + patience):
                part.tables.update(tables)
                part.seconds = round(time.monotonic() - began, 1)
                self.keep(self)
        except (Failed, OSError, ValueError) as error:
            part.failure = str(error) or type(error).__name__
            say(part.failure)
        part.seconds = round(time.monotonic() - began, 1)
        self.keep(self)
        return part.tables

    def document(self) -> dict[str, Any]:
        """All of it, for a file."""
        return {"date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC", "parts": list(map(asdict, self.done))}


def lines(
    command: Sequence[str | Path],
    environment: Mapping[str, str],
    until: float = math.inf,
    codes: Sequence[int] = (0,),
) -> Iterator[str]:
    """Each line that a Python program writes to stdout, as it comes.

    Args:
        command: a script and its arguments, or `-m` and a module.
        environment: all of it.
        until: when it is ended, in monotonic seconds.
        codes: exit codes that are no failure.

    Raises:
        Failed: with the end of what it wrote to stderr; it failed, or had not ended in time.
    """
    patience = min(until - time.monotonic(), PATIENCE)
    with tempfile.TemporaryFile("w+", errors="replace") as errors:
        whole = [sys.executable, *map(str, command)]
        child = start(whole, env=dict(environment), stdout=subprocess.PIPE, stderr=errors, text=True)
        late = threading.Event()
        timer = threading.Timer(patience, lambda: (late.set(), end(child, GRACE)))
        timer.start()
        try:
            yield from (line.rstrip("\n") for line in child.stdout)
            child.wait()
        finally:
            timer.cancel()
            end(child, GRACE)
            child.stdout.close()
        errors.seek(0)
        tail = errors.read()[-TAIL:].strip()
    if late.is_set():
        raise Failed(f"{tail}\nno end after {patience:.0f} s".strip())
    if child.returncode not in codes:
        raise Failed(tail or f"ended with code {child.returncode}")


def result(command: Sequence[str | Path], environment: Mapping[str, str], until: float = math.inf) -> Any:
    """The JSON in the last line that a program writes."""
    return json.loads(list(lines(command, environment, until))[-1])


def anonymous(document: Any) -> Any:
    """JSON without what a report must not give away: names of folders and of this host, and tokens."""
    if isinstance(document, Mapping):
        return {name: anonymous(value) for name, value in document.items()}
    if isinstance(document, list | tuple):
        return list(map(anonymous, document))
    return plain(document) if isinstance(document, str) else document


def plain(text: str) -> str:
    """One text of it."""
    text = re.sub(r"\b(hf|r8)_\w{8,}", "[token]", text)
    text = re.sub(r"(?<![\w.])/(?:[\w.@+~-]+/)+", "", text)
    return re.sub(rf"\b{re.escape(socket.gethostname())}\b", "[host]", text)
