"""What the endpoint costs on every host of the fallback plan, by the prices in tools/pricing/prices.toml.

scripts/costs options                                             prices and their dates
scripts/costs request --tokens 150                                one answer: alone, shared, cold
scripts/costs demonstration --hours 3 --pupils 30 --questions 5   one class
scripts/costs month --demonstrations 4 --requests-a-day 20        with single requests in between
scripts/costs break-even                                          by the second, the hour or the month

A card holds what a boot would choose there: SNB_PRECISION, SNB_SLOTS and SNB_CONTEXT count here too.
docs/costs.md explains the columns.
"""

import argparse
import math
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from snb.card import choose, gib
from snb.errors import SNBError
from snb.settings import Settings
from tools.benchmarking.bounds import QWEN_14B, Bounds
from tools.pricing import prices
from tools.pricing.prices import ACTIVE, CARDS, HOUR, MONTH, Machine, Prices
from tools.table import number, table

Columns = dict[str, Callable[[Machine], float | str]]


def arguments() -> argparse.Namespace:
    """The command line."""
    style = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=style)
    add = parser.add_argument
    add("command", choices=("options", "request", "demonstration", "month", "break-even"))
    add("--hours", type=float, default=3.0, help="that a machine is up, boot included (default 3)")
    add("--pupils", type=int, default=30, help="who ask at once (default 30)")
    add("--questions", type=int, default=5, help="of each pupil (default 5)")
    add("--demonstrations", type=int, default=4, help="in a month (default 4)")
    add("--requests-a-day", type=int, default=0, help="between them (default 0)")
    add("--tokens", type=int, default=150, help="of an answer (default 150)")
    add("--prompt-tokens", type=int, default=874, help="of persona, passages and question (default 874)")
    add("--prepared", action="store_true", help="boots load weights that are quantised already")
    add("--benchmark", type=Path, metavar="FILE", help="benchmark.json of scripts/benchmark, with --card")
    add("--card", choices=CARDS, help="the card that the benchmark ran on")
    add("--prices", type=Path, default=prices.FILE, metavar="FILE", help="default tools/pricing/prices.toml")
    asked = parser.parse_args()
    if bool(asked.benchmark) != bool(asked.card):
        parser.error("--benchmark and --card go together: the file does not say which card answered")
    numbers = [value for value in vars(asked).values() if isinstance(value, int | float)]
    if min(numbers) < 0 or not asked.tokens:
        parser.error("numbers are not negative, and --tokens is at least 1")
    return asked


def machines(listed: Prices, asked: argparse.Namespace) -> Iterator[Machine]:
    """Every card of every host that holds the model; says why another does not."""
    bounds, settings = Bounds(QWEN_14B), Settings.from_environment()
    measured = prices.measured(asked.benchmark, asked.tokens) if asked.benchmark else None
    offers = ((host, terms, *one) for host, terms in listed.hosts.items() for one in terms.prices.items())
    for host, terms, name, price in offers:
        card = CARDS[name]
        try:
            choice = choose(QWEN_14B, settings, card.device)
        except SNBError as error:
            print(f"Left out: {host}, {name}: {error}", file=sys.stderr)
            continue
        request = choice.precision, asked.prompt_tokens, asked.tokens
        computed = choice.slots, partial(bounds.answers, card.rates, *request)
        at_once, seconds = measured if measured and name == asked.card else computed
        size = bounds.footprint.weights(choice.precision if asked.prepared else "bf16")
        held_in = f"{choice.precision}, {gib(choice.need.total)} of {gib(card.device.free)}"
        dollars = price * (listed.dollars_per_euro if terms.currency == "EUR" else 1)
        started = at_once, seconds, size / listed.bytes_per_second, 60 * listed.idle_minutes
        yield from (Machine(host, name, held_in, unit, dollars, *started) for unit in terms.paid_by)


def columns(asked: argparse.Namespace, chosen: list[Machine]) -> Columns:
    """Of the command's table, which is sorted by the first."""

    def lesson(one: Machine) -> float:
        return one.bill(asked.questions * one.wait(asked.pupils), 3600 * asked.hours)

    cheapest = min((one.price for one in chosen if one.unit == MONTH), default=math.nan)
    tables: dict[str, Columns] = {
        "options": {
            "$/h": lambda one: 3600 * one.per_second,
            "$ a day if forgotten": lambda one: 86400 * one.per_second if one.unit == HOUR else "–",
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
            "$/h": lambda one: 3600 * one.per_second,
            f"h of ${cheapest:.0f}": lambda one: cheapest / (3600 * one.per_second),
            **{f"requests/h, {one.card}": one.requests_an_hour for one in chosen if one.unit == ACTIVE},
        },
    }
    return tables[asked.command]


def main() -> int:
    asked = arguments()
    listed = prices.read(asked.prices)
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
        print(*(f"{host}: read {of.read}" for host, of in listed.hosts.items()), sep="\n")
    but = f" but on {asked.card}, which was measured" if asked.card else ""
    print(f"Computed by the roofline{but}: a real card takes longer. A euro is ${listed.dollars_per_euro:g}.")
    return 0
