"""The HTTP routes that callers need, as Cog's own server has them (https://cog.run/http), and no others."""

import asyncio
import hmac
import json
import re
import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from snb.front.answers import Answer, Answers, Refused
from snb.front.cog_server import CogServer

ID = re.compile(r"[0-9a-f]{32}")
"""The id of a prediction: 128 random bits, which nobody guesses. Coglet's own ids are times."""
LARGEST = 512 * 1024
"""Bytes of a body. `predict` can use less: 200,000 characters of passages, 20,000 of persona, and the history
that a context of 32,768 tokens holds."""
PATIENCE = 15.0
"""Seconds for a body to arrive, and between two signs of life of a stream: proxies cut off a silent one."""
HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
BOUNDS = ("type", "minimum", "maximum", "minLength", "maxLength", "enum", "items")
"""The parts of an input's schema that a refusal quotes."""
AGAIN = {409: "2", 429: "2", 503: "10"}
"""Retry-After, in seconds."""


class Reply(JSONResponse):
    """JSON that no cache may store; `headers` are added to HEADERS."""

    def __init__(self, content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(content, status, {**HEADERS, **(headers or {})})


class KeyCheck:
    """Admits requests with `Authorization: Bearer` and the key; /health-check is open to anybody."""

    def __init__(self, app: ASGIApp, key: str) -> None:
        self._app, self._expected = app, key.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one request; see ASGI."""
        given = dict(scope["headers"]).get(b"authorization", b"")
        scheme, _, key = given.partition(b" ")
        # In constant time, so that timing does not reveal how much of a key is right.
        right = scheme.lower() == b"bearer" and hmac.compare_digest(key, self._expected)
        if right or scope["path"] == "/health-check":
            return await self._app(scope, receive, send)
        fault = "Authorization is not the key of this endpoint" if given else "Authorization is missing"
        text = f"UNAUTHORIZED: {fault}. Send the header Authorization: Bearer SNB_API_KEY"
        return await Reply({"error": text}, 401, {"WWW-Authenticate": "Bearer"})(scope, receive, send)


class Front:
    """Handlers of the requests that the front answers."""

    def __init__(self, cog: CogServer, answers: Answers) -> None:
        self._cog, self._answers = cog, answers

    def app(self, key: str | None) -> ASGIApp:
        """The ASGI application; `key` is what callers have to send, or None to admit everybody."""
        one = "/predictions/{id}"
        routes = [
            Route("/health-check", self.health),
            Route("/", self.about),
            Route("/openapi.json", self.schema),
            Route("/predictions", self.ask, methods=["POST"]),
            Route(one, self.ask, methods=["PUT"]),
            Route(one, self.look),
            Route(f"{one}/cancel", self.cancel, methods=["POST"]),
        ]
        handlers: dict[Any, Callable[..., Any]]
        handlers = {HTTPException: failed, Refused: refused, ClientDisconnect: gone}
        app = Starlette(routes=routes, exception_handlers=handlers)
        app.router.redirect_slashes = False  # it would redirect to whatever Host a caller names
        return KeyCheck(app, key) if key else app

    async def health(self, _: Request) -> Response:
        """200 once setup is done, places free or not; else 503. Of the boot's log, only why it failed."""
        well, fault = self._cog.state in ("READY", "BUSY"), self._cog.fault
        why = {"setup": {"logs": f"Setup failed: {fault}"}} if fault else {}
        return Reply({"status": self._cog.state, **why}, 200 if well else 503)

    async def about(self, _: Request) -> Response:
        """Tells a client that this is Cog's HTTP."""
        return Reply({"cog_version": self._cog.version})

    async def schema(self, _: Request) -> Response:
        """The OpenAPI schema of Cog's server."""
        self._check_ready()
        return Reply(self._cog.schema)

    async def ask(self, request: Request) -> Response:
        """A new answer, or the one that has this id, in the form that the caller wants."""
        self._check_ready()
        document = await body(request)
        self._check_ready()  # a body may take long
        name = request.path_params.get("id") or document.get("id") or secrets.token_hex(16)
        if not isinstance(name, str) or not ID.fullmatch(name) or document.get("id") not in (None, name):
            raise HTTPException(422, "an id is 32 hexadecimal digits, the same in path and body")
        question = self._question(document.get("input"))
        try:
            answer = await self._answers.get(name, question, request.headers.get("x-caller", "")[:64])
        except Refused as refusal:
            if refusal.status == 422:
                raise Refused(422, [self._fault(one) for one in refusal.reason]) from refusal
            raise
        if "respond-async" in request.headers.get("prefer", ""):
            answer.detached = True
            return Reply({"id": answer.id, "status": answer.status}, 202)
        if "text/event-stream" in request.headers.get("accept", ""):
            headers = {**HEADERS, "X-Accel-Buffering": "no"}
            return StreamingResponse(self._events(answer), media_type="text/event-stream", headers=headers)
        with self._answers.reading(answer):
            await either(answer.ended.wait(), left(request))
        return Reply(answer.document())

    async def look(self, request: Request) -> Response:
        """The answer as far as it has come."""
        return Reply(self._named(request).document())

    async def cancel(self, request: Request) -> Response:
        """Cancels an answer."""
        answer = self._named(request)
        if answer.ended.is_set():
            raise HTTPException(404, "this prediction has ended")
        await self._answers.cancel(answer)
        return Reply({})

    def _named(self, request: Request) -> Answer:
        answer = self._answers.known(request.path_params["id"])
        if answer is None:
            raise HTTPException(404, "there is no such prediction")
        return answer

    def _check_ready(self) -> None:
        if self._cog.state not in ("READY", "BUSY"):
            why = "Setup has not finished" if self._cog.state == "STARTING" else "the server restarts"
            raise Refused(503, why)

    def _question(self, given: Any) -> bytes:
        """The request body for Cog's server, the same for inputs in any order.

        Inputs that predict.py does not have are left out, as Cog would, since its server logs their names.
        """
        if not isinstance(given, dict):
            raise Refused(422, [{"loc": ["body", "input"], "msg": "must be an object"}])
        inputs = {name: value for name, value in given.items() if name in self._cog.inputs}
        return json.dumps({"input": inputs}, sort_keys=True).encode()

    def _fault(self, name: str) -> dict[str, Any]:
        """Says which values an input may have; Cog's own message would repeat the one it had."""
        form = dict(self._cog.inputs.get(name, {}))
        for choices in form.get("allOf", ()):
            form |= self._cog.schema["components"]["schemas"][choices["$ref"].rpartition("/")[2]]
        words = {key: value for key, value in form.items() if key in BOUNDS}
        return {"loc": ["body", "input", name], "msg": f"allowed is {json.dumps(words)}"}

    async def _events(self, answer: Answer) -> AsyncIterator[str]:
        with self._answers.reading(answer):
            yield event("start", {"id": answer.id, "status": answer.status})
            async for piece in answer.pieces(PATIENCE):
                yield event("output", {"chunk": piece}) if piece else ": the answer goes on\n\n"
        yield event("completed" if answer.status == "succeeded" else "error", answer.document())


def event(name: str, data: Mapping[str, Any]) -> str:
    """One server-sent event."""
    return f"event: {name}\ndata: {json.dumps(data)}\n\n"


async def body(request: Request) -> dict[str, Any]:
    """The JSON object of a request.

    Raises:
        HTTPException: 400, 408 or 413.
    """
    data = bytearray()
    try:
        async with asyncio.timeout(PATIENCE):
            async for chunk in request.stream():
                data += chunk
                if len(data) > LARGEST:
                    raise HTTPException(413, f"a question has at most {LARGEST} bytes")
    except TimeoutError as error:
        raise HTTPException(408, "the question did not arrive in time") from error
    try:
        document = json.loads(data)
        # Cog's JSON has no NaN, and no half of a surrogate pair.
        json.dumps(document, allow_nan=False, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise HTTPException(400, "the body is not JSON in UTF-8") from error
    if not isinstance(document, dict):
        raise HTTPException(400, "the body is not a JSON object")
    return document


async def left(request: Request) -> None:
    """Returns when the caller has dropped the connection."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def either(*waits: Any) -> None:
    """Returns when the first of `waits` does, and cancels the others."""
    tasks = [asyncio.ensure_future(one) for one in waits]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()


async def failed(_: Request, error: HTTPException) -> Response:
    """Turns an HTTPException into JSON with its reason."""
    return Reply({"error": error.detail}, error.status_code, error.headers)


async def refused(_: Request, error: Refused) -> Response:
    """A refusal in the form of Cog's server: `detail` for faults of inputs, else `error`."""
    key = "detail" if error.status == 422 else "error"
    again = {"Retry-After": AGAIN[error.status]} if error.status in AGAIN else {}
    return Reply({key: error.reason}, error.status, again)


async def gone(_: Request, __: ClientDisconnect) -> Response:
    """An empty reply to a caller who has left."""
    return Response()
