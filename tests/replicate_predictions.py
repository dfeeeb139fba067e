"""Predictions as Replicate keeps and streams them, each run by a real Cog server.

- The object: https://replicate.com/docs/reference/http#predictions.get
- Statuses and deadlines: https://replicate.com/docs/topics/predictions/lifecycle
- The stream: https://replicate.com/docs/topics/predictions/streaming, whose events are those of
  https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

import asyncio
import base64
import json
import re
import secrets
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import httpx

SETUP_FAILED = "model container failed to boot and complete setup within 600 seconds"
"""What Replicate says of a boot that fails: https://github.com/replicate/replicate-python/issues/298"""
UNKNOWN = "Prediction failed for an unknown reason. (E1000)"
"""Codes of errors: https://replicate.com/docs/reference/error-codes"""
TURN = 0.05
"""Seconds between two looks for a free place: what no instance can take yet stays `starting`."""
FULL = (409, 503)


@dataclass(eq=False)
class Prediction:
    """One prediction; waiters are told of every change.

    Args:
        version: as the object shows it, `hidden` for an official model.
    """

    model: str
    version: str
    input: dict[str, Any]
    deployment: str | None = None
    id: str = field(default_factory=lambda: token(16))
    key: str = field(default_factory=lambda: token(32))
    status: str = "starting"
    output: list[str] = field(default_factory=list)
    error: str | None = None
    logs: str = ""
    measured: dict[str, Any] = field(default_factory=dict)
    created_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    started_at: datetime | None = None
    completed_at: datetime | None = None
    events: list[tuple[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._changed = asyncio.Event()

    @property
    def over(self) -> bool:
        """Whether its status is final."""
        return self.completed_at is not None

    def start(self) -> None:
        """`predict()` runs."""
        self.status, self.started_at = "processing", datetime.now(UTC)
        self._tell()

    def add(self, chunk: str) -> None:
        """A piece of output came."""
        self.output.append(chunk)
        self.events.append(("output", chunk))
        self._tell()

    def finish(self, status: str, error: str | None = None) -> None:
        """Its last status, and the stream's last words: `done`, after an `error` if it failed."""
        self.status, self.error, self.completed_at = status, error, datetime.now(UTC)
        reason = {"succeeded": {}, "failed": {"reason": "error"}}.get(status, {"reason": "canceled"})
        if error:
            self.events.append(("error", json.dumps({"detail": error})))
        self.events.append(("done", json.dumps(reason)))
        self._tell()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def ended(self) -> None:
        """Returns when its status is final."""
        while not self.over:
            await self._changed.wait()

    async def stream(self, last: str = "") -> AsyncIterator[bytes]:
        """Its events as they are sent, from the first on or from the one after the id `last`."""
        ids = [self._id(number) for number in range(len(self.events))]
        number = ids.index(last) + 1 if last in ids else 0
        while True:
            changed = self._changed
            for event, data in self.events[number:]:
                yield sent(event, self._id(number), data)
                number += 1
            if self.over and number == len(self.events):
                return
            await changed.wait()

    def _id(self, number: int) -> str:
        return f"{int(self.created_at.timestamp())}:{number}"

    def shown(self, base: str) -> dict[str, Any]:
        """The prediction object; `base` is where the API is."""
        here = f"{base}/v1/predictions/{self.id}"
        return {
            "id": self.id,
            "model": self.model,
            "version": self.version,
            **({"deployment": self.deployment} if self.deployment else {}),
            "input": self.input,
            "output": self.output or None,
            "status": self.status,
            "error": self.error,
            "logs": self.logs,
            "metrics": self._metrics(),
            "source": "api",
            "data_removed": False,
            "created_at": stamp(self.created_at),
            "started_at": stamp(self.started_at),
            "completed_at": stamp(self.completed_at),
            "urls": {
                "get": here,
                "cancel": f"{here}/cancel",
                "stream": f"{base}/v1/streams/{self.key}",
                "web": f"{base}/p/{self.id}",
            },
        }

    def _metrics(self) -> dict[str, Any]:
        if not self.completed_at:
            return {}
        times = {"total_time": (self.completed_at - self.created_at).total_seconds()}
        if self.started_at:
            times["predict_time"] = (self.completed_at - self.started_at).total_seconds()
        return {**self.measured, **times}


def token(size: int) -> str:
    """Random letters and digits in the manner of Replicate's ids."""
    return base64.b32encode(secrets.token_bytes(size)).decode().rstrip("=").lower()


def stamp(time: datetime | None) -> str | None:
    """A time as the API writes it."""
    return time.isoformat().replace("+00:00", "Z") if time else None


def sent(event: str, name: str, data: str) -> bytes:
    """One server-sent event: a `data:` line for each line of text, whose leading spaces stay.

    The format has no carriage returns in data: alone or before a line feed they too end a line.
    """
    lines = "".join(f"data: {line}\n" for line in re.split("\r\n|\r|\n", data))
    return f"event: {event}\nid: {name}\n{lines}\n".encode()


class Predictions:
    """Every prediction made, the newest last, and the Cog server that runs them."""

    def __init__(self, cog: str) -> None:
        # Loopback: no proxy on the way. A prediction takes as long as it takes.
        self._cog = httpx.AsyncClient(base_url=cog, trust_env=False, timeout=httpx.Timeout(10, read=None))
        self._tasks: dict[Prediction, asyncio.Task[None]] = {}

    def __iter__(self) -> Iterator[Prediction]:
        return iter(self._tasks)

    def create(self, prediction: Prediction, cold: float, broken: bool, deadline: float | None) -> None:
        """Runs it.

        Args:
            cold: seconds that the boot of its instance takes.
            broken: that boot fails.
            deadline: seconds from now after which it is canceled.
        """
        self._tasks[prediction] = asyncio.create_task(self._run(prediction, cold, broken))
        if deadline is not None:
            asyncio.get_running_loop().call_later(deadline, self.expire, prediction)

    def expire(self, prediction: Prediction) -> None:
        """Its deadline is reached."""
        self.cancel(prediction, "aborted" if prediction.status == "starting" else "canceled")

    def cancel(self, prediction: Prediction, status: str = "canceled") -> None:
        """Ends it now; one that is over stays as it is. A dropped connection stops Cog's server."""
        if not prediction.over:
            prediction.finish(status)
            self._tasks[prediction].cancel()

    async def _run(self, prediction: Prediction, cold: float, broken: bool) -> None:
        await asyncio.sleep(cold)
        if broken:
            prediction.finish("failed", SETUP_FAILED)
            return
        try:
            while not await self._forward(prediction):
                await asyncio.sleep(TURN)
        except (httpx.HTTPError, ValueError, KeyError):
            prediction.finish("failed", UNKNOWN)

    async def _forward(self, prediction: Prediction) -> bool:
        """Whether the Cog server took it; if it did, it is over now."""
        request = self._cog.stream(
            "PUT",
            f"/predictions/{prediction.id}",
            json={"input": prediction.input},
            headers={"Accept": "text/event-stream"},
        )
        try:
            async with request as reply:
                if reply.status_code in FULL:
                    return False
                if not reply.is_success:
                    prediction.finish("failed", (await reply.aread()).decode())
                    return True
                async for event, data in events(reply):
                    follow(prediction, event, data)
        except httpx.ConnectError:
            return False
        if not prediction.over:
            prediction.finish("failed", UNKNOWN)
        return True


def follow(prediction: Prediction, event: str, data: dict[str, Any]) -> None:
    """Does what one event of Cog's stream says: https://cog.run/http#streaming"""
    if event == "start":
        prediction.start()
    elif event == "output":
        prediction.add(data["chunk"])
    elif event in ("completed", "error"):
        prediction.logs = data.get("logs", "")
        prediction.measured = data.get("metrics", {})
        status = "succeeded" if data.get("status") == "succeeded" else "failed"
        prediction.finish(status, None if status == "succeeded" else data.get("error") or UNKNOWN)


async def events(reply: httpx.Response) -> AsyncIterator[tuple[str, dict[str, Any]]]:
    """Cog's server-sent events, split at line feeds only, for Python has other ends of lines too."""
    rest = b""
    async for piece in reply.aiter_bytes():
        *blocks, rest = (rest + piece).split(b"\n\n")
        for block in blocks:
            fields = dict(line.split(b": ", 1) for line in block.split(b"\n") if b": " in line)
            if b"event" in fields:
                yield fields[b"event"].decode(), json.loads(fields[b"data"])
