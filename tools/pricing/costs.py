"""What the endpoint costs on every host of the fallback plan, by the prices in tools/pricing/prices.toml.

scripts/costs options                                             prices, their dates, and what ends a bill
scripts/costs demonstration --hours 3 --pupils 30 --questions 5   one class
scripts/costs minutes                                             to the first answer, by way and step

Precision and slots are a boot's choice for the card: SNB_PRECISION, SNB_SLOTS and SNB_CONTEXT apply here too.
docs/costs.md explains the columns.
"""

import argparse
import functools
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from snb.card import Choice, choose
from snb.errors import DeviceUnusable, OutOfMemory
from snb.settings import Settings
from tools.benchmarking.bounds import CARDS, QWEN_14B, Bounds, Card
from tools.command import Fault, command_line, say
from tools.pricing import minutes
from tools.table import number, table

FILE = Path(__file__).with_name("prices.toml")
SECONDS = {"active second": 1, "second": 1, "hour": 3600, "month": 730 * 3600}
PROMPT, ANSWER = 874, 150
"""Tokens of persona, passages and question together, and of an answer."""
BOOT_RATE, IDLE = 2e9 / 8, 300
"""Bytes/s at which a boot gets the weights, and seconds for which Replicate keeps an idle instance ("a few
minutes", says its billing page); assumptions."""
COLUMNS = {
    "options": ("$/h", "$ a day", "$ a month", "$ of 1,000 answers"),
    "demonstration": ("$", "last answer s", "boot s"),
}
MOST = 10**6


class Host(BaseModel):
    """What a host charges; the first lines of prices.toml explain the fields."""

    model_config = ConfigDict(extra="forbid", strict=True)
    read: Annotated[str, Field(pattern=r"^20\d\d-(0[1-9]|1[0-2]) (at|elsewhere, see) https://\S+$")]
    limit: Annotated[str, Field(min_length=1)]
    paid_by: list[Annotated[str, Field(pattern=f"^({'|'.join(SECONDS)})$")]] = ["hour"]
    prices: dict[Annotated[str, Field(pattern=f"^({'|'.join(CARDS)})$")], Annotated[float, Field(gt=0)]]


class Machine(NamedTuple):
    host: str
    card: Card
    unit: str
    price: float
    """Dollars of one unit."""
    choice: Choice
    bounds: Bounds

    @property
    def hourly(self) -> float:
        """Dollars for an hour of paid time."""
        return 3600 * self.price / SECONDS[self.unit]

    def wait(self, requests: int) -> float:
        """Seconds from `requests` that come at once to the end of the last, in as few waves as possible."""
        whole, rest = divmod(requests, self.choice.slots)
        wave = functools.partial(self.bounds.answers, self.card.rates, self.choice.precision, PROMPT, ANSWER)
        return whole * wave(self.choice.slots) + (wave(rest) if rest else 0)

    def bill(self, busy: float, up: float) -> float:
        """Dollars for `busy` seconds of answering on a machine that is up for `up` seconds, boot included."""
        paid = {"active second": busy, "second": up + IDLE, "hour": up, "month": SECONDS["month"]}
        return paid[self.unit] * self.hourly / 3600


def read(file: Path = FILE) -> dict[str, Host]:
    """Hosts by name. Raises Fault if the file is not TOML, or a field is absent, unknown or impossible."""
    try:
        return TypeAdapter(dict[str, Host]).validate_python(tomllib.loads(file.read_text(encoding="utf-8")))
    except ValidationError as error:
        wrong = "; ".join(f"{', '.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
    except ValueError as error:
        wrong = str(error)
    raise Fault(f"{file.name}: {wrong}. Its first lines explain its fields")


def machines(hosts: Mapping[str, Host]) -> Iterator[Machine]:
    """Every card of every host that can hold the model; says why others cannot. Raises BadSetting."""
    settings, bounds = Settings.from_environment(), Bounds(QWEN_14B)
    for card in CARDS.values():
        try:
            choice = choose(QWEN_14B, settings, card.device)
        except (DeviceUnusable, OutOfMemory) as error:
            say(f"Left out: {card.name}: {error}")
            continue
        for name, host in hosts.items():
            if price := host.prices.get(card.name):
                yield from (Machine(name, card, unit, price, choice, bounds) for unit in host.paid_by)


def options(one: Machine) -> tuple[float, ...]:
    up = float("nan") if one.unit == "active second" else one.hourly
    return one.hourly, 24 * up, 730 * up, 1000 * one.wait(1) / 3600 * one.hourly


def demonstration(one: Machine, asked: argparse.Namespace) -> tuple[float, ...]:
    last = one.wait(asked.pupils)
    size = one.bounds.footprint.weights(one.choice.precision if asked.prepared else "bf16")
    return one.bill(asked.questions * last, 3600 * asked.hours), last, size / BOOT_RATE


def arguments() -> argparse.Namespace:
    parser = command_line(__doc__)
    add = parser.add_argument
    add("command", choices=("options", "demonstration", "minutes"))
    add("--hours", type=float, default=3.0, help="that a machine is up, boot included (default 3)")
    add("--pupils", type=int, default=30, help="who ask at once (default 30)")
    add("--questions", type=int, default=5, help="of each pupil (default 5)")
    add("--prepared", action="store_true", help="boots load weights that are quantised already")
    asked = parser.parse_args()
    if not all(0 < given <= MOST for given in (asked.hours, asked.pupils, asked.questions)):
        parser.error(f"numbers are above 0 and at most {MOST:,}")
    return asked


def main() -> int:
    asked = arguments()
    if asked.command == "minutes":
        print(minutes.report())
        return 0
    hosts = read()
    figures = options if asked.command == "options" else functools.partial(demonstration, asked=asked)
    rows = sorted(
        (figures(one), one.host, one.card.name, f"${one.price:g}/{one.unit}") for one in machines(hosts)
    )
    cells = [[*words, *map(number, values)] for values, *words in rows]
    print(table(["host", "card", "price", *COLUMNS[asked.command]], cells))
    if asked.command == "options":
        for name, host in hosts.items():
            print(f"{name}: read {host.read}. Forgotten: {host.limit}")
    print("Computed by the roofline: a real card takes longer. Dollars; a euro is taken for $1.15.")
    return 0
