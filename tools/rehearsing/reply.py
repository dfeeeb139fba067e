"""One whole answer, and how it is got."""

import contextlib
import signal
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tools.endpoints.endpoint import Endpoint, Failed, patiently

AGAIN = 0.5
"""Seconds between two tries at a full server, at most."""


@dataclass(frozen=True)
class Reply:
    """Times are in seconds since the question was asked."""

    asked: Mapping[str, Any]
    """The inputs."""
    text: str
    times: tuple[float, ...]
    """Of each piece of text."""
    ended: float
    metrics: Mapping[str, Any]
    tokens: int | None = None
    """Of the answer, where the server says."""


def hear(endpoint: Endpoint, inputs: Mapping[str, Any], pause: float = AGAIN) -> Reply:
    """One answer, heard to its end. A full server is asked again after `pause` seconds, at most."""
    began, times, text, tokens = time.monotonic(), list[float](), "", None
    for piece in patiently(endpoint, inputs, pause):
        tokens = tokens if piece.tokens is None else piece.tokens
        if piece.text:
            times.append(time.monotonic() - began)
            text += piece.text
    if not text:
        raise Failed("it ended without any text")
    return Reply(inputs, text, tuple(times), time.monotonic() - began, piece.metrics, tokens)


@contextlib.contextmanager
def within(seconds: float) -> Iterator[None]:
    """Raises Failed in the block after so many seconds, for a server can also stall, drip, or stay full.

    Repeated every second: a handler may take the first exception for a failed request.
    """

    def expire(*_: object) -> None:
        raise Failed(f"no end within {seconds:g} s")

    signal.signal(signal.SIGALRM, expire)
    signal.setitimer(signal.ITIMER_REAL, seconds, 1)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
