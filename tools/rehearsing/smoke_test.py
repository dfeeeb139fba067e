"""Asks each philosopher of an endpoint that runs one question, and checks what a caller relies on.

scripts/smoke-test https://host                   a server that speaks Cog's HTTP; SNB_API_KEY is its key
scripts/smoke-test owner/name                     on Replicate, with REPLICATE_API_TOKEN; also
                                                  owner/name:version and deployments/owner/name

One line a check: ok, FAILED, a warning to think about, or a note. Ends with 0 if nothing failed, else with 1.
"""

import argparse
import os
from collections.abc import Iterator
from typing import Any

from snb.philosophers import names
from tools.endpoints.cog_endpoint import Cog, await_ready
from tools.endpoints.endpoint import Busy, Failed
from tools.endpoints.patience import within
from tools.endpoints.started import is_url, reached, say
from tools.rehearsing import answers, trials
from tools.rehearsing.reply import Remote, Reply, hear
from tools.rehearsing.verdict import FAILED, OK, Verdict, guarded, judged, plain

SECRETS = ("REPLICATE_API_TOKEN", "SNB_API_KEY")
QUESTIONS = {
    "spinoza": "Suffit-il d’avoir le choix pour être libre ?",
    "bergson": "Le temps est-il notre ennemi ?",
    "kant": "Avons-nous le devoir de chercher la vérité ?",
}
"""Of the bac. Other philosophers are asked `trials.QUESTION`."""
SAMPLE = {"min_tokens": 24, "max_tokens": 96, "seed": 2026}
"""Enough to tell the language, and to see that text comes as it is written. It is sampled as pupils' answers
are: at temperature 0 the seed would have no say."""
NEEDED = ("philosopher", "user_message", "max_tokens", "min_tokens", "seed")
"""Inputs without which these checks mean nothing."""
EXCERPT = 60
"""Characters of an answer that are shown."""


def verdicts(address: str, boot: float, limit: float) -> Iterator[Verdict]:
    """Every check at `address`, in order, as it is done; what needs an answer is left out when there is none.

    Args:
        boot: seconds in which the endpoint has to be ready.
        limit: seconds for each answer.
    """
    try:
        waited = await_ready(address, boot, say) if is_url(address) else None
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
        yield from checks(endpoint, waited, boot, limit)


def checks(endpoint: Remote, waited: float | None, boot: float, limit: float) -> Iterator[Verdict]:
    """Those of an endpoint that takes the inputs of this package.

    Args:
        waited: seconds that it took to be ready; none where nothing tells, and the first answer waits for it.
    """
    replies: list[Reply] = []
    again: list[Reply] = []
    for name in names():
        inputs = {"philosopher": name, "user_message": QUESTIONS.get(name, trials.QUESTION), **SAMPLE}
        boots = waited is None and not replies
        yield from guarded(name, answered(endpoint, inputs, replies, limit + boot * boots))
    if not replies:
        yield Verdict(FAILED, "rest", "nobody answered, so nothing else was tried")
        return
    for judge in (answers.stream, answers.metrics, answers.language):
        yield judge(replies)
    yield from guarded("seed", trials.seed(endpoint, replies[0], again, limit))
    yield from guarded("cancel", trials.stops(endpoint, limit))
    yield from guarded("bad input", trials.bad_input(endpoint, limit))
    if os.environ.get("SNB_API_KEY") and isinstance(endpoint, Cog):  # on Replicate its own token is the key
        yield from guarded("key", trials.key(endpoint, limit))
    yield from answers.times(waited, replies, again)


def answered(
    endpoint: Remote, inputs: dict[str, Any], replies: list[Reply], limit: float
) -> Iterator[Verdict]:
    """That there is an answer, which is added to `replies`, and how it begins."""
    reply = hear(endpoint, inputs, limit)
    replies.append(reply)
    text, tokens = plain(reply.text), reply.metrics.get("output_token_count", "?")
    shown = text if len(text) <= EXCERPT else f"{text[:EXCERPT]}…"
    seen = f"{tokens} tokens, first text {reply.times[0]:.2f} s, all {reply.ended:.2f} s: « {shown} »"
    yield Verdict(OK, reply.who, seen)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("endpoint", help="a URL, or a model or deployment on Replicate")
    add("--boot", type=float, default=600, metavar="SECONDS", help="to be ready in (default 600)")
    add("--limit", type=float, default=120, metavar="SECONDS", help="for each answer (default 120)")
    options = parser.parse_args()
    lines, failures = [], []
    for verdict in verdicts(options.endpoint, options.boot, options.limit):
        lines.append(verdict.line(os.environ.get(name, "") for name in SECRETS))
        print(lines[-1], flush=True)
        failures += lines[-1:] if verdict.state == FAILED else []
    if not failures:
        print(f"\nAll well: {len(lines)} lines, nothing failed.")
        return 0
    print(f"\n{len(failures)} failed:", *failures, sep="\n")
    return 1
