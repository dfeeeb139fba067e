"""Work that ends in bounded time, whatever the other side does: a server can also stall, or drip."""

import queue
import threading
from collections.abc import Callable
from typing import TypeVar

from tools.endpoints.endpoint import Failed

T = TypeVar("T")


def within(seconds: float, work: Callable[[], T]) -> T:
    """What `work` returns, or raises.

    Raises:
        Failed: it has not ended after so many seconds. Its thread is left behind, and ends with the process.
    """
    ended: queue.SimpleQueue[tuple[T | None, BaseException | None]] = queue.SimpleQueue()

    def run() -> None:
        try:
            ended.put((work(), None))
        except BaseException as error:  # handed on to whoever waits
            ended.put((None, error))

    threading.Thread(target=run, daemon=True).start()
    try:
        value, error = ended.get(timeout=seconds)
    except queue.Empty:
        raise Failed(f"no end within {seconds:g} s") from None
    if error:
        raise error
    return value  # type: ignore[return-value]
