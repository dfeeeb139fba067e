"""A hub on loopback: the part of the HTTP API with which huggingface_hub 2.4 lists and fetches a model."""

import hashlib
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socket import SO_LINGER, SOL_SOCKET
from struct import pack
from threading import Thread
from urllib.parse import unquote, urlsplit

from huggingface_hub.utils.sha import git_hash

LFS = (".safetensors", ".bin")
API = re.compile(r"/api/models/(?P<repository>[^/]+/[^/]+)/(?P<kind>revision|tree)/(?P<revision>[^/]+)")
FIELDS = {
    "revision": {"name": "rfilename", "git": "blobId", "sha256": "sha256"},
    "tree": {"name": "path", "git": "oid", "sha256": "oid"},
}
FILE = re.compile(r"/(?P<repository>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<name>.+)")


@dataclass(frozen=True)
class Fault:
    """A fault in the reply to one request: another status or body, an altered file, or a reset connection."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    altered: bool = False
    reset: bool = False
    """Whether the connection is reset in the middle of the reply."""


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    headers: Message


class LoopbackHub(ThreadingHTTPServer):
    """Repositories in memory, the requests received, and faults for the next requests."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.commits: dict[tuple[str, str], str] = {}
        self.trees: dict[str, dict[str, bytes]] = {}
        self.requests: list[Request] = []
        self.faults: list[tuple[str, str, Fault]] = []
        self.token: str | None = None
        self.unlisted: set[str] = set()
        """Fields that a listing leaves out for each file."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def push(self, repository: str, files: dict[str, bytes]) -> str:
        """Makes a commit, moves `main` to it, and returns its id."""
        sums = {name: hashlib.sha1(content).hexdigest() for name, content in files.items()}
        commit = hashlib.sha1(f"{repository} {sums}".encode()).hexdigest()
        self.trees[commit] = files
        self.commits[repository, commit] = self.commits[repository, "main"] = commit
        return commit

    def fail(self, method: str, ending: str, *faults: Fault) -> None:
        """Applies `faults`, in turn, to the next requests of this method whose paths end with `ending`."""
        self.faults += [(method, ending, fault) for fault in faults]

    def asked(self, method: str, ending: str = "") -> list[Request]:
        return [r for r in self.requests if r.method == method and r.path.endswith(ending)]

    def next_fault(self, request: Request) -> Fault | None:
        for entry in self.faults:
            if entry[0] == request.method and request.path.endswith(entry[1]):
                self.faults.remove(entry)
                return entry[2]
        return None


@contextmanager
def loopback_hub() -> Iterator[LoopbackHub]:
    hub = LoopbackHub()
    thread = Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        thread.join()
        hub.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: LoopbackHub

    def log_message(self, *_: object) -> None:
        """Logs nothing: the tests read `requests` instead."""

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        request = Request(self.command, path, self.headers)
        self.server.requests.append(request)
        fault = self.server.next_fault(request) or Fault()
        asked = API.fullmatch(path) or FILE.fullmatch(path)
        commit = self.server.commits.get((asked["repository"], asked["revision"])) if asked else None
        if fault.reset:
            self.close_connection = True
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n")
            self.connection.setsockopt(SOL_SOCKET, SO_LINGER, pack("ii", 1, 0))
            os.close(self.connection.detach())
        elif fault.status != 200 or fault.body:
            self.reply(fault.status, fault.headers, fault.body)
        elif self.server.token and self.headers["Authorization"] != f"Bearer {self.server.token}":
            self.reply(401, {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"})
        elif asked is None or (asked["repository"], "main") not in self.server.commits:
            self.reply(404, {"X-Error-Code": "RepoNotFound"})
        elif commit is None:
            self.reply(404, {"X-Error-Code": "RevisionNotFound"})
        elif "name" in asked.groupdict():
            self.send_blob(commit, self.server.trees[commit].get(asked["name"]), fault)
        else:
            self.send_listing(asked["repository"], asked["kind"], commit)

    def do_HEAD(self) -> None:
        self.do_GET()

    def send_listing(self, repository: str, kind: str, commit: str) -> None:
        files = self.server.trees[commit]
        entries = [_entry(name, content, FIELDS[kind]) for name, content in files.items()]
        listed: object = [{"type": "file", **entry} for entry in entries]
        if kind == "revision":
            siblings = [{k: v for k, v in e.items() if k not in self.server.unlisted} for e in entries]
            listed = {"id": repository, "sha": commit, "siblings": siblings}
        self.reply(200, {"Content-Type": "application/json"}, json.dumps(listed).encode())

    def send_blob(self, commit: str, content: bytes | None, fault: Fault) -> None:
        if content is None:
            self.reply(404, {"X-Error-Code": "EntryNotFound"})
            return
        headers = {"X-Repo-Commit": commit, "ETag": f'"{hashlib.sha256(content).hexdigest()}"'}
        self.reply(200, headers, bytes(len(content)) if fault.altered else content)

    def reply(self, status: int, headers: dict[str, str], body: bytes = b"") -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _entry(name: str, content: bytes, names: dict[str, str]) -> dict[str, object]:
    """A file as a listing declares it; `names` are the field names of this kind of listing."""
    entry: dict[str, object] = {"size": len(content), names["name"]: name, names["git"]: git_hash(content)}
    if name.endswith(LFS):
        sha256 = hashlib.sha256(content).hexdigest()
        entry["lfs"] = {"size": len(content), names["sha256"]: sha256, "pointerSize": 134}
    return entry
