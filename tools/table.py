"""Tables of Markdown, and the figures in them."""

import math
from collections.abc import Sequence


def table(header: Sequence[str], rows: Sequence[Sequence[str]], aligned: bool = True) -> str:
    """A Markdown table; `aligned` pads the cells to columns, for a terminal."""
    columns = zip(header, *rows, strict=True)
    widths = [max(map(len, column)) if aligned else 0 for column in columns]
    lines = [header, ["-" * (width or 3) for width in widths], *rows]
    padded = ([cell.ljust(width) for cell, width in zip(line, widths, strict=True)] for line in lines)
    return "\n".join(f"| {' | '.join(line)} |" for line in padded)


def number(value: float, digits: int = 2) -> str:
    """`value` with `digits` decimals; a dash if it is infinite or NaN, as for what never came."""
    return f"{value:.{digits}f}" if math.isfinite(value) else "–"
