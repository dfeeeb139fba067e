"""Runs a program that ends, with all that it started, when told to or when this process ends in any way."""

import contextlib
import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

TIED = """
exec 3<&0
(read _ <&3; kill -KILL 0) >/dev/null 2>&1 &
exec "$@" </dev/null 3<&-
"""
"""For sh, which becomes the program. A watcher in its process group reads a pipe that nobody writes to; once
this process is gone, by SIGKILL too, the system closes the pipe, and the watcher ends its group."""


def start(command: Sequence[str | Path], **options: Any) -> "subprocess.Popen[Any]":
    """Starts a program in a process group of its own, with an empty standard input.

    Args:
        command: as for Popen. A program that does not exist ends with status 127.
        options: of Popen.
    """
    tied = ["/bin/sh", "-c", TIED, "sh", *command]
    return subprocess.Popen(tied, stdin=subprocess.PIPE, start_new_session=True, **options)


def end(process: "subprocess.Popen[Any]", patience: float = 10.0) -> None:
    """Ends a group: SIGTERM, at most `patience` seconds for its first process to end, then SIGKILL."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        # macOS says PermissionError of a group in which there are only zombies.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=patience)
    if process.stdin:
        process.stdin.close()
