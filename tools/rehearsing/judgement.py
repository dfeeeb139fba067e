"""What the answers of a smoke test show once they are here. Asks nothing."""

import statistics
from collections.abc import Iterator, Sequence

from tools.rehearsing.language import likeliest
from tools.rehearsing.reply import Reply
from tools.rehearsing.verdict import NOTE, OK, Verdict, judged, plain

METRICS = ("input_token_count", "output_token_count", "finish_reason", "seed", "time_to_first_token")
"""Those that callers rely on; see the README."""
WHOLE = ("stop", "stop_sequence", "length", "loop")
"""Reasons for which an answer ends by itself."""
SPREAD = 0.5
"""Share of the time of writing over which text has to come. What is held back comes at once."""
SURE = 0.5
"""Probability from which a language counts as found."""
EXCERPT = 60
"""Characters of an answer that are shown."""


def answer(reply: Reply) -> Verdict:
    """That there is one, and how it begins."""
    tokens = reply.metrics.get("output_token_count", "?")
    text = plain(reply.text)
    shown = text if len(text) <= EXCERPT else f"{text[:EXCERPT]}…"
    seen = f"{tokens} tokens, first text {reply.first:.2f} s, all {reply.ended:.2f} s: « {shown} »"
    return Verdict(OK, who(reply), seen)


def stream(replies: Sequence[Reply]) -> Verdict:
    """Whether text comes in pieces, and while the rest is being written.

    That the pieces come apart is asked of one answer only: a client that was kept from reading for a moment
    finds several at once.
    """
    faults = [f"{who(reply)}'s answer came in one piece" for reply in replies if len(reply.pieces) < 2]
    best = max(replies, key=share)
    came, written = best.times[-1] - best.first, writing(best)
    if not faults and share(best) < SPREAD:
        fault = f"all text came within {came:.2f} s at the end, but was written over {written:.2f} s"
        faults = [f"{fault}: something on the way holds it back (a proxy that buffers?)"]
    pieces = ", ".join(str(len(reply.pieces)) for reply in replies)
    return judged("stream", faults, f"{pieces} pieces; those of {who(best)} came over {came:.2f} s")


def share(reply: Reply) -> float:
    """The time over which the text came, in times that over which it was written; 1 where that is unknown."""
    written = writing(reply)
    return (reply.times[-1] - reply.first) / written if written > 0 else 1.0


def writing(reply: Reply) -> float:
    """Seconds from the first token to the last, as the server has measured them; 0 where it did not."""
    tokens, rate = (reply.metrics.get(name) for name in ("output_token_count", "tokens_per_second"))
    first = reply.metrics.get("time_to_first_token")
    if not (isinstance(tokens, int | float) and isinstance(rate, int | float) and rate > 0):
        return 0.0
    return tokens / rate - first if isinstance(first, int | float) else 0.0


def metrics(replies: Sequence[Reply]) -> Verdict:
    """Whether every metric that callers rely on is there and can be true."""
    faults = [f"{who(reply)}: {fault}" for reply in replies for fault in metric_faults(reply)]
    shown = ", ".join(f"{name} {replies[0].metrics.get(name)}" for name in METRICS)
    return judged("metrics", faults, shown)


def metric_faults(reply: Reply) -> Iterator[str]:
    """What is wrong with the metrics of one answer, as sentences."""
    found, asked = reply.metrics, reply.asked
    if missing := [name for name in METRICS if name not in found]:
        yield f"no {', '.join(missing)}"
        return
    least, most = asked.get("min_tokens", 1), asked["max_tokens"]
    if not number(found["input_token_count"]) or found["input_token_count"] < 1:
        yield f"input_token_count is {found['input_token_count']}"
    if not number(found["output_token_count"]) or not least <= found["output_token_count"] <= most:
        yield f"output_token_count is {found['output_token_count']}, not {least} to {most}"
    if found["finish_reason"] not in WHOLE:
        yield f"finish_reason is {found['finish_reason']}: the answer is not whole"
    if found["seed"] != asked["seed"]:
        yield f"seed is {found['seed']}, not the {asked['seed']} that was sent"
    first = found["time_to_first_token"]
    if not number(first) or not 0 <= first <= reply.ended:
        yield f"time_to_first_token is {first} s, of {reply.ended:.3f} s in all"


def number(value: object) -> bool:
    """Whether a metric is a figure."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def language(replies: Sequence[Reply]) -> Verdict:
    """Whether the answers are French. The stand-in's poor French is reported, and is no failure."""
    found = [(who(reply), *likeliest(reply.text)) for reply in replies]
    seen = ", ".join(f"{name} {code} {probability:.0%}" for name, code, probability in found)
    if notice := next((reply.metrics["notice"] for reply in replies if reply.metrics.get("notice")), ""):
        return Verdict(NOTE, "language", f"{seen}; not judged, for the endpoint says: {notice}")
    strays = [name for name, code, probability in found if code != "fr" or probability < SURE]
    return judged("language", [f"not French: {', '.join(strays)} ({seen})"] if strays else [], seen)


def times(waited: float | None, replies: Sequence[Reply], again: Sequence[Reply]) -> Iterator[Verdict]:
    """How long the first answer took, and the others.

    Args:
        waited: seconds until the server was ready; none where nothing tells.
        again: more answers of the same length, of a server that is warm.
    """
    cold, *others = replies
    ready = "" if waited is None else f"ready after {waited:.1f} s, then "
    yield Verdict(NOTE, "cold", f"{ready}first text after {cold.first:.2f} s, all after {cold.ended:.2f} s")
    if warm := [*others, *again]:
        first = statistics.median(reply.first for reply in warm)
        whole = statistics.median(reply.ended for reply in warm)
        seen = f"median of {len(warm)}: first text after {first:.2f} s, all after {whole:.2f} s"
        yield Verdict(NOTE, "warm", seen)


def who(reply: Reply) -> str:
    """The philosopher that was asked."""
    return str(reply.asked["philosopher"])
