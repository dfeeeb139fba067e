"""Makes a cancel, and a dropped connection, stop an answer that is already streaming.

The fault: coglet 0.23.1 cancels a prediction, also when its connection drops, through the future of
`asyncio.run_coroutine_threadsafe`. Here the coroutine only returns a generator, so by then that future is
done, and cannot be cancelled any more: the prediction is marked canceled and its generator runs on.

The workaround: the future's `cancel()` also calls the listeners of that prediction. Delete this file when
coglet stops iterating a generator whose prediction was canceled.
"""

import asyncio
import concurrent.futures
import logging
import threading
from collections.abc import Callable, Coroutine
from contextvars import ContextVar
from importlib import metadata
from typing import Any

log = logging.getLogger(__name__)

KNOWN = ("0.23.0", "0.23.1")
"""Versions of coglet that have the fault and with which the workaround was tested."""


class Cancellation:
    """Whether one prediction was canceled, and the listeners to call when it is."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._canceled = False
        self._listeners: list[Callable[[], None]] = []

    def then(self, listener: Callable[[], None]) -> None:
        """Registers a listener for the cancel, and calls it at once if that has happened already."""
        with self._lock:
            if not self._canceled:
                self._listeners.append(listener)
                return
        listener()

    def cancel(self) -> None:
        """Calls every listener, once."""
        with self._lock:
            first, self._canceled = not self._canceled, True
        if first:
            for listener in self._listeners:
                listener()


_current: ContextVar[Cancellation | None] = ContextVar("cancellation", default=None)
_submit = asyncio.run_coroutine_threadsafe


def current() -> Cancellation:
    """The cancellation of the current coroutine's prediction; outside any, one that never happens."""
    return _current.get() or Cancellation()


def install() -> None:
    """Installs the workaround, with a warning if it was not tested with this version of coglet."""
    asyncio.run_coroutine_threadsafe = _submit_cancellable  # type: ignore[assignment]
    version = metadata.version("coglet")
    if version not in KNOWN:
        log.warning("coglet %s: cancel may not stop an answer before its deadline", version)


def _submit_cancellable(
    coroutine: Coroutine[Any, Any, Any], loop: asyncio.AbstractEventLoop
) -> "concurrent.futures.Future[Any]":
    cancellation = Cancellation()

    async def within() -> Any:
        _current.set(cancellation)
        return await coroutine

    future = _submit(within(), loop)
    cancel_future = future.cancel

    def cancel() -> bool:
        cancellation.cancel()
        return cancel_future()

    future.cancel = cancel  # type: ignore[method-assign]
    return future
