"""Asks each philosopher of a running endpoint one question, and checks what callers rely on.

scripts/smoke-test https://host                   a server that speaks Cog's HTTP API, with SNB_API_KEY as
                                                  its key, or a Gradio Space; https:// may be left out
scripts/smoke-test owner/name                     on Replicate, with REPLICATE_API_TOKEN; also
                                                  owner/name:version and deployments/owner/name
scripts/smoke-test openai:https://host/v1#model   a public model at a provider, with SNB_OPENAI_TOKEN

A wrong address fails at once. --boot 1800 waits up to 1800 seconds for a container that is still booting.

Prints one line per check: ok, FAILED, or a warning to think about. Exits with 0 if nothing failed, else 1.
"""

import os
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple
from urllib.parse import urlsplit

from snb.philosophers import names
from tools.command import command_line, plain, say
from tools.endpoints.cog_endpoint import Cog, own_key
from tools.endpoints.endpoint import LOOPBACK, Busy, Endpoint, Failed, faults
from tools.endpoints.gradio_endpoint import Gradio
from tools.endpoints.openai_endpoint import ChatCompletions
from tools.endpoints.readiness import APP, await_ready
from tools.endpoints.replicate_endpoint import Replicate
from tools.endpoints.started import reached, url_of
from tools.rehearsing import checks
from tools.rehearsing.reply import Reply, hear, within

OK, FAILED, WARNING = "ok", "FAILED", "warning"
SECRETS = ("REPLICATE_API_TOKEN", "SNB_API_KEY", "SNB_OPENAI_TOKEN", "HF_TOKEN")
QUESTION = "Suffit-il d’avoir le choix pour être libre ?"
SAMPLE = {"user_message": QUESTION, "min_tokens": 24, "max_tokens": 96, "seed": 2026}
"""Long enough to tell the language, and to see that the text is streamed."""
LIMIT, BOOT = 120.0, 600.0
"""Seconds for each check; and, unless --boot says otherwise, for a server that says it is starting."""
EXCERPT = 60
"""Characters shown of an answer."""


class Verdict(NamedTuple):
    """One line of a smoke test. A `warning` is for a person to judge, and fails nothing."""

    state: str
    subject: str
    seen: str

    def __str__(self) -> str:
        """One line, without a secret of this environment."""
        seen = self.seen
        for secret in filter(None, map(os.environ.get, SECRETS)):
            seen = seen.replace(secret, "[secret]")
        return f"{self.state:8} {self.subject:12} {plain(seen)}"


def verdicts(address: str, boot: float | None = None) -> Iterator[Verdict]:
    """Runs every check at `address`, in order, and yields each verdict as it is reached.

    Args:
        boot: seconds for an endpoint that does not answer yet to become ready; None waits only for one that
            says it is starting, for BOOT seconds.
    """
    patient, boot = boot is not None, BOOT if boot is None else boot
    try:
        own_key()
        if url := url_of(address):
            with within(LIMIT + boot):
                ready = await_ready(url, boot, say, patient)
            yield Verdict(OK, "ready", ready)
            # Replicate and providers have no readiness check, so there the boot's time is added to the first
            # answer's limit.
            boot = 0
        with within(LIMIT):
            kind = Gradio if url and ready.startswith(APP) else Cog
            endpoint: Endpoint = kind(url, url) if url else reached(address)
    except (Busy, Failed) as error:
        yield Verdict(FAILED, "reach", str(error))
        return
    if isinstance(endpoint, ChatCompletions):
        yield Verdict(WARNING, "stopgap", "a general model plays the philosophers, not the trained one")
    replies: list[Reply] = []
    for name in names():
        yield checked(name, partial(answer, endpoint, name, replies), LIMIT + boot)
        boot = 0
    if replies:
        yield from rest(endpoint, replies)


def rest(endpoint: Endpoint, replies: list[Reply]) -> Iterator[Verdict]:
    """The checks that apply to this kind of endpoint, once it has answered."""
    yield checked("stream", partial(checks.stream, replies))
    yield checked("times", partial(checks.times, replies))
    if notice := replies[0].metrics.get("notice"):
        yield Verdict(WARNING, "model", f"its French is not judged, for the endpoint says: {notice}")
    else:
        yield checked("language", partial(checks.language, replies))
    if isinstance(endpoint, Cog | Replicate):
        yield checked("metrics", partial(checks.metrics, replies))
        yield checked("cancel", partial(checks.cancel, endpoint))
        yield checked("bad input", partial(checks.bad_input, endpoint))
    if isinstance(endpoint, Cog):
        if own_key():
            yield checked("key", partial(checks.key, endpoint))
        elif urlsplit(endpoint.url).hostname not in LOOPBACK:
            yield Verdict(WARNING, "key", "answers whoever finds it: set SNB_API_KEY there, and here")


def checked(subject: str, check: Callable[[], str], limit: float = LIMIT) -> Verdict:
    """The verdict of one check; FAILED with the reason when it finds a fault."""
    try:
        with within(limit), faults():
            return Verdict(OK, subject, check())
    except (Busy, Failed) as error:
        return Verdict(FAILED, subject, str(error))


def answer(endpoint: Endpoint, name: str, replies: list[Reply]) -> str:
    """Asks the philosopher `name`, adds the reply to `replies`, and returns an excerpt of it."""
    replies.append(hear(endpoint, {"philosopher": name, **SAMPLE}))
    return f"« {plain(replies[-1].text, EXCERPT)} »"


def main() -> int:
    parser = command_line(__doc__)
    parser.add_argument("endpoint", help="a host, or a model or deployment, as in SNB_BACKEND_URL")
    seconds = (
        "waits so long for one that does not answer yet (default: only for one that says it is starting, 600)"
    )
    parser.add_argument("--boot", type=float, metavar="SECONDS", help=seconds)
    asked = parser.parse_args()
    failures = []
    for verdict in verdicts(asked.endpoint, asked.boot):
        print(verdict, flush=True)
        failures += [verdict] if verdict.state == FAILED else []
    print(f"\n{len(failures)} failed:" if failures else "\nAll well: nothing failed.", *failures, sep="\n")
    return 1 if failures else 0
