"""The documented part of Replicate's HTTP API that a client of one model uses.

https://replicate.com/docs/reference/http: predictions of versions, official models and deployments; models,
versions and deployments; `Prefer: wait`, `Cancel-After` and `urls.stream`. Webhooks are accepted, not called.
What Replicate says where the documentation is silent was read in replies that its clients recorded; where
those are silent too (another type asked of a stream, a header out of bounds) the answer is the strict one.
"""

import asyncio
import hashlib
import json
import re
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from importlib import metadata
from typing import Any

from replicate_predictions import Prediction, Predictions, stamp
from replicate_schema import REQUEST, VERSION_REQUEST, faults
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from snb import schema
from snb.settings import ROOT

Handler = Callable[[Request], Awaitable[Response]]
WAIT = re.compile(r"wait(=([1-9]|[1-5]\d|60))?")
"""https://replicate.com/docs/topics/predictions/create-a-prediction#sync-mode"""
DURATION = re.compile(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s?)?")
"""`30s`, `1m30s`, `2h`, or seconds: https://replicate.com/docs/reference/http#predictions.create"""


class Problem(Exception):
    """A refusal as the API words it: RFC 7807, `application/problem+json`."""

    def __init__(self, status: int, detail: str, title: str = "", **more: Any) -> None:
        super().__init__(detail)
        self.body = {**({"title": title} if title else {}), "detail": detail, "status": status, **more}
        self.status = status

    @staticmethod
    async def reply(_: Request, problem: Exception) -> Response:
        """What Starlette makes of it."""
        assert isinstance(problem, Problem)
        return JSONResponse(problem.body, problem.status, media_type="application/problem+json")


class Api:
    """The routes and what is behind them.

    Args:
        cog: where the Cog server is.
        model: `owner/name` of the one model there is, whose one version is this repository's `predict.py`.
        deployment: `owner/name` of the one deployment of it.
        official: whether Replicate maintains the model; only such a one is called by its name.
        shortest_deadline: seconds that `Cancel-After` has at least; Replicate's are 5.
    """

    def __init__(
        self,
        cog: str,
        token: str,
        model: str = "owner/spinoza",
        deployment: str = "owner/classe",
        official: bool = False,
        shortest_deadline: float = 5,
    ) -> None:
        self._token, self._model, self._deployment = token, model, deployment
        self.settings = {"official": official, "shortest_deadline": shortest_deadline}
        source = (ROOT / "predict.py").read_text(encoding="utf-8")
        self._schema = schema.derive(source, "Predictor", metadata.version("cog"))
        self.version = hashlib.sha256(json.dumps(self._schema).encode()).hexdigest()
        self._made = stamp(datetime.now(UTC))
        self.predictions = Predictions(cog)
        self.routes = self._routes()

    def _routes(self) -> list[Route]:
        def get(path: str, handler: Handler) -> Route:
            return Route(path, self._checked(handler), methods=["GET"])

        def post(path: str, handler: Handler) -> Route:
            return Route(path, self._checked(handler), methods=["POST"])

        return [
            post("/v1/predictions", self._create),
            get("/v1/predictions", self._list),
            get("/v1/predictions/{id}", self._get),
            post("/v1/predictions/{id}/cancel", self._cancel),
            post("/v1/models/{owner}/{name}/predictions", self._create_official),
            get("/v1/models/{owner}/{name}", self._get_model),
            get("/v1/models/{owner}/{name}/versions", self._list_versions),
            get("/v1/models/{owner}/{name}/versions/{version}", self._get_version),
            post("/v1/deployments/{owner}/{name}/predictions", self._create_deployed),
            get("/v1/deployments/{owner}/{name}", self._get_deployment),
            # On another host than the API's, by a secret URL: the JavaScript client sends no token there.
            Route("/v1/streams/{key}", self._stream),
        ]

    def _checked(self, handler: Handler) -> Handler:
        """https://replicate.com/docs/reference/http#authentication"""

        async def checked(request: Request) -> Response:
            given = request.headers.get("authorization", "").removeprefix("Bearer ")
            if given != self._token:
                detail = f"You did not pass {'a valid' if given else 'an'} authentication token"
                raise Problem(401, detail, "Unauthenticated")
            return await handler(request)

        return checked

    # Predictions

    async def _create(self, request: Request) -> Response:
        """https://replicate.com/docs/reference/http#predictions.create

        The version is the bare id or `owner/name:id`; of an official model `owner/name` will do.
        """
        body = await self._body(request, VERSION_REQUEST)
        known = [self.version, f"{self._model}:{self.version}"]
        if body["version"] not in known + ([self._model] if self.settings["official"] else []):
            detail = "The specified version does not exist (or perhaps you don't have permission to use it?)"
            raise Problem(422, detail, "Invalid version or not permitted")
        return await self._run(request, Prediction(self._model, self.version, body["input"]))

    async def _create_official(self, request: Request) -> Response:
        """https://replicate.com/docs/reference/http#models.predictions.create: not for community models."""
        self._named(request, self._model)
        if not self.settings["official"]:
            raise not_found()
        body = await self._body(request, REQUEST)
        return await self._run(request, Prediction(self._model, "hidden", body["input"]))

    async def _create_deployed(self, request: Request) -> Response:
        """https://replicate.com/docs/reference/http#deployments.predictions.create"""
        self._named(request, self._deployment)
        body = await self._body(request, REQUEST)
        made = Prediction(self._model, self.version, body["input"], deployment=self._deployment)
        return await self._run(request, made)

    async def _body(self, request: Request, form: dict[str, Any]) -> dict[str, Any]:
        """The JSON of a request for a prediction, its input checked by the version's schema."""
        try:
            body = await request.json()
        except ValueError as error:
            raise Problem(400, "The request body is not valid JSON", "Invalid JSON") from error
        schemas = self._schema["components"]["schemas"]
        found = list(faults(body, form, schemas)) or list(
            faults(body["input"], schemas["Input"], schemas, "input")
        )
        if found:
            fields = [vars(fault) for fault in found]
            raise Problem(422, "".join(map(str, found)), "Input validation failed", invalid_fields=fields)
        return body  # type: ignore[no-any-return]

    async def _run(self, request: Request, made: Prediction) -> Response:
        """Creates it; with `Prefer: wait` holds the reply until it is over or the time is.

        A reply that was held shows what those do that the official Python client recorded in 2024
        (tests/cassettes in replicate/replicate-python): the whole output and no final status, because it is
        sent before the end is on record. Out of time it is the prediction as created, by whose `starting` the
        official clients know that they have to poll:
        https://replicate.com/docs/reference/http#predictions.create
        """
        prefer, fault = request.headers.get("prefer"), request.scope["fault"]
        if prefer is not None and not WAIT.fullmatch(prefer):
            raise Problem(422, "Prefer must be wait or wait=n, n from 1 to 60", "Invalid header")
        self.predictions.create(made, fault.cold, fault.setup_failed, self._deadline(request))
        created = made.shown(base(request))
        if prefer is None:
            return JSONResponse(created, 201)
        applied = {"Preference-Applied": prefer}
        try:
            await asyncio.wait_for(made.ended(), float(prefer.partition("=")[2] or 60))
        except TimeoutError:
            return JSONResponse(created, 202, applied)
        shown = made.shown(base(request))
        if made.status == "succeeded":
            shown |= {"status": "processing", "metrics": {}, "completed_at": None}
        return JSONResponse(shown, 201, applied)

    def _deadline(self, request: Request) -> float | None:
        given = request.headers.get("cancel-after")
        if given is None:
            return None
        parts = DURATION.fullmatch(given)
        seconds = sum(
            int(part or 0) * unit
            for part, unit in zip(parts.groups() if parts else (), (3600, 60, 1), strict=False)
        )
        if not self.settings["shortest_deadline"] <= seconds <= 86400:
            raise Problem(422, "Cancel-After must be a duration from 5s to 24h", "Invalid header")
        return seconds

    async def _list(self, request: Request) -> Response:
        """https://replicate.com/docs/reference/http#predictions.list, on one page."""
        made = [prediction.shown(base(request)) for prediction in self.predictions]
        return JSONResponse({"next": None, "previous": None, "results": made[::-1]})

    async def _get(self, request: Request) -> Response:
        """https://replicate.com/docs/reference/http#predictions.get"""
        return JSONResponse(self._of(request, "id").shown(base(request)))

    async def _cancel(self, request: Request) -> Response:
        """https://replicate.com/docs/reference/http#predictions.cancel: one that is over stays what it is."""
        self.predictions.cancel(prediction := self._of(request, "id"))
        return JSONResponse(prediction.shown(base(request)))

    async def _stream(self, request: Request) -> Response:
        """https://replicate.com/docs/topics/predictions/streaming

        From the start for whoever comes late; after `Last-Event-ID` for whoever comes again, as
        https://html.spec.whatwg.org/multipage/server-sent-events.html#the-last-event-id-header has it.
        """
        prediction = self._of(request, "key")
        if "text/event-stream" not in request.headers.get("accept", ""):
            raise Problem(406, "Accept text/event-stream to read a stream", "Not acceptable")
        events = prediction.stream(request.headers.get("last-event-id", ""))
        return StreamingResponse(
            events, media_type="text/event-stream", headers={"Cache-Control": "no-store"}
        )

    def _of(self, request: Request, name: str) -> Prediction:
        wanted = request.path_params[name]
        for prediction in self.predictions:
            if getattr(prediction, name) == wanted:
                return prediction
        raise not_found()

    # Models

    async def _get_model(self, request: Request) -> Response:
        """https://replicate.com/docs/reference/http#models.get"""
        self._named(request, self._model)
        owner, name = self._model.split("/")
        absent = ("github_url", "paper_url", "license_url", "cover_image_url", "default_example")
        return JSONResponse(
            {
                "url": f"https://replicate.com/{self._model}",
                "owner": owner,
                "name": name,
                "description": "A philosopher who answers pupils of Terminale, in French.",
                "visibility": "public",
                "run_count": len(list(self.predictions)),
                **dict.fromkeys(absent),
                "latest_version": self._shown_version(),
            }
        )

    async def _list_versions(self, request: Request) -> Response:
        """https://replicate.com/docs/reference/http#models.versions.list"""
        self._named(request, self._model)
        return JSONResponse({"next": None, "previous": None, "results": [self._shown_version()]})

    async def _get_version(self, request: Request) -> Response:
        """https://replicate.com/docs/reference/http#models.versions.get"""
        self._named(request, self._model)
        if request.path_params["version"] != self.version:
            raise not_found()
        return JSONResponse(self._shown_version())

    async def _get_deployment(self, request: Request) -> Response:
        """https://replicate.com/docs/reference/http#deployments.get"""
        self._named(request, self._deployment)
        owner, name = self._deployment.split("/")
        release = {
            "number": 1,
            "model": self._model,
            "version": self.version,
            "created_at": self._made,
            "created_by": {"type": "user", "username": owner, "name": owner, "github_url": None},
            "configuration": {"hardware": "gpu-a100-large", "min_instances": 0, "max_instances": 1},
        }
        return JSONResponse({"owner": owner, "name": name, "current_release": release})

    def _shown_version(self) -> dict[str, Any]:
        cog = metadata.version("cog")
        return {
            "id": self.version,
            "created_at": self._made,
            "cog_version": cog,
            "openapi_schema": self._schema,
        }

    def _named(self, request: Request, name: str) -> None:
        if "{owner}/{name}".format(**request.path_params) != name:
            raise not_found()


def not_found() -> Problem:
    """What is not there, or not for this caller."""
    return Problem(404, "The requested resource could not be found.")


def base(request: Request) -> str:
    """Where the API is, for the URLs of a prediction."""
    return str(request.base_url).rstrip("/")
