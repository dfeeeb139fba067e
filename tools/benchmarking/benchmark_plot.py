"""Throughput and time to first token over concurrency, a line a server."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot

from tools.benchmarking.classroom import Run
from tools.benchmarking.figures import alike, median

PANELS = (
    ("tokens_per_second", "tokens per second, in all"),
    ("ttft_p95", "time to first token, p95 (s)"),
)


def plot(runs: Sequence[Run], file: Path) -> None:
    """Writes `file` in the format of its suffix; a row for each workload."""
    shown = [run for run in runs if run.kind == "at once" and run.workload != "overhead"]
    if not shown:
        return
    workloads = list(dict.fromkeys(run.workload for run in shown))
    size = {"squeeze": False, "figsize": (11, 4 * len(workloads)), "layout": "constrained"}
    figure, axes = pyplot.subplots(len(workloads), len(PANELS), **size)
    for row, workload in zip(axes, workloads, strict=True):
        lines: dict[str, dict[int, list[Run]]] = {}
        for (server, _, _, pupils), rounds in alike(r for r in shown if r.workload == workload).items():
            lines.setdefault(server, {})[pupils] = rounds
        for axis, (field, label) in zip(row, PANELS, strict=True):
            for server, levels in lines.items():
                values = [getattr(median(rounds), field) for rounds in levels.values()]
                axis.plot(list(levels), values, marker="o", label=server)
            axis.set_xscale("log", base=2)
            levels = sorted({run.pupils for run in shown})
            axis.set_xticks(levels, labels=map(str, levels))
            axis.set(xlabel=f"{workload}: requests at once", ylabel=label, ylim=(0, None))
            axis.grid(alpha=0.3)
            axis.legend()
    figure.savefig(file)
    pyplot.close(figure)
