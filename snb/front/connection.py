"""One caller's connection."""

import asyncio
from typing import ClassVar

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

HURRY = 10.0
"""Seconds that the head of a request may take, and for which a caller may leave a reply unread."""
HEAD, PIECE = 16 * 1024, 4 * 1024
"""Bytes of a head, and those that h11 is given at a time: 0.16 bounds only what is not a whole head yet."""
MOST = 800
"""Connections whose callers are waited for."""


class Connection(H11Protocol):
    """HTTP, for callers who say in time what they want, and read what they are told.

    uvicorn 0.54 waits for ever for a head, for a reader, and for the rest of a body that was refused; where a
    body is no HTTP it raises and logs the trace. Delete each part when uvicorn does it.
    """

    _waiting: ClassVar[dict["Connection", asyncio.TimerHandle]] = {}
    """Those whose turn it is to speak or to read, the longest first."""

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
        """A request may have begun."""
        super().handle_events()
        self._look()

    def on_response_complete(self) -> None:
        """The next request is awaited, and answered if it is there already."""
        self._wait()
        super().on_response_complete()

    def send_400_response(self, message: str) -> None:
        """What came is no HTTP. Only who has been told nothing yet is told."""
        if self.cycle and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self._wait()
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            super().send_400_response(message)
        else:
            self.transport.close()

    def _look(self) -> None:
        """Whether the caller is the one who waits."""
        answering = self.cycle and not self.cycle.response_complete
        if answering and not self.flow.write_paused and not self.transport.is_closing():
            self._go_on()

    def _wait(self) -> None:
        """For HURRY seconds, if not too many others come."""
        self._go_on()
        self._waiting[self] = self.loop.call_later(HURRY, self.transport.abort)
        if len(self._waiting) > MOST:
            oldest = next(iter(self._waiting))
            oldest._go_on()
            oldest.transport.abort()

    def _go_on(self) -> None:
        if timer := self._waiting.pop(self, None):
            timer.cancel()
