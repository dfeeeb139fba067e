"""What goes wrong on the way to Replicate, on demand, and a log of what was asked: wraps the whole server.

A fault befalls the next `times` requests of its method whose path begins with its path. Those that an API
answers have the bodies of https://replicate.com/docs: 402 as of topics/billing/prepaid-credit, 429 of
topics/predictions/rate-limits. Those of proxies and networks are any.
"""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

KEPT = ("accept", "cancel-after", "content-type", "last-event-id", "prefer", "user-agent")
"""Headers that the log keeps; of the token only whether one came."""
PAUSE = 0.02
"""Seconds between the two parts of an event that is sent in two, so that they are read apart."""
PROBLEMS = {
    402: {
        "title": "Insufficient credit",
        "detail": "You have insufficient credit to run this model. Go to "
        "https://replicate.com/account/billing#billing to purchase credit. Once you purchase credit, please "
        "wait a few minutes before trying again.",
        "status": 402,
    },
    429: {"detail": "Request was throttled. Your rate limit resets in ~30s.", "status": 429},
    500: {"detail": "Internal server error", "status": 500},
    503: {"detail": "Service unavailable", "status": 503},
    524: "<!DOCTYPE html><html><head><title>replicate.com | 524: A timeout occurred</title></head></html>",
}
"""Bodies of faults that name only a status. A proxy's timeout is a page, not JSON."""


@dataclass(frozen=True)
class Cut:
    """What happens to a stream after `after` whole events.

    Args:
        inside: `event` sends a part of the next one; `character` sends the next one that has a character
            of several bytes up to the middle of that; empty sends nothing of it.
        then: `end` closes the reply as if it were whole, `drop` the connection; `resume` sends the rest.
    """

    after: int = 0
    inside: str = ""
    then: str = "end"

    def __post_init__(self) -> None:
        if self.inside not in ("", "event", "character") or self.then not in ("end", "drop", "resume"):
            raise TypeError("cut takes inside: '', 'event' or 'character'; then: 'end', 'drop' or 'resume'")

    def position(self, sent: int, event: bytes) -> int | None:
        """Where to cut an event that `sent` others came before, or None to let it pass."""
        if sent < self.after:
            return None
        if self.inside == "character":
            return next((index + 1 for index, byte in enumerate(event) if byte >= 0xC0), None)
        return event.find(b"data:") + len(b"dat") if self.inside else 0


@dataclass
class Fault:
    """One kind of request and what befalls it.

    Args:
        status: the reply, in place of the server's; with `headers` and `body` (an object is sent as JSON,
            a text as a page).
        delay: seconds before the first byte of the reply.
        drop: the request is carried out, and the connection closed without a reply.
        cold: the prediction that is created waits so many seconds for its instance.
        setup_failed: and that instance's `setup()` fails.
        cut: see `Cut`.
    """

    method: str
    path: str
    times: int = 1
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    body: Any = None
    delay: float = 0
    drop: bool = False
    cold: float = 0
    setup_failed: bool = False
    cut: Cut | None = None

    def __post_init__(self) -> None:
        if isinstance(self.cut, Mapping):
            self.cut = Cut(**self.cut)

    def takes(self, method: str, path: str) -> bool:
        """Whether a request meets it; uses it once if so."""
        met = self.times > 0 and self.method == method and path.startswith(self.path)
        self.times -= met
        return met

    def answer(self) -> tuple[bytes, dict[str, str]]:
        """Body and headers of the reply with its status."""
        body = PROBLEMS.get(self.status or 0, "") if self.body is None else self.body
        text = body if isinstance(body, str) else json.dumps(body)
        kind = "text/html; charset=utf-8" if isinstance(body, str) else "application/problem+json"
        return text.encode(), {
            "content-type": kind,
            **{name.lower(): self.headers[name] for name in self.headers},
        }


class Faults:
    """Logs every request to `app` but those of the control endpoint, and spoils those that meet a fault."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self.pending: list[Fault] = []
        self.log: list[dict[str, Any]] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].startswith("/_test/"):
            await self._app(scope, receive, send)
            return
        body = await whole(receive)
        entry = self._entry(scope, body)
        fault = next((fault for fault in self.pending if fault.takes(scope["method"], scope["path"])), None)
        if fault is None:
            fault = Fault(scope["method"], scope["path"])
        scope["fault"] = fault
        reply = Reply(fault, entry, send)
        if fault.status is None:
            await self._app(scope, again(body, receive), reply)
        else:
            content, headers = fault.answer()
            raw = [(name.encode(), value.encode()) for name, value in headers.items()]
            await reply({"type": "http.response.start", "status": fault.status, "headers": raw})
            await reply({"type": "http.response.body", "body": content})

    def _entry(self, scope: Scope, body: bytes) -> dict[str, Any]:
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        try:
            content = json.loads(body) if body else None
        except ValueError:
            content = body.decode(errors="replace")
        entry = {
            "method": scope["method"],
            "path": scope["path"],
            "authorized": "authorization" in headers,
            "headers": {name: headers[name] for name in KEPT if name in headers},
            "body": content,
            "status": None,  # of the reply, once there is one
        }
        self.log.append(entry)
        return entry

    def shown(self) -> list[dict[str, Any]]:
        """The faults that are still to come."""
        return [asdict(fault) for fault in self.pending if fault.times > 0]


class Reply:
    """The `send` of one request, spoiled as its fault says."""

    def __init__(self, fault: Fault, entry: dict[str, Any], send: Send) -> None:
        self._fault, self._entry, self._send = fault, entry, send
        self._sent = 0
        self._over = False

    async def __call__(self, message: Message) -> None:
        if self._over:
            return
        if message["type"] == "http.response.start":
            await asyncio.sleep(self._fault.delay)
            if self._fault.drop:
                await self._drop()
                return
            self._entry["status"] = message["status"]
        elif self._fault.cut and message.get("body"):
            await self._cut(self._fault.cut, message)
            return
        await self._send(message)

    async def _cut(self, cut: Cut, message: Message) -> None:
        position = cut.position(self._sent, message["body"])
        self._sent += 1
        if position is None:
            await self._send(message)
            return
        part, rest = message["body"][:position], message["body"][position:]
        if part:
            await self._send({"type": "http.response.body", "body": part, "more_body": True})
            await asyncio.sleep(PAUSE)
        if cut.then == "resume":
            await self._send({**message, "body": rest})
        elif cut.then == "drop":
            await self._drop()
        else:
            self._over = True
            await self._send({"type": "http.response.body", "body": b""})

    async def _drop(self) -> None:
        # ASGI has no message for a connection that breaks; uvicorn's `send` is a method of what holds it.
        self._over = True
        cycle = self._send.__self__  # type: ignore[attr-defined]
        cycle.transport.abort()
        while not cycle.disconnected:
            await asyncio.sleep(0)


async def whole(receive: Receive) -> bytes:
    """The body of a request."""
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return body


def again(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives a body that was read, then what comes after it."""
    first: list[Message] = [{"type": "http.request", "body": body}]

    async def given() -> Message:
        return first.pop() if first else await receive()

    return given
