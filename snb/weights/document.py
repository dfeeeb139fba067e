"""The JSON files beside weights: whatever one holds, reading it gives an object or raises one error."""

import json
import math
from pathlib import Path
from typing import Any, NoReturn

from snb.errors import WeightsMissing

LARGEST = 1 << 25
"""Most bytes of a file: four times the tokenizer.json of Qwen2.5."""


def read(path: Path, cure: str = "") -> dict[str, Any]:
    """The object in a file of strict JSON: UTF-8 without a byte-order mark, unique keys, finite numbers.

    Where parsers disagree, the one that checks a file could see another value than the one that uses it.

    Raises:
        WeightsMissing: there is no such object, or it is nested too deeply or too large to be one of ours.
    """
    if not path.is_file():
        raise WeightsMissing(f"{path.name} is absent", cure)
    try:
        if path.stat().st_size > LARGEST:
            raise ValueError(f"more than {LARGEST:,} bytes")
        content = json.loads(
            path.read_text(encoding="utf-8"),
            object_pairs_hook=_unique,
            parse_constant=_refused,
            parse_float=_finite,
        )
    except (OSError, ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise WeightsMissing(f"{path.name} is not a readable JSON object", cure)
    return content


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        raise ValueError("a key is there twice")
    return content


def _finite(text: str) -> float:
    return number if math.isfinite(number := float(text)) else _refused(text)


def _refused(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number of JSON")
