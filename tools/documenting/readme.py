"""Writes the tables of README.md and docs/ that mirror code; `--check` says whether they are up to date."""

import argparse
import json
from collections.abc import Callable
from functools import reduce
from typing import Any

from snb.card import BEST_FIRST, CARDS, Precision, choose, gib
from snb.settings import ROOT, Settings
from tools.benchmarking.bounds import QWEN_14B
from tools.serving import schema
from tools.table import table


def inputs() -> str:
    """README's table of inputs: one row for each, in order."""
    document = json.loads(schema.write(ROOT).read_text(encoding="utf-8"))["components"]["schemas"]
    rows = []
    for name, field in document["Input"]["properties"].items():
        kind = " ".join(filter(None, [field.get("type") or "choice", bounds(field)]))
        default = json.dumps(field.get("default"), ensure_ascii=False)
        shown = f"`{default}`" if "default" in field else "required"
        rows.append([f"`{name}`", kind, shown, field["description"]])
    return table(["Input", "Type", "Default", ""], rows, aligned=False)


def bounds(field: dict[str, Any]) -> str:
    """The bounds of a number, as in `1–2048`; empty unless it has both."""
    return f"{field['minimum']}–{field['maximum']}" if {"minimum", "maximum"} <= field.keys() else ""


def precisions() -> str:
    """The table of precisions: those that `auto` tries, in its order, then the others."""
    rows = [
        [f"`{one.name}`", taken(one), " / ".join(f"{ms:g}" for ms in one.steps) or "–", one.reason]
        for one in BEST_FIRST
    ]
    header = ["Held in", "`auto` takes it", "ms a step of 1 / 4 / 8 / 16 rows", ""]
    return table(header, rows, aligned=False)


def taken(one: Precision) -> str:
    if one.share is None:
        return "never"
    return f"if {one.share:.0%} of the slots fit" if one.share else "with what slots fit"


def cards() -> str:
    """The table of what `auto` takes on each rented card, with the default settings."""
    chosen = [(card, choose(QWEN_14B, Settings(), card)) for card in CARDS]
    rows = [
        [card.name, one.precision, str(one.slots), gib(one.need.total), gib(card.free)]
        for card, one in chosen
    ]
    return table(["Card", "Held in", "Slots", "GiB needed", "GiB free"], rows, aligned=False)


PLACES = {"README.md": (inputs,), "docs/settings.md": (precisions, cards)}


def filled(text: str, section: Callable[[], str]) -> str:
    """`text` with the table of `section` rewritten between its two marks."""
    name = section.__name__
    before, start, rest = text.partition(f"<!-- {name}: written by scripts/readme -->\n")
    _, end, after = rest.partition(f"<!-- end of {name} -->")
    assert end, f"there is no place for {name}"
    return f"{before}{start}{section()}\n{end}{after}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit with 1 if a table is out of date"
    )
    check, outdated = parser.parse_args().check, False
    for file, sections in PLACES.items():
        text = (ROOT / file).read_text(encoding="utf-8")
        wanted = reduce(filled, sections, text)
        outdated |= text != wanted
        if not check:
            (ROOT / file).write_text(wanted, encoding="utf-8")
    return int(check and outdated)
