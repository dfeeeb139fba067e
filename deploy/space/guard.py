"""The door of the page: the paths that it needs and no others, bodies of bounded size, and strict headers.

Gradio serves more than this page uses: uploads, files of this machine, a proxy to other Spaces, calls past
its queue, monitoring, a code editor. There is no switch for most of them, so they are not let through.
"""

import re
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

MAX_BODY = 1_000_000
"""Bytes of a request. A model's context holds a hundredth of it, so history far beyond it is of no use."""

ALLOWED = re.compile(
    r"/(?:page/[\w.-]+|config|favicon\.ico|robots\.txt|theme\.css)?"
    r"|/(?:assets|static|svelte)/(?!.*\.\.)[\w./-]+"
    r"|/gradio_api/(?:info|openapi\.json|app_id|startup-events|theme\.css|queue/(?:join|data|status)|cancel|reset"
    r"|login_check|heartbeat/\w+|call/(?:v2/)?(?:answer|chat_function)(?:/\w+)?)/?"
)

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


class Guard:
    """Wraps the whole app."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """One request, as ASGI calls it."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send) if scope["type"] == "lifespan" else None
        if not ALLOWED.fullmatch(scope["path"]):
            return await refuse(send, 404, b"There is nothing here.")
        length = dict(scope["headers"]).get(b"content-length", b"0")
        if not length.isdigit() or int(length) > MAX_BODY:
            return await refuse(send, 413, b"The request is too large.")
        policy = f"{LOOSE}; {FRAMES}" if b"view=" in scope["query_string"] else STRICT

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                more = {**HEADERS, "Content-Security-Policy": policy}
                message["headers"] = [*message["headers"], *encoded(more)]
            await send(message)

        return await self._app(scope, bounded(receive), with_headers)


def bounded(receive: Receive) -> Receive:
    """Ends a body that says nothing of its length, or less than the truth, at the bound."""
    read = 0

    async def counted() -> Message:
        nonlocal read
        message = await receive()
        read += len(message.get("body", b""))
        return message if read <= MAX_BODY else {"type": "http.disconnect"}

    return counted


def encoded(headers: dict[str, str]) -> list[tuple[bytes, bytes]]:
    """Headers as ASGI has them."""
    return [(name.lower().encode(), value.encode()) for name, value in headers.items()]


async def refuse(send: Send, status: int, text: bytes) -> None:
    """A short reply instead of the app's."""
    headers = encoded({"Content-Type": "text/plain; charset=utf-8", **HEADERS})
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text})
