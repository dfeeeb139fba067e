"""What scripts/costs prints: tables of dollars, cheapest first, and what they assume."""

from collections.abc import Iterable, Sequence

import bill
from benchmark_table import number, table
from bill import Demonstration, Machine
from cards import BY_NAME
from prices import ACTIVE, HOUR, MONTH, SECOND, Option, Prices
from speed import Work

from snb.memory import gib

SIGNS = {"USD": "$", "EUR": "€"}
SHORT = {ACTIVE: "active s", SECOND: "s", HOUR: "h", MONTH: "month"}
NAME = ("host", "hardware", "price")


def options(machines: Sequence[Machine]) -> str:
    """Every price with its date and source, and what fits the card's memory."""
    header = ("name", *NAME, "read", "held in", "needs, of GiB free", "requests at once", "boot")
    rows = []
    for one in machines:
        key, read = one.option.key, one.option.read + ("*" if one.option.secondary else "")
        room = f"{gib(one.need)} of {gib(BY_NAME[one.option.card].device.free)}"
        rows.append([key, *name(one), read, one.held_in, room, str(one.speed.at_once), boot(one)])
    sources = dict.fromkeys(f"{one.option.host}: {one.option.source}" for one in machines)
    notes = [f"{one.option.key}: {one.option.notes}." for one in machines if one.option.notes]
    return (
        f"{table(header, rows)}\n\n* read elsewhere than at the source: look there before spending.\n\n"
        + "\n".join([*sources, "", *notes])
        + "\n"
    )


def request(machines: Sequence[Machine], work: Work) -> str:
    """One request alone, one among as many as fit, and one that has to wake the machine."""
    header = (*NAME, "held in", "speed", "alone", "full", "cold")
    rows = []
    for one in sorted(machines, key=lambda one: alone(one, work)):
        slots, rate = one.speed.at_once, one.option.per_second
        full = one.speed.together(slots, work)
        cells = [timed(one.together(1, work), alone(one, work))]
        cells.append(f"{timed(full, full * rate / slots)} ({slots})")
        cold = timed(one.boot + one.together(1, work), one.stray(work) * rate)
        cells.append("–" if one.option.unit == MONTH else cold)
        rows.append([*name(one), one.held_in, kind(one), *cells])
    return (
        f"A request: {work.prompt} tokens read, {work.answer} written.\n\n{table(header, rows)}\n\n"
        "Seconds to its end, and dollars of the machine's time. Alone: nobody else asks. Full: as many as it "
        "answers at once ask together. Cold: the machine was not up; by the hour and the month this and all "
        "idle time is paid anyway.\n"
    )


def demonstration(machines: Sequence[Machine], plan: Demonstration) -> str:
    """What one class costs."""
    header = (*NAME, "speed", "$", "$ if not shared", "answering", "boot")
    rows = []
    for one in sorted(machines, key=lambda one: bill.demonstration(one, plan)):
        share = bill.active(one, plan) / (3600 * plan.hours)
        busy = f"{100 * share:.1f}% of the time" if share <= 1 else "too slow"
        most = money(bill.demonstration_at_most(one, plan)) if one.option.unit == ACTIVE else ""
        total = money(bill.demonstration(one, plan)) + unknown(one.option)
        rows.append([*name(one), kind(one), total, most, busy, boot(one)])
    return (
        f"{plan.hours:g} h, {plan.pupils} pupils, {plan.questions} questions each: {plan.requests} requests, "
        f"{plan.work.prompt} tokens read and {plan.work.answer} written.\n\n{table(header, rows)}\n\n"
        "For each question all pupils ask at once. The hours are those that a machine is up, boot included; "
        "a private model or a deployment is paid for its idle time after them too. "
        "Active seconds are taken to be the instance's, shared by those whom it answers at once; Replicate "
        "does not say so, hence what it would be if each answer is charged for its own.\n"
    )


def month(machines: Sequence[Machine], plan: Demonstration, demonstrations: int, requests_a_day: int) -> str:
    """What a month costs."""

    def total(one: Machine) -> float:
        return bill.month(one, plan, demonstrations, requests_a_day)

    ordered = sorted(machines, key=total)
    rows = [[*name(one), kind(one), money(total(one)) + unknown(one.option)] for one in ordered]
    return (
        f"{demonstrations} demonstrations of {plan.hours:g} h, {plan.pupils} pupils and {plan.questions} "
        f"questions each; {requests_a_day} single requests a day besides.\n\n"
        f"{table((*NAME, 'speed', '$ in the first month'), rows)}\n\n"
        "Single requests come one by one, each to an instance that sleeps: a private one pays for its boot "
        "and for idling. A machine by the hour does not wake by itself, so they keep it up all month.\n"
    )


def break_even(machines: Sequence[Machine], work: Work) -> str:
    """Where another way to pay becomes cheaper."""
    metered, rented, monthly = (list(of(machines, *units)) for units in ((ACTIVE, SECOND), (HOUR,), (MONTH,)))
    parts = []
    if metered and rented + monthly:
        header = [*NAME, *(f"{one.option.hardware} {SHORT[one.option.unit]}" for one in metered)]
        rows = [
            [*name(flat), *(amount(bill.crossing(one, flat, work)) for one in metered)]
            for flat in rented + monthly
        ]
        parts.append(
            f"Requests an hour above which the host of a row is cheaper than Replicate ({work.prompt} tokens "
            f"read, {work.answer} written, one after the other):\n\n{table(header, rows)}\n\n"
            "active s: a public model. s: private or a deployment that sleeps between two requests. A dash: "
            "never, or the host of the row cannot answer so many."
        )
    if rented and monthly:
        header = [*NAME, *(f"{one.option.host} {money(one.option.dollars)}" for one in monthly)]
        rows = [[*name(one), *(amount(bill.hours_of_month(one, flat)) for flat in monthly)] for one in rented]
        parts.append(
            "Hours a month above which the host of a column, paid by the month, is cheaper (setup fees "
            f"apart):\n\n{table(header, rows)}\n\nA dash: never; a month has 730."
        )
    return "\n\n".join(parts) + "\n"


def assumptions(prices: Prices, measured: Iterable[str], left_out: Sequence[str]) -> str:
    """What every table rests on."""
    lines = [
        f"Prices: scripts/prices.toml. One euro is ${prices.euro:g} there ({prices.euro_read}); no taxes, "
        "traffic or disks. Boots: computed from the weights' bytes at "
        f"{prices.bytes_per_second / 1e6:.0f} MB/s; merging and the self-test come on top. Idle time: "
        f"{prices.idle / 60:g} minutes.",
        "Speed computed: the roofline's bound, from which real launches and sampling take; nf4 for more "
        "than 4 at once counts as unpacked, which is the most that bitsandbytes does. A benchmark of your "
        "own on that card says what is true: --benchmark FILE --card NAME.",
        *measured,
        *(f"Left out: {reason}" for reason in left_out),
    ]
    return "\n" + "\n".join(lines) + "\n"


def of(machines: Iterable[Machine], *units: str) -> list[Machine]:
    """Those that are paid by one of these units, cheapest first."""
    return sorted(
        (one for one in machines if one.option.unit in units), key=lambda one: one.option.per_second
    )


def alone(machine: Machine, work: Work) -> float:
    """Dollars of the seconds that one request takes."""
    return machine.together(1, work) * machine.option.per_second


def name(machine: Machine) -> list[str]:
    """Host, hardware and price, as the host states it."""
    option = machine.option
    low = f"{plain(option.lowest)}–" if option.lowest else ""
    price = f"{SIGNS[option.currency]}{low}{plain(option.price)}/{SHORT[option.unit]}"
    return [option.host, option.hardware, price]


def plain(price: float) -> str:
    """With as many digits as there are, at least cents."""
    _, _, digits = f"{price:.9f}".rstrip("0").partition(".")
    return f"{price:.{max(2, len(digits))}f}"


def boot(machine: Machine) -> str:
    return f"{number(machine.boot, 0)} s"


def kind(machine: Machine) -> str:
    return "measured" if machine.speed.measured else "computed"


def unknown(option: Option) -> str:
    return " + setup fee" if option.fee_unknown else ""


def timed(seconds: float, dollars: float) -> str:
    return f"{number(seconds, 1)} s, ${number(dollars, 5)}"


def money(dollars: float) -> str:
    return f"${number(dollars)}"


def amount(value: float | None) -> str:
    """A crossing point; small ones with a digit more."""
    return "–" if value is None else number(value, 1 if value < 10 else 0)
