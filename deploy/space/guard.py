"""Lets through only the paths that the page needs and bodies within bounds, and sets strict headers.

Gradio serves more than this page uses: uploads, files of this machine, a proxy to other Spaces, calls that
bypass its queue, monitoring, a code editor. Most of them cannot be switched off, so they are blocked here.
"""

import asyncio
import json
import re
import time
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

from routes import CHATS, by_whom, prefixed

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

MAX_BODY = 512 * 1024
"""Bytes of a request, as at the front of Cog's server."""
MAX_VALUES = 5_000
"""Values in its JSON; 200 turns as Gradio 6 writes them have 2,000. The three bytes of an empty list take 64
in memory, and Gradio keeps copies in its queue."""
MAX_QUERY = 2_000
"""Bytes of a query, which in a private Space holds a signature."""
PATIENCE = 15.0
"""Seconds for a body to arrive."""
NAME = re.compile(r"[\w-]{1,64}", re.ASCII)
"""What a session or an event may be called; bounded, since Gradio keeps names even if nobody reads them."""
FIELDS = {"data": list, "fn_index": int, "session_hash": str, "event_id": str}
"""The fields of a request that are passed on; the others that Gradio knows are for other apps."""

ALLOWED = re.compile(
    r"/(?:page/[\w.-]{1,64}|config|favicon\.ico|robots\.txt|theme\.css)?"
    r"|/(?:assets|static|svelte)/(?!.*\.\.)[\w./-]{1,128}"
    r"|/gradio_api/(?:info|openapi\.json|app_id|startup-events|theme\.css|queue/(?:join|data|status)|cancel|reset"
    rf"|login_check|heartbeat/[\w-]{{1,64}}|call/(?:v2/)?(?:answer|{'|'.join(CHATS)})(?:/\w{{1,64}})?"
    rf"|(?:run|api|predict)/(?:predict|{'|'.join(CHATS)}))/?",
    re.ASCII,
)
ORIGIN = re.compile(rb"[\w.:, \[\]-]{1,255}")
"""Allowed in the headers from which Gradio derives its own address, and which it repeats in its pages."""
ORIGINS = (b"host", b"x-forwarded-host", b"x-forwarded-proto")

HEADERS = {
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
}
FRAMES = "frame-ancestors 'self' https://huggingface.co https://*.hf.space"
"""Hugging Face shows a Space inside its own page."""
STRICT = (
    f"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; {FRAMES}"
)
STRICT += "; base-uri 'none'; form-action 'none'"
LOOSE = "default-src 'self' 'unsafe-inline' data: blob:"
"""For Gradio's own API page, which has its configuration and its styles inline."""


class TurnedAway(Exception):
    """A request that is not let through, with the HTTP status and the sentence to answer it with."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status, self.sentence = status, sentence


class Guard:
    """Wraps the whole app."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """One request, as ASGI calls it."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            try:
                await self._pass(scope, await checked(scope, receive), send)
            except TurnedAway as error:
                await refuse(send, error.status, error.sentence.encode())

    async def _pass(self, scope: Message, receive: Receive, send: Send) -> None:
        scope["headers"] = list(believable(scope["headers"]))
        policy = f"{LOOSE}; {FRAMES}" if b"view=" in scope["query_string"] else STRICT

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                more = {**HEADERS, "Content-Security-Policy": policy}
                message["headers"] = [*message["headers"], *encoded(more)]
            await send(message)

        try:
            await self._app(scope, receive, with_headers)
        except RuntimeError:
            # For a session that it does not know, Gradio 6.31.0 raises an error after the last event of the
            # stream, which uvicorn would log each time. Delete this when it answers 404.
            await send({"type": "http.response.body"})


async def checked(scope: Message, receive: Receive) -> Receive:
    """The `receive` for the app; for a POST it gives the checked fields, as new JSON.

    Raises:
        TurnedAway: the request is not one that this page needs.
    """
    scope["path"] = prefixed(scope["path"])
    if not ALLOWED.fullmatch(scope["path"]) or len(scope["query_string"]) > MAX_QUERY:
        raise TurnedAway(404, "There is nothing here.")
    if scope["method"] != "POST":
        return receive
    try:
        async with asyncio.timeout(PATIENCE):
            document = json.loads(await read(receive))
    except TimeoutError:
        raise TurnedAway(408, "The request did not arrive in time.") from None
    except (ValueError, RecursionError):
        raise TurnedAway(400, "The request is not JSON.") from None
    if not isinstance(document, dict) or more_values(document, MAX_VALUES):
        raise TurnedAway(422, f"The request is not an object of at most {MAX_VALUES} values.")
    scope["came"] = time.monotonic()
    scope["whom"] = by_whom(scope["path"], document)
    # With a session, answers to a caller of /call would be mixed up; /call/v2 has the inputs by name.
    if "/call/v2/" not in scope["path"]:
        fields = ("data",) if "/call/" in scope["path"] else tuple(FIELDS)
        document = {name: field(name, document[name]) for name in fields if document.get(name) is not None}
    messages = [{"type": "http.request", "body": json.dumps(document).encode()}]

    async def replayed() -> Message:
        return messages.pop() if messages else await receive()

    return replayed


async def read(receive: Receive) -> bytes:
    """A whole body; raises TurnedAway if it is too large."""
    body = bytearray()
    while True:
        message = await receive()
        body += message.get("body", b"")
        if len(body) > MAX_BODY:
            raise TurnedAway(413, "The request is too large.")
        if not message.get("more_body"):
            return bytes(body)


def more_values(document: Any, most: int) -> bool:
    """Whether there are more than `most` values in a JSON document, at whatever depth."""
    left, count = [document], 0
    while left and count <= most:
        value = left.pop()
        inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        count += len(inner)
        left.extend(one for one in inner if isinstance(one, dict | list))
    return count > most


def field(name: str, value: Any) -> Any:
    """The value of a field of a request to Gradio; raises TurnedAway if it cannot be one."""
    if not isinstance(value, FIELDS[name]) or (isinstance(value, str) and not NAME.fullmatch(value)):
        raise TurnedAway(422, f"{name} is not what it has to be.")
    return value


def believable(headers: Iterable[tuple[bytes, bytes]]) -> Iterable[tuple[bytes, bytes]]:
    """The headers without x-gradio-server and without those that give an impossible address."""
    for name, value in headers:
        if name != b"x-gradio-server" and (name not in ORIGINS or ORIGIN.fullmatch(value)):
            yield name, value


def encoded(headers: dict[str, str]) -> list[tuple[bytes, bytes]]:
    """Headers as ASGI has them."""
    return [(name.lower().encode(), value.encode()) for name, value in headers.items()]


async def refuse(send: Send, status: int, text: bytes) -> None:
    """A short reply instead of the app's."""
    headers = encoded({"Content-Type": "text/plain; charset=utf-8", **HEADERS})
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text})
