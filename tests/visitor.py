"""Visitors of the page of deploy/space, who ask as the page itself does."""

import json
import secrets
from collections.abc import Generator, Iterator
from typing import Any

import httpx2


class Visitor:
    """A visitor, who joins Gradio's queue and reads its events."""

    def __init__(self, url: str, session: str = "") -> None:
        self.client = httpx2.Client(base_url=url, trust_env=False, timeout=600, verify=False)
        self.session = session or f"{secrets.token_hex(12)}-1"
        self.endpoint = self.client.get("/page/site.json").json()["endpoint"]

    def join(self, **inputs: Any) -> None:
        data = [inputs.get(name, default) for name, default in self.endpoint["inputs"]]
        job = {"session_hash": self.session, "fn_index": self.endpoint["number"], "data": data}
        self.client.post("/gradio_api/queue/join", json=job).raise_for_status()

    def messages(self) -> Iterator[dict[str, Any]]:
        session = {"session_hash": self.session}
        with self.client.stream("GET", "/gradio_api/queue/data", params=session) as response:
            for line in response.iter_lines():
                if line.startswith("data: "):
                    yield json.loads(line[6:])

    def follow(self, **inputs: Any) -> Generator[tuple[str, Any], None, None]:
        """Yields ("text", all text so far), ("log", title), ("error", message) and ("end", text)."""
        self.join(**inputs)
        for message in self.messages():
            if message["msg"] == "log":
                yield "log", message["title"]
            elif message["msg"] == "process_generating" and message["output"]["data"][0]:
                yield "text", message["output"]["data"][0]
            elif message["msg"] == "process_completed":
                output = message["output"]
                yield ("end", output["data"][0]) if message["success"] else ("error", output["error"])
                return

    def answer(self, **inputs: Any) -> tuple[str, Any]:
        """The last event: ("end", text) or ("error", message)."""
        return list(self.follow(**inputs))[-1]

    def begin(self, **inputs: Any) -> Generator[tuple[str, Any], None, None]:
        """The events after the first text."""
        answer = self.follow(**inputs)
        while next(answer)[0] != "text":
            pass
        return answer


def direct(url: str, inputs: dict[str, Any]) -> str:
    """The answer of the Cog server at `url` itself."""
    with httpx2.Client(base_url=url, trust_env=False, timeout=600) as client:
        return "".join(client.post("/predictions", json={"input": inputs}).json()["output"])
