"""What a use costs on one machine: arithmetic alone, in dollars and seconds."""

from dataclasses import dataclass

from prices import ACTIVE, HOUR, MONTH, MONTH_HOURS, SECOND, Option
from speed import Speed, Work

DAYS = 30
"""Of a month."""


@dataclass(frozen=True)
class Machine:
    """An option, what runs on it, and how it starts."""

    option: Option
    held_in: str
    """The precision of the weights."""
    need: int
    """Bytes of the card's memory, as the loader computes them."""
    speed: Speed
    boot: float
    """Seconds for the weights' bytes to arrive."""
    idle: float
    """Seconds that are paid after the last answer, where the host ends the instance by itself."""

    def together(self, requests: int, work: Work) -> float:
        """Seconds for requests that come at once, in as few waves as the slots allow."""
        waves, rest = divmod(requests, self.speed.at_once)
        seconds = waves * self.speed.together(self.speed.at_once, work) if waves else 0.0
        return seconds + (self.speed.together(rest, work) if rest else 0.0)

    def each_its_own(self, requests: int, work: Work) -> float:
        """Seconds of the same if those that share a second are charged for it one by one."""
        waves, rest = divmod(requests, self.speed.at_once)
        most = self.speed.at_once
        seconds = waves * most * self.speed.together(most, work) if waves else 0.0
        return seconds + (rest * self.speed.together(rest, work) if rest else 0.0)

    def capacity(self, work: Work) -> float:
        """The most requests an hour."""
        return 3600 * self.speed.at_once / self.speed.together(self.speed.at_once, work)

    def stray(self, work: Work) -> float:
        """Seconds that are paid for one request to an instance that was not up."""
        alone = self.together(1, work)
        return alone if self.option.unit == ACTIVE else self.boot + alone + self.idle


@dataclass(frozen=True)
class Demonstration:
    """A class: for each question all pupils ask at once."""

    hours: float
    """That a rented machine is up, its boot included."""
    pupils: int
    questions: int
    """Of each pupil."""
    work: Work

    @property
    def requests(self) -> int:
        return self.pupils * self.questions


def active(machine: Machine, plan: Demonstration) -> float:
    """Seconds in which the machine answers."""
    return plan.questions * machine.together(plan.pupils, plan.work)


def demonstration(machine: Machine, plan: Demonstration) -> float:
    """Dollars. A machine by the month is paid for the month."""
    option = machine.option
    if option.unit == ACTIVE:
        return active(machine, plan) * option.dollars
    if option.unit == MONTH:
        return option.dollars + option.fee
    idle = machine.idle if option.unit == SECOND else 0.0
    return (plan.hours * 3600 + idle) * option.per_second


def demonstration_at_most(machine: Machine, plan: Demonstration) -> float:
    """Dollars if each answer is charged for its own seconds: differs where active seconds are paid."""
    if machine.option.unit != ACTIVE:
        return demonstration(machine, plan)
    return plan.questions * machine.each_its_own(plan.pupils, plan.work) * machine.option.dollars


def month(machine: Machine, plan: Demonstration, demonstrations: int, requests_a_day: int) -> float:
    """Dollars of the first month: demonstrations, and single requests between them, each on its own.

    Where nothing ends or starts by itself, single requests keep the machine up all month.
    """
    option, stray = machine.option, DAYS * requests_a_day
    if option.unit == MONTH:
        return option.dollars + option.fee
    whole = MONTH_HOURS * 3600 * option.per_second
    if option.unit == HOUR and stray:
        return whole
    singles = stray * machine.stray(plan.work) * option.per_second
    return min(whole, demonstrations * demonstration(machine, plan) + singles)


def hourly(machine: Machine, requests: float, work: Work) -> float:
    """Dollars an hour at so many single requests an hour."""
    option = machine.option
    if option.unit == ACTIVE:
        return requests * machine.stray(work) * option.dollars
    if option.unit == SECOND:
        return min(requests * machine.stray(work), 3600) * option.dollars
    return 3600 * option.per_second


def crossing(metered: Machine, flat: Machine, work: Work) -> float | None:
    """Requests an hour above which `flat` (by the hour or month) is cheaper than `metered` (by the second).

    None where that never happens: a metered instance that is up all hour costs less than the flat one, or
    the flat machine cannot answer so many.
    """
    rate = 3600 * flat.option.per_second
    if metered.option.unit == SECOND and 3600 * metered.option.dollars <= rate:
        return None
    requests = rate / (metered.stray(work) * metered.option.dollars)
    return requests if requests <= flat.capacity(work) else None


def hours_of_month(rented: Machine, monthly: Machine) -> float | None:
    """Hours a month above which the machine by the month is cheaper than one by the hour; None if never."""
    hours = monthly.option.dollars / (3600 * rented.option.per_second)
    return hours if hours <= MONTH_HOURS else None
