"""A server that speaks OpenAI's chat completions, as transformers and vLLM do."""

from collections.abc import Iterator, Mapping
from typing import Any

from tools.endpoints import dialect
from tools.endpoints.endpoint import Failed, Http, Piece


class ChatCompletions:
    """`extra` goes with every request: what this server takes beyond what all take."""

    known = frozenset({"system_prompt"})

    def __init__(self, name: str, url: str, model: str, extra: Mapping[str, Any]) -> None:
        self.name, self._model, self._extra = name, model, extra
        self._http = Http(url)

    def ask(self, inputs: Mapping[str, Any]) -> Iterator[Piece]:
        """See `Endpoint`."""
        finished = False
        with self._http.events("POST", "/v1/chat/completions", self._body(inputs)) as events:
            for event in events:
                if event.data == "[DONE]":
                    return
                chunk: Any = event.json()
                if "error" in chunk:
                    raise Failed(str(chunk["error"]))
                tokens = (chunk.get("usage") or {}).get("completion_tokens")
                choice = chunk["choices"][0] if chunk["choices"] else {}
                finished = finished or bool(choice.get("finish_reason"))
                yield Piece(choice.get("delta", {}).get("content") or "", tokens)
        if not finished:  # transformers 5.23 sends no [DONE]
            raise Failed("the stream ended before the answer did")

    def _body(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "model": self._model,
            "messages": [
                {"role": "system", "content": dialect.system(inputs)},
                {"role": "user", "content": dialect.message(inputs)},
            ],
            "stream": True,
            "max_tokens": inputs["max_tokens"],
            "temperature": inputs["temperature"],
            "top_p": inputs["top_p"],
            **self._extra,
        }
