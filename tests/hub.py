"""A hub on loopback: the part of the HTTP API with which huggingface_hub 2.4 lists and fetches a model."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from socket import SO_LINGER, SOL_SOCKET
from struct import pack
from typing import Any

from huggingface_hub.utils.sha import git_hash
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from tests.served import Served

LFS = (".safetensors", ".bin")
FIELDS = {
    "revision": {"name": "rfilename", "git": "blobId", "sha256": "sha256"},
    "tree": {"name": "path", "git": "oid", "sha256": "oid"},
}


@dataclass(frozen=True)
class Fault:
    """A fault in the reply to one request: another status or body, an altered file, or a reset connection."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    altered: bool = False
    reset: bool = False
    """Whether the connection is reset in the middle of the reply."""


class LoopbackHub(Served):
    """Repositories in memory, the requests received, and faults for the next requests."""

    def __init__(self) -> None:
        super().__init__(
            Route("/api/models/{owner}/{name}/{kind}/{revision}", self._answer),
            Route("/{owner}/{name}/resolve/{revision}/{file:path}", self._answer),
            Route("/{elsewhere:path}", self._answer),
        )
        self.commits: dict[tuple[str, str], str] = {}
        self.trees: dict[str, dict[str, bytes]] = {}
        self.requests: list[Request] = []
        self.faults: list[tuple[str, str, Fault]] = []
        self.token: str | None = None
        self.unlisted: set[str] = set()
        """Fields that a listing leaves out for each file."""

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
        return [r for r in self.requests if r.method == method and r.url.path.endswith(ending)]

    def _next_fault(self, request: Request) -> Fault:
        for entry in self.faults:
            if entry[0] == request.method and request.url.path.endswith(entry[1]):
                self.faults.remove(entry)
                return entry[2]
        return Fault()

    async def _answer(self, request: Request) -> Response:
        self.requests.append(request)
        asked, fault = request.path_params, self._next_fault(request)
        repository = f"{asked.get('owner')}/{asked.get('name')}"
        commit = self.commits.get((repository, asked.get("revision", "")))
        if fault.reset:
            return StreamingResponse(self._reset(request), headers={"Content-Length": "9"})
        if fault.status != 200 or fault.body:
            return Response(fault.body, fault.status, fault.headers)
        if self.token and request.headers.get("authorization") != f"Bearer {self.token}":
            return absent("RepoNotFound", 401)
        if (repository, "main") not in self.commits:
            return absent("RepoNotFound")
        if commit is None:
            return absent("RevisionNotFound")
        files = self.trees[commit]
        if "kind" in asked:
            return self._listing(repository, asked["kind"], commit)
        if (content := files.get(asked["file"])) is None:
            return absent("EntryNotFound")
        headers = {"X-Repo-Commit": commit, "ETag": f'"{hashlib.sha256(content).hexdigest()}"'}
        return Response(bytes(len(content)) if fault.altered else content, headers=headers)

    def _listing(self, repository: str, kind: str, commit: str) -> Response:
        entries = [_entry(name, content, FIELDS[kind]) for name, content in self.trees[commit].items()]
        if kind == "tree":
            return JSONResponse([{"type": "file", **entry} for entry in entries])
        siblings = [{k: v for k, v in entry.items() if k not in self.unlisted} for entry in entries]
        return JSONResponse({"id": repository, "sha": commit, "siblings": siblings})

    async def _reset(self, request: Request) -> AsyncIterator[bytes]:
        yield b"{"
        connections: set[Any] = self._server.server_state.connections
        [mine] = [one for one in connections if one.client == request.client]
        mine.transport.get_extra_info("socket").setsockopt(SOL_SOCKET, SO_LINGER, pack("ii", 1, 0))
        mine.transport.abort()
        await asyncio.sleep(0)  # until the server knows


def absent(code: str, status: int = 404) -> Response:
    return Response(b"", status, {"X-Error-Code": code, "X-Error-Message": "Repository not found"})


def _entry(name: str, content: bytes, names: dict[str, str]) -> dict[str, object]:
    """A file as a listing declares it; `names` are the field names of this kind of listing."""
    entry: dict[str, object] = {"size": len(content), names["name"]: name, names["git"]: git_hash(content)}
    if name.endswith(LFS):
        sha256 = hashlib.sha256(content).hexdigest()
        entry["lfs"] = {"size": len(content), names["sha256"]: sha256, "pointerSize": 134}
    return entry
