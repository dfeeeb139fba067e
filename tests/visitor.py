"""Visitors of the page of deploy/space: as the page itself asks, and by plain curl."""

import json
import re
import secrets
import subprocess
from collections.abc import Iterator
from typing import Any

import httpx2

from tests.space_page import SpacePage

Asked = list[tuple[str, Any]]


class Visitor:
    """Speaks to the page as it speaks to itself: joins the queue, reads the events."""

    def __init__(self, url: str) -> None:
        self.client = httpx2.Client(base_url=url, trust_env=False, timeout=120)
        self.session = secrets.token_hex(8)
        self.endpoint = self.client.get("/page/site.json").json()["endpoint"]

    def join(self, **inputs: Any) -> None:
        data = [inputs.get(name, default) for name, default in self.endpoint["inputs"]]
        job = {"session_hash": self.session, "fn_index": self.endpoint["number"], "data": data}
        self.client.post("/gradio_api/queue/join", json=job).raise_for_status()

    def messages(self) -> Iterator[dict[str, Any]]:
        with self.client.stream(
            "GET", "/gradio_api/queue/data", params={"session_hash": self.session}
        ) as response:
            for line in response.iter_lines():
                if line.startswith("data: "):
                    yield json.loads(line[6:])

    def ask(self, **inputs: Any) -> Asked:
        """What comes, as ("text", all of it), ("log", title), ("error", message), ("end", text)."""
        return list(self.follow(**inputs))

    def follow(self, **inputs: Any) -> Iterator[tuple[str, Any]]:
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


def curl(url: str, *arguments: str) -> str:
    command = ["curl", "--silent", "--no-buffer", "--noproxy", "*", "--max-time", "60", *arguments, url]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def called(page: SpacePage, endpoint: str, *data: Any) -> list[tuple[str, Any]]:
    """The events of one call by plain curl, as the existing front end makes it."""
    url = f"{page.url}/gradio_api/call/{endpoint}"
    reply = curl(url, "--header", "Content-Type: application/json", "--data", json.dumps({"data": data}))
    events = curl(f"{url}/{json.loads(reply)['event_id']}")
    found = re.findall(r"event: (\w+)\ndata: (.*)\n", events)
    return [(event, json.loads(value)) for event, value in found if event != "heartbeat"]


def direct(url: str, inputs: dict[str, Any]) -> str:
    """What the Cog server itself answers."""
    with httpx2.Client(base_url=url, trust_env=False, timeout=60) as client:
        return "".join(client.post("/predictions", json={"input": inputs}).json()["output"])


def leave_early(page: SpacePage) -> None:
    """Closes the tab when some of a long answer has come."""
    visitor = Visitor(page.url)
    for kind, _ in visitor.follow(user_message="Question", min_tokens=2000, max_tokens=2000):
        if kind == "text":
            break
    visitor.client.close()
