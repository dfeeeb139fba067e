"""Pupils who ask at the same time, and when each piece of each answer arrived."""

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tools.endpoints.endpoint import Busy, Endpoint, Failed
from tools.rehearsing.reply import hear

AGAIN = 0.05
"""Seconds of pause, times the number of pupils, between tries at a full server: less would load its cores."""


@dataclass(frozen=True)
class Answer:
    """One request, with times in seconds since the first pupil asked."""

    asked: float
    ended: float
    wanted: int  # tokens asked for
    times: Sequence[float] = ()  # of each piece that had text
    reported: int | None = None  # tokens of the answer, where the server says
    failure: str = ""

    @property
    def tokens(self) -> int:
        """Tokens of the whole answer: as the server reports, else as many as were asked for."""
        return self.wanted if self.reported is None else self.reported

    @property
    def last(self) -> float:
        """When the last text came, or the failure."""
        return self.ended if self.failure else self.times[-1]


@dataclass(frozen=True)
class Run:
    server: str
    workload: str
    kind: str
    """`at once`, or `class`: pupils ask spread over a second."""
    pupils: int
    answers: list[Answer]


def gather(endpoint: Endpoint, requests: Sequence[Mapping[str, Any]], within: float = 0.0) -> list[Answer]:
    """Sends all requests, spread evenly over `within` seconds; returns their answers when all have ended.

    The wait for a full server counts, as it does for a pupil.
    """
    answers: dict[int, Answer] = {}
    begin = time.monotonic()

    def clock() -> float:
        return round(time.monotonic() - begin, 5)

    def pupil(number: int) -> None:
        time.sleep(max(0.0, number * within / len(requests) - clock()))
        asked, wanted = clock(), requests[number]["max_tokens"]
        try:
            reply = hear(endpoint, requests[number], AGAIN * len(requests))
            times = [round(asked + after, 5) for after in reply.times]
            answers[number] = Answer(asked, clock(), wanted, times, reply.tokens)
        except (Busy, Failed) as error:
            answers[number] = Answer(asked, clock(), wanted, failure=str(error))

    # Daemon threads, so that Ctrl-C does not wait for answers.
    threads = [threading.Thread(target=pupil, args=(n,), daemon=True) for n in range(len(requests))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [answers[number] for number in range(len(requests))]
