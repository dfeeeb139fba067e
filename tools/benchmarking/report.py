"""The one form of a report: rows of figures, kept as JSON and shown as tables of Markdown."""

import json
import math
import re
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tools.table import table

NOTES = {
    "figures": "Medians. TTFT: from a question to its first text. Last first text: from the first question. "
    "Between tokens: the wait for a piece of text, over the answer's tokens a piece. Percentiles are nearest "
    "ranks; a failed request never answers.",
    "start": "Seconds from the start of a server's process to its first text.",
    "speed": "Of a copy, read and written, and of a product in the precision that the weights are held in.",
    "boot": "Seconds: each phase, and from the start of the process to its imports and to ready.",
    "memory": "GiB. Computed: for the slots that were kept. Measured: torch's peaks, and all that is in use.",
    "server": "Over HTTP, in the precision that auto takes.",
    "steps": "One decode step by the path of the boot, and kernel by kernel; its matrix products alone; its "
    "bytes at the rate of a copy. Medians.",
    "prefill": "New tokens of one prompt, and the least time for them by the rates measured here. Medians.",
    "throughput": "The chat questions in one process: tokens a second over all the time, and from the last "
    "first token on; these over rows / step.",
    "generate": "One of these questions by plain generate, its prompt included.",
    "bars": "What a Hopper card should reach in bf16, by this report.",
    "rounding": "Nats from the same weights in fp32: a plain pass, and the engine in chunks and steps.",
    "full": "Seconds to fill every slot: a prompt, and new tokens to the end of its context.",
}
"""What the rows of a table are, by its name."""
Row = Mapping[str, Any]
Tables = Mapping[str, Sequence[Row]]


def write(file: Path, title: str, document: Mapping[str, Any]) -> None:
    """Writes `document` as JSON to `file`, and its `tables` as Markdown beside it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(publishable(document), ensure_ascii=False, allow_nan=False)
    file.write_text(f"{text}\n", encoding="utf-8")
    file.with_suffix(".md").write_text(markdown(title, document["tables"]), encoding="utf-8")


def markdown(title: str, tables: Tables) -> str:
    """A section for each table that has rows."""
    sections = [publishable(title)]
    for name, rows in tables.items():
        parts = [f"## {name.capitalize()}", NOTES.get(name), show(publishable(rows))]
        sections += ["\n\n".join(filter(None, parts))] if rows else []
    return "\n\n".join(sections) + "\n"


def show(rows: Sequence[Row]) -> str:
    """Rows as a table; one that lacks a column has a dash there."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    cells = [[cell(row.get(name)) for name in columns] for row in rows]
    return table([name.replace("_", " ") for name in columns], cells)


def cell(value: Any) -> str:
    """A figure with four digits, or text."""
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1e4 else f"{value:.0f}"
    return "–" if value is None else str(value).replace("|", "/").replace("\n", " ")


def publishable(document: Any) -> Any:
    """JSON without names of folders and of this host, without tokens, and with null for what never came."""
    if isinstance(document, Mapping):
        return {name: publishable(value) for name, value in document.items()}
    if isinstance(document, list | tuple):
        return list(map(publishable, document))
    if isinstance(document, float):
        return document if math.isfinite(document) else None
    if not isinstance(document, str):
        return document
    text = re.sub(r"\b(hf|r8)_\w{8,}", "[token]", document)
    text = re.sub(r"(?<![\w.])/(?:[\w.@+~-]+/)+", "", text)
    return re.sub(rf"\b{re.escape(socket.gethostname())}\b", "[host]", text)
