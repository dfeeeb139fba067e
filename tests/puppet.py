"""A service without a model, behind the contract of predict.py and Cog's own server: it boots in a second.

Its setup, its health and its answers wait for files in the server's folder; see tests/hosts.py.
"""

import secrets
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from cog import CancelationException

from snb import cancel, errors
from snb.request import Request

ERRORS: dict[str, type[errors.SNBError]] = {
    one.code: one
    for one in vars(errors).values()
    if isinstance(one, type) and issubclass(one, errors.SNBError)
}
TEXT = "La liberté, "
POLL = 0.02
"""Seconds."""


class Service:
    """In place of snb.service.Service. It waits for `set-up`, fails with `fail`, and is ill with `sick`."""

    def __init__(self, _: object) -> None:
        cancel.install()
        while not Path("set-up").exists():
            time.sleep(POLL)
        if Path("fail").exists():
            raise error("WEIGHTS_MISSING")

    @property
    def healthy(self) -> bool:
        return not Path("sick").exists()

    def answer(self, request: Request, record: Callable[[str, int], None]) -> Iterator[str]:
        """What the question says: `Dis …`, the code of an error, which is raised, or `CODE late`.

        Any other is answered with as many numbers as tokens; after the first they wait for `go-on`.
        """
        word, _, rest = request.user_message.partition(" ")
        if word in ERRORS and not rest:
            raise error(word)
        record("seed", request.seed or 0)
        if word == "Dis":
            return (letter for letter in rest)  # Cog streams from a generator alone
        if word in ERRORS:
            return broken_off(word)
        canceled = threading.Event()
        cancel.current().then(canceled.set)
        return numbers(request.sampling.max_tokens, canceled)


def broken_off(code: str) -> Iterator[str]:
    """Some text, then the error."""
    yield TEXT
    raise error(code)


def numbers(count: int, canceled: threading.Event) -> Iterator[str]:
    """Leaves a file `canceled-…` where it is canceled."""
    for number in range(count):
        while number and not Path("go-on").exists():
            if canceled.wait(POLL):
                Path(f"canceled-{secrets.token_hex(8)}").touch()
                raise CancelationException
        yield f"{number} "


def error(code: str) -> errors.SNBError:
    """An error of that code, with a fault and a cure as all have them."""
    return ERRORS[code](["an input has a fault", "another: has one too"], "Allowed is 1 to 10: try 5")
