"""Measurements that run as separate programs, so that what they load is freed when they end."""

import math
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from snb.front.process_group import end, start
from tools.endpoints.endpoint import Failed

PATIENCE = 3600.0
"""Seconds for one program without a deadline; a kernel that hangs must not hold up the rest."""
GRACE = 10.0
"""Seconds that a program gets to end what it started."""
TAIL = 2000
"""Characters shown of what a program wrote before it failed."""
Command = Sequence[str | Path]
"""A script and its arguments, or `-m` and a module."""


def lines(
    command: Command, settings: Mapping[str, str], until: float = math.inf, codes: Sequence[int] = (0,)
) -> Iterator[str]:
    """Each line that a Python program writes to stdout, as it comes.

    Args:
        command: what this Python runs.
        settings: environment variables on top of this process's own.
        until: when it is ended, in monotonic seconds.
        codes: exit codes that do not count as failure.

    Raises:
        Failed: it failed or did not end in time; with the end of its stderr.
    """
    patience = min(until - time.monotonic(), PATIENCE)
    until = time.monotonic() + patience
    with tempfile.TemporaryFile("w+", errors="replace") as errors:
        whole, environment = [sys.executable, *map(str, command)], {**os.environ, **settings}
        child = start(whole, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True)
        assert child.stdout
        timer = threading.Timer(patience, end, (child, GRACE))
        timer.start()
        try:
            yield from (line.rstrip("\n") for line in child.stdout)
            child.wait()
        finally:
            late = time.monotonic() >= until
            timer.cancel()
            end(child, GRACE)
            child.stdout.close()
        errors.seek(0)
        tail = errors.read()[-TAIL:].strip()
    if late:
        raise Failed(f"{tail}\nno end after {patience:.0f} s".strip())
    if child.returncode not in codes:
        raise Failed(tail or f"ended with code {child.returncode}")
