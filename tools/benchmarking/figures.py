"""Figures of a run: percentiles, rates, cost, and how two servers compare.

A request that failed stays in: it never got its first text (infinite), and its tokens count for nothing.
"""

import math
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields

from tools.benchmarking.classroom import Answer, Run

Asked = tuple[str, str, str, int]
"""Server, workload, kind and number of pupils."""


@dataclass(frozen=True)
class Figures:
    """Times in seconds; infinite where there was nothing to time."""

    ttft_p50: float  # from a pupil's question to its first text
    ttft_p95: float
    last_first_text: float  # from the first question of the run to the last first text
    between_p50: float  # between two tokens; see `between`
    between_p95: float
    request_tokens_per_second: float  # tokens of a request over its whole time; median of the requests
    after_first_tokens_per_second: float  # the same from the first text on
    tokens_per_second: float  # tokens of all whole answers over the time of the run
    cost: float  # of one whole answer, at the price of a second
    failures: float  # requests without a whole answer


def figures(answers: Sequence[Answer], price: float = 0.0) -> Figures:
    """What a run shows; `price` is that of one second of the server."""
    whole = [answer for answer in answers if not answer.failure]
    waits = [math.inf if a.failure else a.times[0] - a.asked for a in answers]
    rates = [0.0 if a.failure else a.tokens / (a.last - a.asked) for a in answers]
    gaps = [gap for answer in whole for gap in between(answer)]
    seconds = max(answer.last for answer in answers)
    return Figures(
        ttft_p50=percentile(waits, 0.5),
        ttft_p95=percentile(waits, 0.95),
        last_first_text=max(math.inf if a.failure else a.times[0] for a in answers),
        between_p50=percentile(gaps, 0.5),
        between_p95=percentile(gaps, 0.95),
        request_tokens_per_second=percentile(rates, 0.5),
        after_first_tokens_per_second=percentile(map(after_first, answers), 0.5),
        tokens_per_second=sum(answer.tokens for answer in whole) / seconds,
        cost=price * seconds / len(whole) if whole else math.inf,
        failures=len(answers) - len(whole),
    )


def percentile(values: Iterable[float], share: float) -> float:
    """The smallest of `values` that at least `share` of them do not exceed (nearest rank); inf of none."""
    ordered = sorted(values)
    return ordered[math.ceil(share * len(ordered)) - 1] if ordered else math.inf


def between(answer: Answer) -> Iterator[float]:
    """Seconds for each token after the first piece: the wait for a piece, shared out to the tokens in it.

    A server that does not say how many tokens a piece has is taken to put equally many into each.
    """
    even = answer.tokens / len(answer.times)
    for index in range(1, len(answer.times)):
        wait = answer.times[index] - answer.times[index - 1]
        before, now = answer.counts[index - 1], answer.counts[index]
        if before is None or now is None:
            yield wait / even
        elif now > before:
            yield from [wait / (now - before)] * (now - before)


def after_first(answer: Answer) -> float:
    """Tokens per second of one answer from its first text on; 0 where it has not two pieces or failed."""
    gaps = [] if answer.failure else list(between(answer))
    return 1 / statistics.fmean(gaps) if gaps else 0.0


def median(rounds: Sequence[Run], price: float = 0.0) -> Figures:
    """Each figure's median over runs that are alike; failures are added up."""
    each = [figures(run.answers, price) for run in rounds]
    middle = {f.name: statistics.median(getattr(one, f.name) for one in each) for f in fields(Figures)}
    return Figures(**{**middle, "failures": sum(one.failures for one in each)})


def speeds(at_once: int, figures: Mapping[str, float | None]) -> dict[str, float | None]:
    """A line of a report: of `figures`, those in which a server differs from the same service in process."""
    gap = figures["between_p50"]
    return {
        "at_once": at_once,
        "first_text_p50_s": figures["ttft_p50"],
        "last_first_text_s": figures["last_first_text"],
        "between_tokens_ms": None if gap is None else 1e3 * gap,
        "tokens_per_second": figures["tokens_per_second"],
        "failures": figures["failures"],
    }


def alike(runs: Iterable[Run]) -> dict[Asked, list[Run]]:
    """Runs by what was asked of whom, in the order of their first."""
    groups: dict[Asked, list[Run]] = {}
    for run in runs:
        groups.setdefault((run.server, run.workload, run.kind, run.pupils), []).append(run)
    return groups
