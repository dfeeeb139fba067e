"""Callers who go away."""

import contextlib
import http.client
import json
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from tests.waiting import until
from tools.serving.server import Server


def leave(
    url: str, inputs: Mapping[str, Any], server: Server, log: Path, headers: Mapping[str, str] | None = None
) -> None:
    """Asks at `url` and closes the connection once the server behind it, whose log has starts, has spoken."""
    name, at, body = uuid.uuid4().hex, urlsplit(url), {"input": inputs}
    with contextlib.closing(http.client.HTTPConnection(at.hostname or "", at.port)) as connection:
        more = {"Content-Type": "application/json", **(headers or {})}
        connection.request("PUT", f"/predictions/{name}", json.dumps(body), more)
        until(lambda: name in log.read_text())
        # Who asks again sees what there is. Who leaves before that may not be noticed (coglet 0.23.1).
        again = f"{server.url}/predictions/{name}"
        until(lambda: httpx.put(again, json=body, timeout=600).json().get("output"))
