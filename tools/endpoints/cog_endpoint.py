"""A model behind Cog's own HTTP server: https://cog.run/http"""

import os
import secrets
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import Any

from snb.front.cog_server import DEAD
from tools.endpoints import dialect
from tools.endpoints.endpoint import Failed, Http, Piece, Running, end

POLL, LOOK = 0.5, 10.0
"""Seconds between two looks at a server that boots; and for one, since such a host can swallow packets."""


class Cog:
    """Reads once which inputs the model has.

    Args:
        key: sent as `Authorization: Bearer`; SNB_API_KEY unless given.

    Raises:
        Failed: nothing that speaks Cog's HTTP answers at `url`.
    """

    def __init__(self, name: str, url: str, key: str | None = None) -> None:
        self.name, self.url = name, url
        self._http = Http(url, key=os.environ.get("SNB_API_KEY", "") if key is None else key)
        self.known = dialect.properties(self._http.json("GET", "/openapi.json"))

    def ask(self, inputs: Mapping[str, Any]) -> Iterator[Piece]:
        """See `Endpoint`."""
        return self._pieces("POST", "/predictions", inputs)

    def begin(self, inputs: Mapping[str, Any]) -> Running:
        """An answer under an id of ours, by which it can be canceled; it is asked for by its first reader."""
        path = f"/predictions/{secrets.token_hex(16)}"
        return Running(self._pieces("PUT", path, inputs), lambda: self._http.json("POST", f"{path}/cancel"))

    def _pieces(self, method: str, path: str, inputs: Mapping[str, Any]) -> Generator[Piece, None, None]:
        body = {"input": dialect.adapt(inputs, self.known)}
        with self._http.events(method, path, body) as events:
            for event in events:
                data: Any = event.json()
                if event.event == "output":
                    yield Piece(data["chunk"])
                elif event.event in ("completed", "error"):
                    yield end(data)
                    return
        raise Failed("the stream ended before the answer did")


def await_ready(url: str, limit: float, say: Callable[[str], None]) -> float:
    """Seconds until the Cog server at `url` took predictions; `say` is told each new state.

    One that does not answer yet is waited for: a container that boots does not listen from its first second.

    Raises:
        Failed: its setup failed, or it is not ready after `limit` seconds.
    """
    began, http, before = time.monotonic(), Http(url, LOOK), ""
    while (state := status(http)) not in ("READY", "BUSY"):
        if state in DEAD:
            raise Failed(f"the server says {state}; its log says why")
        if time.monotonic() - began + POLL > limit:
            raise Failed(f"not ready within {limit:g} s: {state}")
        if state != before:
            say(f"waiting for the server: {state}")
        before = state
        time.sleep(POLL)
    return time.monotonic() - began


def status(http: Http) -> str:
    """What the server says of itself, or `DOWN` and why."""
    try:
        return str(http.json("GET", "/health-check", whatever=True)["status"])
    except Exception as error:  # whatever it is, the next look may find better
        return f"DOWN ({error})"
