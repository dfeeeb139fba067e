"""Work that ends in bounded time, whatever the other side does: a server can also stall, or drip."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from tools.endpoints.endpoint import Failed

T = TypeVar("T")


def within(seconds: float, work: Callable[[], T]) -> T:
    """What `work` returns, or raises.

    Raises:
        Failed: it has not ended after so many seconds. Its thread is left behind, and ends with the process.
    """
    ended: Future[T] = Future()

    def run() -> None:
        try:
            ended.set_result(work())
        except BaseException as error:  # handed on to whoever waits
            ended.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    try:
        return ended.result(timeout=seconds)
    except TimeoutError:
        raise Failed(f"no end within {seconds:g} s") from None
