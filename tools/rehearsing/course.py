"""What happened in a drill: what was lost, who waited for how long; and its record as Markdown to keep."""

import argparse
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

from tools.benchmarking.benchmark_record import machine, versions
from tools.rehearsing.pupils import Answer
from tools.rehearsing.verdict import plain
from tools.table import number, table

FIRST, SECOND = 0, 1
NEVER = float("inf")
HEADER = ("asked", "questions", "by the first", "by the second", "lost", "median wait s", "longest wait s")
HALF = 0.5
"""Share of an answer's usual length below which another answer to the question counts as cut short."""


@dataclass
class Course:
    """Moments are seconds since the epoch."""

    answers: list[Answer] = field(default_factory=list)
    references: dict[int, str] = field(default_factory=dict)
    """The answer to each question before anything happened."""
    taken: float = NEVER
    given: float = NEVER
    ready: float = NEVER
    """When the first backend could be asked again."""

    @property
    def switched(self) -> float:
        """When the second backend gave its first answer after the first was taken away."""
        away = (a.ended for a in self.answers if a.ended >= self.taken and a.backend == SECOND)
        return min(away, default=NEVER)

    @property
    def asked_again(self) -> float:
        """When the first question was asked that the first backend answered after it was back."""
        back = (a.asked for a in self.answers if a.asked >= self.ready and a.backend == FIRST)
        return min(back, default=NEVER)

    @property
    def returned(self) -> float:
        """When it gave the first such answer."""
        back = (a.ended for a in self.answers if a.asked >= self.asked_again and a.backend == FIRST)
        return min(back, default=NEVER)

    @property
    def periods(self) -> dict[str, Callable[[Answer], bool]]:
        """What was asked when; each answer is in one of them."""
        taken, switched, again = self.taken, self.switched, self.asked_again
        back = max(switched, self.ready)
        return {
            "before the first went, and answered": lambda a: a.ended <= taken,
            "before the second first answered": lambda a: a.ended > taken and a.asked < switched,
            "while the first was away": lambda a: switched <= a.asked < self.ready,
            "when it was back, not asked yet": lambda a: back <= a.asked < again,
            "when it was asked again": lambda a: a.asked >= again,
        }

    def is_short(self, answer: Answer) -> bool:
        """Whether it is the beginning of what it was before, or by far shorter."""
        whole = self.references[answer.number]
        begun = answer.text != whole and whole.startswith(answer.text)
        return not answer.failure and (begun or len(answer.text) < HALF * len(whole))

    @property
    def others(self) -> list[Answer]:
        """Answers that are neither what they were before nor cut short."""
        differ = [a for a in self.answers if not a.failure and a.text != self.references[a.number]]
        return [answer for answer in differ if not self.is_short(answer)]

    def faults(self, exact: bool) -> list[str]:
        """Everything for which a drill has failed, as sentences; none of a good one.

        Args:
            exact: whether the same seed has to give the same answer to the letter: fp32 on one machine.
        """
        lost = [answer for answer in self.answers if answer.failure]
        short, others = sum(map(self.is_short, self.answers)), len(self.others)
        faults = {
            f"{len(lost)} questions were lost: {plain(lost[0].failure) if lost else ''}": lost,
            f"{short} answers were cut short": short,
            f"{others} answers are not those of the same seed before": others and exact,
            "the first backend was never taken away": self.taken == NEVER,
            "the second backend never answered": self.switched == NEVER,
            "callers never returned to the first backend": self.returned == NEVER,
        }
        return [fault for fault, holds in faults.items() if holds]


def markdown(course: Course, plan: argparse.Namespace, backends: str, deed: str, exact: bool) -> str:
    """The whole record. `plan` has pupils, questions and tokens; `deed` is what was done to the first."""
    now = datetime.now(UTC)
    whole = f"{len(course.answers)} questions asked, all answered, each answer whole."
    faults = "; ".join(course.faults(exact))
    result = f"**Failed:** {faults}." if faults else f"**Nothing was lost:** {whole}"
    rows = [row(name, list(filter(holds, course.answers))) for name, holds in course.periods.items()]
    where = "\n".join([*here(now), f"- Backends: {backends}", *class_lines(course, plan, deed)])
    parts = [f"# Drill of {now:%Y-%m-%d}", where, result, table(HEADER, rows)]
    return "\n\n".join([*parts, "\n".join(moments(course, exact))]) + "\n"


def here(now: datetime) -> Iterator[str]:
    """The date and this machine."""
    found = machine()
    size = found["memory"].partition(" ")[0]  # in kB, as the kernel gives it
    memory = f"{int(size) / 1024**2:.1f} GiB" if size.isdigit() else "memory unknown"
    where = ", ".join(filter(None, [found["system"], found["processor"], *found["gpus"]]))
    yield f"- Date: {now:%Y-%m-%d %H:%M} UTC, project {versions()['project'] or 'unknown'}"
    yield f"- Machine: {where}, {found['cores']} cores, {memory}"


def class_lines(course: Course, plan: argparse.Namespace, deed: str) -> Iterator[str]:
    """Who asked, and what the first backend left behind."""
    each = f"{plan.questions} questions each, at most {plan.tokens} tokens an answer"
    yield f"- Class: {plan.pupils} pupils, {each}, through the client's callSNB"
    if course.taken < NEVER:
        before = sum(a.ended <= course.taken for a in course.answers)
        under_way = [a for a in course.answers if a.asked <= course.taken < a.ended]
        moved = sum(a.backend == SECOND for a in under_way)
        when = f"at {datetime.fromtimestamp(course.taken, UTC):%H:%M:%S} UTC, after {before} answers"
        left = f"with {len(under_way)} under way, of which the second answered {moved}"
        yield f"- The first was taken away: {deed}, {when}, {left}"


def row(name: str, answers: list[Answer]) -> list[str]:
    """Of the table: one period."""
    by = [sum(a.backend == position for a in answers) for position in (FIRST, SECOND)]
    waits = [answer.wait for answer in answers]
    shown = [number(statistics.median(waits)), number(max(waits))] if waits else ["–", "–"]
    return [name, *map(str, (len(answers), *by, sum(bool(a.failure) for a in answers))), *shown]


def moments(course: Course, exact: bool) -> Iterator[str]:
    """How long the switch and the return took."""
    if course.switched < NEVER:
        seconds = course.switched - course.taken
        yield f"- From taking the first away to the first answer by the second: {seconds:.2f} s."
    if course.ready < NEVER:
        yield f"- The first was ready again {course.ready - course.given:.1f} s after it was brought back."
    if course.returned < NEVER:
        why = "for a while the client leaves alone who failed"
        yield f"- Its first answer came {course.returned - course.ready:.1f} s later: {why}."
    if course.others and not exact:
        count = len(course.others)
        yield f"- {count} answers differ from those of the same seed before: other weights or roundings."
    yield "- A wait is from a question to its whole answer."
