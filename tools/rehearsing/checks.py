"""The checks of a smoke test. Each returns a state and what was seen, and raises Failed for a fault."""

import contextlib
import statistics
import time
from collections.abc import Sequence

from py3langid.langid import MODEL_FILE, LanguageIdentifier

from snb.request import MAX_MESSAGE
from tools.endpoints.cog_endpoint import Cog
from tools.endpoints.endpoint import Canceled, Failed, Refused, numbers
from tools.rehearsing.reply import Remote, Reply, hear, opened
from tools.rehearsing.verdict import NOTE, OK, WARNING

Seen = tuple[str, str]
"""A state of a verdict, and what was seen."""
METRICS = ("input_token_count", "output_token_count", "finish_reason", "seed", "time_to_first_token")
"""Those that callers rely on; see the README."""
WHOLE = ("stop", "stop_sequence", "length", "loop")
"""Reasons for which an answer ends by itself."""
SPREAD = 0.5
"""Share of the time of writing over which text has to come. What is held back comes at once."""
LANGUAGES = ("fr", "en", "es", "it", "pt", "de", "zh")
"""French, its neighbours, and what the base model was mostly trained on; more would add wrong guesses."""
SURE = 0.5
"""Probability from which a language counts as recognised."""
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
SOON = 10.0
"""Seconds in which a canceled answer has to end; behind proxies more than the milliseconds of the server."""
LEFT = 3.0
"""Seconds after which an answer whose reader has left has to be over."""


def stream(replies: Sequence[Reply]) -> Seen:
    """Text comes in pieces, and while the rest is being written.

    The latter is asked of one answer only: a client that was kept from reading finds several pieces at once.
    """
    if whole := [reply.asked["philosopher"] for reply in replies if len(reply.times) < 2]:
        raise Failed(f"the answers of {', '.join(whole)} came in one piece")
    best = max(replies, key=spread)
    came = best.times[-1] - best.times[0]
    if spread(best) < SPREAD:
        raise Failed(f"all text came within {came:.2f} s at the end: a proxy holds it back?")
    pieces = ", ".join(str(len(reply.times)) for reply in replies)
    return OK, f"{pieces} pieces; those of {best.asked['philosopher']} came over {came:.2f} s"


def spread(reply: Reply) -> float:
    """The share of its writing over which its text came; 1 where the endpoint does not tell."""
    metrics = numbers(reply.metrics)
    rate, tokens = metrics.get("tokens_per_second", 0), metrics.get("output_token_count", 0)
    written = tokens / rate - metrics.get("time_to_first_token", 0) if rate > 0 else 0
    return (reply.times[-1] - reply.times[0]) / written if written > 0 else 1


def metrics(replies: Sequence[Reply]) -> Seen:
    """Every metric that callers rely on is there and can be true."""
    for reply in replies:
        if missing := [name for name in METRICS if reply.metrics.get(name) is None]:
            raise Failed(f"no {', '.join(missing)}")
        read, written, reason, seed, first = (reply.metrics[name] for name in METRICS)
        least, most, sent = (reply.asked[name] for name in ("min_tokens", "max_tokens", "seed"))
        faults = {
            f"input_token_count is {read}": read < 1,
            f"output_token_count is {written}, not {least} to {most}": not least <= written <= most,
            f"finish_reason is {reason}: the answer is not whole": reason not in WHOLE,
            f"seed is {seed}, not the {sent} that was sent": seed != sent,
            f"time_to_first_token is {first} s, of {reply.ended:.3f} s": not 0 <= first <= reply.ended,
        }
        if any(faults.values()):
            raise Failed("; ".join(fault for fault, holds in faults.items() if holds))
    return OK, ", ".join(f"{name} {replies[0].metrics[name]}" for name in METRICS)


def language(replies: Sequence[Reply]) -> Seen:
    """The answers are French. The stand-in's poor French is reported, and is no failure."""
    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    identifier.set_languages(LANGUAGES)
    likely = [(reply.asked["philosopher"], *identifier.rank(reply.text)[0]) for reply in replies]
    seen = ", ".join(f"{name} {code} {probability:.0%}" for name, code, probability in likely)
    if notice := next((reply.metrics["notice"] for reply in replies if reply.metrics.get("notice")), ""):
        return NOTE, f"{seen}; not judged, for the endpoint says: {notice}"
    if strays := [name for name, code, probability in likely if code != "fr" or probability < SURE]:
        raise Failed(f"not French: {', '.join(strays)} ({seen})")
    return OK, seen


def times(replies: Sequence[Reply]) -> Seen:
    """How long the first answer took, and the others."""
    cold, *warm = replies
    seen = f"cold: first text after {cold.times[0]:.2f} s, all after {cold.ended:.2f} s"
    if warm:
        first = statistics.median(reply.times[0] for reply in warm)
        whole = statistics.median(reply.ended for reply in warm)
        seen += f"; warm, median of {len(warm)}: {first:.2f} s, {whole:.2f} s"
    return NOTE, seen


def seed(endpoint: Remote, reply: Reply) -> Seen:
    """The same question with the same seed has the same answer.

    In 16 bits and int8 a near tie may fall the other way while others ask. Such an answer has two variants,
    so a third one decides: like one of the others it is a warning, unlike both a failure.
    """
    again = hear(endpoint, reply.asked).text
    if again == reply.text:
        return OK, f"the same {len(again)} characters twice"
    if hear(endpoint, reply.asked).text not in (reply.text, again):
        raise Failed("the same seed gave three different answers")
    tie = "one answer of three differs: a near tie, as 16 bits and int8 allow; in fp32 it is a fault"
    return WARNING, tie


def cancel(endpoint: Remote) -> Seen:
    """A long answer ends as canceled when it is canceled by its id."""
    _, running = opened(endpoint, LONG)
    with contextlib.closing(running.pieces):
        running.cancel()
        began = time.monotonic()
        try:
            for _ in running.pieces:
                if time.monotonic() - began > SOON:
                    raise Failed(f"text went on for {SOON:g} s after the cancel")
        except Canceled:
            return OK, f"a long answer ended as canceled after {time.monotonic() - began:.2f} s"
    raise Failed("a canceled answer went on to its end")


def left(endpoint: Remote) -> Seen:
    """An answer whose reader has left is over, so that to cancel it finds nothing."""
    _, running = opened(endpoint, LONG)
    running.pieces.close()
    time.sleep(LEFT)
    try:
        running.cancel()
    except Refused as refused:
        if refused.status == 404:
            return OK, f"an answer whose reader left was over {LEFT:g} s later"
        raise
    raise Failed(f"an answer went on {LEFT:g} s after its reader had left")


def others(endpoint: Remote) -> Seen:
    """An answer goes on to its end while bad inputs are refused."""
    _, running = opened(endpoint, STEADY)
    for name, (_, value) in BAD.items():
        with contextlib.suppress(Failed):
            hear(endpoint, {**SHORT, name: value})
    tokens, wanted = list(running.pieces)[-1].tokens, STEADY["max_tokens"]
    if tokens != wanted:
        raise Failed(f"an answer that went on meanwhile has {tokens} of {wanted} tokens")
    return OK, f"an answer that went on meanwhile has all its {wanted} tokens"


def bad_input(endpoint: Remote, name: str) -> Seen:
    """A bad input is refused by name: with 4xx, or as a failed prediction with BAD_INPUT."""
    fault, value = BAD[name]
    try:
        hear(endpoint, {**SHORT, name: value})
    except Failed as failed:
        refusal = failed.body if isinstance(failed, Refused) else str(failed)
        well = 400 <= failed.status < 500 if isinstance(failed, Refused) else "BAD_INPUT" in refusal
        if not well or name not in refusal:
            raise Failed(f"the refusal of {fault} does not name {name}: {failed}") from failed
        return OK, f"{fault}: {failed}"
    raise Failed(f"{fault} was answered")


def key(endpoint: Cog, value: str) -> Seen:
    """The endpoint, or a proxy before it, refuses another key than its own, and none."""
    what = "a wrong key" if value else "no key"
    try:
        hear(Cog(endpoint.name, endpoint.url, value), SHORT)
    except Failed as failed:
        if getattr(failed, "status", 0) in (401, 403):
            return OK, f"{what}: {failed}"
        raise
    raise Failed(f"{what} was let in; set SNB_API_KEY where the endpoint runs")
