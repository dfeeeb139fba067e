"""Figures of a run: percentiles and rates.

A request that failed stays in: it never got its first text (infinite), and its tokens count for nothing.
"""

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import pairwise

from tools.benchmarking.classroom import Answer, Run
from tools.benchmarking.report import Row


@dataclass(frozen=True)
class Figures:
    """Infinite where there was nothing to time."""

    ttft_p50_s: float  # from a pupil's question to its first text
    ttft_p95_s: float
    last_first_text_s: float  # from the first question of the run to the last first text
    between_tokens_p50_ms: float  # see `between`
    between_tokens_p95_ms: float
    tokens_per_second_of_a_request: float  # over its whole time; median of the requests
    after_its_first_text: float  # the same from the first text on
    tokens_per_second_in_all: float  # tokens of all whole answers over the time of the run
    failed: float  # requests without a whole answer
    other_length: float  # whole answers whose tokens are not those asked for, or not told


def figures(answers: Sequence[Answer]) -> Figures:
    """What a run shows."""
    whole = [answer for answer in answers if not answer.failure]
    waits = [math.inf if a.failure else a.times[0] - a.asked for a in answers]
    rates = [0.0 if a.failure else a.tokens / (a.last - a.asked) for a in answers]
    gaps = [1000 * gap for answer in whole for gap in between(answer)]
    return Figures(
        ttft_p50_s=percentile(waits, 0.5),
        ttft_p95_s=percentile(waits, 0.95),
        last_first_text_s=max(math.inf if a.failure else a.times[0] for a in answers),
        between_tokens_p50_ms=percentile(gaps, 0.5),
        between_tokens_p95_ms=percentile(gaps, 0.95),
        tokens_per_second_of_a_request=percentile(rates, 0.5),
        after_its_first_text=percentile(map(after_first, answers), 0.5),
        tokens_per_second_in_all=sum(a.tokens for a in whole) / max(a.last for a in answers),
        failed=len(answers) - len(whole),
        other_length=sum(a.reported != a.wanted for a in whole),
    )


def percentile(values: Iterable[float], share: float) -> float:
    """The smallest of `values` that at least `share` of them do not exceed (nearest rank); inf of none."""
    ordered = sorted(values)
    return ordered[math.ceil(share * len(ordered)) - 1] if ordered else math.inf


def between(answer: Answer) -> list[float]:
    """Seconds for a token, at each piece after the first, as if all pieces had equally many tokens."""
    share = answer.tokens / len(answer.times)
    return [(now - before) / share for before, now in pairwise(answer.times)]


def after_first(answer: Answer) -> float:
    """Tokens per second of one answer from its first text on; 0 where it has not two pieces or failed."""
    gaps = [] if answer.failure else between(answer)
    return 1 / statistics.fmean(gaps) if gaps else 0.0


def median(rounds: Sequence[Run]) -> Figures:
    """Each figure's median over runs that are alike; counts are added up."""
    each = [figures(run.answers) for run in rounds]
    columns = {f.name: [getattr(one, f.name) for one in each] for f in fields(Figures)}
    counts = {name: sum(columns.pop(name)) for name in ("failed", "other_length")}
    return Figures(**{name: statistics.median(column) for name, column in columns.items()}, **counts)


def rows(runs: Iterable[Run]) -> list[Row]:
    """A row for each server and what it was asked, in the order of their first runs."""
    groups: dict[tuple[str, str, str, int], list[Run]] = {}
    for run in runs:
        groups.setdefault((run.server, run.workload, run.kind, run.pupils), []).append(run)
    names = ("server", "workload", "kind", "pupils")
    return [
        {**dict(zip(names, asked, strict=True)), **asdict(median(alike))} for asked, alike in groups.items()
    ]
