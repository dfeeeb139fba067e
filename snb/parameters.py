"""Sampling parameters and their bounds: how the next token is chosen, and when to stop."""

from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from typing import Any

MAX_STOPS, MAX_STOP = 16, 200
"""The most stop strings in a request, and the most characters in each."""


def number(default: float | None, low: float, high: float) -> Any:
    """A dataclass field with inclusive bounds in its metadata."""
    return field(default=default, metadata={"bounds": (low, high)})


def bounds(of: Any) -> dict[str, tuple[float, float]]:
    """The lowest and highest value of each numeric field of Sampling or Request."""
    return {one.name: one.metadata["bounds"] for one in fields(of) if "bounds" in one.metadata}


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen, and when to stop; the defaults are the endpoint's.

    predict.py repeats defaults and bounds as literals, since Cog reads its source. `temperature` 0 is greedy;
    `top_k` 0, `top_p` 1, `repetition_penalty` 1 and 0 for the other penalties switch each of them off.
    """

    max_tokens: int = number(256, 1, 2048)
    min_tokens: int = number(0, 0, 2048)
    temperature: float = number(0.7, 0, 2)
    top_p: float = number(0.8, 0, 1)
    top_k: int = number(20, 0, 1000)
    repetition_penalty: float = number(1.05, 0.5, 2)
    presence_penalty: float = number(0, -2, 2)
    frequency_penalty: float = number(0, -2, 2)
    stop_sequences: tuple[str, ...] = ()
    french: bool = False
    """Whether to rule out tokens in scripts that French is not written in (`snb.engine.script`)."""

    def __post_init__(self) -> None:
        # Cog's server accepts a whole float (5.0, 1e2) where an integer is declared.
        for name in ("max_tokens", "min_tokens", "top_k"):
            object.__setattr__(self, name, int(getattr(self, name)))
        object.__setattr__(self, "stop_sequences", tuple(self.stop_sequences))

    def faults(self) -> Iterable[str]:
        """Every value outside its bounds, as a sentence."""
        yield from number_faults(self)
        if self.min_tokens > self.max_tokens:
            yield "min_tokens must be at most max_tokens"
        yield from self._stop_faults()

    def _stop_faults(self) -> Iterable[str]:
        if len(self.stop_sequences) > MAX_STOPS:
            yield f"stop_sequences may have at most {MAX_STOPS} entries, not {len(self.stop_sequences)}"
        for index, stop in enumerate(self.stop_sequences):
            if not 1 <= len(stop) <= MAX_STOP:
                yield f"stop_sequences[{index}] must have 1 to {MAX_STOP} characters, not {len(stop)}"


def number_faults(one: Any) -> Iterable[str]:
    """A sentence for every number of Sampling or Request that is outside its bounds."""
    for name, (low, high) in bounds(one).items():
        value = getattr(one, name)
        if value is not None and not low <= value <= high:  # in this form NaN is a fault
            yield f"{name} must be from {low} to {high}"
