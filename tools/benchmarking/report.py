"""The format of all reports: rows of figures, kept as JSON and shown as Markdown tables."""

import json
import math
import re
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tools.table import table

Row = Mapping[str, Any]
Tables = Mapping[str, Sequence[Row]]


def write(file: Path, title: str, document: Mapping[str, Any]) -> None:
    """Writes `document` as JSON to `file`, and its `tables` as Markdown beside it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(publishable(document), ensure_ascii=False, allow_nan=False)
    file.write_text(f"{text}\n", encoding="utf-8")
    file.with_suffix(".md").write_text(markdown(title, document["tables"]), encoding="utf-8")


def markdown(title: str, tables: Tables) -> str:
    """Markdown with a section for each table that has rows."""
    sections = [publishable(title)]
    for name, rows in tables.items():
        sections += [f"## {name.capitalize()}\n\n{show(publishable(rows))}"] if rows else []
    return "\n\n".join(sections) + "\n"


def show(rows: Sequence[Row]) -> str:
    """Rows as a Markdown table, with a dash where a row lacks a column."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    cells = [[cell(row.get(name)) for name in columns] for row in rows]
    return table([name.replace("_", " ") for name in columns], cells)


def cell(value: Any) -> str:
    """A figure with four significant digits, or text; a dash for None."""
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1e4 else f"{value:.0f}"
    return "–" if value is None else str(value).replace("|", "/").replace("\n", " ")


def publishable(document: Any) -> Any:
    """The document without names of folders and of this host, without tokens, and with None for inf, NaN."""
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
