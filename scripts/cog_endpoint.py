"""A model behind Cog's own HTTP server: https://cog.run/http"""

from collections.abc import Iterator, Mapping
from typing import Any

import dialect
from endpoint import Failed, Http, Piece, numbers


class Cog:
    """Reads once which inputs the model has.

    Raises:
        Failed: nothing that speaks Cog's HTTP answers at `url`.
    """

    def __init__(self, name: str, url: str) -> None:
        self.name = name
        self._http = Http(url)
        self.known = dialect.properties(self._http.json("GET", "/openapi.json"))

    def ask(self, inputs: Mapping[str, Any]) -> Iterator[Piece]:
        """See `Endpoint`."""
        body = {"input": dialect.adapt(inputs, self.known)}
        with self._http.events("POST", "/predictions", body) as events:
            for event in events:
                if event.event == "output":
                    yield Piece(event.json()["chunk"])
                elif event.event in ("completed", "error"):
                    yield end(event.json())
                    return
        raise Failed("the stream ended before the answer did")


def end(prediction: Mapping[str, Any]) -> Piece:
    """The last piece of a prediction that is over; raises Failed unless it succeeded."""
    if prediction.get("status") != "succeeded":
        raise Failed(str(prediction.get("error") or prediction.get("detail") or prediction.get("status")))
    metrics = numbers(prediction.get("metrics"))
    tokens = metrics.get("output_token_count")
    return Piece("", None if tokens is None else int(tokens), metrics)
