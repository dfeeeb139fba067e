"""Asks each philosopher of an endpoint that runs one question, and checks what a caller relies on.

scripts/smoke-test https://host                   a server that speaks Cog's HTTP; SNB_API_KEY is its key
scripts/smoke-test owner/name                     on Replicate, with REPLICATE_API_TOKEN; also
                                                  owner/name:version and deployments/owner/name

One line a check: ok, FAILED, a warning to think about, or a note. Ends with 0 if nothing failed, else with 1.
"""

import argparse
import os
from collections.abc import Callable, Iterator
from functools import partial

from snb.philosophers import names
from tools.command import say
from tools.endpoints.cog_endpoint import Cog, await_ready
from tools.endpoints.endpoint import Busy, Failed
from tools.endpoints.started import URL, reached
from tools.rehearsing import checks
from tools.rehearsing.reply import Remote, Reply, hear, within
from tools.rehearsing.verdict import FAILED, OK, Verdict, plain

Check = Callable[[], checks.Seen]
SECRETS = ("REPLICATE_API_TOKEN", "SNB_API_KEY")
QUESTIONS = {
    "spinoza": "Suffit-il d’avoir le choix pour être libre ?",
    "bergson": "Le temps est-il notre ennemi ?",
    "kant": "Avons-nous le devoir de chercher la vérité ?",
}
"""Of the bac. Other philosophers are asked `checks.QUESTION`."""
SAMPLE = {"min_tokens": 24, "max_tokens": 96, "seed": 2026}
"""Enough to tell the language, and to see that text comes as it is written. It is sampled as pupils' answers
are: at temperature 0 the seed would have no say."""
NEEDED = {"philosopher", "user_message", "max_tokens", "min_tokens", "seed"}
"""Inputs without which these checks mean nothing."""
EXCERPT = 60
"""Characters of an answer that are shown."""


def verdicts(address: str, boot: float, limit: float) -> Iterator[Verdict]:
    """Every check at `address`, in order, as it is done; what needs an answer is left out when there is none.

    Args:
        boot: seconds in which the endpoint has to be ready.
        limit: seconds for each check.
    """
    try:
        if URL.fullmatch(address):
            yield Verdict(OK, "ready", f"READY after {await_ready(address, boot, say):.1f} s")
            boot = 0  # where nothing tells, the first answer waits for it
        endpoint = within(limit, lambda: reached(address))
    except (Busy, Failed) as error:
        yield Verdict(FAILED, "reach", str(error))
        return
    if missing := NEEDED - endpoint.known:
        yield Verdict(FAILED, "schema", f"the endpoint has no input {', '.join(sorted(missing))}")
        return
    replies: list[Reply] = []
    for name in names():
        yield checked(name, limit + boot * (not replies), partial(answer, endpoint, name, replies))
    if not replies:
        yield Verdict(FAILED, "rest", "nobody answered, so nothing else was tried")
        return
    for subject, check in rest(endpoint, replies):
        yield checked(subject, limit, check)


def rest(endpoint: Remote, replies: list[Reply]) -> Iterator[tuple[str, Check]]:
    """The checks of an endpoint that has answered."""
    for check in (checks.stream, checks.metrics, checks.language, checks.times):
        yield check.__name__, partial(check, replies)
    yield "seed", partial(checks.seed, endpoint, replies[0])
    yield "cancel", partial(checks.cancel, endpoint)
    if isinstance(endpoint, Cog):  # on Replicate a prediction needs no reader
        yield "left", partial(checks.left, endpoint)
    for name in checks.BAD:
        yield "bad input", partial(checks.bad_input, endpoint, name)
    yield "others", partial(checks.others, endpoint)
    if os.environ.get("SNB_API_KEY") and isinstance(endpoint, Cog):  # on Replicate its own token is the key
        for key in ("not-the-key-of-this-endpoint", ""):
            yield "key", partial(checks.key, endpoint, key)


def checked(subject: str, limit: float, check: Check) -> Verdict:
    """The verdict of one check; FAILED with the reason when it finds a fault."""
    try:
        state, seen = within(limit, check)
    except (Busy, Failed) as error:
        return Verdict(FAILED, subject, str(error))
    return Verdict(state, subject, seen)


def answer(endpoint: Remote, name: str, replies: list[Reply]) -> checks.Seen:
    """A philosopher answers; the answer is added to `replies`."""
    question = QUESTIONS.get(name, checks.QUESTION)
    reply = hear(endpoint, {"philosopher": name, "user_message": question, **SAMPLE})
    replies.append(reply)
    tokens, text = reply.metrics.get("output_token_count", "?"), plain(reply.text, EXCERPT)
    return OK, f"{tokens} tokens, first text {reply.times[0]:.2f} s, all {reply.ended:.2f} s: « {text} »"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("endpoint", help="a URL, or a model or deployment on Replicate")
    add("--boot", type=float, default=600, metavar="SECONDS", help="to be ready in (default 600)")
    add("--limit", type=float, default=120, metavar="SECONDS", help="for each check (default 120)")
    options = parser.parse_args()
    failures = []
    for verdict in verdicts(options.endpoint, options.boot, options.limit):
        line = verdict.line(os.environ.get(name, "") for name in SECRETS)
        print(line, flush=True)
        failures += [line] if verdict.state == FAILED else []
    print(f"\n{len(failures)} failed:" if failures else "\nAll well: nothing failed.", *failures, sep="\n")
    return 1 if failures else 0
