"""A server that speaks OpenAI's chat completions, as transformers, vLLM and providers of public models do."""

import os
from collections.abc import Generator, Iterator, Mapping
from typing import Any

from tools.endpoints import dialect
from tools.endpoints.endpoint import Failed, Http, Piece, Refused, Running

SHARED = ("max_tokens", "temperature", "top_p")
AS_THE_SITE = {"temperature": 0.7, "stream_options": {"include_usage": True}}
"""What the JavaScript client sends besides."""


class ChatCompletions:
    """A model of a server.

    Args:
        url: the API's base, `https://host/v1`.
        extra: goes with every request: what this server takes beyond what all take.
        key: sent as `Authorization: Bearer`; empty for none.
    """

    known = frozenset({"philosopher", "user_message", "system_prompt", *SHARED})

    def __init__(self, name: str, url: str, model: str, extra: Mapping[str, Any], key: str = "") -> None:
        self.name, self._http = name, Http(url, key=key)
        self._fixed = {"model": model, "stream": True, **extra}

    def ask(self, inputs: Mapping[str, Any]) -> Iterator[Piece]:
        """See `Endpoint`."""
        return self._pieces(inputs)

    def begin(self, inputs: Mapping[str, Any]) -> Running:
        """An answer, asked for by its first reader; it ends when its reader leaves."""
        pieces = self._pieces(inputs)
        return Running(pieces, pieces.close)

    def _pieces(self, inputs: Mapping[str, Any]) -> Generator[Piece, None, None]:
        texts = {"system": dialect.system(inputs), "user": dialect.message(inputs)}
        messages = [{"role": role, "content": text} for role, text in texts.items()]
        shared = {name: inputs[name] for name in SHARED if name in inputs}
        finished = False
        with self._http.events(
            "POST", "/chat/completions", {"messages": messages, **shared, **self._fixed}
        ) as events:
            for event in events:
                if event.data == "[DONE]":
                    return
                chunk: Any = event.json()
                if "error" in chunk:
                    raise Failed(str(chunk["error"]))
                tokens = (chunk.get("usage") or {}).get("completion_tokens")
                choice = chunk["choices"][0] if chunk["choices"] else {}
                finished = finished or bool(choice.get("finish_reason"))
                text = choice.get("delta", {}).get("content") or ""
                yield Piece(text, tokens, {} if tokens is None else {"output_token_count": tokens})
        if not finished:  # transformers 5.23 sends no [DONE]
            raise Failed("the stream ended before the answer did")


def general(base: str, model: str) -> ChatCompletions:
    """A model of a provider, as the site asks it, with SNB_OPENAI_TOKEN.

    Raises:
        Failed: the provider does not answer, does not let us in, or lists its models and this is not one.
    """
    token = os.environ.get("SNB_OPENAI_TOKEN", "")
    try:
        listed = Http(base, key=token).json("GET", "/models")
    except Refused as refused:
        if refused.status in (401, 403):
            cure = "SNB_OPENAI_TOKEN here is not one of this provider's" if token else "set SNB_OPENAI_TOKEN"
            raise Failed(f"UNAUTHORIZED: {cure}") from refused
        listed = []  # it has no list
    models = listed.get("data", []) if isinstance(listed, dict) else listed
    names = [one["id"] for one in models if isinstance(one, dict) and "id" in one]
    if names and model not in names:
        near = [name for name in names if "qwen" in name.lower()] or names
        raise Failed(f"the provider has no model {model}, but {', '.join(near)}")
    return ChatCompletions(f"openai:{base}#{model}", base, model, AS_THE_SITE, token)
