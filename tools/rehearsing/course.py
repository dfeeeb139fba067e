"""What happened in a drill: what was lost, who waited for how long; and its record as Markdown to keep."""

import statistics
from dataclasses import dataclass, field
from datetime import UTC, datetime

from tools.benchmarking.benchmark_record import machine, versions
from tools.rehearsing.verdict import plain
from tools.table import number, table

NEVER = float("inf")
HEADER = ("asked", "questions", "by the first", "by the second", "lost", "median wait s", "longest wait s")
HALF = 0.5
"""Share of an answer's usual length below which another answer to the question counts as cut short."""


@dataclass(frozen=True)
class Answer:
    """What came of one question. Moments are seconds since the epoch."""

    number: int
    """Of the question; the same number is the same question and seed."""
    asked: float
    ended: float
    text: str
    failure: str
    backend: int | None
    """Which one answered: 0 is the first."""


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
        away = (a.ended for a in self.answers if a.ended >= self.taken and a.backend == 1)
        return min(away, default=NEVER)

    @property
    def returned(self) -> float:
        """When the first backend gave its first answer after it was back."""
        back = (a.ended for a in self.answers if a.asked >= self.ready and a.backend == 0)
        return min(back, default=NEVER)

    def is_short(self, answer: Answer) -> bool:
        """Whether it is the beginning of what it was before, or by far shorter."""
        whole = self.references[answer.number]
        begun = answer.text != whole and whole.startswith(answer.text)
        return not answer.failure and (begun or len(answer.text) < HALF * len(whole))

    def faults(self) -> list[str]:
        """Everything for which a drill has failed, as sentences; none of a good one."""
        lost = [answer.failure for answer in self.answers if answer.failure]
        short = sum(map(self.is_short, self.answers))
        faults = {
            f"{len(lost)} questions were lost: {plain(lost[0]) if lost else ''}": lost,
            f"{short} answers were cut short": short,
            "the first backend was never taken away": self.taken == NEVER,
            "the second backend never answered": self.switched == NEVER,
            "callers never returned to the first backend": self.returned == NEVER,
        }
        return [fault for fault, holds in faults.items() if holds]

    def record(self, scene: str) -> str:
        """The whole record; `scene` says who asked whom, and what was done to the first backend."""
        here, now = machine(), datetime.now(UTC)
        where = ", ".join(filter(None, [here["system"], here["processor"], *here["gpus"]]))
        faults, whole = "; ".join(self.faults()), f"{len(self.answers)} questions asked, each answered whole"
        where = f"""
- Date: {now:%Y-%m-%d %H:%M} UTC, project {versions()["project"] or "unknown"}
- Machine: {where}, {here["cores"]} cores
- {scene}"""
        result = f"**Failed:** {faults}." if faults else f"**Nothing was lost:** {whole}."
        durations = "\n".join(f"- {line}." for line in self.durations())
        parts = [f"# Drill of {now:%Y-%m-%d}", where.strip(), result, table(HEADER, self.rows()), durations]
        return "\n\n".join(parts) + "\n"

    def rows(self) -> list[list[str]]:
        """Of the table: each answer is in one of them."""
        before = [a for a in self.answers if a.ended <= self.taken]
        back = [a for a in self.answers if a.asked >= self.ready]
        away = [a for a in self.answers if a not in before and a not in back]
        named = {"before the first went": before, "while it was away": away, "when it was back": back}
        return [[name, *cells(answers)] for name, answers in named.items()]

    def durations(self) -> list[str]:
        """How long the switch and the return took, as far as they happened."""
        switch, ready, back = self.switched - self.taken, self.ready - self.given, self.returned - self.ready
        why = "for a while the client leaves alone who failed"
        lines = {
            f"From taking the first away to the first answer by the second: {switch:.2f} s": self.switched,
            f"The first was ready again {ready:.1f} s after it was brought back": self.ready,
            f"Its first answer came {back:.1f} s later: {why}": self.returned,
        }
        happened = [line for line, moment in lines.items() if moment < NEVER]
        return [*happened, "A wait is from a question to its whole answer"]


def cells(answers: list[Answer]) -> list[str]:
    """Of one period."""
    by = [sum(a.backend == position for a in answers) for position in (0, 1)]
    waits = [a.ended - a.asked for a in answers]
    shown = [number(statistics.median(waits)), number(max(waits))] if waits else ["–", "–"]
    return [*map(str, (len(answers), *by, sum(bool(a.failure) for a in answers))), *shown]
