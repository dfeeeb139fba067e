"""A model behind Cog's own HTTP server: https://cog.run/http"""

import os
import secrets
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import Any

from tools.endpoints.endpoint import Failed, Http, Piece, end


def own_key() -> str:
    """SNB_API_KEY, or "" if it is not set. Raises Failed if it is set but empty, as in a new shell."""
    value = os.environ.get("SNB_API_KEY")
    if value is not None and not value.strip():
        cure = "type . ~/.spinoza.env to read it, or unset SNB_API_KEY if there is none"
        raise Failed(f"SNB_API_KEY is set and empty: {cure}")
    return value or ""


class Cog:
    """A Cog server that runs this package, at `url`.

    Args:
        key: sent as `Authorization: Bearer`; SNB_API_KEY unless given.
    """

    def __init__(self, name: str, url: str, key: str | None = None) -> None:
        self.name, self.url = name, url
        self._http = Http(url, key=own_key() if key is None else key)

    def ask(self, inputs: Mapping[str, Any]) -> Iterator[Piece]:
        return self.begin(inputs)[0]

    def begin(self, inputs: Mapping[str, Any]) -> tuple[Generator[Piece], Callable[[], object]]:
        """The pieces of an answer, whose request is sent when the first is read, and what cancels it."""
        path = f"/predictions/{secrets.token_hex(16)}"
        return self._pieces(path, inputs), lambda: self._http.json("POST", f"{path}/cancel")

    def _pieces(self, path: str, inputs: Mapping[str, Any]) -> Generator[Piece]:
        with self._http.events("PUT", path, {"input": dict(inputs)}) as events:
            for event in events:
                data: Any = event.json()
                if event.event == "output":
                    yield Piece(data["chunk"])
                elif event.event in ("completed", "error"):
                    yield end(data)
                    return
        raise Failed("the stream ended before the answer did")


def status(http: Http) -> str:
    """The status that the server reports, or `DOWN` if it cannot be read."""
    try:
        return str(http.look("/health-check").json()["status"])
    except Exception:  # whatever went wrong, the next look may succeed
        return "DOWN"
