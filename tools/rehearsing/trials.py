"""What a smoke test tries at an endpoint: a seed again, cancel, bad input, a wrong key."""

import contextlib
import time
from collections.abc import Iterator
from functools import partial

from snb.request import MAX_MESSAGE
from tools.endpoints.cog_endpoint import Cog
from tools.endpoints.endpoint import Canceled, Failed, Piece, Refused
from tools.endpoints.patience import within
from tools.rehearsing.reply import Remote, Reply, hear, opened
from tools.rehearsing.verdict import FAILED, OK, WARNING, Verdict, guarded, judged

QUESTION = "Le bonheur est-il une affaire de raison ?"
LONG = {"user_message": QUESTION, "philosopher": "kant", "max_tokens": 1024, "min_tokens": 1024, "seed": 1}
"""Goes on for long enough to be stopped."""
STEADY = {**LONG, "max_tokens": 96, "min_tokens": 96}
"""Goes on while others are refused."""
SHORT = {**LONG, "max_tokens": 8, "min_tokens": 8}
BAD = {
    "user_message": (f"a message of {MAX_MESSAGE + 1:,} characters", "é" * (MAX_MESSAGE + 1)),
    "philosopher": ("an unknown philosopher", "descartes"),
}
"""Input, what is wrong with it, and a value that has this fault."""
KEYS = {"a wrong key": "not-the-key-of-this-endpoint", "no key": ""}
SOON = 10.0
"""Seconds in which a canceled answer has to end; behind proxies more than the milliseconds of the server."""
LEFT = 1.0
"""Seconds after which an answer whose reader has left has to be over."""


def seed(endpoint: Remote, reply: Reply, again: list[Reply], limit: float) -> Iterator[Verdict]:
    """Whether the same question with the same seed has the same answer; `again` gets the answers.

    In 16 bits and int8 a near tie may fall the other way while others ask. Such an answer has two variants,
    so a third one decides: like one of the others it is a warning, unlike both a failure.
    """
    again.append(hear(endpoint, reply.asked, limit))
    if again[0].text == reply.text:
        yield Verdict(OK, "seed", f"the same {len(reply.text)} characters twice")
        return
    again.append(hear(endpoint, reply.asked, limit))
    if again[1].text in (reply.text, again[0].text):
        seen = "one answer of three differs: a near tie, as 16 bits and int8 allow; in fp32 it is a fault"
        yield Verdict(WARNING, "seed", seen)
    else:
        yield Verdict(FAILED, "seed", "the same seed gave three different answers")


def stops(endpoint: Remote, limit: float) -> Iterator[Verdict]:
    """Whether a long answer ends when it is canceled, and when its reader leaves."""
    verdict = within(limit, partial(canceled, endpoint, limit))
    yield verdict
    if verdict.state == OK and isinstance(endpoint, Cog):  # on Replicate a prediction needs no reader
        yield from guarded("left", (within(limit, partial(left, endpoint, limit)) for _ in "1"))


def canceled(endpoint: Remote, limit: float) -> Verdict:
    """Whether a long answer ends as canceled when it is canceled by its id."""
    _, running = opened(endpoint, LONG, limit)
    with contextlib.closing(running.pieces):
        running.cancel()
        began = time.monotonic()
        try:
            for _ in running.pieces:
                if time.monotonic() - began > SOON:
                    return Verdict(FAILED, "cancel", f"text went on for {SOON:g} s after the cancel")
        except Canceled:
            seconds = time.monotonic() - began
            return Verdict(OK, "cancel", f"a long answer ended as canceled after {seconds:.2f} s")
    return Verdict(FAILED, "cancel", "a canceled answer went on to its end")


def left(endpoint: Cog, limit: float) -> Verdict:
    """Whether an answer whose reader has left is over, so that to cancel it finds nothing."""
    _, running = opened(endpoint, LONG, limit)
    running.pieces.close()
    time.sleep(LEFT)
    try:
        running.cancel()
    except Refused as refused:
        if refused.status == 404:
            return Verdict(OK, "left", f"an answer whose reader left was over {LEFT:g} s later")
        raise
    return Verdict(FAILED, "left", f"an answer went on {LEFT:g} s after its reader had left")


def bad_input(endpoint: Remote, limit: float) -> Iterator[Verdict]:
    """Whether bad inputs are refused by name, while somebody else's answer goes on."""
    _, running = within(limit, partial(opened, endpoint, STEADY, limit))
    for name in BAD:
        yield refusal(endpoint, name, limit)
    last: Piece = within(limit, lambda: list(running.pieces)[-1])
    tokens, wanted = last.tokens, STEADY["max_tokens"]
    faults = [] if tokens == wanted else [f"an answer that went on meanwhile has {tokens} of {wanted} tokens"]
    yield judged("others", faults, f"an answer that went on meanwhile has all its {wanted} tokens")


def refusal(endpoint: Remote, name: str, limit: float) -> Verdict:
    """Whether one bad input is refused: with 4xx, or as a failed prediction with BAD_INPUT."""
    fault, value = BAD[name]
    try:
        hear(endpoint, {**SHORT, name: value}, limit)
    except Refused as refused:
        faults = [] if 400 <= refused.status < 500 else [f"{fault} gave HTTP {refused.status}"]
        faults += [] if name in refused.body else [f"the refusal of {fault} does not name {name}"]
        return judged("bad input", faults, f"{fault}: HTTP {refused.status}, which names {name}")
    except Failed as failed:
        well = "BAD_INPUT" in str(failed) and name in str(failed)
        return Verdict(OK if well else FAILED, "bad input", f"{fault}: {failed}")
    return Verdict(FAILED, "bad input", f"{fault} was answered")


def key(endpoint: Cog, limit: float) -> Iterator[Verdict]:
    """Whether the endpoint, or a proxy before it, refuses another key than its own, and none."""
    if "api_key" not in endpoint.known:
        seen = "SNB_API_KEY is set here, but the endpoint has no input api_key: everybody gets in"
        yield Verdict(FAILED, "key", seen)
        return
    for what, given in KEYS.items():
        try:
            hear(endpoint, {**SHORT, "api_key": given}, limit)
        except Failed as failed:
            refused = "UNAUTHORIZED" in str(failed) or getattr(failed, "status", 0) in (401, 403)
            yield Verdict(OK if refused else FAILED, "key", f"{what}: {failed}")
        else:
            yield Verdict(FAILED, "key", f"{what} was let in; set SNB_API_KEY where the endpoint runs")
