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
from tools.endpoints.gradio_endpoint import Gradio
from tools.endpoints.openai_endpoint import ChatCompletions
from tools.endpoints.replicate_endpoint import Replicate

Remote = Cog | Gradio | Replicate | ChatCompletions
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


def hear(endpoint: Remote, inputs: Mapping[str, Any]) -> Reply:
    """One answer, heard to its end."""
    began, times, text = time.monotonic(), list[float](), ""
    first, running = opened(endpoint, inputs)
    for piece in itertools.chain([first], running.pieces):
        if piece.text:
            times.append(time.monotonic() - began)
            text += piece.text
    if not text:
        raise Failed("it ended without any text")
    return Reply(inputs, text, tuple(times), time.monotonic() - began, piece.metrics)


def opened(endpoint: Remote, inputs: Mapping[str, Any]) -> tuple[Piece, Running]:
    """An answer and its first piece. A full server is asked again."""
    while True:
        try:
            running = endpoint.begin(inputs)
            return next(running.pieces), running
        except Busy as busy:
            time.sleep(max(busy.seconds, AGAIN * random.uniform(0.5, 1.5)))


def within(seconds: float, work: Callable[[], T]) -> T:
    """What `work` returns, or raises: in bounded time, for a server can also stall, drip, or stay full.

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
