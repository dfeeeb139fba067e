"""One boot, watched, and what is measured in it: `python boot.py RATES TABLE…`. Writes JSON, a table a line.

RATES are those that device.py measured, an object; the tables are methods of `measures.Measures`.
"""

import json
import logging
import os
import sys
import time
from typing import Any

import psutil

from snb.service import Service
from snb.settings import Settings
from tools.benchmarking.bounds import Rates
from tools.benchmarking.measures import Measures


class Log(logging.Handler):
    """Keeps what is logged, with the seconds since the process began."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[dict[str, Any]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.rows.append({"seconds": age(), "line": record.getMessage()})


def age() -> float:
    """Seconds of this process."""
    return time.time() - psutil.Process().create_time()


def write(name: str, rows: list[dict[str, Any]]) -> None:
    """One table."""
    print(json.dumps({name: rows}), flush=True)


def boot(log: Log) -> Service:
    """A service; writes what it took."""
    logging.getLogger("snb").addHandler(log)
    settings, imported = Settings.from_environment(), age()
    service = Service(settings)
    choice, report = service.boot, service.boot.self_test
    phases = {f"{name}_s": seconds for name, seconds in choice.seconds.items()}
    chosen = {"path": choice.path, "precision": choice.precision, "slots": choice.slots}
    write("boot", [{**chosen, "imports_s": imported, **phases, "ready_s": age()}])
    findings = {kind: "; ".join(report.of(kind)) for kind in ("doubt", "blind")}
    write("self-test", [{**report.figures, **findings}])
    return service


def main(rates: dict[str, float], tables: list[str]) -> list[str]:
    """What failed, a line each."""
    log, faults = Log(), []
    try:
        service = boot(log)
    finally:
        write("log", log.rows)
    flops = rates.get("product_tflops", 0) * 1e12
    measures = Measures(service, Rates(rates["copy_gb_per_second"] * 1e9, flops) if flops else None)
    for name in tables:
        rows: list[dict[str, Any]] = []
        try:
            rows.extend(getattr(measures, name)())
        except Exception as error:  # a table that the card has no room for leaves the others alone
            faults.append(f"{name}: {type(error).__name__}: {error}")
        write(name, rows)
    return faults


if __name__ == "__main__":
    faults = main(json.loads(sys.argv[1]), sys.argv[2:])
    print(*faults, sep="\n", file=sys.stderr, flush=True)
    os._exit(bool(faults))  # the decode thread may be inside torch when the interpreter ends, which aborts it
