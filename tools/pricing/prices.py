"""What hosts ask, from prices.toml, and what a use of them costs, in dollars and seconds."""

import json
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, Field, ValidationError

from snb.errors import SNBError
from tools.benchmarking import bounds

FILE = Path(__file__).with_name("prices.toml")
CARDS = {card.name: card for card in bounds.CARDS}
ACTIVE, SECOND, HOUR, MONTH = "active second", "second", "hour", "month"
MONTH_HOURS = 730
SECONDS = {ACTIVE: 1, SECOND: 1, HOUR: 3600, MONTH: 3600 * MONTH_HOURS}
CURE = "The first lines of tools/pricing/prices.toml explain its fields"
Amount = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Name = Annotated[str, Field(pattern=f"^({'|'.join(CARDS)})$")]


class BadFigures(SNBError):
    """A file of prices or of a benchmark cannot be used."""

    code = "BAD_FIGURES"


class Host(BaseModel, extra="forbid"):
    """What one host asks; prices.toml explains the fields."""

    paid_by: list[Literal["active second", "second", "hour", "month"]] = ["hour"]
    read: str = Field(pattern=r"^\d{4}-\d\d(-\d\d)? (at|elsewhere, see) https://\S+$")
    currency: Literal["USD", "EUR"] = "USD"
    prices: dict[Name, Amount]


class Prices(BaseModel, extra="forbid"):
    """The whole of prices.toml."""

    dollars_per_euro: Amount
    gigabits_per_second: Amount
    idle_minutes: Amount
    hosts: dict[str, Host]

    @property
    def bytes_per_second(self) -> float:
        """At which weights arrive at a boot."""
        return self.gigabits_per_second * 1e9 / 8


def read(file: Path = FILE) -> Prices:
    """The prices of a file. Raises BadFigures, with every fault, where it is not as prices.toml explains."""
    try:
        return Prices.model_validate(tomllib.loads(file.read_text(encoding="utf-8")))
    except ValidationError as error:
        faults = [f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors()]
        raise BadFigures(faults, CURE) from error
    except (OSError, ValueError) as error:
        raise BadFigures(f"{file.name}: {error}", CURE) from error


def measured(file: Path, tokens: int) -> tuple[int, Callable[[int], float]]:
    """`at_once` and `seconds` of a Machine, by the first server and workload of a benchmark's file.

    Between two levels the rate of the lower one counts. Raises BadFigures where nothing was measured.
    """
    try:
        figures = json.loads(file.read_text(encoding="utf-8"))["figures"]
        levels = [one for one in figures if one["kind"] == "at once" and not one["failures"]]
        ours = [one for one in levels if all(one[key] == levels[0][key] for key in ("server", "workload"))]
        rates = {one["pupils"]: float(one["tokens_per_second"]) for one in ours}
        most, least = max(rates), min(rates)
    except (OSError, ValueError, KeyError, TypeError) as error:
        cure = "scripts/benchmark --output FOLDER writes FOLDER/benchmark.json"
        raise BadFigures(f"{file.name} has no level at which every request was answered", cure) from error
    return most, lambda rows: rows * tokens / rates[max({least} | {n for n in rates if n <= rows})]


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
