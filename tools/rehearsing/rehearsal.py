"""The course of a drill: a class asks, the first backend goes away, the second answers, the first is back."""

import itertools
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from snb.philosophers import names
from tools.benchmarking import workload
from tools.endpoints.endpoint import Failed
from tools.endpoints.started import say
from tools.rehearsing.hands import Hands
from tools.rehearsing.pupils import Answer, Pupils, Question, moment

FIRST, SECOND = 0, 1
DISTINCT = 6
"""Questions that are asked again and again, so that their answers can be compared."""
PAUSE = 2.0
"""Seconds between two looks whether the first backend is asked again."""


@dataclass(frozen=True)
class Plan:
    """What is rehearsed. Times in seconds."""

    pupils: int
    questions: int
    """Of each pupil."""
    tokens: int
    away: float
    """In which the second backend has to answer after the first was taken away."""
    back: float
    """In which callers have to return to the first after it was brought back."""


@dataclass
class Course:
    """What happened. Moments are seconds since the epoch, infinite where they never came."""

    answers: list[Answer] = field(default_factory=list)
    references: dict[int, str] = field(default_factory=dict)
    """The answer to each question before anything happened."""
    taken: float = float("inf")
    given: float = float("inf")
    ready: float = float("inf")
    """When the first backend could be asked again."""

    @property
    def switched(self) -> float:
        """When the second backend gave its first answer after the first was taken away."""
        away = (a.ended for a in self.answers if a.ended >= self.taken and a.backend == SECOND)
        return min(away, default=float("inf"))

    @property
    def asked_again(self) -> float:
        """When the first question was asked that the first backend answered after it was back."""
        back = (a.asked for a in self.answers if a.asked >= self.ready and a.backend == FIRST)
        return min(back, default=float("inf"))

    @property
    def returned(self) -> float:
        """When it gave the first such answer."""
        back = (a.ended for a in self.answers if a.asked >= self.asked_again and a.backend == FIRST)
        return min(back, default=float("inf"))


class Rehearsal:
    """Runs a plan. `course` is filled as it goes, so that there is something to show of one that fails."""

    def __init__(self, plan: Plan, pupils: Pupils, hands: Hands) -> None:
        self.course = Course()
        self._plan, self._pupils, self._hands = plan, pupils, hands
        texts = workload.TEXTS["questions"][:DISTINCT]
        self._questions = [
            Question(number, philosopher, text, plan.tokens)
            for number, (text, philosopher) in enumerate(zip(texts, itertools.cycle(names()), strict=False))
        ]

    def run(self) -> None:
        """The whole drill. Raises Failed when it cannot go on."""
        self._refer()
        say(f"{self._plan.pupils} pupils ask {self._plan.questions} questions each …")
        self._class()
        self._wait_for_switch()
        say("the first backend is brought back …")
        self.course.given = moment()
        self.course.ready = self._hands.give()
        self._wait_for_return()

    def _refer(self) -> None:
        """Asks each backend alone: a drill in which one of them is down from the start shows nothing."""
        for position, questions in ((FIRST, self._questions), (SECOND, self._questions[:1])):
            pupils = [[question] for question in questions]
            for answer in self._pupils.round(pupils, [self._hands.urls[position]]):
                if answer.failure:
                    which = "second" if position else "first"
                    raise Failed(f"the {which} backend does not answer before the drill: {answer.failure}")
                self.course.references.setdefault(answer.number, answer.text)

    def _class(self) -> None:
        """The class, with the first backend taken away when a third of the answers are there."""
        total = self._plan.pupils * self._plan.questions
        for count, _ in enumerate(self._ask(self._plan.pupils, self._plan.questions), start=1):
            if count == max(1, total // 3):
                self.course.taken = self._hands.take()
                say(f"the first backend is taken away after {count} of {total} answers …")

    def _wait_for_switch(self) -> None:
        """More questions until the second backend answers, and once more where none came after that."""
        until = self.course.taken + self._plan.away
        while self.course.switched == float("inf") and time.time() < until:
            self._all(self._plan.pupils)
            time.sleep(PAUSE)
        if not any(answer.asked >= self.course.switched for answer in self.course.answers):
            self._all(self._plan.pupils)

    def _wait_for_return(self) -> None:
        """One pupil asks until the first backend answers, then the whole class asks once more."""
        until = self.course.ready + self._plan.back
        while self.course.returned == float("inf") and time.time() < until:
            self._all(1)
            time.sleep(PAUSE)
        self._all(self._plan.pupils)

    def _all(self, pupils: int) -> None:
        for _ in self._ask(pupils, 1):
            pass

    def _ask(self, pupils: int, questions: int) -> Iterator[Answer]:
        """A round, with its answers kept."""
        for answer in self._pupils.round(self._asked(pupils, questions), self._hands.urls):
            self.course.answers.append(answer)
            yield answer

    def _asked(self, pupils: int, questions: int) -> Sequence[Sequence[Question]]:
        """Neighbours ask different questions."""
        numbers = range(questions)
        return [[self._questions[(p + n) % len(self._questions)] for n in numbers] for p in range(pupils)]
