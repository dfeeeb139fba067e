"""One request inside the engine: its tokens, its text, and why it ended."""

import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from torch import Tensor

from snb.engine.detokenizer import Detokenizer
from snb.engine.stops import StopStrings, loops
from snb.errors import DeadlinePassed, SNBError
from snb.parameters import Sampling

LOOP_CHECK = 16
"""Tokens between two checks for runaway repetition."""
POLL = 1.0
"""Seconds between two health checks of the engine by a caller who waits for text."""


@dataclass(eq=False)
class Generation:
    """A request; its caller reads the text in pieces, which the engine's thread adds.

    After the last piece `finish_reason` is `stop` (the model ended), `stop_sequence`, `length` (`max_tokens`
    or the context), `deadline`, `loop` (runaway repetition), `canceled` or, if it failed, `error`.
    """

    prompt: list[int]
    sampling: Sampling
    seed: int
    detokenizer: Detokenizer
    engine_fault: Callable[[], SNBError | None]
    """Called while a caller waits for text, so that nobody waits for an engine that is down."""
    deadline: float = float("inf")
    """Monotonic seconds."""
    scores: list[Tensor] | None = None
    """Set to a list to keep the scores, fp32 `[vocabulary]`, that each token was chosen from."""
    tokens: list[int] = field(default_factory=list)
    finish_reason: str = ""
    cached: int = 0
    """Tokens of this request that are in its row of the cache."""
    canceled: bool = False
    _spoke: bool = False
    _queue: "queue.SimpleQueue[str | SNBError | None]" = field(default_factory=queue.SimpleQueue)
    _over: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self._stops = StopStrings(self.sampling.stop_sequences)

    def __iter__(self) -> Iterator[str]:
        """Yields the text as it comes; raises as `pieces` does."""
        return self.pieces(interval=0)

    def pieces(self, interval: float) -> Iterator[str]:
        """Yields the first text at once, then, every `interval` seconds and at the end, what has come since.

        With 0 each piece is left as it was. A server sends one message per piece, and a caller that sleeps
        leaves the interpreter to the engine.

        Raises:
            EngineDown: the decode loop has died, is stuck or was closed.
            RequestFailed: the engine failed on this request.
            DeadlinePassed: there was no text in time.
        """
        while True:
            arrived = [self._next()]
            while interval and not self._queue.empty():
                arrived.append(self._queue.get())
            if text := "".join(piece for piece in arrived if isinstance(piece, str)):
                yield text
            if isinstance(end := arrived[-1], SNBError):
                raise end
            if end is None:
                return
            self._over.wait(interval)

    def _next(self) -> str | SNBError | None:
        while True:
            try:
                return self._queue.get(timeout=POLL)
            except queue.Empty:
                if fault := self.engine_fault():
                    return fault

    @property
    def prefilled(self) -> bool:
        """Whether the whole prompt is in the cache, so that only the newest token is still to be run."""
        return self.cached >= len(self.prompt)

    @property
    def decoding(self) -> bool:
        """Whether it takes part in decode steps: not once its last token is drawn, even if not yet read."""
        return 0 <= self.cached - len(self.prompt) < self.sampling.max_tokens - 1

    def cancel(self) -> None:
        """Ends it before its next token. May be called from any thread, at any time, more than once."""
        self.canceled = True

    def fail(self, fault: SNBError) -> None:
        """Ends it with an error."""
        self.finish_reason = self.finish_reason or "error"
        self._queue.put(fault)
        self._over.set()

    def overdue(self) -> None:
        """Ends it if it was canceled or its deadline has passed."""
        if self.finish_reason:
            return
        if self.canceled:
            self._end("canceled")
        elif time.monotonic() >= self.deadline:
            self._send(self._stops.flush())  # what may have become a stop string is text
            if self._spoke:
                self._end("deadline")
            else:
                self.fail(
                    DeadlinePassed("the deadline passed before the answer began", "Ask again, or later")
                )

    def take(self, token: int, ends: bool, full: bool) -> None:
        """Adds a chosen token and sends the text that it completes.

        Args:
            token: its id.
            ends: whether it is one of the model's end tokens, which have no text.
            full: whether the context has no room for another.
        """
        self.tokens.append(token)
        if not ends:
            self._send(self._stops.push(self.detokenizer.push(token)))
        if self._stops.hit:
            self._end("stop_sequence")
        elif ends:
            self._end("stop")
        elif full or len(self.tokens) == self.sampling.max_tokens:
            self._end("length")
        elif self._loops():
            self._end("loop")

    def _loops(self) -> bool:
        number = len(self.tokens)
        return number > self.sampling.min_tokens and number % LOOP_CHECK == 0 and loops(self.tokens)

    def _end(self, reason: str) -> None:
        self._send(self._stops.flush())
        self.finish_reason = reason
        self._queue.put(None)
        self._over.set()

    def _send(self, piece: str) -> None:
        if piece:
            self._spoke = True
            self._queue.put(piece)
