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
import itertools
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from snb.philosophers import names
from tools.benchmarking import workload
from tools.endpoints.endpoint import Failed
from tools.endpoints.started import say
from tools.machine import has_gpu
from tools.rehearsing.backends import SIGNALS, ByHand, Local
from tools.rehearsing.course import FIRST, NEVER, SECOND, Course, markdown
from tools.rehearsing.pupils import OWN, Answer, Pupils, Question, moment
from tools.serving import local

SHARED = {"SNB_SLOTS": "4", "OMP_WAIT_POLICY": "PASSIVE"}
"""For two servers on one machine, unless the environment says otherwise: few slots, and threads that do not
spin while they wait for each other, which on few cores makes a busy machine many times slower."""
DISTINCT = 6
"""Questions that are asked again and again, so that their answers can be compared."""
PAUSE = 2.0
"""Seconds between two looks whether the first backend is asked again."""


class Drill:
    """Runs a drill. `course` is filled as it goes, so that there is something to show of one that fails."""

    def __init__(self, options: argparse.Namespace, pupils: Pupils, backends: ByHand | Local) -> None:
        self.course = Course()
        self._options, self._pupils, self._backends = options, pupils, backends
        texts = zip(workload.TEXTS["questions"][:DISTINCT], itertools.cycle(names()), strict=False)
        self._questions: list[Question] = [
            {"number": n, "seed": n, "philosopher": who, "message": text, "maxTokens": options.tokens}
            for n, (text, who) in enumerate(texts)
        ]

    def run(self) -> None:
        """The whole drill. Raises Failed when it cannot go on."""
        course, pupils = self.course, self._options.pupils
        self._refer()
        say(f"{pupils} pupils ask {self._options.questions} questions each …")
        total = pupils * self._options.questions
        for count, _ in enumerate(self._ask(pupils, self._options.questions), start=1):
            if count == max(1, total // 3):
                course.taken = self._backends.take()
                say(f"the first backend is taken away after {count} of {total} answers …")
        until = course.taken + self._options.away
        while course.switched == NEVER and time.time() < until:
            list(self._ask(pupils))
            time.sleep(PAUSE)
        if not any(answer.asked >= course.switched for answer in course.answers):
            list(self._ask(pupils))
        say("the first backend is brought back …")
        course.given = moment()
        course.ready = self._backends.give()
        until = course.ready + self._options.back
        while course.returned == NEVER and time.time() < until:
            list(self._ask(1))
            time.sleep(PAUSE)
        list(self._ask(pupils))

    def _refer(self) -> None:
        """Asks each backend alone: a drill in which one of them is down from the start shows nothing."""
        for position, questions in ((FIRST, self._questions), (SECOND, self._questions[:1])):
            pupils = [[question] for question in questions]
            for answer in self._pupils.round(pupils, [self._backends.urls[position]]):
                if answer.failure:
                    which = ("first", "second")[position]
                    raise Failed(f"the {which} backend does not answer before the drill: {answer.failure}")
                self.course.references.setdefault(answer.number, answer.text)

    def _ask(self, pupils: int, questions: int = 1) -> Iterator[Answer]:
        """A round, in which neighbours ask different questions; its answers are kept."""
        asked = [[self._questions[(p + n) % DISTINCT] for n in range(questions)] for p in range(pupils)]
        for answer in self._pupils.round(asked, self._backends.urls):
            self.course.answers.append(answer)
            yield answer


@contextlib.contextmanager
def backends(options: argparse.Namespace) -> Iterator[tuple[ByHand | Local, str, bool]]:
    """The two, what they are, and whether the same seed gives the same answer to the letter: fp32 here."""
    if options.backends:
        yield ByHand(options.backends), " and ".join(options.backends), False
        return
    for name in OWN:
        os.environ.pop(name, None)  # a server here is no client
    shared = {name: os.environ.get(name, value) for name, value in SHARED.items()}
    settings = {**local.settings(), **shared}
    standin = settings.get("SNB_BASE_MODEL") == str(local.STANDIN / "base")
    model = "the 135M stand-in, not the philosopher" if standin else "the model of these settings"
    exact = not has_gpu() and os.environ.get("SNB_PRECISION", "auto") in ("auto", "fp32")
    with tempfile.TemporaryDirectory() as folder:
        say("two servers boot …")
        with Local(settings, options.how, options.boot, Path(folder) / "log") as two:
            yield two, f"two Cog servers on this machine, with {model}", exact


def main() -> int:
    options = arguments()
    with contextlib.closing(Pupils(options.timeout)) as pupils, backends(options) as (two, what, exact):
        drill = Drill(options, pupils, two)
        failure = ""
        try:
            drill.run()
        except Failed as error:
            failure = str(error)
        if drill.course.answers:
            record = markdown(drill.course, options, what, two.deed, exact)
            print(record, end="")
            if options.output:
                options.output.parent.mkdir(parents=True, exist_ok=True)
                options.output.write_text(record, encoding="utf-8")
    if failure:
        say(failure)
    return 1 if failure or drill.course.faults(exact) else 0


def arguments() -> argparse.Namespace:
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
    add = parser.add_argument_group("limits, in seconds").add_argument
    add("--timeout", type=float, default=55, help="of each question, as a caller sets it (default 55)")
    add("--boot", type=float, default=600, help="for a server here to be ready (default 600)")
    add("--away", type=float, default=300, help="for the second backend to answer (default 300)")
    add("--back", type=float, default=300, help="for callers to return to the first (default 300)")
    options = parser.parse_args()
    if options.pupils > 32:
        parser.error("--pupils: a Cog server of this package takes 32 at once")
    return options


def positive(text: str) -> int:
    """A whole number from 1 on."""
    value = int(text)
    if value < 1:
        raise ValueError
    return value
