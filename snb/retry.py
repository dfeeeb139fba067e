"""Patience with a hub: what may pass is tried again, later and later; what will not is raised at once."""

import logging
import random
from collections.abc import Callable, Iterator
from typing import TypeVar

import httpx2  # the client inside huggingface_hub; its errors come through unwrapped
from huggingface_hub.errors import HfHubHTTPError

logger = logging.getLogger(__name__)
T = TypeVar("T")
ATTEMPTS = 5
LONGEST_PAUSE = 60.0
"""Seconds; the hub's own Retry-After may ask for more."""


class Passing(Exception):
    """A fault of a transfer that another attempt may cure; its text names no address and no secret."""


FAULTS = (Passing, httpx2.HTTPError, OSError, RuntimeError)
"""What a transfer can end in; RuntimeError is what hf_xet raises."""


def patiently(what: str, call: Callable[[], T], sleep: Callable[[float], None]) -> T:
    """Calls until it works, at most `ATTEMPTS` times; pauses double, with jitter, and honour Retry-After.

    Raises:
        whatever of `FAULTS` the last call raised, or the first one that will not pass.
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
    """Lost connections, 408, 429 and 5xx pass; other answers, and faults of this machine's disk, do not."""
    answered = status(error)
    if answered is not None:
        return answered in (408, 429) or answered >= 500
    return not any(isinstance(link, OSError) and link.errno for link in _chain(error))


def status(error: BaseException) -> int | None:
    """The HTTP status of the hub's answer, if it gave one."""
    return next((answer.status_code for answer in _answers(error)), None)


def retry_after(error: BaseException) -> float:
    """Seconds that the hub asks to wait; 0 where it names none, or a date."""
    asked = next((answer.headers.get("Retry-After", "") for answer in _answers(error)), "")
    return float(asked) if asked.isascii() and asked.isdigit() else 0.0


def reason(error: BaseException) -> str:
    """What went wrong in a few words, without the address: a signed one would be a secret."""
    answered = status(error)
    if answered is not None:
        return f"the hub answered {answered}"
    if isinstance(error, Passing):
        return str(error)
    for link in _chain(error):
        if isinstance(link, httpx2.NetworkError | httpx2.TimeoutException):
            return str(link) or type(link).__name__
        if isinstance(link, OSError) and link.strerror:
            return link.strerror
    return type(error).__name__


def _answers(error: BaseException) -> Iterator[httpx2.Response]:
    return (link.response for link in _chain(error) if isinstance(link, HfHubHTTPError))


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and its causes: the library hides the hub's answer behind errors of its own."""
    while error is not None:
        yield error
        error = error.__cause__
