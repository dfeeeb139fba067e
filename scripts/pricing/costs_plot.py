"""Where ways to pay cross: dollars an hour over requests an hour, dollars a month over hours a month."""

from collections.abc import Sequence
from pathlib import Path

import bill
import matplotlib

matplotlib.use("Agg")

import numpy as np
from bill import Machine
from costs_table import amount, kind, of
from matplotlib import pyplot
from matplotlib.axes import Axes
from prices import ACTIVE, HOUR, MONTH, MONTH_HOURS, SECOND
from speed import Work


def plot(machines: Sequence[Machine], work: Work, file: Path) -> None:
    """Writes `file` in the format of its suffix.

    Left: the two cheapest of either way to pay by the second, the cheapest by the hour and by the month.
    Right: the cheapest of each card by the hour, and of each host by the month.
    """
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(14, 6), layout="constrained")
    metered = [*of(machines, ACTIVE)[:2], *of(machines, SECOND)[:2]]
    rented, monthly = of(machines, HOUR), of(machines, MONTH)
    requests(left, metered, [*rented[:1], *monthly[:1]], work)
    cards = {one.option.card: one for one in reversed(rented)}
    hosts = {one.option.host: one for one in reversed(monthly)}
    hours(right, list(cards.values()), list(hosts.values()))
    figure.savefig(file)
    pyplot.close(figure)


def requests(axis: Axes, metered: Sequence[Machine], flat: Sequence[Machine], work: Work) -> None:
    """Dollars an hour; a line ends where the machine can answer no more."""
    for one in [*metered, *flat]:
        level = np.geomspace(1, max(2, one.capacity(work)), 200)
        cost = [bill.hourly(one, count, work) for count in level]
        axis.plot(level, cost, label=f"{label(one)}, {kind(one)}", linestyle="-" if one in metered else "--")
    for one in metered:
        for other in flat:
            at = bill.crossing(one, other, work)
            if at is not None and at >= 1:
                mark(axis, at, bill.hourly(other, at, work))
    axis.set(xscale="log", yscale="log", xlabel="requests an hour, one after the other", ylabel="$ an hour")
    finish(axis)


def hours(axis: Axes, rented: Sequence[Machine], monthly: Sequence[Machine]) -> None:
    """Dollars a month; setup fees are left out."""
    span = np.array([0, MONTH_HOURS])
    for one in rented:
        axis.plot(span, span * 3600 * one.option.per_second, label=label(one))
        for other in monthly:
            at = bill.hours_of_month(one, other)
            if at is not None:
                mark(axis, at, other.option.dollars)
    for other in monthly:
        axis.axhline(other.option.dollars, linestyle="--", color="gray")
        axis.annotate(label(other), (0, other.option.dollars), xytext=(4, 4), textcoords="offset points")
    axis.set(xlabel="hours a month that the machine is up", ylabel="$ a month")
    finish(axis)


def mark(axis: Axes, x: float, y: float) -> None:
    """A crossing point and its number."""
    axis.plot([x], [y], "ko", markersize=4)
    axis.annotate(amount(x), (x, y), xytext=(4, -12), textcoords="offset points", fontsize=8)


def label(machine: Machine) -> str:
    return f"{machine.option.host}, {machine.option.hardware}"


def finish(axis: Axes) -> None:
    axis.grid(alpha=0.3)
    if axis.get_legend_handles_labels()[0]:
        axis.legend(fontsize=8)
