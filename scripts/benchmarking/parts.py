"""Parts of a report: each runs in a process of its own, and one that fails leaves its reason and no more."""

import json
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from children import TAIL
from endpoint import Failed
from started import say

SCRIPTS = Path(__file__).resolve().parents[1]
PATIENCE = 3600.0
"""Seconds of one program; a kernel that hangs must not hold up the rest."""
GRACE = 30.0
"""Seconds that a program gets to end what it started."""


@dataclass(frozen=True)
class Part:
    """What came of one part."""

    name: str
    of: str
    """Which one, where there are several."""
    seconds: float
    found: Any
    """JSON; none if it failed."""
    failure: str = ""


@dataclass
class Parts:
    """All that has been run; `keep` is called whenever there is more."""

    keep: Callable[["Parts"], None]
    done: list[Part] = field(default_factory=list)

    def run(self, name: str, of: str, work: Callable[[], Any]) -> Any:
        """What `work` finds; none if it fails."""
        say(f"{name} {of} …")
        began = time.monotonic()
        found, failure = None, ""
        try:
            found = work()
        except (Failed, OSError, ValueError) as error:
            failure = str(error) or type(error).__name__
            say(failure)
        self.done.append(Part(name, of, round(time.monotonic() - began, 1), found, failure))
        self.keep(self)
        return found

    def of(self, name: str) -> list[Part]:
        """Every part of that name, those that failed among them."""
        return [part for part in self.done if part.name == name]

    def document(self) -> dict[str, Any]:
        """All of it, for a file."""
        date = datetime.now(UTC).isoformat(timespec="minutes")
        return {"date": date, "parts": [asdict(part) for part in self.done]}


def output(
    command: Sequence[str | Path],
    environment: Mapping[str, str],
    codes: Sequence[int] = (0,),
    patience: float = PATIENCE,
) -> str:
    """What a Python program writes to stdout.

    Args:
        command: a script and its arguments, or `-m` and a module.
        environment: all of it.
        codes: exit codes that are no failure.

    Raises:
        Failed: with the end of what it said; it failed, or took longer than `patience` seconds.
    """
    whole = [sys.executable, *map(str, command)]
    with subprocess.Popen(
        whole, env=dict(environment), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as child:
        try:
            written, said = child.communicate(timeout=patience)
        except subprocess.TimeoutExpired:
            raise Failed(f"no end after {patience:.0f} s: {_end(child)}") from None
        except BaseException:
            _end(child)
            raise
    if child.returncode not in codes:
        raise Failed(said[-TAIL:].strip() or f"ended with code {child.returncode}")
    return written


def found(command: Sequence[str | Path], environment: Mapping[str, str]) -> Any:
    """The JSON in the last line that a program writes."""
    return json.loads(output(command, environment).splitlines()[-1])


def _end(child: "subprocess.Popen[str]") -> str:
    """Ends a program, kindly at first, so that it ends its own children; returns the end of what it said."""
    child.send_signal(signal.SIGTERM)
    try:
        _, said = child.communicate(timeout=GRACE)
    except subprocess.TimeoutExpired:
        child.kill()
        _, said = child.communicate()
    return said[-TAIL:].strip()


def anonymous(found: Any) -> Any:
    """JSON without what a report must not give away: names of folders and of this host, and tokens."""
    if isinstance(found, Mapping):
        return {name: anonymous(value) for name, value in found.items()}
    if isinstance(found, (list, tuple)):
        return list(map(anonymous, found))
    return plain(found) if isinstance(found, str) else found


def plain(text: str) -> str:
    """One text of it."""
    text = re.sub(r"\b(hf|r8)_\w{8,}", "[token]", text)
    text = re.sub(r"(?<![\w.])/(?:[\w.@+~-]+/)+", "", text)
    return re.sub(rf"\b{re.escape(socket.gethostname())}\b", "[host]", text)
