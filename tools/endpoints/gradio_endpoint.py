"""A Gradio app: deploy/space with `/answer`, or the existing Space with `chat_function(message, history)`.

The reply to a question is an id, and the answer comes as events of a second request:
https://www.gradio.app/guides/querying-gradio-apps-with-curl
"""

import os
import re
from collections.abc import Generator, Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from snb.prompt import QUESTION
from tools.endpoints import dialect
from tools.endpoints.endpoint import Failed, Http, Piece, Running, faults

INFO = "/gradio_api/info"
RICH, PLAIN = "/answer", "/chat_function"
ERROR = re.compile(r"\s*(?:❌|⚠️)")
"""How the existing Space begins an error that it gives for an answer."""


class Gradio:
    """Reads once which endpoint the app has. HF_TOKEN, which opens a private Space, goes to no other host.

    Raises:
        Failed: it has neither, or does not answer.
    """

    def __init__(self, name: str, url: str) -> None:
        self.name, self._prefix = name, INFO.removesuffix("/info")
        trusted = (urlsplit(url).hostname or "").endswith((".hf.space", ".huggingface.co"))
        self._http = Http(url, key=os.environ.get("HF_TOKEN", "") if trusted else "")
        with faults():
            endpoints = self._http.json("GET", INFO)["named_endpoints"]
            self._parameters = {
                one["parameter_name"]: one.get("parameter_default")
                for one in endpoints.get(RICH, {}).get("parameters", ())
            }
        if not self._parameters and PLAIN not in endpoints:
            raise Failed(
                f"the Gradio app has neither {RICH} nor {PLAIN}, but {', '.join(endpoints) or 'nothing'}"
            )
        self.known = frozenset(self._parameters or ("philosopher", "user_message"))

    def ask(self, inputs: Mapping[str, Any]) -> Iterator[Piece]:
        """See `Endpoint`."""
        return self._pieces(inputs)

    def begin(self, inputs: Mapping[str, Any]) -> Running:
        """An answer, asked for by its first reader. Gradio ends one whose reader leaves."""
        pieces = self._pieces(inputs)
        return Running(pieces, pieces.close)

    def _pieces(self, inputs: Mapping[str, Any]) -> Generator[Piece, None, None]:
        path, text = f"{self._prefix}/call{RICH if self._parameters else PLAIN}", ""
        with faults():
            name = self._http.json("POST", path, {"data": self._data(inputs)})["event_id"]
        with self._http.events("GET", f"{path}/{name}") as events:
            for event in events:
                data: Any = event.json()
                if event.event == "error":
                    raise Failed(str((data or {}).get("error") or "the app failed, and does not say why"))
                if event.event in ("generating", "complete"):
                    before, text = text, newest(data)
                    if not self._parameters and ERROR.match(text):
                        raise Failed(f"an error for an answer: {text}")
                    metrics = dict(*data[1:]) if self._parameters else {}  # of an older page, none
                    # What was written before the second request comes at once: no rate for its pieces.
                    metrics.pop("tokens_per_second", None)
                    yield Piece(text[len(before) :], metrics.get("output_token_count"), metrics)
                if event.event == "complete":
                    return
        raise Failed("the stream ended before the answer did")

    def _data(self, inputs: Mapping[str, Any]) -> list[Any]:
        """The arguments of the endpoint; `chat_function` gets all as one message, as the client packs it."""
        if not self._parameters:
            return [f"{dialect.system(inputs)}\n\n{QUESTION}\n{inputs['user_message']}", []]
        return list({**self._parameters, **dialect.adapt(inputs, self.known)}.values())


def is_gradio(http: Http) -> bool:
    """Whether a Gradio app of version 5 or later answers there."""
    try:
        return "named_endpoints" in http.look(INFO).json()
    except (Failed, ValueError, TypeError):
        return False


def newest(outputs: Any) -> str:
    """The newest answer in an endpoint's outputs: a text, `[[question, answer], …]` or `[{content}, …]`."""
    if len(outputs) == 1 and isinstance(outputs[0], list) and isinstance(outputs[0][-1], list):
        outputs = outputs[0]  # made with gr.api, an endpoint has one output with all that it returned
    last = next((output[-1] for output in outputs if isinstance(output, list)), outputs[0])
    if isinstance(last, list):
        last = last[1]
    if isinstance(last, dict):
        last = last["content"]
    return last if isinstance(last, str) else "".join(part["text"] for part in last or ())
