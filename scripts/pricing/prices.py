"""What hosts ask, from prices.toml: read, checked, and put into dollars."""

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any

from cards import BY_NAME

from snb.errors import SNBError

FILE = Path(__file__).resolve().parents[1] / "prices.toml"
ACTIVE, SECOND, HOUR, MONTH = UNITS = ("active second", "second", "hour", "month")
MONTH_HOURS = 730
"""Hours of a mean month."""
SECONDS = {ACTIVE: 1, SECOND: 1, HOUR: 3600, MONTH: MONTH_HOURS * 3600}
"""That one unit lasts."""
READ = re.compile(r"\d{4}-\d{2}(-\d{2})?")
UNKNOWN = "unknown"


class BadPrices(SNBError):
    """prices.toml cannot be read as prices."""

    code = "BAD_PRICES"


@dataclass(frozen=True)
class Option:
    """One thing for rent, as its table in prices.toml says it; that file explains the fields."""

    key: str
    host: str
    hardware: str
    card: str
    unit: str
    price: float
    currency: str
    read: str
    source: str
    lowest: float = 0.0
    setup_fee: float | str = 0.0
    secondary: bool = False
    notes: str = ""
    dollars_each: float = 1.0
    """Dollars of one unit of `currency`."""

    @property
    def dollars(self) -> float:
        """Of one unit."""
        return self.price * self.dollars_each

    @property
    def per_second(self) -> float:
        """Dollars of a second for which it is paid."""
        return self.dollars / SECONDS[self.unit]

    @property
    def fee(self) -> float:
        """Dollars, once; an unknown fee counts as nothing, which `fee_unknown` tells."""
        return 0.0 if isinstance(self.setup_fee, str) else self.setup_fee * self.dollars_each

    @property
    def fee_unknown(self) -> bool:
        return self.setup_fee == UNKNOWN


@dataclass(frozen=True)
class Prices:
    """The whole file."""

    options: tuple[Option, ...]
    euro: float
    """Dollars."""
    euro_read: str
    bytes_per_second: float
    """At which weights arrive at a boot."""
    idle: float
    """Seconds that Replicate keeps an instance after its last answer."""


def read(file: Path = FILE) -> Prices:
    """The prices of a file.

    Raises:
        BadPrices: no such file, no TOML, or tables that are not as prices.toml explains; every fault at once.
    """
    try:
        document = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise BadPrices(f"{file.name}: {error}", "Its first lines explain the format") from error
    faults = list(_faults(document))
    if faults:
        raise BadPrices(faults, f"The first lines of {file.name} explain its fields")
    exchange, assumed = document["exchange"], document["assumptions"]
    euro = {"USD": 1.0, "EUR": exchange["dollars"]}
    tables = document["options"].items()
    options = tuple(Option(key, **table, dollars_each=euro[table["currency"]]) for key, table in tables)
    rate = assumed["gigabits_per_second"] * 1e9 / 8
    return Prices(options, exchange["dollars"], exchange["read"], rate, 60 * assumed["idle_minutes"])


def _faults(document: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with the file."""
    absent = [name for name in ("exchange", "assumptions", "options") if not _table(document.get(name))]
    yield from (f"there is no table [{name}]" for name in absent)
    if absent:
        return
    for table, name in (
        ("exchange", "dollars"),
        ("assumptions", "gigabits_per_second"),
        ("assumptions", "idle_minutes"),
    ):
        if not _positive(document[table].get(name)):
            yield f"{table}.{name} must be a number above 0"
    yield from _undated("exchange", document["exchange"])
    for key, table in document["options"].items():
        yield from _option_faults(key, table) if _table(table) else [f"{key} is no table"]


def _option_faults(key: str, table: Mapping[str, Any]) -> Iterator[str]:
    written = [field for field in fields(Option) if field.name not in ("key", "dollars_each")]
    needed = {field.name for field in written if field.default is MISSING}
    if strange := table.keys() - {field.name for field in written}:
        yield f"{key} has fields that do not exist: {', '.join(sorted(strange))}"
    if absent := needed - table.keys():
        yield f"{key} lacks {', '.join(sorted(absent))}"
    for name, allowed in (("card", BY_NAME), ("unit", UNITS), ("currency", ("USD", "EUR"))):
        if name in table and table[name] not in allowed:
            yield f"{key}: {name} is one of {', '.join(allowed)}"
    for name in ("price", "lowest"):
        if name in table and not _positive(table[name]):
            yield f"{key}: {name} must be a number above 0"
    fee = table.get("setup_fee", UNKNOWN)
    if not (fee == UNKNOWN or fee == 0 or _positive(fee)):
        yield f'{key}: setup_fee must be a number or "{UNKNOWN}"'
    yield from _undated(key, table)


def _undated(key: str, table: Mapping[str, Any]) -> Iterator[str]:
    if not READ.fullmatch(str(table.get("read", ""))):
        yield f'{key}: read must be a date, "2026-11" or "2026-11-24"'
    if not str(table.get("source", "")).startswith("https://"):
        yield f"{key}: source must be an https address"


def _table(value: object) -> bool:
    return isinstance(value, dict) and bool(value)


def _positive(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < float("inf")
