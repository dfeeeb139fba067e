"""A server with OpenAI's chat completions API, such as transformers, vLLM and providers of public models."""

from collections.abc import Generator, Mapping
from typing import Any

from snb.philosophers import persona
from snb.prompt import split_passages, user_text
from tools.endpoints.endpoint import Failed, Http, Piece

SHARED = ("max_tokens", "temperature", "top_p")


def system(inputs: Mapping[str, Any]) -> str:
    return str(inputs.get("system_prompt") or persona(inputs["philosopher"]))


class ChatCompletions:
    """One model of such a server.

    Args:
        url: the API's base, `https://host/v1`.
        extra: fields added to every request, which only this server takes.
        key: sent as `Authorization: Bearer`; empty for none.
    """

    def __init__(self, name: str, url: str, model: str, extra: Mapping[str, Any], key: str = "") -> None:
        self.name, self._http = name, Http(url, key=key)
        self._fixed = {"model": model, "stream": True, **extra}

    def ask(self, inputs: Mapping[str, Any]) -> Generator[Piece]:
        # The user turn, passages included, exactly as this package writes it.
        user = user_text(split_passages(inputs.get("rag_context", "")), inputs["user_message"])
        texts = {"system": system(inputs), "user": user}
        messages = [{"role": role, "content": text} for role, text in texts.items()]
        shared = {name: inputs[name] for name in SHARED if name in inputs}
        body, finished = {"messages": messages, **shared, **self._fixed}, False
        with self._http.events("POST", "/chat/completions", body) as events:
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
