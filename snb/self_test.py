"""The proof that ends a boot: what must be exact is, and arithmetic is no worse than the card's own.

An hour before a class, a boot that could answer must not refuse. So a *fault* refuses a decode path: a column
read or written that should not be, a replayed graph that computes something else, NaN, a token that differs
where fp32 leaves no doubt. A *doubt*, arithmetic further from fp32 than rounding explains, makes room for the
next path, and is a warning where there is none.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from snb import exact, rounding
from snb.engine import Engine
from snb.errors import SelfTestFailed
from snb.finding import Finding
from snb.request import Sampling
from snb.rounding import Figures

log = logging.getLogger(__name__)

GREEDY = Sampling(max_tokens=4, min_tokens=4, temperature=0, repetition_penalty=1)
CURE = "A kernel computes wrongly here: try another machine or another SNB_PRECISION"


@dataclass
class Report:
    """What a self-test found, and the figures of its arithmetic."""

    findings: list[Finding] = field(default_factory=list)
    figures: Figures = field(default_factory=dict)

    def of(self, kind: str) -> list[str]:
        """The sentences of one kind, each once."""
        return list(dict.fromkeys(finding.text for finding in self.findings if finding.kind == kind))

    def refuse(self, *kinds: str) -> None:
        """Raises SelfTestFailed if there are findings of these kinds."""
        if faults := [text for kind in kinds for text in self.of(kind)]:
            raise SelfTestFailed(faults, CURE)


def self_test(engine: Engine, prompt: Sequence[int], last: bool = True) -> Report:
    """Proves an engine that nobody uses yet; its rows are written over.

    Args:
        engine: as callers will use it.
        prompt: what two requests are asked, as one by one callers will; it begins with a warm persona.
        last: whether there is no other path to take, so that a doubt is no reason to refuse.

    Raises:
        SelfTestFailed: for any fault, and for a doubt where another path may do better.
    """
    report = Report()
    # A replayed graph gives the very numbers of the path after it, so that one would do no better.
    only = last or engine.step != engine.model.step
    for check in (exact.replays, exact.reads, exact.writes):
        report.findings += check(engine.model, engine.step)
    report.findings += _answers(engine, prompt)
    report.refuse("fault")
    findings, report.figures = rounding.judge(engine.model, prompt)
    report.findings += findings
    figures = ", ".join(f"{name} {value:.3g}" for name, value in report.figures.items())
    log.info("self-test: %s", "; ".join([figures, *report.of("blind")]))
    report.refuse("fault", *([] if only else ["doubt"]))
    for doubt in report.of("doubt"):
        log.warning("self-test: %s", doubt)
    return report


def _answers(engine: Engine, prompt: Sequence[int]) -> Iterator[Finding]:
    """Greedy answers of two requests at once, through the callers' own door."""
    asked = [engine.generate(list(prompt), GREEDY, seed=0, keep_scores=True) for _ in range(2)]
    for generation in asked:
        "".join(generation)
        if not all(scores.isfinite().all() for scores in generation.scores or []):
            yield Finding("fault", "scores of an answer are not finite")
    rows = range(min(2, engine.model.cache.slots))
    yield from exact.prefixes(engine.model, engine.prefixes, prompt, rows)
