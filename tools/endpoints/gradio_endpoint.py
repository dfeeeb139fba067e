"""A Gradio app with the existing Space's `chat_function(message, history)`, which deploy/space offers too.

The reply to a question is an id; the answer comes as the events of a second request:
https://www.gradio.app/guides/querying-gradio-apps-with-curl
"""

import os
from collections.abc import Generator, Mapping
from typing import Any
from urllib.parse import urlsplit

from snb.prompt import QUESTION
from tools.endpoints.endpoint import Failed, Http, Piece, faults
from tools.endpoints.openai_endpoint import system

INFO, CHAT = "/gradio_api/info", "/gradio_api/call/chat_function"


def hub_token(url: str) -> str:
    """HF_TOKEN, which opens a private Space, if `url` is on Hugging Face; else empty."""
    trusted = (urlsplit(url).hostname or "").endswith((".hf.space", ".huggingface.co"))
    return os.environ.get("HF_TOKEN", "") if trusted else ""


class Gradio:
    def __init__(self, name: str, url: str) -> None:
        self.name, self._http = name, Http(url, key=hub_token(url))

    def ask(self, inputs: Mapping[str, Any]) -> Generator[Piece]:
        message, text = f"{system(inputs)}\n\n{QUESTION}\n{inputs['user_message']}", ""
        with faults():
            name = self._http.json("POST", CHAT, {"data": [message, []]})["event_id"]
        with self._http.events("GET", f"{CHAT}/{name}") as events:
            for event in events:
                data: Any = event.json()
                if event.event == "error":
                    raise Failed(str((data or {}).get("error") or "the app failed, and does not say why"))
                if event.event in ("generating", "complete"):
                    before, text = text, newest(data)
                    yield Piece(text[len(before) :])
                if event.event == "complete":
                    return
        raise Failed("the stream ended before the answer did")


def is_gradio(http: Http) -> bool:
    """Whether a Gradio app answers there: only Gradio describes its endpoints at INFO."""
    try:
        return "named_endpoints" in http.look(INFO).json()
    except (Failed, ValueError, TypeError):
        return False


def newest(outputs: Any) -> str:
    """The newest answer in the outputs `["", history]`, whose last is `[question, answer]` or `{content}`."""
    [last] = outputs[-1][-1:] or [""]
    if isinstance(last, list) and len(outputs) == 1:
        return newest(outputs[0])  # an endpoint made with gr.api has one output, all that it returned
    if isinstance(last, list):
        last = last[1]
    if isinstance(last, dict):
        last = last["content"]
    return last if isinstance(last, str) else "".join(part["text"] for part in last or ())
