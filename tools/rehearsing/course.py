"""What happened in a drill: which questions were lost, and how long pupils waited."""

from dataclasses import dataclass, field

from tools.command import plain
from tools.table import number

NEVER = float("inf")


@dataclass(frozen=True)
class Answer:
    """What came of one question. Moments are seconds since the epoch."""

    pupil: int
    asked: float
    ended: float
    failure: str
    backend: int | None
    """Which one answered: 0 is the first, None none."""


@dataclass
class Course:
    """The answers of a drill so far. Moments are seconds since the epoch."""

    answers: list[Answer] = field(default_factory=list)
    taken: float = NEVER
    """When the first backend was taken away."""

    @property
    def switched(self) -> float:
        """When the second backend gave its first answer after `taken`; NEVER if it has not."""
        away = (a.ended for a in self.answers if a.ended >= self.taken and a.backend == 1)
        return min(away, default=NEVER)

    def is_over(self, pupils: int) -> bool:
        """Whether each of `pupils` has asked a question since the switch and got its outcome."""
        return len({a.pupil for a in self.answers if a.asked >= self.switched}) == pupils

    def faults(self) -> list[str]:
        """Every reason why the drill has failed, in words; empty if it has succeeded."""
        lost = [answer.failure for answer in self.answers if answer.failure]
        faults = {
            f"{len(lost)} questions were lost: {plain(lost[0]) if lost else ''}": lost,
            "the first backend never answered": not self._by(0),
            "the second backend never answered": self.switched == NEVER,
        }
        return [fault for fault, holds in faults.items() if holds]

    def summary(self) -> str:
        """Markdown: how the drill ended, who answered, and how long it took."""
        faults = self.faults()
        longest = max((answer.ended - answer.asked for answer in self.answers), default=NEVER)
        return f"""\
{f"**Failed:** {'; '.join(faults)}." if faults else "**Nothing was lost:** every question was answered."}

- {len(self.answers)} questions: {self._by(0)} answered by the first backend, {self._by(1)} by the second.
- From taking the first away to the first answer by the second: {number(self.switched - self.taken, 1)} s.
- The longest wait from a question to its whole answer: {number(longest, 1)} s.
"""

    def _by(self, place: int) -> int:
        return sum(answer.backend == place for answer in self.answers)
