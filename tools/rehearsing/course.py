"""What happened in a drill: what was lost, and who waited for how long."""

import statistics
from dataclasses import dataclass, field

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

    references: dict[int, str]
    """The answer to each question before anything happened."""
    answers: list[Answer] = field(default_factory=list)
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

    def table(self) -> str:
        """In Markdown; each answer is in one row."""
        before = [a for a in self.answers if a.ended <= self.taken]
        back = [a for a in self.answers if a.asked >= self.ready]
        away = [a for a in self.answers if a not in before and a not in back]
        named = {"before the first went": before, "while it was away": away, "when it was back": back}
        return table(HEADER, [[name, *cells(answers)] for name, answers in named.items()])

    def durations(self) -> str:
        """How long the switch and the return took; of what never happened, a dash."""
        switch, ready, back = self.switched - self.taken, self.ready - self.given, self.returned - self.ready
        return f"""\
- From taking the first away to the first answer by the second: {number(switch)} s.
- The first was ready again {number(ready, 1)} s after it was brought back.
- Its first answer came {number(back, 1)} s later: for a while the client leaves alone who failed.
- A wait is from a question to its whole answer."""


def cells(answers: list[Answer]) -> list[str]:
    """Of one period."""
    by = [sum(a.backend == position for a in answers) for position in (0, 1)]
    waits = [a.ended - a.asked for a in answers]
    shown = [number(statistics.median(waits)), number(max(waits))] if waits else ["–", "–"]
    return [*map(str, (len(answers), *by, sum(bool(a.failure) for a in answers))), *shown]
