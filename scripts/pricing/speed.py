"""How long a card takes to answer: computed from the roofline, or measured by scripts/benchmark."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from bounds import Bounds, Card

from snb.errors import SNBError
from snb.precision import Choice

UNPACKED = 4
"""Rows up to which bitsandbytes 0.50 never writes a whole nf4 matrix out in 16 bits."""


class BadBenchmark(SNBError):
    """The file holds no speed."""

    code = "BAD_BENCHMARK"


@dataclass(frozen=True)
class Work:
    """Tokens of one request."""

    prompt: int
    answer: int


class Speed(Protocol):
    """A card that answers."""

    @property
    def at_once(self) -> int:
        """The most requests that it answers together."""

    @property
    def measured(self) -> bool: ...

    def together(self, rows: int, work: Work) -> float:
        """Seconds from `rows` equal requests, at most `at_once`, that come at once to the last one's end."""


@dataclass(frozen=True)
class Computed:
    """The least that the card's memory and tensor cores allow, prompts read whole: a real one takes longer.

    nf4 counts as unpacked above 4 rows, which is the most that bitsandbytes does.
    """

    bounds: Bounds
    card: Card
    choice: Choice
    measured: bool = False

    @property
    def at_once(self) -> int:
        return self.choice.slots

    def together(self, rows: int, work: Work) -> float:
        precision = self.choice.precision
        unpacked = precision == "nf4" and rows > UNPACKED
        length = work.prompt + work.answer // 2
        step = self.bounds.decode(self.card, precision, rows, length, unpacked).seconds
        return rows * self.bounds.prefill(self.card, precision, work.prompt) + work.answer * step


@dataclass(frozen=True)
class Measured:
    """Rates of a benchmark, whose own prompts are in them: `work.prompt` does not count here."""

    rates: Mapping[int, float]
    """Tokens per second of all answers together, by requests at once."""
    measured: bool = True

    @property
    def at_once(self) -> int:
        return max(self.rates)

    def together(self, rows: int, work: Work) -> float:
        """At the rate of the nearest level at or below `rows`, or of the lowest."""
        level = max((level for level in self.rates if level <= rows), default=min(self.rates))
        return rows * work.answer / self.rates[level]


def from_benchmark(file: Path) -> Measured:
    """The first server and workload of a file that scripts/benchmark --output wrote.

    Raises:
        BadBenchmark: no such file, or none of its levels has a rate.
    """
    cure = "scripts/benchmark --output FOLDER writes FOLDER/benchmark.json"
    try:
        figures = json.loads(file.read_text(encoding="utf-8"))["figures"]
        levels = [one for one in figures if one["kind"] == "at once" and one["tokens_per_second"]]
        ours = [one for one in levels if all(one[key] == levels[0][key] for key in ("server", "workload"))]
        rates = {int(one["pupils"]): float(one["tokens_per_second"]) for one in ours if not one["failures"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadBenchmark(f"{file} is not a benchmark: {type(error).__name__}", cure) from error
    if not rates:
        raise BadBenchmark(f"{file} has no level at which every request was answered", cure)
    return Measured(rates)
