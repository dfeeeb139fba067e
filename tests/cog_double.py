"""A small server with Cog's HTTP API and OpenAI's, for servers that break the protocol.

What a working server does is tested with the real one.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from tests.served import Served

FRENCH = (
    "La liberté n’est pas de faire tout ce que l’on désire, car le désir a lui-même des causes ; elle est de "
    "comprendre ces causes, et d’agir selon la raison plutôt que selon la crainte."
)
STEP = 0.004
"""Seconds per token, so that an answer takes time."""
Reply = tuple[int, str, str]
"""HTTP status, content type, body."""


class Double(Served):
    """One such server; `asked` holds the body of every question.

    Args:
        faults: what is broken, each as a phrase.
        key: expected as `Authorization: Bearer`; if empty, everybody is let in.
        replies: sent instead of answers, one per question; the last is repeated.
    """

    def __init__(self, *faults: str, key: str = "", replies: Sequence[Reply] = ()) -> None:
        self.faults, self.key, self.replies = faults, key, replies
        self.canceled, self.asked = set[str](), list[dict[str, Any]]()
        super().__init__(
            Route("/health-check", self._state),
            Route("/", self._state),
            Route("/predictions/{id}", self._question, methods=["PUT"]),
            Route("/predictions/{id}/cancel", self._cancel, methods=["POST"]),
            Route("/v1/chat/completions", self._question, methods=["POST"]),
        )

    def _refuses(self, request: Request) -> bool:
        return bool(self.key) and request.headers.get("authorization") != f"Bearer {self.key}"

    async def _state(self, request: Request) -> Response:
        if request.url.path == "/" and self._refuses(request):
            return JSONResponse({"error": "UNAUTHORIZED"}, 401)
        whole = {"cog_version": "0.23.1", "status": "READY"}
        return JSONResponse(5 if "health is a number" in self.faults else whole)

    async def _cancel(self, request: Request) -> Response:
        if "ignores cancel" not in self.faults:
            self.canceled.add(request.path_params["id"])
        return JSONResponse({})

    async def _question(self, request: Request) -> Response:
        """A prediction, or a question in OpenAI's form; both are streamed."""
        body = await request.json()
        self.asked.append(body)
        if self.replies:
            status, kind, content = self.replies[min(len(self.asked), len(self.replies)) - 1]
            return Response(content, status, {"Retry-After": "1"} if status == 429 else {}, kind)
        if self._refuses(request):
            return JSONResponse({"error": "UNAUTHORIZED"}, 401)
        inputs = body.get("input", {})
        if inputs.get("philosopher") == "descartes" and "accepts anything" not in self.faults:
            return JSONResponse({"detail": "no" if "vague" in self.faults else "philosopher"}, 422)
        events = self._answer(request.path_params["id"], inputs) if inputs else completion()
        return StreamingResponse(events, media_type="text/event-stream")

    async def _answer(self, name: str, inputs: Mapping[str, Any]) -> AsyncIterator[str]:
        if "stalls" in self.faults:
            await asyncio.Event().wait()
        words, count = FRENCH.split(), max(inputs.get("min_tokens", 0), 48)
        for number in range(count):
            await asyncio.sleep(STEP)
            if name in self.canceled:
                yield event("completed", {"status": "canceled"})
                return
            yield event("output", {"chunk": f"{words[number % len(words)]} "})
        metrics = {"input_token_count": 100, "output_token_count": count, "finish_reason": "stop"}
        metrics |= {"seed": inputs["seed"], "time_to_first_token": STEP}
        if "cut" not in self.faults:
            yield event("completed", {"status": "succeeded", "metrics": metrics})


async def completion() -> AsyncIterator[str]:
    chunks = [json.dumps({"choices": [{"delta": {"content": f"{word} "}}]}) for word in FRENCH.split()]
    for chunk in (*chunks, "[DONE]"):
        yield f"data: {chunk}\n\n"
        await asyncio.sleep(STEP)


def event(name: str, data: Any) -> str:
    return f"event: {name}\ndata: {json.dumps(data)}\n\n"
