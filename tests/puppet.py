"""A service without a model, behind predict.py and Cog's own server: it boots in a second.

Files in the server's folder control its setup, its health and its answers; see `puppet` of tests/hosts.py.
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
"""Seconds between two looks for a file."""


class Service:
    """Replaces snb.service.Service. It waits for the file `set-up`, fails with `fail`, is ill with `sick`."""

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
        """Repeats the text after `Dis`, or raises the error of a code, after some text if `late` follows it.

        Any other question is answered with max_tokens numbers; after the first they wait for `go-on`.
        """
        word, _, rest = request.user_message.partition(" ")
        if word in ERRORS and not rest:
            raise error(word)
        record("seed", request.seed or 0)
        if word == "Dis":
            return (letter for letter in rest)  # Cog streams only from a generator
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
    """Yields `count` numbers; creates a file `canceled-…` if it is canceled."""
    for number in range(count):
        while number and not Path("go-on").exists():
            if canceled.wait(POLL):
                Path(f"canceled-{secrets.token_hex(8)}").touch()
                raise CancelationException
        yield f"{number} "


def error(code: str) -> errors.SNBError:
    """An error of that code, with two faults and a cure."""
    return ERRORS[code](["an input has a fault", "another: has one too"], "Allowed is 1 to 10: try 5")
