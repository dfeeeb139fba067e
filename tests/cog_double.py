"""A small server that speaks Cog's HTTP, in place of one that breaks the protocol, or that comes and goes.

What the real server does, the tests ask the real server.
"""

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

FRENCH = (
    "La liberté n’est pas de faire tout ce que l’on désire, car le désir a lui-même des causes ; elle est de "
    "comprendre ces causes, et d’agir selon la raison plutôt que selon la crainte."
)
INPUTS = ("philosopher", "user_message", "max_tokens", "min_tokens", "seed", "deadline_seconds")
TOKENS = 48
STEP = 0.002
"""Seconds for a token, so that an answer takes time to write."""


class Handler(BaseHTTPRequestHandler):
    """Each fault is a phrase in the server's `faults`."""

    server: "Double"

    def do_GET(self) -> None:
        """One answer for `/`, /health-check and /openapi.json; /page is a page, and /old has moved."""
        faults = self.server.faults
        self.server.looks += 1
        if self.path.startswith("/page"):
            self.send_error(404)
            return
        if self.path.startswith("/old"):
            self.send_response(301)
            self.send_header("Location", "http://elsewhere")
            self.end_headers()
            return
        inputs: dict[str, Any] = {name: {} for name in INPUTS if f"no {name}" not in faults}
        status = "SETUP_FAILED" if "setup failed" in faults else "STARTING" if "starts" in faults else "READY"
        setup = {
            "logs": "loading\nSetup failed: setup failed: WeightsMissing: WEIGHTS_MISSING: no such folder"
        }
        schemas = {"Input": {"properties": inputs}}
        document = {"cog_version": "0.23.1", "status": status, "components": {"schemas": schemas}}
        self._json({**document, "setup": setup if "setup failed" in faults else {}})

    def do_POST(self) -> None:
        """A cancel."""
        name = self.path.split("/")[-2]
        if name in self.server.running and "ignores cancel" not in self.server.faults:
            self.server.canceled.add(name)
        self._json({}, 200 if name in self.server.running else 404)

    def do_PUT(self) -> None:
        """A prediction, streamed."""
        if self.server.key and self.headers["Authorization"] != f"Bearer {self.server.key}":
            self._json({"error": "UNAUTHORIZED"}, 401)
            return
        name = self.path.split("/")[-1]
        inputs = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["input"]
        if bad := self.server.refused(inputs):
            self._json({"detail": "no" if "vague" in self.server.faults else bad}, 422)
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        if "stalls" in self.server.faults:
            self.server.over.wait()
            return
        self.server.running.add(name)
        try:
            for event, data in self.server.events(name, inputs):
                self.wfile.write(f"event: {event}\ndata: {json.dumps(data)}\n\n".encode())
                self.wfile.flush()
        except OSError:  # the reader has left
            if "ignores leaving" in self.server.faults:
                return
        self.server.running.discard(name)

    def _json(self, value: Any, status: int = 200) -> None:
        content = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Nothing: the test says what was wrong."""


class Double(ThreadingHTTPServer):
    """Serves from a free port of loopback, in threads of its own, until it is left.

    Args:
        faults: what is broken.
        key: what it wants as `Authorization: Bearer`; without one it lets everybody in.
    """

    daemon_threads = True
    block_on_close = False  # a stalled answer ends with the process

    def __init__(self, *faults: str, key: str = "", port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.faults, self.key = set(faults), key
        self.running: set[str] = set()
        self.canceled: set[str] = set()
        self.over = threading.Event()
        self.looks = 0
        self._asked = 0

    def refused(self, inputs: dict[str, Any]) -> str:
        """The input that is bad, or nothing."""
        if "accepts anything" in self.faults:
            return ""
        if len(inputs["user_message"]) > 4000:
            return "user_message"
        return "" if inputs["philosopher"] in ("spinoza", "bergson", "kant") else "philosopher"

    def events(self, name: str, inputs: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
        """One answer, as it is written."""
        words = self._words(inputs)
        for word in words:
            time.sleep(STEP)
            if name in self.canceled:
                yield "completed", {"status": "canceled"}
                return
            yield "output", {"chunk": f"{word} "}
        metrics = {
            "input_token_count": 100,
            "output_token_count": len(words),
            "finish_reason": "stop",
            "seed": inputs["seed"],
            "time_to_first_token": STEP,
        }
        if "cut" not in self.faults:
            yield "completed", {"status": "succeeded", "metrics": metrics}

    def _words(self, inputs: dict[str, Any]) -> list[str]:
        self._asked += 1
        text = FRENCH.split()
        number = max(inputs.get("min_tokens", 0), min(inputs["max_tokens"], TOKENS))
        words = [text[n % len(text)] for n in range(number)]
        if "forgets the seed" in self.faults or ("has a tie" in self.faults and self._asked == 4):
            words[-1] = str(self._asked)
        return words[: number // 3] if "short" in self.faults else words

    def __enter__(self) -> "Double":
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.shutdown()
        self.server_close()
