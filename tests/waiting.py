"""Waiting for what happens elsewhere: as long as a busy machine needs, and no longer than it takes."""

import time
from collections.abc import Callable


def until(true: Callable[[], object], patience: float = 120.0) -> None:
    """Returns once something is true; fails after `patience` seconds."""
    deadline = time.monotonic() + patience
    while not true():
        assert time.monotonic() < deadline, "it did not become true"
        time.sleep(0.05)
