"""The self-test at the end of a boot: exact checks, and rounding compared with that of transformers.

A false alarm would refuse a boot that could answer, perhaps an hour before a class. So only a *fault* rules
out a decode path: a column read or written that should not be, a replayed graph that computes something else,
NaN, a token that differs where fp32 leaves no doubt. After a *doubt*, arithmetic further from fp32 than
rounding explains, the next path is tried; where there is none, it is a warning.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from snb.engine.loop import Engine
from snb.errors import RequestFailed, SelfTestFailed
from snb.parameters import Sampling
from snb.self_test import exact, rounding
from snb.self_test.finding import Finding
from snb.self_test.rounding import Figures

log = logging.getLogger(__name__)

GREEDY = Sampling(max_tokens=4, min_tokens=4, temperature=0, repetition_penalty=1)
CURE = "A kernel computes wrongly here: try another machine or another SNB_PRECISION"


@dataclass
class Report:
    """The findings of a self-test, and the figures of its arithmetic."""

    findings: list[Finding] = field(default_factory=list)
    figures: Figures = field(default_factory=dict)

    def of(self, kind: str) -> list[str]:
        """The findings of one kind as sentences, without repetition."""
        return list(dict.fromkeys(finding.text for finding in self.findings if finding.kind == kind))

    def refuse(self, *kinds: str) -> None:
        """Raises SelfTestFailed if there are findings of these kinds."""
        if faults := [text for kind in kinds for text in self.of(kind)]:
            raise SelfTestFailed(faults, CURE)


def self_test(engine: Engine, prompt: Sequence[int], last: bool = True) -> Report:
    """Tests an engine before anybody uses it; its rows are overwritten.

    Args:
        engine: as callers will use it.
        prompt: ids that two requests ask, as callers ask; they begin with the saved prefix of a persona.
        last: whether there is no other path to try, so that a doubt is no reason to refuse.

    Raises:
        SelfTestFailed: for any fault, and for a doubt where another path may do better.
    """
    report = Report()
    step = getattr(engine.step, "recorded", engine.model.step)
    # A replay of the model's own step computes exactly what the next path does, which would do no better.
    only = last or (engine.step != engine.model.step and step == engine.model.step)
    for check in (exact.replays, exact.reads, exact.writes):
        report.findings += check(engine.model, engine.step)
    report.findings += exact.choices(engine.model, engine.sampler)
    report.findings += _answers(engine, prompt)
    report.refuse("fault")
    findings, report.figures = rounding.judge(engine.model, prompt, step)
    report.findings += findings
    figures = ", ".join(f"{name} {value:.3g}" for name, value in report.figures.items())
    log.info("self-test: %s", "; ".join([figures, *report.of("blind")]))
    report.refuse("fault", *([] if only else ["doubt"]))
    for doubt in report.of("doubt"):
        log.warning("self-test: %s", doubt)
    return report


def _answers(engine: Engine, prompt: Sequence[int]) -> Iterator[Finding]:
    """Checks greedy answers to two requests at once, which go through `generate` as those of callers do."""
    with engine.lock:  # else the first may end before the second comes, which then takes its row
        asked = [engine.generate(list(prompt), GREEDY, seed=0, keep_scores=True) for _ in range(2)]
    for generation in asked:
        with suppress(RequestFailed):
            "".join(generation)
        if generation.finish_reason == "error" or not all(
            scores.isfinite().all() for scores in generation.scores or []
        ):
            yield Finding("fault", "scores of an answer are not finite")
    rows = range(min(2, engine.model.cache.slots))
    yield from exact.prefixes(engine.model, engine.prefixes, prompt, rows)
