"""The routes that the existing front end calls besides those of Gradio 6, and the replies that it expects.

| Asked at, with or without /gradio_api | With                       | Reply                               |
|---------------------------------------|----------------------------|-------------------------------------|
| /call/CHAT                            | `data` alone               | Gradio's own, `event_id` and events |
| /call/CHAT                            | `session_hash`             | the same, with `process_completed`  |
| /call/CHAT                            | `session_hash`, `fn_index` | the answer, when it is whole        |
| /run/CHAT, /api/CHAT, /predict/CHAT   |                            | the answer, when it is whole        |
| /run/predict, /api/predict            |                            | the answer, when it is whole        |
"""

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from starlette.responses import JSONResponse, Response

CHATS = {
    "chat_function": "spinoza",
    "chat_spinoza": "spinoza",
    "chat_bergson": "bergson",
    "chat_kant": "kant",
}
"""The endpoints that its versions call, and who answers if the message names nobody."""
BARE = re.compile(r"/(?:info|call|run|api|predict|queue|cancel|reset|heartbeat)(?:/|$)")
"""Paths that had no prefix before Gradio 5."""
WHOLE = re.compile(r"/gradio_api/(?:run|api|predict)/(\w+)/?")
CALL = re.compile(r"/gradio_api/call/(chat_\w+?)/?")
FOLLOWED = "followed_"
"""Prefix of the id of an event whose reader waits for `process_completed`."""
GRACE = 1.0
"""Seconds between `process_completed` and the end: a reader that gets both at once repeats the request."""

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]


def prefixed(path: str) -> str:
    """A path as Gradio 6 has it; one version of the front end doubles a slash, as in //chat_function."""
    path = re.sub("//+", "/", path)
    return f"/gradio_api{path}" if BARE.match(path) else path


def by_whom(path: str, document: dict[str, Any]) -> str:
    """How the answer is awaited: "whole" or "followed" by the existing front end, "" by Gradio's clients."""
    # Gradio's clients send neither fn_index nor session_hash to /call.
    if WHOLE.fullmatch(path) or (CALL.fullmatch(path) and {"fn_index", "session_hash"} <= document.keys()):
        return "whole"
    return "followed" if CALL.fullmatch(path) and "session_hash" in document else ""


class Routes:
    """Stands before Gradio and calls its /call, so that its queue and its limits hold for all alike."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """One request, as ASGI calls it."""
        path, whom = scope.get("path", ""), scope.get("whom")
        head, found, event = path.rpartition(f"/{FOLLOWED}")
        if whom:
            reply = await self._asked(scope, receive, whom == "whole")
            await reply(scope, receive, send)
        elif found:
            await self._app({**scope, "path": f"{head}/{event}"}, receive, processed(send))
        else:
            await self._app(scope, receive, send)

    async def _asked(self, scope: Message, receive: Receive, whole: bool) -> Response:
        name = scope["path"].strip("/").rpartition("/")[2]
        call = {**scope, "path": f"/gradio_api/call/{name if name in CHATS else 'chat_function'}"}
        status, joined = await last_of(self._app, call, receive)
        if status != 200:
            return Response(joined, status, media_type="application/json")
        event = json.loads(joined)["event_id"]
        if not whole:
            return JSONResponse({"event_id": FOLLOWED + event})
        events = {**call, "method": "GET", "path": f"{call['path']}/{event}"}
        _, last = await last_of(self._app, events, receive)
        kind, data = parsed(last)
        if kind != "complete":
            return JSONResponse(data if isinstance(data, dict) else {"error": data}, 500)
        return JSONResponse({"data": data, "is_generating": False, "event_id": event})


async def last_of(app: App, scope: Message, receive: Receive) -> tuple[int, bytes]:
    """The status of a reply, and its body's last piece: all of a short one, or a stream's last event."""
    status, last = 500, b""

    async def send(message: Message) -> None:
        nonlocal status, last
        status, last = message.get("status", status), message.get("body") or last

    await app(scope, receive, send)
    return status, last


def parsed(event: bytes) -> tuple[str, Any]:
    """The kind and the data of an event of /call."""
    kind, _, data = event.decode().strip().partition("\ndata: ")
    return kind.removeprefix("event: "), json.loads(data or "null")


def processed(send: Send) -> Send:
    """Adds the final message of Gradio's queue to an answer's end: some versions wait for it at /call."""

    async def sent(message: Message) -> None:
        kind, data = parsed(message.get("body", b""))
        if kind == "complete":
            message["body"] += told(msg="process_completed", output={"data": data})
        elif kind == "error":
            fault = data.get("error") if isinstance(data, dict) else data
            message["body"] += told(msg="process_error", error=fault)
        elif message["type"] == "http.response.body" and not message.get("more_body"):
            await asyncio.sleep(GRACE)
        await send(message)

    return sent


def told(**message: Any) -> bytes:
    """A message of Gradio's queue, in ASCII: those versions decode chunks that may end inside a character."""
    return f"data: {json.dumps(message)}\n\n".encode()
