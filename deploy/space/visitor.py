"""Who asks, as far as can be told, when they came, and how many answers a visitor may have at once."""

import contextlib
import hashlib
import secrets
import time
from collections import Counter
from collections.abc import Iterator

from gradio.context import LocalContext
from refusal import Refusal

VISITORS = 64
"""Answers at once, enough for two classes. By default Gradio runs one at a time per endpoint, so that thirty
would queue whatever the backend can do, and 40 in all, waiting questions included. An endpoint here is a
coroutine that waits for its backend, so one more costs little; what a backend cannot take waits there."""
OF_ONE_VISITOR = 4
"""Answers that a visitor can always have if there is room; beyond them, as many as there are free places."""
KEY = secrets.token_bytes(16)
"""Random in each process, so that nobody can find an address by its hash."""

_answers: Counter[str] = Counter()


def visitor() -> str:
    """A hash of the tab (the page names its sessions `tab-number`), of another session, or of the address.

    Gradio's /call has no session: programs call it, and one of them may ask for a whole class.
    """
    request = LocalContext.request.get(None)
    if request is None:
        return ""
    session = request.session_hash if request.session_hash != LocalContext.event_id.get(None) else ""
    name = session.partition("-")[0] if session else request.client.host
    return hashlib.blake2b(name.encode(), key=KEY, digest_size=16).hexdigest()


def came() -> float:
    """When the question arrived, in monotonic seconds; it may have waited in Gradio's queue since."""
    request = LocalContext.request.get(None)
    return request.request.scope["came"] if request and request.request else time.monotonic()


@contextlib.contextmanager
def turn() -> Iterator[None]:
    """Counts one answer of this visitor while it is being made.

    Raises:
        Refusal: BUSY, if the places that are left are for others.
    """
    who = visitor()
    if _answers[who] >= max(OF_ONE_VISITOR, VISITORS - _answers.total()):
        raise Refusal("BUSY", "this visitor has as many answers as they may have at once")
    _answers[who] += 1
    try:
        yield
    finally:
        _answers[who] -= 1
        if not _answers[who]:
            del _answers[who]
