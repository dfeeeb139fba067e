"""One whole answer: its text, when that came, and what the server says of it."""

import itertools
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tools.endpoints.cog_endpoint import Cog
from tools.endpoints.endpoint import Busy, Failed, Piece, Running
from tools.endpoints.patience import within
from tools.endpoints.replicate_endpoint import Replicate

Remote = Cog | Replicate
AGAIN = 0.5
"""Seconds, about, between two tries at a full server."""


@dataclass(frozen=True)
class Reply:
    """Times are in seconds since the question was asked."""

    asked: Mapping[str, Any]
    """The inputs."""
    pieces: tuple[str, ...]
    times: tuple[float, ...]
    """Of each piece."""
    ended: float
    metrics: Mapping[str, Any]

    @property
    def text(self) -> str:
        """All of it."""
        return "".join(self.pieces)

    @property
    def first(self) -> float:
        """When the first text came."""
        return self.times[0]


def hear(endpoint: Remote, inputs: Mapping[str, Any], limit: float) -> Reply:
    """One answer, heard to its end. A full server is asked again.

    Args:
        limit: seconds for all of it.

    Raises:
        Failed: there is no whole answer by then.
    """
    return within(limit, lambda: listened(endpoint, inputs, limit))


def listened(endpoint: Remote, inputs: Mapping[str, Any], limit: float) -> Reply:
    """As `hear`, but a server that falls silent is waited for."""
    began = time.monotonic()
    first, running = opened(endpoint, inputs, limit)
    texts, times = [], []
    metrics: dict[str, Any] = {}
    for piece in itertools.chain([first], running.pieces):
        if piece.text:
            texts.append(piece.text)
            times.append(time.monotonic() - began)
        metrics = {**piece.metrics, **piece.words}
    if not texts:
        raise Failed("it ended without any text")
    return Reply(inputs, tuple(texts), tuple(times), time.monotonic() - began, metrics)


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
