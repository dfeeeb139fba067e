"""A model behind Cog's own HTTP server: https://cog.run/http"""

import os
import secrets
from collections.abc import Generator, Iterator, Mapping
from typing import Any

from tools.endpoints import dialect
from tools.endpoints.endpoint import Canceled, Failed, Http, Piece, Running, numbers, words


class Cog:
    """Reads once which inputs the model has.

    Args:
        key: sent as the input `api_key`, where the model has one; SNB_API_KEY unless given.

    Raises:
        Failed: nothing that speaks Cog's HTTP answers at `url`.
    """

    def __init__(self, name: str, url: str, key: str | None = None) -> None:
        self.name = name
        self._http = Http(url)
        self._key = os.environ.get("SNB_API_KEY", "") if key is None else key
        self.known = dialect.properties(self._http.json("GET", "/openapi.json"))

    def ask(self, inputs: Mapping[str, Any]) -> Iterator[Piece]:
        """See `Endpoint`."""
        return self._pieces("POST", "/predictions", inputs)

    def begin(self, inputs: Mapping[str, Any]) -> Running:
        """An answer under an id of ours, by which it can be canceled; it is asked for by its first reader."""
        path = f"/predictions/{secrets.token_hex(16)}"

        def cancel() -> None:
            self._http.json("POST", f"{path}/cancel")

        return Running(self._pieces("PUT", path, inputs), cancel)

    def _pieces(self, method: str, path: str, inputs: Mapping[str, Any]) -> Generator[Piece, None, None]:
        given = {"api_key": self._key, **inputs} if self._key else inputs
        body = {"input": dialect.adapt(given, self.known)}
        with self._http.events(method, path, body) as events:
            for event in events:
                if event.event == "output":
                    yield Piece(event.json()["chunk"])
                elif event.event in ("completed", "error"):
                    yield end(event.json())
                    return
        raise Failed("the stream ended before the answer did")


def end(prediction: Mapping[str, Any]) -> Piece:
    """The last piece of a prediction that is over; raises Failed unless it succeeded."""
    status = prediction.get("status")
    if status != "succeeded":
        kind = Canceled if status in ("canceled", "aborted") else Failed
        raise kind(str(prediction.get("error") or prediction.get("detail") or status))
    metrics = numbers(prediction.get("metrics"))
    tokens = metrics.get("output_token_count")
    return Piece("", None if tokens is None else int(tokens), metrics, words(prediction.get("metrics")))
