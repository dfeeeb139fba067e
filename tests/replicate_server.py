"""A server that speaks what this project uses of Replicate's documented HTTP API, before a real Cog server.

https://replicate.com/docs/reference/http, section by section. It is a test server, not Replicate: what it does
that the documentation does not say is under `/_test/`. `POST /_test/faults` takes one fault, for the next `times`
requests that `method` and the beginning of `path` match: `status` (with `headers`, `body`); `lost`: it is done,
but its reply is not sent; `delay`, in seconds; `stream`: a stream ends after `after` events ("silent", "utf8" or
"event"); `cold` (seconds) and `broken` are of the next prediction. `GET /_test/log` lists the requests.

    python tests/replicate_server.py --cog http://127.0.0.1:5000
"""

import argparse
import asyncio
import json
import re
import sys
import threading
import time
from collections.abc import AsyncIterator
from typing import Any, Self

import httpx
import uvicorn
from replicate_predictions import Prediction, seconds
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

OWNER, NAME, VERSION = (
    "fjdaz",
    "spinoza-nb",
    "5c7d5dc6dd8bf75c1acaa8565735e7986bc5b66206b55cca93cb72c9bf15ccaa",
)
DEPLOYMENT = "classe"


class ReplicateServer:
    """The server in a thread of its own, on a free port of loopback; a context manager."""

    def __init__(self, cog: str, token: str = "r8_test", port: int = 0) -> None:
        self.cog, self.token = cog, token
        self.predictions: dict[str, Prediction] = {}
        self.faults: list[dict[str, Any]] = []
        self.log: list[dict[str, Any]] = []
        config = uvicorn.Config(self._app(), host="127.0.0.1", port=port, log_level="error")
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.servers[0].sockets[0].getsockname()[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        while not self._server.started:
            time.sleep(0.02)
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = self._server.force_exit = True
        self._thread.join(timeout=10)

    def _app(self) -> Starlette:
        at = "/v1/predictions/{id}"
        routes = [
            Route("/v1/predictions", self._guarded(self._create), methods=["POST"]),
            Route(
                "/v1/deployments/{owner}/{name}/predictions", self._guarded(self._deployed), methods=["POST"]
            ),
            Route("/v1/models/{owner}/{name}/predictions", self._guarded(self._official), methods=["POST"]),
            Route(at, self._guarded(self._get)),
            Route(f"{at}/cancel", self._guarded(self._cancel), methods=["POST"]),
            Route("/v1/models/{owner}/{name}", self._guarded(self._model)),
            Route("/v1/models/{owner}/{name}/versions/{version}", self._guarded(self._version)),
            Route("/v1/deployments/{owner}/{name}", self._guarded(self._deployment)),
            Route("/stream/{id}", self._guarded(self._stream)),
            Route("/_test/faults", self._add_fault, methods=["POST", "DELETE"]),
            Route("/_test/log", self._show_log),
        ]
        return Starlette(routes=routes)

    def _guarded(self, handler: Any) -> Any:
        """Logs, checks the token and applies a fault.

        https://replicate.com/docs/reference/http#authentication
        """

        async def guarded(request: Request) -> Response:
            body = await request.body()
            headers = {name: request.headers.get(name) for name in ("prefer", "cancel-after", "accept")}
            self.log.append({"method": request.method, "path": request.url.path, "headers": headers})
            if body:
                self.log[-1]["body"] = json.loads(body)
            if request.headers.get("authorization") != f"Bearer {self.token}":
                return problem(401, "Unauthenticated", "You did not pass an authentication token")
            fault = self._fault(request, "status", "lost", "delay")
            await asyncio.sleep(fault.get("delay", 0))
            if "status" in fault:
                content = fault.get("body", "")
                return Response(content, fault["status"], fault.get("headers", {"content-type": "text/html"}))
            response: Response = await handler(request)
            return Response(None, 502) if fault.get("lost") else response

        return guarded

    def _fault(self, request: Request, *kinds: str) -> dict[str, Any]:
        for fault in self.faults:
            here = request.method == fault.get("method", request.method)
            here = here and request.url.path.startswith(fault.get("path", "/"))
            if here and any(kind in fault for kind in kinds):
                fault["times"] = fault.get("times", 1) - 1
                if not fault["times"]:
                    self.faults.remove(fault)
                return fault
        return {}

    async def _create(self, request: Request) -> Response:
        """https://replicate.com/docs/reference/http#predictions.create: community models go by version."""
        version = (await request.json()).get("version", "").rpartition(":")[2]
        if version != VERSION:
            detail = "The specified version does not exist (or perhaps you don't have permission to use it?)"
            return problem(422, "Invalid version or not permitted", detail)
        return await self._begin(request)

    async def _deployed(self, request: Request) -> Response:
        """https://replicate.com/docs/reference/http#deployments.predictions.create"""
        return await self._begin(request) if self._is(request, DEPLOYMENT) else not_found()

    async def _official(self, request: Request) -> Response:
        """https://replicate.com/docs/reference/http#models.predictions.create: for official models only."""
        return not_found()

    async def _begin(self, request: Request) -> Response:
        inputs = (await request.json())["input"]
        if fields := faults(inputs, (await self._schema())["components"]["schemas"]["Input"]):
            detail = "\n".join(f"- input.{name}: {fault}" for name, fault in fields.items())
            return problem(422, "Input validation failed", detail)
        fault = self._fault(request, "cold", "broken")
        base = str(request.base_url).rstrip("/")
        prediction = Prediction(f"{OWNER}/{NAME}", VERSION, inputs, base)
        self.predictions[prediction.id] = prediction
        run = prediction.run(self.cog, fault.get("cold", 0), "broken" in fault)
        prediction.task = asyncio.create_task(run)
        if life := request.headers.get("cancel-after"):
            asyncio.get_running_loop().call_later(
                seconds(life), lambda: asyncio.ensure_future(prediction.cancel("aborted"))
            )
        prefer = re.fullmatch(r"wait(?:=(\d+))?", request.headers.get("prefer") or "")
        if prefer:
            await prediction.wait(min(60, int(prefer[1] or 60)))
        return JSONResponse(prediction.json(), 201)

    async def _get(self, request: Request) -> Response:
        """https://replicate.com/docs/reference/http#predictions.get"""
        prediction = self.predictions.get(request.path_params["id"])
        return JSONResponse(prediction.json()) if prediction else not_found()

    async def _cancel(self, request: Request) -> Response:
        """https://replicate.com/docs/reference/http#predictions.cancel"""
        prediction = self.predictions.get(request.path_params["id"])
        if not prediction:
            return not_found()
        await prediction.cancel()
        return JSONResponse(prediction.json())

    async def _model(self, request: Request) -> Response:
        """https://replicate.com/docs/reference/http#models.get"""
        if not self._is(request, NAME):
            return not_found()
        latest = {"id": VERSION, "openapi_schema": await self._schema()}
        return JSONResponse({"owner": OWNER, "name": NAME, "latest_version": latest})

    async def _version(self, request: Request) -> Response:
        """https://replicate.com/docs/reference/http#models.versions.get"""
        if not self._is(request, NAME) or request.path_params["version"] != VERSION:
            return not_found()
        return JSONResponse({"id": VERSION, "openapi_schema": await self._schema()})

    async def _deployment(self, request: Request) -> Response:
        """https://replicate.com/docs/reference/http#deployments.get"""
        if not self._is(request, DEPLOYMENT):
            return not_found()
        release = {"number": 1, "model": f"{OWNER}/{NAME}", "version": VERSION}
        return JSONResponse({"owner": OWNER, "name": DEPLOYMENT, "current_release": release})

    async def _stream(self, request: Request) -> Response:
        """https://replicate.com/docs/topics/predictions/streaming"""
        prediction = self.predictions.get(request.path_params["id"])
        if not prediction:
            return not_found()
        fault = self._fault(request, "stream")
        body = (
            cut(prediction.stream(), fault["stream"], fault.get("after", 2)) if fault else prediction.stream()
        )
        return StreamingResponse(body, media_type="text/event-stream")

    def _is(self, request: Request, name: str) -> bool:
        return (request.path_params["owner"], request.path_params["name"]) == (OWNER, name)

    async def _schema(self) -> Any:
        async with httpx.AsyncClient() as client:
            return (await client.get(f"{self.cog}/openapi.json")).json()

    async def _add_fault(self, request: Request) -> Response:
        if request.method == "DELETE":
            self.faults.clear()
        else:
            self.faults.append(await request.json())
        return Response(None, 204)

    async def _show_log(self, request: Request) -> Response:
        return JSONResponse(self.log)


async def cut(events: AsyncIterator[bytes], how: str, after: int) -> AsyncIterator[bytes]:
    """A stream that ends after some events: between two, inside one, or inside a character."""
    async for event in events:
        after -= 1
        if after >= 0:
            yield event
            continue
        if how == "event":
            yield event[: len(event) - 3]
        elif how == "utf8":
            yield "event: output\ndata: é".encode()[:-1]
        return


def faults(inputs: dict[str, Any], schema: dict[str, Any]) -> dict[str, str]:
    """What is wrong with `inputs`, by the parts of JSON Schema that Cog writes."""
    found = {name: "Field required" for name in schema.get("required", ()) if name not in inputs}
    for name, value in inputs.items():
        part = schema["properties"].get(name, {})
        size = len(value) if isinstance(value, str) else value
        low, high = part.get("minimum", part.get("minLength")), part.get("maximum", part.get("maxLength"))
        if isinstance(size, int | float) and not (low is None or low <= size):
            found[name] = f"Must be at least {low}"
        if isinstance(size, int | float) and not (high is None or size <= high):
            found[name] = f"Must be at most {high}"
    return found


def problem(status: int, title: str, detail: str) -> Response:
    """An error, as RFC 7807 and https://replicate.com/docs/reference/http#errors write it."""
    return JSONResponse(
        {"title": title, "detail": detail, "status": status}, status, media_type="application/problem+json"
    )


def not_found() -> Response:
    return problem(404, "Not found", "The requested resource could not be found.")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cog", required=True)
    with ReplicateServer(parser.parse_args().cog) as server:
        print(json.dumps({"url": server.url}), flush=True)
        sys.stdin.read()
