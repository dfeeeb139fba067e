"""Figures of a run: waits, their percentiles, and the rate.

A failed request counts: its wait for the first text is infinite, and its tokens are none.
"""

import math
import statistics
from collections.abc import Iterable, Sequence

from tools.benchmarking.classroom import Answer, Run
from tools.benchmarking.report import Row


def figures(answers: Sequence[Answer]) -> dict[str, float]:
    """The figures of one run, by name; infinite where there was nothing to time."""
    whole = [answer for answer in answers if not answer.failure]
    waits = [math.inf if a.failure else a.times[0] - a.asked for a in answers]
    return {
        "ttft_p50_s": percentile(waits, 0.5),
        "ttft_p95_s": percentile(waits, 0.95),
        "last_first_text_s": max(math.inf if a.failure else a.times[0] for a in answers),
        "tokens_per_second_in_all": sum(a.tokens for a in whole) / max(a.last for a in answers),
        "failed": len(answers) - len(whole),
        "other_length": sum(a.reported != a.wanted for a in whole),  # or length not reported
    }


def percentile(values: Iterable[float], share: float) -> float:
    """The smallest of `values` that at least `share` of them do not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[math.ceil(share * len(ordered)) - 1]


def rows(runs: Iterable[Run]) -> list[Row]:
    """A row for each server, workload, kind and number of pupils: medians over its runs, sums of counts."""
    groups: dict[tuple[str, str, str, int], list[dict[str, float]]] = {}
    for run in runs:
        asked = run.server, run.workload, run.kind, run.pupils
        groups.setdefault(asked, []).append(figures(run.answers))
    names = ("server", "workload", "kind", "pupils")
    return [
        {
            **dict(zip(names, asked, strict=True)),
            **{name: statistics.median(one[name] for one in alike) for name in alike[0]},
            **{name: sum(one[name] for one in alike) for name in ("failed", "other_length")},
        }
        for asked, alike in groups.items()
    ]
