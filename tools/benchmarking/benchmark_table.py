"""What a session showed, as Markdown: figures of every server, and how ours compares."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence

from tools.benchmarking.classroom import Run
from tools.benchmarking.figures import Figures, alike, median, ratio

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


def write(runs: Sequence[Run], starts: Mapping[str, float], price: float) -> str:
    """The whole report of a session, with its tables."""
    groups = alike(runs)
    parts = [figures_table(groups, price), NOTE, *lengths(runs)]
    parts += [ratio_table(groups), overhead(groups)]
    if starts:
        rows = [[name, number(seconds)] for name, seconds in starts.items()]
        parts.append(table(("server", "process start to first text s"), rows))
    return "\n\n".join(filter(None, parts)) + "\n"


def figures_table(groups: Mapping[tuple[str, str, str, int], list[Run]], price: float) -> str:
    """A row for each server and what it was asked."""
    rows = []
    for (server, workload, kind, pupils), rounds in groups.items():
        row = [server, f"{workload}, {pupils} {kind}", *cells(median(rounds, price))]
        rows.append([*row, number(median(rounds, price).cost, 6)] if price else row)
    return table((*HEADER, "cost of an answer") if price else HEADER, rows)


def cells(shown: Figures) -> list[str]:
    """The figures in the order of HEADER."""
    return [
        *map(number, (shown.ttft_p50, shown.ttft_p95, shown.last_first_text)),
        *(number(1000 * seconds, 1) for seconds in (shown.between_p50, shown.between_p95)),
        number(shown.request_tokens_per_second, 1),
        number(shown.after_first_tokens_per_second, 1),
        number(shown.tokens_per_second, 1),
        number(shown.failures, 0),
    ]


def lengths(runs: Sequence[Run]) -> list[str]:
    """Whose numbers of tokens are not those that were asked for, or are not known."""
    uneven, silent = Counter[str](), Counter[str]()
    for run in runs:
        whole = [answer for answer in run.answers if not answer.failure]
        uneven[run.server] += sum(answer.tokens != answer.wanted for answer in whole)
        silent[run.server] += sum(answer.reported is None for answer in whole)
    said = [f"{server}: {n} answers are not as long as asked for." for server, n in uneven.items() if n]
    return said + [
        f"{server}: {n} answers are taken to be as long as asked for." for server, n in silent.items() if n
    ]


def ratio_table(groups: Mapping[tuple[str, str, str, int], list[Run]]) -> str:
    """The first server over each other one, where both were asked the same."""
    first = next(iter(groups), ("",))[0]
    rows = []
    for (server, *asked), rounds in groups.items():
        same = groups.get((first, *asked))
        if server == first or not same or asked[0] == "overhead":
            continue
        ours, theirs = median(same), median(rounds)
        rates = ratio(ours.tokens_per_second, theirs.tokens_per_second)
        waits = ratio(ours.last_first_text, theirs.last_first_text)
        rows.append([server, f"{asked[0]}, {asked[2]} {asked[1]}", number(rates), number(waits)])
    better = ("tokens/s in all (more is better)", "last first text (less is better)")
    return table((f"{first} over", "asked", *better), rows) if rows else ""


def overhead(groups: Mapping[tuple[str, str, str, int], list[Run]]) -> str:
    """What server, detokeniser and stream add to `generate`, on a model that takes next to no time."""
    each = {
        server: 1000 / median(rounds).after_first_tokens_per_second
        for (server, workload, *_), rounds in groups.items()
        if workload == "overhead" and median(rounds).after_first_tokens_per_second
    }
    rows = [[server, number(milliseconds, 3)] for server, milliseconds in each.items()]
    return table(("one stream of a tiny model", "ms a token"), rows) if rows else ""


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Markdown, aligned for a terminal too."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = [header, ["-" * width for width in widths], *rows]
    padded = ([cell.ljust(width) for cell, width in zip(line, widths, strict=True)] for line in lines)
    return "\n".join(f"| {' | '.join(line)} |" for line in padded)


def number(value: float, digits: int = 2) -> str:
    """A figure for a reader; what never came is a dash."""
    return f"{value:.{digits}f}" if math.isfinite(value) else "–"
