"""The checks of a smoke test. Each returns what it saw, as text, and raises Failed on a fault."""

import contextlib
import functools
import time
from collections.abc import Sequence
from typing import Any

from py3langid.langid import MODEL_FILE, LanguageIdentifier

from tools.endpoints.cog_endpoint import Cog
from tools.endpoints.endpoint import Canceled, Failed, Refused
from tools.endpoints.replicate_endpoint import Replicate
from tools.rehearsing.reply import Reply, hear

METRICS = ("input_token_count", "output_token_count", "finish_reason", "seed", "time_to_first_token")
"""Those that callers rely on; see the README."""
HELD = 0.01
"""Seconds between first and last text of an answer, below which something on the way has buffered it."""
LANGUAGES = ("fr", "en", "es", "it", "pt", "de", "zh")
"""French, its neighbours, and what the base model was mostly trained on; more would add wrong guesses."""
SURE = 0.5
"""Probability from which a language counts as recognised."""
SHORT = {"user_message": "Le bonheur est-il une affaire de raison ?", "max_tokens": 8, "seed": 1}
LONG = {**SHORT, "philosopher": "kant", "max_tokens": 1024, "min_tokens": 1024}
"""An answer that is long enough to be canceled."""


def stream(replies: Sequence[Reply]) -> str:
    """Every answer comes in pieces, and at least one not all at the end; a busy client may see others so."""
    if whole := [reply.asked["philosopher"] for reply in replies if len(reply.times) < 2]:
        raise Failed(f"the answers of {', '.join(whole)} came in one piece")
    longest = max(reply.times[-1] - reply.times[0] for reply in replies)
    if longest < HELD:
        raise Failed(f"all text came within {longest:.2f} s at the end: a proxy holds it back?")
    return f"{', '.join(str(len(reply.times)) for reply in replies)} pieces"


def metrics(replies: Sequence[Reply]) -> str:
    """Every metric that callers rely on is there, and its value is possible."""
    for reply in replies:
        if missing := [name for name in METRICS if reply.metrics.get(name) is None]:
            raise Failed(f"no {', '.join(missing)}")
        written, seed = reply.metrics["output_token_count"], reply.metrics["seed"]
        least, most, sent = (reply.asked[name] for name in ("min_tokens", "max_tokens", "seed"))
        if not least <= written <= most:
            raise Failed(f"output_token_count is {written}, not {least} to {most}")
        if seed != sent:
            raise Failed(f"seed is {seed}, not the {sent} that was sent")
    return ", ".join(f"{name} {replies[0].metrics[name]}" for name in METRICS)


def language(replies: Sequence[Reply]) -> str:
    likely = [(reply.asked["philosopher"], *identifier().rank(reply.text)[0]) for reply in replies]
    seen = ", ".join(f"{name} {code} {probability:.0%}" for name, code, probability in likely)
    if strays := [name for name, code, probability in likely if code != "fr" or probability < SURE]:
        raise Failed(f"not French: {', '.join(strays)} ({seen})")
    return seen


@functools.cache
def identifier() -> Any:
    """Tells LANGUAGES apart; cached, since its model takes a second to load."""
    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    identifier.set_languages(LANGUAGES)
    return identifier


def times(replies: Sequence[Reply]) -> str:
    """Seconds to the first text and to the end of each answer; the first answer comes from a cold server."""
    return "; ".join(f"first text {reply.times[0]:.2f} s, all {reply.ended:.2f} s" for reply in replies)


def cancel(endpoint: Cog | Replicate) -> str:
    """A long answer that is canceled by its id ends as canceled."""
    pieces, stop = endpoint.begin(LONG)
    with contextlib.closing(pieces):
        next(pieces)
        stop()
        began = time.monotonic()
        with contextlib.suppress(Canceled):
            for _ in pieces:
                pass
            raise Failed("a canceled answer went on to its end")
    return f"a long answer ended as canceled after {time.monotonic() - began:.2f} s"


def bad_input(endpoint: Cog | Replicate) -> str:
    """An unknown philosopher is refused by name: with 4xx, or as a failed prediction with BAD_INPUT."""
    try:
        hear(endpoint, {**SHORT, "philosopher": "descartes"})
    except Failed as failed:
        refusal = failed.body if isinstance(failed, Refused) else str(failed)
        well = 400 <= failed.status < 500 if isinstance(failed, Refused) else "BAD_INPUT" in refusal
        if not (well and "philosopher" in refusal):
            raise Failed(f"the refusal of an unknown philosopher does not name it: {failed}") from failed
        return str(failed)
    raise Failed("an unknown philosopher answered")


def key(endpoint: Cog) -> str:
    """The endpoint, or a proxy in front of it, refuses a caller without a key."""
    try:
        hear(Cog(endpoint.name, endpoint.url, key=""), SHORT)
    except Refused as refused:
        if refused.status in (401, 403):
            return f"without it: {refused}"
        raise
    raise Failed("who has no key was answered; set SNB_API_KEY where the endpoint runs")
