"""What a session showed, as Markdown: figures of every server, and how ours compares."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from tools.benchmarking.classroom import Run
from tools.benchmarking.figures import Asked, alike, median
from tools.table import number, table

HEADER = (
    *("server", "asked", "TTFT p50 s", "p95 s", "last first text s", "between tokens p50 ms", "p95 ms"),
    *("tokens/s of a request", "after its first text", "tokens/s in all", "failed"),
)
NOTE = (
    "Medians of the rounds. TTFT: from a question to its first text. Last first text: from the first of all "
    "questions. Between tokens: the wait for a piece of text, shared out to the tokens in it (where the "
    "server does not say how many those are, the answer's tokens over its pieces). Percentiles are nearest "
    "ranks; a failed request counts as one that never answers."
)
Groups = Mapping[Asked, list[Run]]


def write(runs: Sequence[Run], starts: Mapping[str, float], price: float) -> str:
    """The whole report of a session, with its tables."""
    groups = alike(runs)
    header = (*HEADER, "cost of an answer") if price else HEADER
    parts = [table(header, list(figures_rows(groups, price))), NOTE, *lengths(runs)]
    first = next(iter(groups), ("",))[0]
    better = ("tokens/s in all (more is better)", "last first text (less is better)")
    for columns, rows in (
        ((f"{first} over", "asked", *better), list(ratios(first, groups))),
        (("one stream of a tiny model", "ms a token"), list(overhead(groups))),
        (("server", "process start to first text s"), [[name, number(s)] for name, s in starts.items()]),
    ):
        parts += [table(columns, rows)] if rows else []
    return "\n\n".join(parts) + "\n"


def figures_rows(groups: Groups, price: float) -> Iterator[list[str]]:
    """A row for each server and what it was asked, as in HEADER."""
    for (server, workload, kind, pupils), rounds in groups.items():
        shown = median(rounds, price)
        yield [
            *(server, f"{workload}, {pupils} {kind}"),
            *map(number, (shown.ttft_p50, shown.ttft_p95, shown.last_first_text)),
            *(number(1000 * seconds, 1) for seconds in (shown.between_p50, shown.between_p95)),
            *(number(shown.request_tokens_per_second, 1), number(shown.after_first_tokens_per_second, 1)),
            *(number(shown.tokens_per_second, 1), number(shown.failures, 0)),
            *([number(shown.cost, 6)] if price else []),
        ]


def lengths(runs: Sequence[Run]) -> Iterator[str]:
    """Whose numbers of tokens are not those that were asked for, or are not known."""
    whole = [(run.server, answer) for run in runs for answer in run.answers if not answer.failure]
    uneven = Counter(server for server, answer in whole if answer.tokens != answer.wanted)
    silent = Counter(server for server, answer in whole if answer.reported is None)
    yield from (f"{server}: {n} answers are not as long as asked for." for server, n in uneven.items())
    yield from (
        f"{server}: {n} answers are taken to be as long as asked for." for server, n in silent.items()
    )


def ratios(first: str, groups: Groups) -> Iterator[list[str]]:
    """The first server over each other one, where both were asked the same."""
    for (server, workload, kind, pupils), rounds in groups.items():
        same = groups.get((first, workload, kind, pupils))
        if server != first and same and workload != "overhead":
            ours, theirs = median(same), median(rounds)
            rates = ratio(ours.tokens_per_second, theirs.tokens_per_second)
            waits = ratio(ours.last_first_text, theirs.last_first_text)
            yield [server, f"{workload}, {pupils} {kind}", number(rates), number(waits)]


def ratio(ours: float, theirs: float) -> float:
    """`ours` over `theirs`; nan where either is no number to compare."""
    return ours / theirs if theirs and math.isfinite(ours) and math.isfinite(theirs) else math.nan


def overhead(groups: Groups) -> Iterator[list[str]]:
    """What server, detokeniser and stream add to `generate`, on a model that takes next to no time."""
    for (server, workload, *_), rounds in groups.items():
        if workload == "overhead" and (rate := median(rounds).after_first_tokens_per_second):
            yield [server, number(1000 / rate, 3)]
