"""A small server with Cog's HTTP API and OpenAI's, for servers that break the protocol.

What a working server does is tested with the real one.
"""

import json
import threading
import time
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

FRENCH = (
    "La liberté n’est pas de faire tout ce que l’on désire, car le désir a lui-même des causes ; elle est de "
    "comprendre ces causes, et d’agir selon la raison plutôt que selon la crainte."
)
STEP = 0.004
"""Seconds per token, so that an answer takes time."""
Reply = tuple[int, str, str]
"""HTTP status, content type, body."""


class Handler(BaseHTTPRequestHandler):
    """Misbehaves as the phrases in the server's `faults` say."""

    server: "Double"

    def do_GET(self) -> None:
        """Replies alike to `/` and /health-check; /page is an HTML error page."""
        if self.path.startswith("/page"):
            self.send_error(404)
            return
        if self.path != "/health-check" and self._refused():
            return
        broken = "setup failed" in self.server.faults
        logs = "loading\nSetup failed: setup failed: WeightsMissing: WEIGHTS_MISSING: no such folder"
        status = "SETUP_FAILED" if broken else "READY"
        whole = {"cog_version": "0.23.1", "status": status, "setup": {"logs": logs}}
        self._json(5 if "health is a number" in self.server.faults else whole)

    def do_POST(self) -> None:
        """A cancel, or a question in OpenAI's form."""
        if self._replied():
            return
        if self.path == "/v1/chat/completions":
            self._complete()
            return
        if "ignores cancel" not in self.server.faults:
            self.server.canceled.add(self.path.split("/")[-2])
        self._json({})

    def do_PUT(self) -> None:
        """A prediction, streamed."""
        if self._replied():
            return
        faults, inputs = self.server.faults, self._body()["input"]
        if self._refused():
            return
        if inputs.get("philosopher") == "descartes" and "accepts anything" not in faults:
            self._json({"detail": "no" if "vague" in faults else "philosopher"}, 422)
            return
        self._send(200, "text/event-stream")
        if "stalls" in faults:
            self.server.over.wait()
        words, count = FRENCH.split(), max(inputs.get("min_tokens", 0), 48)
        for number in range(count):
            time.sleep(STEP)
            if self.path.split("/")[-1] in self.server.canceled:
                self._event("completed", {"status": "canceled"})
                return
            self._event("output", {"chunk": f"{words[number % len(words)]} "})
        metrics = {"input_token_count": 100, "output_token_count": count, "finish_reason": "stop"}
        metrics |= {"seed": inputs["seed"], "time_to_first_token": STEP}
        if "cut" not in faults:
            self._event("completed", {"status": "succeeded", "metrics": metrics})

    def _complete(self) -> None:
        self.server.asked.append(self._body())
        if self._refused():
            return
        self._send(200, "text/event-stream")
        chunks = [json.dumps({"choices": [{"delta": {"content": f"{word} "}}]}) for word in FRENCH.split()]
        for chunk in (*chunks, "[DONE]"):
            self.wfile.write(f"data: {chunk}\n\n".encode())
            time.sleep(STEP)

    def _replied(self) -> bool:
        """Sends the next of the replies that a test has given; whether there were any."""
        replies, asked = self.server.replies, self.server.asked
        if replies:
            asked.append(self._body())
            self._send(*replies[min(len(asked), len(replies)) - 1])
        return bool(replies)

    def _refused(self) -> bool:
        """Refuses a request without the key, if one is wanted; whether it did."""
        if refused := bool(self.server.key and self.headers["Authorization"] != f"Bearer {self.server.key}"):
            self._json({"error": "UNAUTHORIZED"}, 401)
        return refused

    def _event(self, event: str, data: Any) -> None:
        self.wfile.write(f"event: {event}\ndata: {json.dumps(data)}\n\n".encode())

    def _json(self, value: Any, status: int = 200) -> None:
        self._send(status, "application/json", json.dumps(value))

    def _send(self, status: int, kind: str, content: str = "") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        if status == 429:
            self.send_header("Retry-After", "1")
        self.end_headers()
        self.wfile.write(content.encode())

    def _body(self) -> Any:
        return json.loads(self.rfile.read(int(self.headers["Content-Length"])))

    def log_message(self, *_: object) -> None:
        """Logs nothing: the test says what was wrong."""


class Double(ThreadingHTTPServer):
    """Serves on a free port of loopback, in threads of its own, until its block ends.

    Args:
        faults: what is broken, as phrases that `Handler` knows.
        key: expected as `Authorization: Bearer`; if empty, everybody is let in.
        replies: sent instead of answers, one per question; the last is repeated.
    """

    daemon_threads = True
    block_on_close = False  # a stalled answer ends with the process

    def __init__(self, *faults: str, key: str = "", replies: Sequence[Reply] = ()) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.faults, self.key, self.replies = set(faults), key, replies
        self.canceled: set[str] = set()
        self.asked: list[dict[str, Any]] = []
        self.over = threading.Event()

    def __enter__(self) -> "Double":
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.shutdown()
        self.server_close()
