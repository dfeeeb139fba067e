"""A report part by part, where one that fails or hangs leaves the others alone, and its two files."""

import json
import math
import re
import socket
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tools.benchmarking.programs import PATIENCE
from tools.command import say
from tools.endpoints.endpoint import Failed
from tools.table import table

SLOWER, COLD = 2, 30.0
"""Where there is a deadline, a part may take so many times as long as expected, and so many seconds more."""
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
Tables = Mapping[str, Any]
"""Rows of figures by the name of their table; a row is a flat object."""


@dataclass
class Part:
    """One part, and what it has measured so far."""

    name: str
    seconds: float = 0.0
    tables: dict[str, Any] = field(default_factory=dict)
    failure: str = ""


@dataclass
class Report:
    """All that has been run; report.json and report.md are written anew whenever there is more."""

    folder: Path
    command: str
    deadline: float = math.inf
    """Monotonic seconds."""
    parts: list[Part] = field(default_factory=list)

    def run(self, name: str, expected: float, work: Callable[[float], Iterable[Tables]]) -> dict[str, Any]:
        """What `work(until)` measures, kept as it comes; left out where there is less time than `expected`.

        Args:
            expected: seconds.
            work: ends by `until`, in monotonic seconds; raises Failed, OSError or ValueError.
        """
        say(f"{name} …")
        part, began = Part(name), time.monotonic()
        self.parts.append(part)
        left = self.deadline - began
        try:
            if left < expected:
                raise Failed(f"left out: it takes about {expected:.0f} s, and {max(0, left):.0f} are left")
            for tables in work(
                began + (PATIENCE if left == math.inf else min(left, SLOWER * expected + COLD))
            ):
                part.tables |= tables
                self._keep(began)
        except (Failed, OSError, ValueError) as error:
            part.failure = str(error) or type(error).__name__
            say(part.failure)
        self._keep(began)
        return part.tables

    def _keep(self, began: float) -> None:
        self.parts[-1].seconds = round(time.monotonic() - began, 1)
        document = {"command": self.command, "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"}
        document = anonymous({**document, "parts": list(map(asdict, self.parts))})
        self.folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(document, ensure_ascii=False) + "\n"
        (self.folder / "report.json").write_text(text, encoding="utf-8")
        (self.folder / "report.md").write_text(markdown(document), encoding="utf-8")


def markdown(document: Mapping[str, Any]) -> str:
    """How each part ended, then every table with the parts that have it, then what failed."""
    parts = document["parts"]
    outcomes = [
        {
            "part": part["name"],
            "seconds": part["seconds"],
            "outcome": part["failure"].rpartition("\n")[2] or "done",
        }
        for part in parts
    ]
    date = f"`{document['command']}`, {document['date']}. Measured, where nothing else is said."
    sections = [f"# What this machine shows\n\n{date}", show(outcomes)]
    filled = (name for part in parts for name, rows in part["tables"].items() if rows and name != "log")
    for name in dict.fromkeys(filled):
        rows = [{"part": part["name"], **row} for part in parts for row in part["tables"].get(name, ())]
        sections.append("\n\n".join(filter(None, [f"## {name.capitalize()}", NOTES.get(name), show(rows)])))
    failed = (part for part in parts if "\n" in part["failure"])
    sections += [f"## Failed: {part['name']}\n\n```\n{part['failure']}\n```" for part in failed]
    return "\n\n".join(sections) + "\n"


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


def anonymous(document: Any) -> Any:
    """JSON without what a report must not give away: names of folders and of this host, and tokens."""
    if isinstance(document, Mapping):
        return {name: anonymous(value) for name, value in document.items()}
    if isinstance(document, list | tuple):
        return list(map(anonymous, document))
    if not isinstance(document, str):
        return document
    text = re.sub(r"\b(hf|r8)_\w{8,}", "[token]", document)
    text = re.sub(r"(?<![\w.])/(?:[\w.@+~-]+/)+", "", text)
    return re.sub(rf"\b{re.escape(socket.gethostname())}\b", "[host]", text)
