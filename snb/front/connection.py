"""One caller's connection."""

import asyncio
from typing import ClassVar

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

HURRY = 10.0
"""Seconds that the head of a request may take, and for which a caller may leave a reply unread."""
HEAD, PIECE = 16 * 1024, 4 * 1024
"""Most bytes of a head, and bytes that h11 is given at a time: 0.16 bounds only a head that is incomplete."""
MOST = 800
"""Most connections whose callers are waited for at once."""


class Connection(H11Protocol):
    """HTTP that drops callers who do not send a request, or do not read the reply, in time.

    uvicorn 0.54 waits for ever for a head, for a reader, and for the rest of a body that was refused; if a
    body is not HTTP it raises and logs the trace. Delete each part when uvicorn does it.
    """

    _waiting: ClassVar[dict["Connection", asyncio.TimerHandle]] = {}
    """Connections whose caller has to send or to read, with their timers, the longest-waiting first."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """See asyncio.Protocol."""
        super().connection_made(transport)
        self._wait()

    def connection_lost(self, error: Exception | None) -> None:
        """See asyncio.Protocol."""
        self._go_on()
        super().connection_lost(error)

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        for start in range(0, len(data), PIECE):
            if not self.transport.is_closing():
                super().data_received(data[start : start + PIECE])

    def pause_writing(self) -> None:
        """See asyncio.Protocol."""
        super().pause_writing()
        self._wait()

    def resume_writing(self) -> None:
        """See asyncio.Protocol."""
        super().resume_writing()
        self._look()

    def handle_events(self) -> None:
        """See H11Protocol; a request may have begun."""
        super().handle_events()
        self._look()

    def on_response_complete(self) -> None:
        """Waits for the next request, and answers it if it is there already."""
        self._wait()
        super().on_response_complete()

    def send_400_response(self, message: str) -> None:
        """Handles input that is not HTTP: replies 400 if no reply has begun, else closes the connection."""
        if self.cycle and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self._wait()
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            super().send_400_response(message)
        else:
            self.transport.close()

    def _look(self) -> None:
        """Stops the timer if it is now the caller who waits for the server."""
        answering = self.cycle and not self.cycle.response_complete
        if answering and not self.flow.write_paused and not self.transport.is_closing():
            self._go_on()

    def _wait(self) -> None:
        """Gives the caller HURRY seconds; above MOST connections, drops the one that has waited longest."""
        self._go_on()
        self._waiting[self] = self.loop.call_later(HURRY, self.transport.abort)
        if len(self._waiting) > MOST:
            oldest = next(iter(self._waiting))
            oldest._go_on()
            oldest.transport.abort()

    def _go_on(self) -> None:
        if timer := self._waiting.pop(self, None):
            timer.cancel()
