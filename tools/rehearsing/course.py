"""What happened in a drill: what was lost, and who waited for how long."""

from dataclasses import dataclass, field

from tools.rehearsing.verdict import plain

NEVER = float("inf")
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

    def summary(self) -> str:
        """In Markdown: how it ended, who answered, and how long it took."""
        faults, count = self.faults(), len(self.answers)
        first, second = (sum(answer.backend == place for answer in self.answers) for place in (0, 1))
        longest = max((answer.ended - answer.asked for answer in self.answers), default=NEVER)
        well = "**Nothing was lost:** every question was answered whole."
        return f"""\
{f"**Failed:** {'; '.join(faults)}." if faults else well}

- {count} questions asked: {first} answered by the first backend, {second} by the second.
- From taking the first away to the first answer by the second: {seconds(self.switched - self.taken)}.
- The longest wait from a question to its whole answer: {seconds(longest)}.
- The first was ready again after {seconds(self.ready - self.given)}.
- Its first answer came after another {seconds(self.returned - self.ready)}: the client rests who failed.
"""


def seconds(duration: float) -> str:
    """A duration; what never happened has none (infinite, or not a number)."""
    return f"{duration:.1f} s" if duration < NEVER else "never"
