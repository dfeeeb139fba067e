"""Predictions as Replicate keeps them, run by a real Cog server.

Objects, statuses and fields: https://replicate.com/docs/reference/http#predictions.get
Life cycle: https://replicate.com/docs/topics/predictions/lifecycle
"""

import asyncio
import json
import re
import secrets
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import httpx

RUNNING = ("starting", "processing")


def now() -> str:
    """A time as the API writes it."""
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")


@dataclass
class Prediction:
    """One prediction; `changed` is set anew whenever there is more of it."""

    model: str
    version: str
    input: dict[str, Any]
    base: str
    id: str = field(default_factory=lambda: secrets.token_hex(13))
    status: str = "starting"
    output: list[str] | None = None
    error: str | None = None
    metrics: dict[str, Any] = field(default_factory=dict)
    created_at: str = field(default_factory=now)
    started_at: str | None = None
    completed_at: str | None = None
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None

    @property
    def running(self) -> bool:
        return self.status in RUNNING

    def json(self) -> dict[str, Any]:
        """The object of the API."""
        url = f"{self.base}/v1/predictions/{self.id}"
        names = ("id", "model", "version", "input", "output", "status", "error", "metrics")
        times = ("created_at", "started_at", "completed_at")
        urls = {"get": url, "cancel": f"{url}/cancel", "stream": f"{self.base}/stream/{self.id}"}
        return {name: getattr(self, name) for name in (*names, *times)} | {"urls": urls, "logs": ""}

    def set(self, **changes: Any) -> None:
        """Changes fields and wakes who waits."""
        for name, value in changes.items():
            setattr(self, name, value)
        self.changed.set()
        self.changed = asyncio.Event()

    async def run(self, cog: str, cold: float, broken: bool) -> None:
        """A cold start, then the answer of the Cog server at `cog`; ends with a terminal status."""
        try:
            await asyncio.sleep(cold)
            if broken:
                # https://replicate.com/docs/topics/models/errors: a model whose setup() fails
                self.set(status="failed", error="Model setup failed", completed_at=now())
                return
            self.set(status="processing", started_at=now())
            async for event, data in self._events(cog):
                if event == "output":
                    self.set(output=[*(self.output or []), data["chunk"]])
                if event == "completed":
                    metrics = data.get("metrics") or {}
                    outcome = {"status": data["status"], "error": data.get("error"), "metrics": metrics}
                    self.set(**outcome, completed_at=now())
        except (httpx.HTTPError, OSError):
            pass
        if self.running:
            self.set(
                status="failed", error="Prediction interrupted; please retry (code: PA)", completed_at=now()
            )

    async def _events(self, cog: str) -> AsyncIterator[tuple[str, Any]]:
        body, headers = {"input": self.input}, {"Accept": "text/event-stream"}
        async with (
            httpx.AsyncClient(timeout=None) as client,
            client.stream("POST", f"{cog}/predictions", json=body, headers=headers) as response,
        ):
            event = ""
            async for line in response.aiter_lines():
                name, _, value = line.partition(": ")
                if name == "event":
                    event = value
                elif name == "data":
                    yield event, json.loads(value)

    async def cancel(self, status: str = "canceled") -> None:
        """Ends it; the Cog server notices that its reader left."""
        if not self.running:
            return
        if self.task:
            self.task.cancel()
            with suppress(asyncio.CancelledError):
                await self.task
        self.set(status=status, completed_at=now())

    async def wait(self, seconds: float) -> None:
        """Returns at its end, or after `seconds`: https://replicate.com/docs/topics/predictions/create-a-prediction"""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self.running:
                    await self.changed.wait()

    async def stream(self) -> AsyncIterator[bytes]:
        """Its server-sent events: https://replicate.com/docs/topics/predictions/streaming"""
        sent = 0
        while True:
            chunks = self.output or []
            for chunk in chunks[sent:]:
                sent += 1
                data = "".join(f"data: {line}\n" for line in chunk.split("\n"))
                yield f"event: output\nid: {sent}:0\n{data}\n".encode()
            if not self.running and sent == len(self.output or []):
                break
            if sent == len(self.output or []):
                await self.changed.wait()
        if self.status == "failed":
            yield f"event: error\ndata: {json.dumps({'detail': self.error})}\n\n".encode()
        reason = "{}" if self.status == "succeeded" else json.dumps({"reason": self.status})
        yield f"event: done\ndata: {reason}\n\n".encode()


def seconds(duration: str) -> float:
    """`Cancel-After`: "30s", "1m", "1h30m" — https://replicate.com/docs/topics/predictions/create-a-prediction"""
    factors = {"s": 1, "m": 60, "h": 3600}
    return sum(
        float(number) * factors[unit] for number, unit in re.findall(r"([\d.]+)([smh])", duration)
    ) or float(duration)
