"""The most that Qwen2.5-14B can do on each card for rent: upper bounds of tokens/s, computed, not measured.

Of all requests together, each with 1024 tokens in the cache, held in what `auto` may take there. A range:
every nf4 matrix is unpacked, and none; bitsandbytes chooses. A dash: so many slots do not fit. What a card
really does scripts/gpu-report measures.
"""

import argparse

from snb.settings import Settings
from tools.benchmarking.bounds import CARDS, QWEN_14B, UNPACKED, Bounds, Card
from tools.table import number, table

CONTEXT, LEVELS = 1024, (1, 4, 8, 16, 32)


def rate(card: Card, bounds: Bounds, precision: str, rows: int) -> str:
    """Tokens/s of so many requests at once."""
    if bounds.footprint.need(precision, rows, Settings().context).total > card.device.free:
        return "–"
    ways = (True, False) if precision == "nf4" and rows > UNPACKED else (False,)
    steps = (bounds.decode(card.rates, precision, rows, CONTEXT, unpacked) for unpacked in ways)
    return "–".join(number(rows / step, 0) for step in steps)


def main() -> int:
    style = argparse.RawDescriptionHelpFormatter
    argparse.ArgumentParser(description=__doc__, formatter_class=style).parse_args()
    bounds, rows = Bounds(QWEN_14B), []
    for card, precision in ((one, precision) for one in CARDS for precision in one.device.automatic):
        rates = [rate(card, bounds, precision, level) for level in LEVELS]
        prompt = number(CONTEXT / bounds.prefill(card.rates, precision, CONTEXT), 0)
        size = number(bounds.read(precision, 1, CONTEXT) / 1e9, 1)
        rows += [[card.name, precision, size, *rates, prompt]] if rates[0] != "–" else []
    header = ["card", "held in", "GB a step", *(f"{level} at once" for level in LEVELS), "prompt tokens/s"]
    print(table(header, rows))
    return 0
