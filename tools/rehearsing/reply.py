"""One whole answer of a smoke test, and how it is got."""

import itertools
import random
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeVar

from tools.endpoints.cog_endpoint import Cog
from tools.endpoints.endpoint import Busy, Failed, Piece, Running
from tools.endpoints.replicate_endpoint import Replicate

Remote = Cog | Replicate
T = TypeVar("T")
AGAIN = 0.5
"""Seconds, about, between two tries at a full server."""


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

    @property
    def who(self) -> str:
        """The philosopher that was asked."""
        return str(self.asked["philosopher"])


def hear(endpoint: Remote, inputs: Mapping[str, Any], limit: float) -> Reply:
    """One answer, heard to its end. A full server is asked again.

    Raises:
        Failed: there is no whole answer within `limit` seconds.
    """

    def listen() -> Reply:
        began, times, text = time.monotonic(), list[float](), ""
        first, running = opened(endpoint, inputs, limit)
        for piece in itertools.chain([first], running.pieces):
            if piece.text:
                times.append(time.monotonic() - began)
                text += piece.text
        if not text:
            raise Failed("it ended without any text")
        return Reply(inputs, text, tuple(times), time.monotonic() - began, piece.metrics)

    return within(limit, listen)


def opened(endpoint: Remote, inputs: Mapping[str, Any], limit: float) -> tuple[Piece, Running]:
    """An answer and its first piece.

    Raises:
        Failed: the server stays full for `limit` seconds, or refuses the question.
    """
    until = time.monotonic() + limit
    while True:
        try:
            running = endpoint.begin(inputs)
            return next(running.pieces), running
        except Busy as busy:
            wait = max(busy.seconds, AGAIN * random.uniform(0.5, 1.5))
            if time.monotonic() + wait > until:
                raise Failed("the server stays full") from busy
            time.sleep(wait)


def within(seconds: float, work: Callable[[], T]) -> T:
    """What `work` returns, or raises: in bounded time, for a server can also stall, or drip.

    Raises:
        Failed: it has not ended after so many seconds. Its thread is left behind, and ends with the process.
    """
    ended: Future[T] = Future()

    def run() -> None:
        try:
            ended.set_result(work())
        except BaseException as error:  # handed on to whoever waits
            ended.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    try:
        return ended.result(timeout=seconds)
    except TimeoutError:
        raise Failed(f"no end within {seconds:g} s") from None
