"""What the answers of a smoke test show once they are here. Asks nothing."""

import functools
import statistics
from collections.abc import Iterator, Sequence
from typing import Any

from py3langid.langid import MODEL_FILE, LanguageIdentifier

from tools.endpoints.endpoint import numbers
from tools.rehearsing.reply import Reply
from tools.rehearsing.verdict import NOTE, Verdict, judged

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


def stream(replies: Sequence[Reply]) -> Verdict:
    """Whether text comes in pieces, and while the rest is being written.

    That the pieces come apart is asked of one answer only: a client that was kept from reading for a moment
    finds several at once.
    """
    faults = [f"{reply.who}'s answer came in one piece" for reply in replies if len(reply.pieces) < 2]
    best = max(replies, key=lambda reply: reply.spread)
    came = best.times[-1] - best.times[0]
    if not faults and best.spread < SPREAD:
        fault = f"all text came within {came:.2f} s at the end, but was written over {best.written:.2f} s"
        faults = [f"{fault}: something on the way holds it back (a proxy that buffers?)"]
    pieces = ", ".join(str(len(reply.pieces)) for reply in replies)
    return judged("stream", faults, f"{pieces} pieces; those of {best.who} came over {came:.2f} s")


def metrics(replies: Sequence[Reply]) -> Verdict:
    """Whether every metric that callers rely on is there and can be true."""
    faults = [f"{reply.who}: {fault}" for reply in replies for fault in metric_faults(reply)]
    shown = ", ".join(f"{name} {replies[0].metrics.get(name)}" for name in METRICS)
    return judged("metrics", faults, shown)


def metric_faults(reply: Reply) -> Iterator[str]:
    """What is wrong with the metrics of one answer, as sentences."""
    values: dict[str, Any] = {**numbers(reply.metrics), "finish_reason": reply.metrics.get("finish_reason")}
    if missing := [name for name in METRICS if values.get(name) is None]:
        yield f"no {', '.join(missing)}"
        return
    read, written, reason, seed, first = (values[name] for name in METRICS)
    least, most = reply.asked.get("min_tokens", 1), reply.asked["max_tokens"]
    if read < 1:
        yield f"input_token_count is {read}"
    if not least <= written <= most:
        yield f"output_token_count is {written}, not {least} to {most}"
    if reason not in WHOLE:
        yield f"finish_reason is {reason}: the answer is not whole"
    if seed != reply.asked["seed"]:
        yield f"seed is {seed}, not the {reply.asked['seed']} that was sent"
    if not 0 <= first <= reply.ended:
        yield f"time_to_first_token is {first} s, of {reply.ended:.3f} s in all"


def language(replies: Sequence[Reply]) -> Verdict:
    """Whether the answers are French. The stand-in's poor French is reported, and is no failure."""
    likely = [(reply.who, *likeliest(reply.text)) for reply in replies]
    seen = ", ".join(f"{name} {code} {probability:.0%}" for name, code, probability in likely)
    if notice := next((reply.metrics["notice"] for reply in replies if reply.metrics.get("notice")), ""):
        return Verdict(NOTE, "language", f"{seen}; not judged, for the endpoint says: {notice}")
    strays = [name for name, code, probability in likely if code != "fr" or probability < SURE]
    return judged("language", [f"not French: {', '.join(strays)} ({seen})"] if strays else [], seen)


def likeliest(text: str) -> tuple[str, float]:
    """The ISO 639 code of a text's language and its probability among LANGUAGES."""
    code, probability = identifier().rank(text)[0]
    return str(code), float(probability)


@functools.cache
def identifier() -> LanguageIdentifier:
    """Takes half a second to load."""
    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    identifier.set_languages(LANGUAGES)
    return identifier


def times(waited: float | None, replies: Sequence[Reply], again: Sequence[Reply]) -> Iterator[Verdict]:
    """How long the first answer took, and the others.

    Args:
        waited: seconds until the server was ready; none where nothing tells.
        again: more answers of the same length, of a server that is warm.
    """
    cold, *others = replies
    ready = "" if waited is None else f"ready after {waited:.1f} s, then "
    first = f"first text after {cold.times[0]:.2f} s"
    yield Verdict(NOTE, "cold", f"{ready}{first}, all after {cold.ended:.2f} s")
    if warm := [*others, *again]:
        first = f"first text after {statistics.median(reply.times[0] for reply in warm):.2f} s"
        whole = statistics.median(reply.ended for reply in warm)
        yield Verdict(NOTE, "warm", f"median of {len(warm)}: {first}, all after {whole:.2f} s")
