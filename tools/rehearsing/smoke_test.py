"""Asks each philosopher of an endpoint that runs one question, and checks what a caller relies on.

scripts/smoke-test https://host                   a server that speaks Cog's HTTP; SNB_API_KEY is its key. Or
                                                  a Gradio Space; https:// may be left out
scripts/smoke-test owner/name                     on Replicate, with REPLICATE_API_TOKEN; also
                                                  owner/name:version and deployments/owner/name
scripts/smoke-test openai:https://host/v1#model   a public model at a provider, with SNB_OPENAI_TOKEN

A wrong address fails at once. Where a container is still booting, --boot 1800 waits so many seconds for it.

One line a check: ok, FAILED, a warning to think about, or a note. Ends with 0 if nothing failed, else with 1.
"""

import argparse
import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from urllib.parse import urlsplit

from snb.philosophers import names
from tools.command import say
from tools.endpoints.cog_endpoint import Cog, own_key
from tools.endpoints.endpoint import LOOPBACK, Busy, Failed
from tools.endpoints.gradio_endpoint import Gradio
from tools.endpoints.openai_endpoint import ChatCompletions
from tools.endpoints.readiness import await_ready
from tools.endpoints.replicate_endpoint import Replicate
from tools.endpoints.started import reached, url_of
from tools.rehearsing import checks
from tools.rehearsing.reply import Remote, Reply, hear, within
from tools.rehearsing.verdict import FAILED, NOTE, OK, WARNING, Verdict, plain

Check = Callable[[], checks.Seen]
SECRETS = ("REPLICATE_API_TOKEN", "SNB_API_KEY", "SNB_OPENAI_TOKEN", "HF_TOKEN")
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
OF_REPLIES = (checks.stream, checks.metrics, checks.language, checks.times)
BOOT = 600.0
"""Seconds for a server that says that it is starting, unless --boot says otherwise."""
EXCERPT = 60
"""Characters of an answer that are shown."""


def verdicts(address: str, limit: float, boot: float | None = None) -> Iterator[Verdict]:
    """Every check at `address`, in order, as it is done; what needs an answer is left out when there is none.

    Args:
        limit: seconds for each check.
        boot: seconds in which the endpoint has to be ready, which then need not answer yet; BOOT for one that
            says that it is starting.
    """
    patient, boot = boot is not None, BOOT if boot is None else boot
    try:
        own_key()
        if url := url_of(address):
            yield Verdict(OK, "ready", await_ready(url, boot, say, patient))
            boot = 0  # where nothing tells, the first answer waits for it
        endpoint = within(limit, lambda: reached(address))
    except (Busy, Failed) as error:
        yield Verdict(FAILED, "reach", str(error))
        return
    if isinstance(endpoint, ChatCompletions):
        yield Verdict(WARNING, "stopgap", "a general model plays the philosophers, not the trained one")
    elif (missing := NEEDED - endpoint.known) and not isinstance(endpoint, Gradio):
        yield Verdict(FAILED, "schema", f"the endpoint has no input {', '.join(sorted(missing))}")
        return
    replies: list[Reply] = []
    for name in names():
        yield checked(name, limit + boot, partial(answer, endpoint, name, replies))
        boot = 0
    if not replies:
        yield Verdict(FAILED, "rest", "nobody answered, so nothing else was tried")
        return
    for subject, check in rest(endpoint, replies):
        yield checked(subject, limit, check)


def rest(endpoint: Remote, replies: list[Reply]) -> Iterator[tuple[str, Check]]:
    """The checks of an endpoint that has answered, as far as its kind has what they are about."""
    absent = beyond(endpoint, replies)
    everything: list[tuple[str, Check]] = [
        *((check.__name__, partial(check, replies)) for check in OF_REPLIES),
        ("seed", partial(checks.seed, endpoint, replies[0])),
        ("cancel", partial(checks.cancel, endpoint)),
        ("left", partial(checks.left, endpoint)),
        *(("bad input", partial(checks.bad_input, endpoint, name)) for name in checks.BAD),
        ("others", partial(checks.others, endpoint)),
    ]
    yield from (one for one in everything if one[0] not in absent)
    if isinstance(endpoint, Cog):
        yield from (("key", check) for check in keys(endpoint))
    if absent:
        yield "left out", lambda: (NOTE, f"{', '.join(absent)}: not to be had at this kind of endpoint")


def beyond(endpoint: Remote, replies: Sequence[Reply]) -> list[str]:
    """The checks that mean nothing there."""
    if isinstance(endpoint, Replicate):
        return ["left", "key"]  # a prediction needs no reader, and its own token is the key
    if isinstance(endpoint, ChatCompletions):
        return ["metrics", "seed", "cancel", "left", "bad input", "others", "key"]
    if isinstance(endpoint, Cog):
        return []
    chooses = [] if "seed" in endpoint.known else ["seed", "bad input"]  # the Space's own, whoever asks
    whole = ["stream"] if chooses and len(replies[0].times) == 1 else []
    told = [] if replies[0].metrics else ["metrics", "others"]  # by the page's own endpoint alone
    return [*told, "cancel", "left", "key", *chooses, *whole]


def keys(endpoint: Cog) -> Iterator[Check]:
    """Where there is a key nothing else may open; where there is none, who reaches the server may ask."""
    if own_key():
        yield from (partial(checks.key, endpoint, key) for key in ("not-the-key-of-this-endpoint", ""))
    elif urlsplit(endpoint.url).hostname not in LOOPBACK:
        yield lambda: (WARNING, "answers whoever finds it: set SNB_API_KEY there, and here")


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
    length, text = reply.metrics.get("output_token_count"), plain(reply.text, EXCERPT)
    tokens = f"{length} tokens, " if length is not None else ""  # a Space of the old kind does not tell
    return OK, f"{tokens}first text {reply.times[0]:.2f} s, all {reply.ended:.2f} s: « {text} »"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("endpoint", help="a host, or a model or deployment on Replicate, as in SNB_BACKEND_URL")
    add(
        "--boot",
        type=float,
        metavar="SECONDS",
        help="to be ready in, and until then to be absent (default 600)",
    )
    add("--limit", type=float, default=120, metavar="SECONDS", help="for each check (default 120)")
    options = parser.parse_args()
    failures = []
    for verdict in verdicts(options.endpoint, options.limit, options.boot):
        line = verdict.line(os.environ.get(name, "") for name in SECRETS)
        print(line, flush=True)
        failures += [line] if verdict.state == FAILED else []
    print(f"\n{len(failures)} failed:" if failures else "\nAll well: nothing failed.", *failures, sep="\n")
    return 1 if failures else 0
