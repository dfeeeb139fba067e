"""Replicate's HTTP API in front of a real Cog server: as much of it as this project's callers use.

https://replicate.com/docs/reference/http: one model with one version, one deployment of it, and predictions,
which can be waited for, streamed and canceled. Where the documentation is silent, it answers as in recordings
of Replicate (tests/cassettes in replicate/replicate-python). Replicate's clients must work with it: see
test_python_client.py and client/test/doors.test.js.

    with ReplicateServer(cog_url) as server: ...

Tests in JavaScript add faults with `POST /_test/faults` (see `Fault`), remove them with `DELETE`, and read
the requests with `GET /_test/log`.
"""

import asyncio
import json
import re
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http import HTTPStatus
from importlib import metadata
from typing import Any

import httpx2
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from snb.settings import ROOT
from tests.served import Served
from tools.serving import schema

MODEL, DEPLOYMENT = "owner/spinoza", "owner/classe"
SETUP_FAILED = "model container failed to boot and complete setup within 600 seconds"
"""Replicate's error for a boot that fails: https://github.com/replicate/replicate-python/issues/298"""
UNKNOWN = "Prediction failed for an unknown reason. (E1000)"
"""https://replicate.com/docs/reference/error-codes"""
THROTTLED = "Request was throttled. Your rate limit resets in ~30s."
"""https://replicate.com/docs/topics/predictions/rate-limits"""
TURN = 0.05
"""Seconds between two tries at a full Cog server, while a prediction stays `starting`."""
TICK = 0.01
"""Seconds between two looks at a prediction that somebody waits for."""
ABSENT = ("github_url", "paper_url", "license_url", "cover_image_url", "default_example")


@dataclass
class Fault:
    """A fault in the next `times` requests of a method whose path begins with `path`.

    Args:
        status: replies with this, `headers` and `body` (a text is sent as HTML), instead of the API's reply.
        cold: seconds that the created prediction waits for its instance.
        setup_failed: whether that instance's `setup()` fails.
        cut: whole events of a stream before it ends within the next one.
    """

    method: str
    path: str
    times: int = 1
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: Any = None
    cold: float = 0
    setup_failed: bool = False
    cut: int | None = None

    def takes(self, request: Request) -> bool:
        """Whether the fault applies to a request, which then counts as one of its times."""
        path = request.url.path
        met = self.times > 0 and self.method == request.method and path.startswith(self.path)
        self.times -= met
        return met

    def reply(self) -> Response:
        if isinstance(self.body, str):
            return Response(self.body, self.status, self.headers, "text/html")
        detail = THROTTLED if self.status == 429 else HTTPStatus(self.status).phrase
        return JSONResponse(self.body or {"detail": detail, "status": self.status}, self.status, self.headers)

    async def spoiled(self, events: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """The events of a stream, cut off within the event after `cut` whole ones."""
        count = 0
        async for event in events:
            if count == self.cut:
                yield event[: event.index(b"data:") + 3]
                return
            yield event
            count += 1


def problem(status: int, detail: str, title: str = "") -> JSONResponse:
    """A refusal in the API's format, RFC 7807."""
    return JSONResponse({"title": title, "detail": detail, "status": status}, status)


@dataclass(eq=False)
class Prediction:
    """https://replicate.com/docs/reference/http#predictions.get"""

    input: dict[str, Any]
    version: str | None
    id: str = field(default_factory=lambda: secrets.token_hex(13))
    status: str = "starting"
    output: list[str] = field(default_factory=list)
    error: str | None = None
    invalid: str = ""
    """Why Cog's server refused the input."""
    measured: dict[str, Any] = field(default_factory=dict)
    times: dict[str, str] = field(default_factory=lambda: {"created_at": now()})
    events: list[tuple[str, str]] = field(default_factory=list)

    task: asyncio.Task[None] | None = None

    @property
    def over(self) -> bool:
        return self.status not in ("starting", "processing")

    def finish(self, status: str, error: str | None = None) -> None:
        """Sets the final status, and ends the stream with `done`, after an `error` if there is one."""
        self.status, self.error, self.times["completed_at"] = status, error, now()
        reason = {"succeeded": {}, "failed": {"reason": "error"}}.get(status, {"reason": status})
        if error:
            self.events.append(("error", json.dumps({"detail": error})))
        self.events.append(("done", json.dumps(reason)))

    def follow(self, event: str, data: dict[str, Any]) -> None:
        """Applies one event of Cog's stream: https://cog.run/http#streaming"""
        if event == "start":
            self.status, self.times["started_at"] = "processing", now()
        elif event == "output":
            self.output.append(data["chunk"])
            self.events.append(("output", data["chunk"]))
        elif event in ("completed", "error"):
            self.measured = data.get("metrics", {})
            well = data.get("status") == "succeeded"
            self.finish("succeeded" if well else "failed", None if well else data.get("error") or UNKNOWN)

    async def reaches(self, *statuses: str) -> None:
        """Returns when the prediction has one of these statuses or is over."""
        while self.status not in statuses and not self.over:
            await asyncio.sleep(TICK)

    async def stream(self) -> AsyncIterator[bytes]:
        """https://replicate.com/docs/topics/predictions/streaming, from the start for every reader."""
        sent = 0
        while not self.over or sent < len(self.events):
            for event, data in self.events[sent:]:
                lines = "".join(f"data: {line}\n" for line in re.split("\r\n|\r|\n", data))
                yield f"event: {event}\nid: {sent}\n{lines}\n".encode()
                sent += 1
            await asyncio.sleep(TICK)

    def shown(self, base: str) -> dict[str, Any]:
        """The prediction's JSON object, with metrics once it is over; `base` is the API's address."""
        here = f"{base}/v1/predictions/{self.id}"
        urls = {"get": here, "cancel": f"{here}/cancel", "stream": f"{base}/v1/streams/{self.id}"}
        return {
            "id": self.id,
            "model": MODEL,
            "version": self.version,
            "input": self.input,
            "output": self.output or None,
            "status": self.status,
            "error": self.error,
            "logs": "",
            "metrics": self.measured,
            "urls": urls,
            **self.times,
        }


def now() -> str:
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")


Handler = Callable[[Request, Fault], Awaitable[Response]]


class ReplicateServer(Served):
    """The API.

    Args:
        cog: URL of the Cog server.
        token: the API token that is accepted.

    Attributes:
        log: method, path, headers, body and status of every request.
    """

    def __init__(self, cog: str, token: str = "r8_test") -> None:
        self.token = token
        self.log: list[dict[str, Any]] = []
        self._faults: list[Fault] = []
        self._predictions: dict[str, Prediction] = {}
        self._id = secrets.token_hex(32)
        source = (ROOT / "predict.py").read_text(encoding="utf-8")
        self._schema = schema.derive(source, "Predictor", metadata.version("cog"))
        # No proxy, since this is loopback, and no timeout, since a prediction may take long.
        self._cog = httpx2.AsyncClient(base_url=cog, trust_env=False, timeout=None)
        super().__init__(*self._routes())

    @property
    def version(self) -> str | None:
        """The id of the model's latest version; a test may override it."""
        return self._id

    def fail(self, method: str, path: str, **fault: Any) -> None:
        self._faults.append(Fault(method, path, **fault))

    def _routes(self) -> list[Route]:
        def route(path: str, handler: Handler, method: str = "GET") -> Route:
            return Route(path, self._logged(handler), methods=[method])

        return [
            route("/v1/predictions", self._create, "POST"),
            route("/v1/predictions/{id}", self._get),
            route("/v1/predictions/{id}/cancel", self._cancel, "POST"),
            route("/v1/streams/{id}", self._stream),
            route(f"/v1/models/{MODEL}", self._model),
            route(f"/v1/deployments/{DEPLOYMENT}/predictions", self._create, "POST"),
            Route("/_test/log", self._show_log),
            Route("/_test/faults", self._change_faults, methods=["POST", "DELETE"]),
        ]

    def _logged(self, handler: Handler) -> Callable[[Request], Awaitable[Response]]:
        """A handler with what all routes do: log, apply faults, check the token."""

        async def logged(request: Request) -> Response:
            entry: dict[str, Any] = {"method": request.method, "path": request.url.path}
            entry |= {"headers": dict(request.headers), "body": json.loads(await request.body() or "null")}
            self.log.append(entry)
            fault = next((fault for fault in self._faults if fault.takes(request)), Fault("", ""))
            response = fault.reply() if fault.status else await self._allowed(handler, request, fault)
            entry["status"] = response.status_code
            return response

        return logged

    async def _allowed(self, handler: Handler, request: Request, fault: Fault) -> Response:
        # Replicate's streams are on another host, at secret URLs: its JavaScript client sends no token there.
        given = request.headers.get("authorization")
        if given != f"Bearer {self.token}" and handler != self._stream:
            return problem(401, "You did not pass a valid authentication token", "Unauthenticated")
        if "/predictions/" in request.url.path and request.path_params["id"] not in self._predictions:
            return problem(404, "The requested resource could not be found.")
        return await handler(request, fault)

    async def _create(self, request: Request, fault: Fault) -> Response:
        """https://replicate.com/docs/reference/http#predictions.create

        With `Prefer: wait` the reply is held until the output is complete; it has no final status, because it
        is sent before the end is recorded. When time runs out it is the prediction as created, whose
        `starting` tells the official clients to poll.
        """
        body = await request.json()
        asked = body.get("version", "" if "deployments" in request.url.path else None)
        if asked not in ("", self.version, f"{MODEL}:{self.version}"):
            return problem(422, "The specified version does not exist", "Invalid version or not permitted")
        prediction = Prediction(body["input"], self.version)
        self._predictions[prediction.id] = prediction
        created = prediction.shown(base(request))
        prediction.task = asyncio.create_task(self._run(prediction, fault))
        if not fault.cold:
            await prediction.reaches("processing")
        if prediction.invalid:
            return problem(422, prediction.invalid, "Input validation failed")
        if (prefer := request.headers.get("prefer")) is None:
            return JSONResponse(created, 201)
        try:
            await asyncio.wait_for(prediction.reaches(), float(prefer.partition("=")[2] or 60))
        except TimeoutError:
            return JSONResponse(created, 202)
        shown = prediction.shown(base(request))
        if prediction.status == "succeeded":
            shown |= {"status": "processing", "metrics": {}, "completed_at": None}
        return JSONResponse(shown, 201)

    async def _run(self, prediction: Prediction, fault: Fault) -> None:
        await asyncio.sleep(fault.cold)
        if fault.setup_failed:
            prediction.finish("failed", SETUP_FAILED)
        try:
            while not prediction.over:
                await self._forward(prediction)
        except (httpx2.HTTPError, ValueError, KeyError):
            prediction.finish("failed", UNKNOWN)

    async def _forward(self, prediction: Prediction) -> None:
        """Has the Cog server run the prediction, if it has a free place. Canceling this stops the model."""
        url, body = f"/predictions/{prediction.id}", {"input": prediction.input}
        headers = {"Accept": "text/event-stream"}
        async with self._cog.stream("PUT", url, json=body, headers=headers) as reply:
            if reply.status_code == 409:
                await asyncio.sleep(TURN)
                return
            if reply.status_code == 422:
                faults = json.loads(await reply.aread())["detail"]
                lines = [f"- {'.'.join(map(str, fault['loc'][1:]))}: {fault['msg']}\n" for fault in faults]
                prediction.invalid = "".join(lines)
                prediction.finish("failed", prediction.invalid)
                return
            reply.raise_for_status()
            async for event in httpx2.EventSource(reply):
                prediction.follow(event.event, json.loads(event.data))
        if not prediction.over:
            prediction.finish("failed", UNKNOWN)

    async def _get(self, request: Request, _: Fault) -> Response:
        return JSONResponse(self._of(request).shown(base(request)))

    async def _cancel(self, request: Request, _: Fault) -> Response:
        """https://replicate.com/docs/reference/http#predictions.cancel: one that is over keeps its status."""
        prediction = self._of(request)
        if not prediction.over:
            assert prediction.task
            prediction.task.cancel()
            prediction.finish("canceled")
        return JSONResponse(prediction.shown(base(request)))

    async def _stream(self, request: Request, fault: Fault) -> Response:
        prediction = self._of(request)
        return StreamingResponse(fault.spoiled(prediction.stream()), media_type="text/event-stream")

    def _of(self, request: Request) -> Prediction:
        return self._predictions[request.path_params["id"]]

    async def _model(self, *_: object) -> Response:
        """https://replicate.com/docs/reference/http#models.get"""
        owner, name = MODEL.split("/")
        url, latest = f"https://replicate.com/{MODEL}", self._shown_version() if self.version else None
        described = {"url": url, "owner": owner, "name": name, "description": "", "visibility": "public"}
        return JSONResponse(described | {"run_count": 0, "latest_version": latest} | dict.fromkeys(ABSENT))

    def _shown_version(self) -> dict[str, Any]:
        cog = {"cog_version": metadata.version("cog"), "openapi_schema": self._schema}
        return {"id": self.version, "created_at": now(), **cog}

    async def _show_log(self, _: Request) -> Response:
        return JSONResponse(self.log)

    async def _change_faults(self, request: Request) -> Response:
        self._faults = [] if request.method == "DELETE" else [*self._faults, Fault(**await request.json())]
        return JSONResponse({})


def base(request: Request) -> str:
    return str(request.base_url).rstrip("/")
