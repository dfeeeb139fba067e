"""Rehearses the switch: a class asks, the first of two backends is taken away, and nothing may be lost.

scripts/drill                            two Cog servers on this machine, the first of which is killed
scripts/drill --how hang                 it stays there and says nothing more; stop: it is shut down in order
scripts/drill --backends URL URL         two that run already; you are told when to take the first away and
                                         when to bring it back. replicate:owner/name will do for a URL

Pupils ask through the JavaScript client, as production does. Prints a record to keep. Ends with 0 when every
question was answered whole, by the second backend while the first was away, and by the first afterwards.
"""

import argparse
import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tools.endpoints.endpoint import Failed
from tools.endpoints.started import say
from tools.machine import has_gpu
from tools.rehearsing.hands import SIGNALS, Hands, Person, machine
from tools.rehearsing.pupils import OWN, Pupils
from tools.rehearsing.rehearsal import Plan, Rehearsal
from tools.rehearsing.rehearsal_record import Record
from tools.serving import local

SHARED = {"SNB_SLOTS": "4", "OMP_WAIT_POLICY": "PASSIVE"}
"""For two servers on one machine, unless the environment says otherwise: few slots, and threads that do not
spin while they wait for each other, which on few cores makes a busy machine many times slower."""


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--pupils", type=positive, default=6, metavar="N", help="who ask at once (default 6, at most 32)")
    add("--questions", type=positive, default=4, metavar="N", help="of each pupil (default 4)")
    add("--tokens", type=positive, default=32, metavar="N", help="of the longest answer (default 32)")
    add("--how", choices=SIGNALS, default="kill", help="what befalls the first backend (default kill)")
    add("--backends", nargs=2, metavar="URL", help="two that run already, in order of preference")
    add("--output", type=Path, metavar="FILE", help="also writes the record there")
    limits = parser.add_argument_group("limits, in seconds")
    add = limits.add_argument
    add("--timeout", type=float, default=55, help="of each question, as a caller sets it (default 55)")
    add("--boot", type=float, default=600, help="for a server here to be ready (default 600)")
    add("--away", type=float, default=300, help="for the second backend to answer (default 300)")
    add("--back", type=float, default=300, help="for callers to return to the first (default 300)")
    return parser


def positive(text: str) -> int:
    """A whole number from 1 on."""
    value = int(text)
    if value < 1:
        raise ValueError
    return value


@contextlib.contextmanager
def hands(options: argparse.Namespace) -> Iterator[tuple[Hands, str, bool]]:
    """Who takes the first backend away, what the backends are, and whether their answers are exact."""
    if options.backends:
        yield Person(options.backends), " and ".join(options.backends), False
        return
    for name in OWN:
        os.environ.pop(name, None)  # the servers refuse to boot with a setting that is not theirs
    shared = {name: os.environ.get(name, value) for name, value in SHARED.items()}
    settings = {**local.settings(), **shared}
    standin = settings.get("SNB_BASE_MODEL") == str(local.STANDIN / "base")
    model = "the 135M stand-in, not the philosopher" if standin else "the model of these settings"
    exact = not has_gpu() and os.environ.get("SNB_PRECISION", "auto") in ("auto", "fp32")
    with tempfile.TemporaryDirectory() as folder:
        say("two servers boot …")
        with machine(settings, options.how, options.boot, Path(folder) / "log") as two:
            yield two, f"two Cog servers on this machine, with {model}", exact


def drill(options: argparse.Namespace) -> int:
    """The exit code."""
    plan = Plan(options.pupils, options.questions, options.tokens, options.away, options.back)
    with Pupils(options.timeout) as pupils, hands(options) as (both, backends, exact):
        rehearsal = Rehearsal(plan, pupils, both)
        failure = ""
        try:
            rehearsal.run()
        except Failed as error:
            failure = str(error)
        record = Record(rehearsal.course, plan, backends, both.deed, exact)
        if rehearsal.course.answers:
            keep(record.markdown(), options.output)
    if failure:
        say(failure)
    return 1 if failure or record.faults() else 0


def keep(record: str, file: Path | None) -> None:
    """Prints it, and writes it where it is wanted."""
    print(record, end="")
    if file:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(record, encoding="utf-8")


def main() -> int:
    parser = arguments()
    options = parser.parse_args()
    if options.pupils > 32:
        parser.error("--pupils: a Cog server of this package takes 32 at once")
    return drill(options)
