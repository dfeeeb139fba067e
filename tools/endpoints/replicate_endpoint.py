"""A model or a deployment on Replicate, over its HTTP API: https://replicate.com/docs/reference/http

The stream is that of https://replicate.com/docs/topics/predictions/streaming: `output` (plain text), `error`
and `done`. It may end early; how a prediction ended, the prediction itself says.
"""

import contextlib
import time
from collections.abc import Generator, Iterator, Mapping
from typing import Any

from tools.endpoints import dialect
from tools.endpoints.cog_endpoint import end
from tools.endpoints.endpoint import Busy, Failed, Http, Piece, Running

API = "https://api.replicate.com/v1"
POLL = 0.5
"""Seconds between two looks at a prediction whose stream is over."""
RUNNING = ("starting", "processing")
PATIENCE = 600
"""Looks at a prediction that the API may put off before it counts as lost."""


class Replicate:
    """Resolves the model to one version, once.

    Args:
        model: `owner/name`, `owner/name:version` or `deployments/owner/name`.
        token: REPLICATE_API_TOKEN.
    """

    def __init__(self, model: str, token: str, api: str = API) -> None:
        self.name = model
        self._http = Http(api, {"Authorization": f"Bearer {token}"})
        if model.startswith("deployments/"):
            release = self._get(f"/{model}")["current_release"]
            name, version = release["model"], release["version"]
            self._path, self._body = f"/{model}/predictions", {}
        else:
            name, _, version = model.partition(":")
            version = version or self._latest(name)
            self._path, self._body = "/predictions", {"version": version}
        schema = self._get(f"/models/{name}/versions/{version}")["openapi_schema"]
        self.known = dialect.properties(schema)

    def ask(self, inputs: Mapping[str, Any]) -> Iterator[Piece]:
        """See `Endpoint`. What the stream did not bring comes from the prediction."""
        yield from self.begin(inputs).pieces

    def begin(self, inputs: Mapping[str, Any]) -> Running:
        """A prediction, created now; one whose reader leaves goes on until it is canceled."""
        body = {**self._body, "input": dialect.adapt(inputs, self.known), "stream": True}
        prediction = self._http.json("POST", self._path, body)

        def cancel() -> None:
            self._http.json("POST", prediction["urls"]["cancel"])

        return Running(self._followed(prediction), cancel)

    def _followed(self, prediction: Mapping[str, Any]) -> Generator[Piece, None, None]:
        sent = 0
        if stream := prediction["urls"].get("stream"):
            for text in self._streamed(stream):
                sent += len(text)
                yield Piece(text)
        while (prediction := self._get(prediction["urls"]["get"]))["status"] in RUNNING:
            time.sleep(POLL)
        last = end(prediction)
        yield Piece("".join(prediction["output"] or [])[sent:], last.tokens, last.metrics, last.words)

    def _latest(self, name: str) -> str:
        latest = self._get(f"/models/{name}")["latest_version"]
        if not latest:
            raise Failed(f"{name} has no version")
        return str(latest["id"])

    def _streamed(self, url: str) -> Iterator[str]:
        """What comes of the stream; one that breaks is no failure, for the prediction goes on without it."""
        with contextlib.suppress(Busy, Failed), self._http.events("GET", url) as events:
            for event in events:
                if event.event in ("error", "done"):
                    return
                if event.event == "output":
                    yield event.data

    def _get(self, path: str) -> Any:
        for _ in range(PATIENCE):
            try:
                return self._http.json("GET", path)
            except Busy as busy:
                time.sleep(max(busy.seconds, POLL))
        raise Failed("the API puts everything off")
