"""Retries transient failures of a hub with exponential back-off; raises all others at once."""

import logging
import random
from collections.abc import Callable, Iterator
from typing import TypeVar

import httpx2  # the client inside huggingface_hub; its errors come through unwrapped
from huggingface_hub.errors import FileMetadataError, HfHubHTTPError
from huggingface_hub.utils import parse_ratelimit_headers

logger = logging.getLogger(__name__)
T = TypeVar("T")
ATTEMPTS = 5
LONGEST_PAUSE = 60.0
"""Seconds; the hub itself may ask for more."""


class Passing(Exception):
    """A transient fault of a transfer; its text holds no address and no secret."""


class Foreign(Exception):
    """An answer that is not a hub's, but a login page's or a proxy's. Its text is one line."""


FAULTS = (Passing, Foreign, httpx2.HTTPError, OSError, RuntimeError)
"""What a transfer can raise; RuntimeError comes from hf_xet."""


def patiently(what: str, call: Callable[[], T], sleep: Callable[[float], None]) -> T:
    """Calls until it works, at most `ATTEMPTS` times. Pauses double, with jitter, or are what the hub asks.

    Raises:
        one of `FAULTS`: that of the last call, or the first that is not transient.
    """
    for attempt in range(1, ATTEMPTS):
        try:
            return call()
        except FAULTS as error:
            if not may_pass(error):
                raise
            doubled = min(LONGEST_PAUSE, 2.0**attempt) * random.uniform(0.5, 1.0)
            pause = max(doubled, retry_after(error))
            logger.warning("%s: %s; attempt %d in %.0f s", what, reason(error), attempt + 1, pause)
            sleep(pause)
    return call()


def may_pass(error: BaseException) -> bool:
    """Whether a fault is transient: lost connections, 408, 429, 5xx, but no other status, nor disk errors."""
    if foreign(error):
        return False
    answered = status(error)
    if answered is not None:
        return answered in (408, 429) or answered >= 500
    return not any(isinstance(link, OSError) and link.errno for link in _chain(error))


def status(error: BaseException) -> int | None:
    """The HTTP status of the hub's answer, if it gave one."""
    return next((answer.status_code for answer in _answers(error)), None)


def retry_after(error: BaseException) -> float:
    """Seconds that the hub asks to wait, by Retry-After or RateLimit; 0 if it names none, or a date."""
    answer = next(_answers(error), None)
    if answer is None:
        return 0.0
    asked, limit = answer.headers.get("Retry-After", ""), parse_ratelimit_headers(answer.headers)
    after = float(asked) if asked.isascii() and asked.isdigit() else 0.0
    return max(after, limit.reset_in_seconds) if limit and not limit.remaining else after


def foreign(error: BaseException) -> bool:
    """Whether something other than a hub has answered."""
    return any(isinstance(link, Foreign | FileMetadataError) for link in _chain(error))


def reason(error: BaseException) -> str:
    """What went wrong, in a few words, without the address, since a signed one is a secret."""
    answered = status(error)
    if answered is not None:
        return f"the hub answered {answered}"
    if isinstance(error, Passing | Foreign):
        return str(error)
    if foreign(error):
        return "what answered has not the headers of a hub"
    for link in _chain(error):
        if isinstance(link, httpx2.NetworkError | httpx2.TimeoutException):
            return str(link) or type(link).__name__
        if isinstance(link, OSError) and link.strerror:
            return link.strerror
        if type(link) is OSError:  # what huggingface_hub 2.4 raises for a file of another size than declared
            return "a file came in another size than was declared"
    return type(error).__name__


def _answers(error: BaseException) -> Iterator[httpx2.Response]:
    return (link.response for link in _chain(error) if isinstance(link, HfHubHTTPError))


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and its causes: the library hides the hub's answer behind errors of its own."""
    while error is not None:
        yield error
        error = error.__cause__
