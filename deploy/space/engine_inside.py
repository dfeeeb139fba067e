"""The engine in this process: a `snb.service.Service`, loaded while the page is already up."""

import asyncio
import contextvars
import logging
import threading
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from cog import CancelationException
from refusal import Refusal, of_error

from snb.cancel import Cancellation
from snb.errors import SNBError
from snb.request import Request
from snb.service import Record, Service

log = logging.getLogger("space")


class EngineInside:
    """Each answer has a thread, which mostly waits for the decode thread.

    Args:
        load: makes the service; it takes minutes for the 14B, so it runs in a thread of its own.
        visitors: answers at once; with fewer threads, questions would wait before the engine sees them.
    """

    def __init__(self, load: Callable[[], Service], visitors: int) -> None:
        self._service: Service | None = None
        self._fault = ""
        self._threads = ThreadPoolExecutor(visitors, thread_name_prefix="answer")
        threading.Thread(target=self._load, args=[load], name="boot", daemon=True).start()

    def _load(self, load: Callable[[], Service]) -> None:
        try:
            self._service = load()
        except Exception as error:
            # Our own errors say what to fix; the text of any other could hold a path or an address.
            self._fault = error.code if isinstance(error, SNBError) else type(error).__name__
            log.error("the engine did not load: %s", error if isinstance(error, SNBError) else self._fault)

    async def ask(self, inputs: dict[str, Any], say: Callable[..., None]) -> AsyncGenerator[str, None]:
        """The answer, piece by piece. See `backend.Backend`."""
        if self._fault:
            raise Refusal("BACKEND_FAILED", f"the engine did not load ({self._fault})")
        if not self._service:
            raise Refusal("COLD_START", "the model is being loaded")
        loop = asyncio.get_running_loop()
        pieces: asyncio.Queue[str | Refusal | None] = asyncio.Queue()
        cancellation = Cancellation()

        def send(piece: str | Refusal | None) -> None:
            loop.call_soon_threadsafe(pieces.put_nowait, piece)

        def record(name: str, value: float | int | str) -> None:
            loop.call_soon_threadsafe(context.run, say, name, value)

        context = contextvars.copy_context()  # it tells Gradio whom to notify
        self._threads.submit(answer, self._service, inputs, record, cancellation, send)
        try:
            while (piece := await pieces.get()) is not None:
                if isinstance(piece, Refusal):
                    raise piece
                yield piece
        finally:
            cancellation.cancel()  # harmless if the answer has ended

    async def close(self) -> None:
        """Lets no more answers begin; those in progress end with the process."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def answer(
    service: Service,
    inputs: dict[str, Any],
    record: Record,
    cancellation: Cancellation,
    send: Callable[[str | Refusal | None], None],
) -> None:
    """Sends one answer piece by piece, or a Refusal, and then None; runs in a thread."""
    try:
        for piece in service.answer(Request.checked(**inputs), record, cancellation):
            send(piece)
    except CancelationException:
        pass
    except SNBError as error:
        send(of_error(error))
    except Exception as error:
        log.error("an answer failed: %s", type(error).__name__)
        send(Refusal("BACKEND_FAILED", "the engine could not answer"))
    finally:
        send(None)
