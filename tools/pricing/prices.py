"""Reads prices.toml: what each host asks, when and where that was read, and what ends the bill there."""

import re
import tomllib
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

from tools.benchmarking import bounds
from tools.command import Fault

FILE = Path(__file__).with_name("prices.toml")
CARDS = {card.name: card for card in bounds.CARDS}
ACTIVE, SECOND, HOUR, MONTH = "active second", "second", "hour", "month"
MONTH_HOURS = 730
SECONDS = {ACTIVE: 1, SECOND: 1, HOUR: 3600, MONTH: 3600 * MONTH_HOURS}
MOST = 10**6
"""Of every number, here and on the command line: larger ones are slips."""
ASSUMED = ("dollars_per_euro", "gigabits_per_second", "idle_minutes")
DEFAULTS = {"currency": "USD", "paid_by": [HOUR]}


def _positive(number: Any) -> bool:
    return bool(0 < number <= MOST)


def _dated(text: Any) -> bool:
    place = re.fullmatch(r"(\d{4}-\d\d)(-\d\d)? (at|elsewhere, see) https://\S+", text)
    return bool(place and date.fromisoformat(place[1] + (place[2] or "-01")))


FIELDS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "read": (_dated, "a day or a month that exists, “at” or “elsewhere, see”, and an address"),
    "limit": (str.strip, "a sentence"),
    "prices": (
        lambda prices: prices.keys() <= CARDS.keys() and prices and all(map(_positive, prices.values())),
        f"numbers above 0, each of one of {', '.join(CARDS)}",
    ),
    "paid_by": (
        lambda units: units and {*units} <= SECONDS.keys(),
        f"a list of some of {', '.join(SECONDS)}",
    ),
    "currency": (lambda name: name in ("USD", "EUR"), "USD or EUR"),
}
"""Of a host: what holds of each, and how a fault says so."""


def read(file: Path = FILE) -> dict[str, Any]:
    """The file's content. Raises Fault where it is no TOML or a field is absent, unknown or impossible."""
    try:
        listed = tomllib.loads(file.read_text(encoding="utf-8"))
        wrong = [*faults(listed)]
    except ValueError as error:
        wrong = [str(error)]
    if wrong:
        raise Fault(f"{file.name}: {'; '.join(wrong)}. Its first lines explain its fields")
    for terms in listed["hosts"].values():
        terms.update({**DEFAULTS, **terms})
    return listed


def faults(listed: dict[str, Any]) -> Iterator[str]:
    """What keeps the content from being used."""
    yield from (f"{name} is no number above 0" for name in ASSUMED if not _holds(_positive, listed.get(name)))
    hosts = listed.get("hosts")
    if not isinstance(hosts, dict) or not all(isinstance(terms, dict) for terms in [hosts, *hosts.values()]):
        yield "hosts are no tables, as [hosts.NAME]"
        return
    for host, terms in hosts.items():
        yield from (f"{field} of {host} is unknown" for field in sorted(terms.keys() - FIELDS))
        given = {**dict.fromkeys(FIELDS), **DEFAULTS, **terms}
        for field, (valid, form) in FIELDS.items():
            if not _holds(valid, given[field]):
                yield f"{field} of {host}: not {form}"


def _holds(valid: Callable[[Any], Any], value: Any) -> bool:
    try:
        return bool(valid(value))
    except (TypeError, ValueError, AttributeError):  # of another type, or a day that does not exist
        return False
