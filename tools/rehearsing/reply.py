"""One whole answer, and how it is obtained."""

import contextlib
import signal
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tools.endpoints.endpoint import Endpoint, Failed, patiently

AGAIN = 0.5
"""Longest pause, in seconds, between two tries at a full server that names none."""


@dataclass(frozen=True)
class Reply:
    """Times are in seconds since the question was asked."""

    asked: Mapping[str, Any]
    """The inputs."""
    text: str
    times: tuple[float, ...]
    """When each piece of text came."""
    ended: float
    metrics: Mapping[str, Any]
    tokens: int | None = None
    """The answer's length, if the server reports it."""


def hear(endpoint: Endpoint, inputs: Mapping[str, Any], pause: float = AGAIN) -> Reply:
    """One answer, read to its end; retries a full server after `pause` s. Raises Failed if it has no text."""
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
    """Raises Failed in the block after so many seconds: a server can stall, drip, or stay full.

    Raised again every second, since an exception handler may take the first for a failed request.
    """

    def expire(*_: object) -> None:
        raise Failed(f"no end within {seconds:g} s")

    signal.signal(signal.SIGALRM, expire)
    signal.setitimer(signal.ITIMER_REAL, seconds, 1)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
