"""HTTP for the backends: one client each, and a Refusal for every failure."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine, Mapping
from typing import Any
from urllib.parse import urlsplit

import httpx2
from refusal import Refusal, of_response

SILENCE = 600.0
"""Seconds without a byte after which an answer has failed; on a full server the last one waits minutes."""
LOOPBACK = ("127.0.0.1", "::1", "localhost")

_errands: set[asyncio.Task[None]] = set()


class Http:
    """Requests below one address; any number at once, since Gradio's queue limits them.

    Raises:
        Refusal: for any failure of the network or the server.
    """

    def __init__(self, base: str, headers: dict[str, str] | None = None) -> None:
        self._client = httpx2.AsyncClient(
            base_url=base,
            headers=headers,
            timeout=httpx2.Timeout(SILENCE, connect=10, pool=None),
            limits=httpx2.Limits(max_connections=None, max_keepalive_connections=20),
            trust_env=urlsplit(base).hostname not in LOOPBACK,  # no proxy on the way to this machine
        )

    async def json(self, method: str, path: str, **request: Any) -> Any:
        """The JSON of one reply."""
        with told_apart():
            response = await self._client.request(method, path, timeout=30, **request)
            if not response.is_success:
                raise of_response(response)
            return response.json()

    @contextlib.asynccontextmanager
    async def events(
        self, method: str, path: str, headers: Mapping[str, str] = {}, **request: Any
    ) -> AsyncIterator[httpx2.EventSource]:
        """The server-sent events of one reply, as they come; leaving the context drops the connection."""
        headers = {**headers, "Accept": "text/event-stream"}
        with told_apart():
            async with self._client.stream(method, path, headers=headers, **request) as response:
                if not response.is_success:
                    await response.aread()
                    raise of_response(response)
                yield httpx2.EventSource(response)

    async def close(self) -> None:
        """Drops what is open."""
        await self._client.aclose()


@contextlib.contextmanager
def told_apart() -> Any:
    """Turns any network or parsing error into a Refusal that repeats nothing but its type."""
    try:
        yield
    except (httpx2.HTTPError, httpx2.InvalidURL, ValueError, KeyError, TypeError) as error:
        raise Refusal("BACKEND_FAILED", f"the connection failed ({type(error).__name__})") from error


def later(errand: Coroutine[Any, Any, Any]) -> None:
    """Runs a task that outlives its answer; ignores a Refusal."""

    async def run() -> None:
        with contextlib.suppress(Refusal):
            await errand

    task = asyncio.create_task(run())
    _errands.add(task)  # the loop itself keeps only a weak reference
    task.add_done_callback(_errands.discard)
