"""The two files of a report: all that was measured as JSON, and its tables as Markdown."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tools.benchmarking.benchmark_table import table
from tools.benchmarking.parts import Part, Parts, anonymous, plain

NOTES = {
    "device": "Rates are of a copy and of a product in the precision that the card computes in.",
    "boot": "Seconds: each phase, and from the start of the process to its imports and to ready.",
    "memory": "GiB. Computed: for the slots that were kept. Measured: torch's peaks, and all that is in use.",
    "answers": "In process: a persona and a question, 64 tokens. Medians over the requests.",
    "rag": "In process: with passages, 150 tokens.",
    "server": "As answers, but over HTTP and in the precision that auto takes.",
    "steps": "One decode step: between two tokens of the answers above, so with what the loop adds; alone; "
    "alone and kernel by kernel; and the least by the device's rates, computed. Medians.",
    "prefill": "New tokens of one prompt, median, and the least by the device's rates, computed.",
    "generate": "Plain generate of transformers on static batches, for comparison.",
    "rounding": "Nats from the same weights in fp32: a plain pass, and the engine in chunks and steps.",
    "full": "Every slot filled to the end of its context.",
    "quality": "Nats from the first precision, on French texts; of random weights it says nothing.",
}


def keep(parts: Parts, folder: Path, command: str) -> None:
    """Writes both files anew."""
    folder.mkdir(parents=True, exist_ok=True)
    document = json.dumps(anonymous({"command": command, **parts.document()}), ensure_ascii=False)
    (folder / "report.json").write_text(document + "\n", encoding="utf-8")
    (folder / "report.md").write_text(plain(markdown(parts, command)), encoding="utf-8")


def markdown(parts: Parts, command: str) -> str:
    """How each part ended, then every table with the parts that have it, then what failed."""
    outcomes = [
        {"part": part.name, "seconds": part.seconds, "outcome": part.failure.rpartition("\n")[2] or "done"}
        for part in parts.done
    ]
    date = parts.document()["date"]
    sections = [f"# What this machine shows\n\n`{command}`, {date}. Measured, where nothing else is said."]
    sections.append(show(outcomes))
    filled = (name for part in parts.done for name, rows in part.tables.items() if rows and name != "log")
    for name in dict.fromkeys(filled):
        note = f"{NOTES[name]}\n\n" if name in NOTES else ""
        sections.append(f"## {name.capitalize()}\n\n{note}{show(list(together(parts.done, name)))}")
    failed = (part for part in parts.done if "\n" in part.failure)
    sections += [f"## Failed: {part.name}\n\n```\n{part.failure}\n```" for part in failed]
    return "\n\n".join(sections) + "\n"


def together(done: list[Part], name: str) -> Iterator[dict[str, Any]]:
    """The rows of one table, of all parts."""
    for part in done:
        yield from ({"part": part.name, **row} for row in part.tables.get(name, ()))


def show(rows: list[dict[str, Any]]) -> str:
    """Objects as a table; a row that lacks a column has a dash there."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    cells = [[cell(row.get(name)) for name in columns] for row in rows]
    return table([name.replace("_", " ") for name in columns], cells)


def cell(value: Any) -> str:
    """A figure with four digits, or text."""
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1e4 else f"{value:.0f}"
    return "–" if value is None else str(value).replace("|", "/").replace("\n", " ")
