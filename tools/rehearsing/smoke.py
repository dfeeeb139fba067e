"""A smoke test of any endpoint that runs, check by check."""

import functools
import os
from collections.abc import Iterator

from snb.philosophers import names
from tools.endpoints.cog_endpoint import Cog
from tools.endpoints.endpoint import Busy, Failed
from tools.endpoints.patience import within
from tools.endpoints.started import is_url, reached
from tools.rehearsing import judgement, trial
from tools.rehearsing.readiness import await_ready
from tools.rehearsing.reply import Remote, Reply, hear
from tools.rehearsing.verdict import FAILED, OK, Verdict, judged

QUESTIONS = {
    "spinoza": "Suffit-il d’avoir le choix pour être libre ?",
    "bergson": "Le temps est-il notre ennemi ?",
    "kant": "Avons-nous le devoir de chercher la vérité ?",
}
"""Of the bac. Other philosophers are asked `trial.QUESTION`."""
SAMPLE = {"min_tokens": 24, "max_tokens": 96, "seed": 2026}
"""Enough to tell the language, and to see that text comes as it is written. It is sampled as pupils' answers
are: at temperature 0 the seed would have no say."""
NEEDED = ("philosopher", "user_message", "max_tokens", "min_tokens", "seed")
"""Inputs without which these checks mean nothing."""


def verdicts(address: str, boot: float, limit: float) -> Iterator[Verdict]:
    """Every check at `address`, in order, as it is done; what needs an answer is left out when there is none.

    Args:
        boot: seconds in which the endpoint has to be ready.
        limit: seconds for each answer.
    """
    try:
        waited = await_ready(address, boot) if is_url(address) else None
        endpoint = within(limit, lambda: reached(address))
    except (Busy, Failed) as error:
        yield Verdict(FAILED, "reach", str(error))
        return
    if waited is not None:
        yield Verdict(OK, "ready", f"READY after {waited:.1f} s")
    missing = [name for name in NEEDED if name not in endpoint.known]
    faults = [f"the endpoint has no input {', '.join(missing)}"] if missing else []
    yield judged("schema", faults, f"{len(endpoint.known)} inputs, with all that callers send")
    if not missing:
        yield from Smoke(endpoint, waited, boot, limit).verdicts()


class Smoke:
    """The checks of an endpoint that takes the inputs of this package.

    Args:
        waited: seconds that it took to be ready; none where nothing tells, and the first answer waits for it.
    """

    def __init__(self, endpoint: Remote, waited: float | None, boot: float, limit: float) -> None:
        self._endpoint, self._waited, self._boot, self._limit = endpoint, waited, boot, limit
        self._replies: list[Reply] = []
        self._again: list[Reply] = []

    def verdicts(self) -> Iterator[Verdict]:
        """All of them, in order."""
        for name in names():
            yield trial.attempted(name, functools.partial(self._answer, name))
        if not self._replies:
            yield Verdict(FAILED, "rest", "nobody answered, so nothing else was tried")
            return
        for judge in (judgement.stream, judgement.metrics, judgement.language):
            yield judge(self._replies)
        yield trial.attempted("seed", self._repeat)
        yield from self._stops()
        yield from guarded("bad input", trial.bad_input(self._endpoint, self._limit))
        yield from self._door()
        yield from judgement.times(self._waited, self._replies, self._again)

    def _answer(self, name: str) -> Verdict:
        inputs = {"philosopher": name, "user_message": QUESTIONS.get(name, trial.QUESTION), **SAMPLE}
        boots = self._waited is None and not self._replies
        self._replies.append(hear(self._endpoint, inputs, self._limit + (self._boot if boots else 0)))
        return judgement.answer(self._replies[-1])

    def _repeat(self) -> Verdict:
        verdict, self._again = trial.seed(self._endpoint, self._replies[0], self._limit)
        return verdict

    def _stops(self) -> Iterator[Verdict]:
        canceled = trial.attempted("cancel", lambda: trial.cancel(self._endpoint, self._limit))
        yield canceled
        # On Replicate a prediction does not need its reader.
        if canceled.state == OK and isinstance(self._endpoint, Cog):
            yield trial.attempted("left", lambda: trial.dropped(self._endpoint, self._limit))

    def _door(self) -> Iterator[Verdict]:
        # On Replicate its own token is the key.
        if os.environ.get("SNB_API_KEY") and isinstance(self._endpoint, Cog):
            yield from guarded("key", trial.key(self._endpoint, self._limit))


def guarded(subject: str, found: Iterator[Verdict]) -> Iterator[Verdict]:
    """The verdicts of several trials; FAILED with the reason when the endpoint lets them down."""
    try:
        yield from found
    except (Busy, Failed) as error:
        yield Verdict(FAILED, subject, str(error))
