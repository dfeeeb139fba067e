"""A model or a deployment on Replicate: https://replicate.com/docs/reference/http

Its stream has the events `output` (plain text), `error` and `done`. It may end early; the prediction itself
then has the missing text, and says how it ended.
"""

import asyncio
import contextlib
import re
from collections.abc import AsyncGenerator, Callable
from typing import Any

from cog_backend import check
from http_backend import Http, later
from refusal import Refusal

API = "https://api.replicate.com"
MODEL = re.compile(r"(deployments/)?([\w.-]+/[\w.-]+?)(?::(\w+))?")
LOOK = 0.5
"""Seconds between two polls of a prediction."""
LIFE = "15m"
"""The time a prediction may take, cold boot included; Replicate then cancels it by itself."""
RUNNING = ("starting", "processing")


class Replicate:
    """Community models are asked by version; the latest is looked up for each question.

    Args:
        model: `owner/name`, `owner/name:version` or `deployments/owner/name`.
        token: REPLICATE_API_TOKEN.
        api: REPLICATE_API_BASE_URL, as in the JavaScript client.

    Raises:
        ValueError: `model` is none of these.
    """

    def __init__(self, model: str, token: str, api: str = "") -> None:
        named = MODEL.fullmatch(model)
        if not named:
            raise ValueError("after replicate: owner/name[:version] or deployments/owner/name is expected")
        deployment, self._model, self._version = named[1], named[2], named[3]
        self._path = f"/deployments/{self._model}/predictions" if deployment else "/predictions"
        self._by_version = not deployment
        base = (api or API).rstrip("/").removesuffix("/v1")
        self._http = Http(f"{base}/v1", {"Authorization": f"Bearer {token}"})

    async def ask(self, inputs: dict[str, Any], say: Callable[..., None]) -> AsyncGenerator[str, None]:
        """The answer, piece by piece. See `backend.Backend`."""
        prediction = await self._created(inputs)
        sent = ""
        try:
            while prediction["status"] == "starting":
                say("COLD_START")
                await asyncio.sleep(LOOK)
                prediction = await self._seen(prediction)
            async for text in self._streamed(prediction):
                sent += text
                yield text
            while prediction["status"] in RUNNING:
                prediction = await self._seen(prediction)
                await asyncio.sleep(LOOK if prediction["status"] in RUNNING else 0)
            check(prediction, say)
            yield rest(prediction, sent)
        finally:
            if prediction["status"] in RUNNING:
                later(self._http.json("POST", f"/predictions/{prediction['id']}/cancel"))

    async def close(self) -> None:
        """Drops what is open."""
        await self._http.close()

    async def _created(self, inputs: dict[str, Any]) -> dict[str, Any]:
        body: dict[str, Any] = {"input": inputs, "stream": True}
        if self._by_version:
            body["version"] = self._version or await self._latest_version()
        created = await self._http.json("POST", self._path, json=body, headers={"Cancel-After": LIFE})
        return dict(created)

    async def _latest_version(self) -> str:
        """The latest version's id; looked up for each question, since it changes."""
        found = await self._http.json("GET", f"/models/{self._model}")
        if not found.get("latest_version"):
            raise Refusal("BACKEND_FAILED", "the model on Replicate has no version")
        return str(found["latest_version"]["id"])

    async def _seen(self, prediction: dict[str, Any]) -> dict[str, Any]:
        """The prediction as it stands now; a failed poll is retried, since the answer goes on."""
        for _ in range(10):
            try:
                return dict(await self._http.json("GET", f"/predictions/{prediction['id']}"))
            except Refusal as refusal:
                if refusal.final:
                    raise
                await asyncio.sleep(max(refusal.retry_after, LOOK))
        raise Refusal("BACKEND_FAILED", "Replicate does not say how the answer stands")

    async def _streamed(self, prediction: dict[str, Any]) -> AsyncGenerator[str, None]:
        url = prediction["urls"].get("stream")
        if not url or prediction["status"] not in RUNNING:
            return
        with contextlib.suppress(Refusal):  # the prediction goes on without its stream
            async with self._http.events("GET", url) as events:
                async for event in events:
                    if event.event in ("done", "error"):
                        return
                    if event.event == "output":
                        yield event.data


def rest(prediction: dict[str, Any], sent: str) -> str:
    """The part of the whole answer that follows `sent`; raises Refusal if it does not begin with that."""
    output = prediction["output"] or []
    text = output if isinstance(output, str) else "".join(output)
    if not text.startswith(sent):
        raise Refusal("BACKEND_FAILED", "the stream and the answer differ")
    return text[len(sent) :]
