"""Waiting for what happens elsewhere: as long as a busy machine needs, and no longer than it takes."""

import time
from collections.abc import Callable
from pathlib import Path

import httpx


def until(true: Callable[[], object], patience: float = 120.0, log: Path | None = None) -> None:
    """Returns once something is true; fails after `patience` seconds, with the end of a server's log."""
    deadline = time.monotonic() + patience
    while not true():
        # In one line, since pytest's summary shows no more.
        assert time.monotonic() < deadline, f"not yet true; {log and log.read_text()[-2000:]!r}"
        time.sleep(0.05)


def accepted(send: Callable[[], httpx.Response]) -> httpx.Response:
    """The reply to a request, put again while Cog's server says that it is full, for two minutes.

    coglet 0.23.1 says so to one of two that come at once, however many places are free: its pool's
    `try_acquire` tries a lock and does not wait for it. Delete this when it does.
    """
    deadline = time.monotonic() + 120
    while (reply := send()).status_code == 409 and time.monotonic() < deadline:
        time.sleep(0.05)
    return reply


def running(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def started_with(folder: Path) -> list[int]:
    """Processes whose environment names `folder`, and that still run."""
    pids = []
    for environment in Path("/proc").glob("[0-9]*/environ"):
        try:
            named = str(folder).encode() in environment.read_bytes()
        except OSError:
            continue
        if named and running(int(environment.parent.name)):
            pids.append(int(environment.parent.name))
    return pids
