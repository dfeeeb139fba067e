"""A program and all that it starts, which end when told to, and with this process, however it ends."""

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
        command: as for Popen. A program that is not there ends with 127.
        options: of Popen.
    """
    tied = ["/bin/sh", "-c", TIED, "sh", *command]
    return subprocess.Popen(tied, stdin=subprocess.PIPE, start_new_session=True, **options)


def end(process: "subprocess.Popen[Any]", patience: float = 10.0) -> None:
    """Ends a group, by force after `patience` seconds; returns when its first process is gone."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        # macOS says PermissionError of a group in which there are only zombies.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=patience)
    if process.stdin:
        process.stdin.close()
