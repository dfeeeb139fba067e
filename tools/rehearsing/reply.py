"""One whole answer: its text, when that came, and what the server says of it."""

import itertools
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tools.endpoints.cog_endpoint import Cog
from tools.endpoints.endpoint import Busy, Failed, Piece, Running, numbers
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
    def who(self) -> str:
        """The philosopher that was asked."""
        return str(self.asked["philosopher"])

    @property
    def written(self) -> float:
        """Seconds from the first token to the last, as the server has measured them; 0 where it did not."""
        names = ("output_token_count", "tokens_per_second", "time_to_first_token")
        tokens, rate, first = (numbers(self.metrics).get(name, 0) for name in names)
        return tokens / rate - first if rate > 0 else 0.0

    @property
    def spread(self) -> float:
        """The time over which text came, in times `written`; 1 where that is unknown."""
        return (self.times[-1] - self.times[0]) / self.written if self.written > 0 else 1.0


def hear(endpoint: Remote, inputs: Mapping[str, Any], limit: float) -> Reply:
    """One answer, heard to its end. A full server is asked again.

    Args:
        limit: seconds for all of it.

    Raises:
        Failed: there is no whole answer by then.
    """

    def listen() -> Reply:
        began, came = time.monotonic(), []
        first, running = opened(endpoint, inputs, limit)
        for piece in itertools.chain([first], running.pieces):
            if piece.text:
                came.append((piece.text, time.monotonic() - began))
        if not came:
            raise Failed("it ended without any text")
        texts, times = zip(*came, strict=True)
        return Reply(inputs, texts, times, time.monotonic() - began, {**piece.metrics, **piece.words})

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
