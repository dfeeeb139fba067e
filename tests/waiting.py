"""Waiting for events elsewhere: long enough for a busy machine, and no longer than they take."""

import time
from collections.abc import Callable
from pathlib import Path

import httpx


def until(true: Callable[[], object], patience: float = 120.0, log: Path | None = None) -> None:
    """Returns once `true()` is; fails after `patience` seconds, with the end of the log."""
    deadline = time.monotonic() + patience
    while not true():
        # On one line, since pytest's summary shows only one.
        assert time.monotonic() < deadline, f"not yet true; {log and log.read_text()[-2000:]!r}"
        time.sleep(0.05)


def accepted(send: Callable[[], httpx.Response]) -> httpx.Response:
    """The reply to a request, repeated for two minutes while Cog's server says that it is full.

    coglet 0.23.1 says so to one of two that come at once, however many places are free: its pool's
    `try_acquire` tries a lock and does not wait for it. Delete this when it waits.
    """
    deadline = time.monotonic() + 120
    while (reply := send()).status_code == 409 and time.monotonic() < deadline:
        time.sleep(0.05)
    return reply


def running(pid: int) -> bool:
    """Whether a process exists and is not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def started_with(folder: Path) -> list[int]:
    """Ids of running processes whose environment names `folder`."""
    pids = []
    for environment in Path("/proc").glob("[0-9]*/environ"):
        try:
            named = str(folder).encode() in environment.read_bytes()
        except OSError:
            continue
        if named and running(int(environment.parent.name)):
            pids.append(int(environment.parent.name))
    return pids
