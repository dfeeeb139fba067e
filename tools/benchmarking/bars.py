"""What a Hopper card should reach with 32 slots in bf16 and fp8, held against the tables of one report."""

from collections.abc import Iterator

from tools.benchmarking.report import Row, Tables
from tools.endpoints.started import OURS

MOST, LEAST = "at most", "at least"
Bar = tuple[str, float | None, str, float]
"""(name, measured figure, MOST or LEAST, wanted figure); None for a figure that never came: not met."""
FUSED = " on the fused path"


def bars(tables: Tables) -> Iterator[Row]:
    """A row for each figure that the report has and a bar asks for; none unless it has steps in bf16."""
    if not rows(tables, "steps", part="bf16"):
        return
    held = (
        *of_the_engine(tables, "bf16"),
        *of_fp8(tables),
        *of_the_engine(tables, "fused", FUSED),
        *of_the_boot(tables),
        *of_the_server(tables, "server", "bf16"),
        *of_the_server(tables, "server fused", "fused", FUSED),
        *of_the_server(tables, "server fp8", "fp8", " in fp8", alone=150, together=3200),
    )
    for name, figure, bound, wanted in held:
        met = figure is not None and (figure <= wanted if bound == MOST else figure >= wanted)
        yield {
            "bar": name,
            "measured": figure,
            "wanted": f"{bound} {wanted:g}",
            "met": "yes" if met else "no",
        }


def of_the_engine(tables: Tables, part: str, way: str = "") -> Iterator[Bar]:
    """The decode step, prefill, and tokens in process, of one part of the report."""
    for row in rows(tables, "steps", part=part):
        if row["rows"] in (1, 16, 32):
            name = f"a step of {row['rows']}{way} over its products and its cache's bytes"
            yield name, row["over_products_and_cache"], MOST, 1.25
    for row in rows(tables, "prefill", part=part):
        yield f"ms to read {row['tokens']} tokens{way}", row["measured_ms"], MOST, 25
    for row in rows(tables, "throughput", part=part)[1:]:
        yield f"tokens/s of {row['rows']}{way} over rows / step", row["over_rows_per_step"], LEAST, 0.93


def of_fp8(tables: Tables) -> Iterator[Bar]:
    """Tokens/s in process in fp8 over bf16, both by the fused step: without it, quantising costs the gain."""
    rates = {row["rows"]: row["tokens_per_second"] for row in rows(tables, "throughput", part="fused")}
    for row in rows(tables, "throughput", part="fp8"):
        if (count := row["rows"]) in (1, 16) and count in rates:
            yield f"tokens/s of {count} in fp8 over bf16", row["tokens_per_second"] / rates[count], LEAST, 1.5


def of_the_boot(tables: Tables) -> Iterator[Bar]:
    for row in rows(tables, "boot", part="prepared"):
        rest = row["ready_s"] - row["load_s"]
        yield "s from start to ready, prepared weights, without loading", rest, MOST, 20


def of_the_server(
    tables: Tables, part: str, boot: str, way: str = "", alone: float = 100, together: float = 2300
) -> Iterator[Bar]:
    """Tokens/s over HTTP, as they are and over those in process in the part `boot`; the wait of a class.
    `alone` and `together` are the least tokens/s of one request and of 32 at once."""
    inside = {row["rows"]: row["tokens_per_second"] for row in rows(tables, "throughput", part=boot)}
    for row in rows(tables, "server", part=part, server=OURS, kind="at once"):
        count, rate = row["pupils"], row["tokens_per_second_in_all"]
        if count > 1 and count in inside:
            over = rate / inside[count]
            yield f"tokens/s of {count} over HTTP{way}, over those in process", over, LEAST, 0.9
        if wanted := {1: alone, 32: together}.get(count):
            yield f"tokens/s of {count} over HTTP{way}", rate, LEAST, wanted
    for row in rows(tables, "server", part=part, server=OURS, kind="class"):
        wait = row["last_first_text_s"]
        yield f"s to the last first text of thirty within a second{way}", wait, MOST, 0.8


def rows(tables: Tables, table: str, **values: str) -> list[Row]:
    """The rows of a table that have these values."""
    return [row for row in tables.get(table, ()) if values.items() <= row.items()]
