"""What the endpoint costs on every host of the fallback plan, by the prices in tools/pricing/prices.toml.

scripts/costs options                                             prices, their dates, and what ends a bill
scripts/costs request --tokens 150                                one answer: alone, shared, cold
scripts/costs demonstration --hours 3 --pupils 30 --questions 5   one class
scripts/costs month --demonstrations 4 --requests-a-day 20        with single requests in between
scripts/costs break-even                                          by the second, the hour or the month
scripts/costs minutes                                             to the first answer, by way and step

A card holds what a boot would choose there: SNB_PRECISION, SNB_SLOTS and SNB_CONTEXT count here too.
docs/costs.md explains the columns.
"""

import argparse
import json
import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from snb.card import choose, gib
from snb.errors import SNBError
from snb.settings import Settings
from tools.benchmarking.bounds import QWEN_14B, Bounds
from tools.command import Fault
from tools.pricing import minutes
from tools.pricing.prices import ACTIVE, CARDS, HOUR, MONTH, MONTH_HOURS, MOST, SECOND, SECONDS, read
from tools.table import number, table

PROMPT = 874
"""Tokens of persona, passages and question."""


@dataclass(frozen=True)
class Machine:
    """A card of one host that holds the model."""

    host: str
    card: str
    held_in: str
    unit: str
    price: float  # dollars of one unit
    at_once: int  # the most requests that it answers together
    seconds: Callable[[int], float]  # from so many equal requests at once, at most `at_once`, to the last end
    boot: float  # seconds for the weights' bytes to arrive
    idle: float  # seconds for which an instance that ends by itself is paid after its last answer

    @property
    def per_second(self) -> float:
        """Dollars of a second for which it is paid."""
        return self.price / SECONDS[self.unit]

    def wait(self, requests: int) -> float:
        """Seconds from so many that come at once to the last one's end, in as few waves as can be."""
        whole, rest = divmod(requests, self.at_once)
        return whole * self.seconds(self.at_once) + (self.seconds(rest) if rest else 0)

    def bill(self, busy: float, up: float) -> float:
        """Dollars of a use that answers for `busy` seconds and keeps a machine up for `up`, boot included."""
        paid = {ACTIVE: busy, SECOND: up + self.idle, HOUR: up, MONTH: SECONDS[MONTH]}
        return paid[self.unit] * self.per_second

    def stray(self) -> float:
        """Dollars of one request that finds no machine up."""
        return self.bill(self.wait(1), self.boot + self.wait(1))

    def month(self, demonstrations: float, requests_a_day: int) -> float:
        """Dollars of a month: `demonstrations` dollars, and single requests between them."""
        whole, singles = SECONDS[MONTH] * self.per_second, MONTH_HOURS / 24 * requests_a_day * self.stray()
        if self.unit == HOUR and requests_a_day:  # it does not wake by itself, so it is up all month
            return whole
        return min(whole, demonstrations + singles)

    def requests_an_hour(self, flat: "Machine") -> float:
        """Single ones above which `flat`, by the hour or month, is cheaper than this."""
        return 3600 * flat.per_second / self.stray()


def arguments() -> argparse.Namespace:
    """The command line."""
    style = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=style)
    add = parser.add_argument
    add("command", choices=("options", "request", "demonstration", "month", "break-even", "minutes"))
    add("--hours", type=float, default=3.0, help="that a machine is up, boot included (default 3)")
    add("--pupils", type=int, default=30, help="who ask at once (default 30)")
    add("--questions", type=int, default=5, help="of each pupil (default 5)")
    add("--demonstrations", type=int, default=4, help="in a month (default 4)")
    add("--requests-a-day", type=int, default=0, help="between them (default 0)")
    add("--tokens", type=int, default=150, help="of an answer (default 150)")
    add("--prepared", action="store_true", help="boots load weights that are quantised already")
    add("--benchmark", type=Path, metavar="FILE", help="benchmark.json of scripts/benchmark, with --card")
    add("--card", choices=CARDS, help="the card that the benchmark ran on")
    asked = parser.parse_args()
    if bool(asked.benchmark) != bool(asked.card):
        parser.error("--benchmark and --card go together: the file does not say which card answered")
    numbers = [value for value in vars(asked).values() if isinstance(value, int | float)]
    if asked.tokens < 1 or not all(0 <= value <= MOST for value in numbers):
        parser.error(f"numbers are from 0 to {MOST:,}, and --tokens is at least 1")
    return asked


def machines(listed: dict[str, Any], asked: argparse.Namespace) -> Iterator[Machine]:
    """Every card of every host that holds the model; says why another does not."""
    model, settings = Bounds(QWEN_14B), Settings.from_environment()
    measured = rates(asked.benchmark, asked.tokens) if asked.benchmark else None
    for host, terms in listed["hosts"].items():
        for name, price in terms["prices"].items():
            card = CARDS[name]
            try:
                choice = choose(QWEN_14B, settings, card.device)
            except SNBError as error:
                print(f"Left out: {host}, {name}: {error}", file=sys.stderr)
                continue
            computed = partial(model.answers, card.rates, choice.precision, PROMPT, asked.tokens)
            at_once, seconds = measured if measured and name == asked.card else (choice.slots, computed)
            size = model.footprint.weights(choice.precision if asked.prepared else "bf16")
            boot = size / (listed["gigabits_per_second"] * 1e9 / 8)
            held_in = f"{choice.precision}, {gib(choice.need.total)} of {gib(card.device.free)}"
            dollars = price * (listed["dollars_per_euro"] if terms["currency"] == "EUR" else 1)
            for unit in terms["paid_by"]:
                idle = 60 * listed["idle_minutes"]
                yield Machine(host, name, held_in, unit, dollars, at_once, seconds, boot, idle)


def rates(file: Path, tokens: int) -> tuple[int, Callable[[int], float]]:
    """`at_once` and `seconds` of a Machine, by the first server and workload of a benchmark's file.

    Between two levels the rate of the lower one counts. Raises Fault where nothing was measured.
    """
    try:
        figures = json.loads(file.read_text(encoding="utf-8"))["tables"]["figures"]
        levels = [one for one in figures if one["kind"] == "at once" and not one["failed"]]
        ours = [one for one in levels if all(one[key] == levels[0][key] for key in ("server", "workload"))]
        of = {int(one["pupils"]): float(one["tokens_per_second_in_all"]) for one in ours}
        most, least, _ = max(of), min(of), [1 / rate for rate in of.values()]
    except (ValueError, LookupError, TypeError, ArithmeticError) as error:
        cure = "scripts/benchmark --output FOLDER writes FOLDER/benchmark.json"
        raise Fault(f"{file.name} has no level at which every request was answered; {cure}") from error
    return most, lambda rows: rows * tokens / of[max({least} | {n for n in of if n <= rows})]


def columns(asked: argparse.Namespace, chosen: list[Machine]) -> dict[str, Callable[[Machine], float | str]]:
    """Of the command's table, which is sorted by the first."""

    def lesson(one: Machine) -> float:
        return one.bill(asked.questions * one.wait(asked.pupils), 3600 * asked.hours)

    def hourly(one: Machine) -> float:
        return 3600 * one.per_second

    cheapest = min((one.price for one in chosen if one.unit == MONTH), default=math.inf)
    tables: dict[str, dict[str, Callable[[Machine], float | str]]] = {
        "options": {
            "$/h": hourly,
            "$ a day if forgotten": lambda one: 24 * hourly(one) if one.unit != ACTIVE else "–",
            "held in, GiB of free": lambda one: one.held_in,
            "at once": lambda one: str(one.at_once),
            "boot s": lambda one: one.boot,
        },
        "request": {
            "$ of 1,000 alone": lambda one: 1000 * one.wait(1) * one.per_second,
            "s": lambda one: one.wait(1),
            "$ of 1,000 full": lambda one: 1000 * one.wait(one.at_once) * one.per_second / one.at_once,
            "s of all": lambda one: one.wait(one.at_once),
            "$ of one cold": Machine.stray,
        },
        "demonstration": {
            "$": lesson,
            "last answer s": lambda one: one.wait(asked.pupils),
            "boot s": lambda one: one.boot,
        },
        "month": {"$": lambda one: one.month(asked.demonstrations * lesson(one), asked.requests_a_day)},
        "break-even": {
            "$/h": hourly,
            f"h of ${cheapest:.0f}": lambda one: cheapest / hourly(one),
            **{f"requests/h, {one.card}": one.requests_an_hour for one in chosen if one.unit == ACTIVE},
        },
    }
    return tables[asked.command]


def main() -> int:
    asked = arguments()
    if asked.command == "minutes":
        print(minutes.report())
        return 0
    listed = read()
    chosen = list(machines(listed, asked))
    shown = columns(asked, chosen)
    if asked.command == "break-even":
        chosen = [one for one in chosen if one.unit in (HOUR, MONTH)]
    rows = []
    for one in sorted(chosen, key=next(iter(shown.values()))):
        cells = (value if isinstance(value := of(one), str) else number(value) for of in shown.values())
        rows.append([one.host, one.card, f"${one.price:g}/{one.unit}", *cells])
    lesson = f"{asked.hours:g} h, {asked.pupils} pupils, {asked.questions} questions each"
    month = f"{asked.demonstrations} times {lesson}, and {asked.requests_a_day} requests a day"
    if heading := {"demonstration": lesson, "month": month}.get(asked.command):
        print(f"{heading}:")
    print(table(["host", "card", "price", *shown], rows))
    if asked.command == "options":
        for host, of in listed["hosts"].items():
            print(f"{host}: read {of['read']}. Forgotten: {of['limit']}")
    but = f" but on {asked.card}, which was measured" if asked.card else ""
    euro = listed["dollars_per_euro"]
    print(f"Computed by the roofline{but}: a real card takes longer. A euro is ${euro:g}.")
    return 0
