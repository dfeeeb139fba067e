"""Ends of an answer that its content shows: stop strings in the text, runaway repetition of tokens. Pure."""

from collections.abc import Sequence
from unicodedata import normalize

LONGEST_PERIOD = 64
"""Tokens of the longest phrase that counts as repeated."""
REPEATS, SHORTEST_LOOP = 4, 64
"""A loop is a phrase that is repeated this often in a row, over at least this many tokens."""


class StopStrings:
    """Holds text back while it may still become a stop string, and cuts it exactly where it does.

    Both are compared in NFC, to which the tokenizer normalises prompts: é is é, in one code point or in two.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(normalize("NFC", stop) for stop in stops)
        self._held = ""
        self.hit = False

    def push(self, piece: str) -> str:
        """The text that is safe to send; at a hit, what stands before the stop string, and nothing after."""
        if self.hit:
            return ""
        if not self._stops:
            return piece
        text = normalize("NFC", self._held + piece)
        hits = [(at + len(stop), at) for stop in self._stops if (at := text.find(stop)) >= 0]
        if hits:  # the one that is complete first, wherever the pieces break
            self.hit, self._held = True, ""
            return text[: min(hits)[1]]
        safe = len(text) - self._pending(text)
        self._held = text[safe:]
        return text[:safe]

    def flush(self) -> str:
        """What was held back and never became a stop string."""
        held, self._held = self._held, ""
        return held

    def _pending(self, text: str) -> int:
        """Length of the longest suffix of `text` that may begin a stop string, once its last accents come."""
        last = normalize("NFD", text[-1:])
        for size in range(min(max(map(len, self._stops)), len(text)), 0, -1):
            for stop in self._stops:
                letter = normalize("NFD", stop[size - 1 : size])
                if letter.startswith(last) and stop.startswith(text[-size:-1]):
                    return size
        return 0


def loops(tokens: Sequence[int]) -> bool:
    """Whether an answer ends in one phrase, repeated over and over."""
    for period in range(1, LONGEST_PERIOD + 1):
        span = max(REPEATS * period, SHORTEST_LOOP)
        if span <= len(tokens) and tokens[-span:-period] == tokens[-span + period :]:
            return True
    return False
