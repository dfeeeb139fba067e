"""The record of a drill: what was lost, who waited for how long, as Markdown to keep."""

import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime

from tools.benchmarking.benchmark_record import machine, versions
from tools.benchmarking.benchmark_table import number, table
from tools.rehearsing.pupils import Answer
from tools.rehearsing.rehearsal import FIRST, SECOND, Course, Plan
from tools.rehearsing.verdict import plain

HEADER = ("asked", "questions", "by the first", "by the second", "lost", "median wait s", "longest wait s")
HALF = 0.5
"""Share of an answer's usual length below which another answer to the question counts as cut short."""


class Record:
    """What a course shows.

    Args:
        exact: whether the same seed has to give the same answer to the letter: fp32 on one machine.
    """

    def __init__(self, course: Course, plan: Plan, backends: str, deed: str, exact: bool) -> None:
        self._course, self._plan, self._exact = course, plan, exact
        self._backends, self._deed = backends, deed

    def faults(self) -> list[str]:
        """Everything for which a drill has failed, as sentences; none of a good one."""
        course = self._course
        lost, short, other = self._lost(), self._short(), self._other()
        return [
            *([f"{len(lost)} questions were lost: {plain(lost[0].failure)}"] if lost else []),
            *([f"{len(short)} answers were cut short"] if short else []),
            *(
                [f"{len(other)} answers are not those of the same seed before"]
                if other and self._exact
                else []
            ),
            *([] if math.isfinite(course.taken) else ["the first backend was never taken away"]),
            *([] if math.isfinite(course.switched) else ["the second backend never answered"]),
            *([] if math.isfinite(course.returned) else ["callers never returned to the first backend"]),
        ]

    def markdown(self) -> str:
        """The whole record."""
        now = datetime.now(UTC)
        faults = self.faults()
        whole = f"{len(self._course.answers)} questions asked, all answered, each answer whole."
        result = "**Failed:** " + "; ".join(faults) + "." if faults else f"**Nothing was lost:** {whole}"
        parts = [f"# Drill of {now:%Y-%m-%d}", "\n".join(self._circumstances(now)), result, self._table()]
        return "\n\n".join([*parts, "\n".join(self._moments())]) + "\n"

    def _circumstances(self, now: datetime) -> Iterator[str]:
        here, plan = machine(), self._plan
        where = ", ".join(filter(None, [here["system"], here["processor"], *here["gpus"]]))
        yield f"- Date: {now:%Y-%m-%d %H:%M} UTC, project {versions()['project'] or 'unknown'}"
        yield f"- Machine: {where}, {here['cores']} cores, {gib(here['memory'])}"
        yield f"- Backends: {self._backends}"
        each = f"{plan.questions} questions each, at most {plan.tokens} tokens an answer"
        yield f"- Class: {plan.pupils} pupils, {each}, through the client's callSNB"
        if math.isfinite(self._course.taken):
            when = f"at {clock(self._course.taken)}, {self._caught()}"
            yield f"- The first was taken away: {self._deed}, {when}"

    def _caught(self) -> str:
        """What the first backend left behind."""
        taken = self._course.taken
        before = sum(a.ended <= taken for a in self._course.answers)
        under_way = [a for a in self._course.answers if a.asked <= taken < a.ended]
        moved = sum(a.backend == SECOND for a in under_way)
        return (
            f"after {before} answers, with {len(under_way)} under way, of which the second answered {moved}"
        )

    def _table(self) -> str:
        rows = [self._row(name, holds) for name, holds in self._periods().items()]
        return table(HEADER, rows)

    def _periods(self) -> dict[str, Callable[[Answer], bool]]:
        """What was asked when; each answer is in one of them."""
        course = self._course
        return {
            "before the first went, and answered": lambda a: a.ended <= course.taken,
            "before the second first answered": lambda a: (
                a.ended > course.taken and a.asked < course.switched
            ),
            "while the first was away": lambda a: course.switched <= a.asked < course.ready,
            "when it was back, not asked yet": lambda a: (
                max(course.switched, course.ready) <= a.asked < course.asked_again
            ),
            "when it was asked again": lambda a: a.asked >= course.asked_again,
        }

    def _row(self, name: str, holds: Callable[[Answer], bool]) -> Sequence[str]:
        answers = [answer for answer in self._course.answers if holds(answer)]
        by = [sum(a.backend == position for a in answers) for position in (FIRST, SECOND)]
        waits = [answer.wait for answer in answers]
        shown = [number(statistics.median(waits)), number(max(waits))] if waits else ["–", "–"]
        return [name, *map(str, (len(answers), *by, sum(bool(a.failure) for a in answers))), *shown]

    def _moments(self) -> Iterator[str]:
        course = self._course
        if math.isfinite(course.switched):
            seconds = course.switched - course.taken
            yield f"- From taking the first away to the first answer by the second: {seconds:.2f} s."
        if math.isfinite(course.ready):
            seconds = course.ready - course.given
            yield f"- The first was ready again {seconds:.1f} s after it was brought back."
        if math.isfinite(course.returned):
            seconds = course.returned - course.ready
            why = "for a while the client leaves alone who failed"
            yield f"- Its first answer came {seconds:.1f} s later: {why}."
        if (other := len(self._other())) and not self._exact:
            yield f"- {other} answers differ from those of the same seed before: other weights or roundings."
        yield "- A wait is from a question to its whole answer."

    def _lost(self) -> list[Answer]:
        return [answer for answer in self._course.answers if answer.failure]

    def _short(self) -> list[Answer]:
        return [answer for answer in self._course.answers if not answer.failure and self._is_short(answer)]

    def _is_short(self, answer: Answer) -> bool:
        """Whether it is the beginning of what it was before, or by far shorter."""
        whole = self._course.references[answer.number]
        if answer.text == whole:
            return False
        return whole.startswith(answer.text) or len(answer.text) < HALF * len(whole)

    def _other(self) -> list[Answer]:
        """Answers that are neither what they were before nor cut short."""
        known = self._course.references
        differ = [a for a in self._course.answers if not a.failure and a.text != known[a.number]]
        return [answer for answer in differ if not self._is_short(answer)]


def gib(memory: str) -> str:
    """What the kernel gives in kB."""
    size = memory.partition(" ")[0]
    return f"{int(size) / 1024**2:.1f} GiB" if size.isdigit() else "memory unknown"


def clock(moment: float) -> str:
    """The time of day, UTC."""
    return f"{datetime.fromtimestamp(moment, UTC):%H:%M:%S} UTC"
