"""What the tests of deploy/ share: its tools, a server whose states are set by hand, and the door."""

import contextlib
import functools
import os
import socket
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO

import pytest

from snb.settings import ROOT
from tests.waiting import until
from tools.benchmarking.peers import Peer
from tools.serving.process_group import end
from tools.serving.server import Server, free_port

DEPLOY = ROOT / "deploy"
PREDICTOR = '''"""A predictor whose setup, health and answers wait for files beside it."""

import pathlib
import time

from cog import BasePredictor, ConcatenateIterator, Input, concurrent, streaming


class Predictor(BasePredictor):
    def setup(self) -> None:
        while not pathlib.Path("set-up").exists():
            time.sleep(0.02)
        if pathlib.Path("fail").exists():
            raise RuntimeError("told to")

    @streaming
    @concurrent(max=2)
    async def predict(
        self, pieces: int = Input(description="How many.", ge=0, default=1)
    ) -> ConcatenateIterator[str]:
        def answer():
            for piece in range(pieces):
                yield f"{piece} "
                while not pathlib.Path("go-on").exists():
                    time.sleep(0.02)

        return answer()

    def healthcheck(self) -> bool:
        return not pathlib.Path("sick").exists()
'''


@functools.cache
def tools() -> Path:
    """The folder of SkyPilot's, Docker Compose's and Caddy's programs, installed once. Skips without them."""
    peer = Peer("hosts", (), {})
    try:
        peer.install()
    except subprocess.CalledProcessError:
        pytest.skip("scripts/requirements-peers-hosts.txt cannot be installed")
    return peer.folder / "bin"


def puppet(folder: Path) -> Path:
    """A project folder with PREDICTOR."""
    folder.mkdir(exist_ok=True)
    (folder / "predict.py").write_text(PREDICTOR)
    (folder / "cog.yaml").write_text((ROOT / "cog.yaml").read_text())
    return folder


@contextlib.contextmanager
def door(caddy: Path | str, upstream: int, folder: Path, log: IO[str]) -> Iterator[str]:
    """Caddy with deploy/Caddyfile, as plain HTTP, before a port of loopback; its URL."""
    port = free_port()
    process = subprocess.Popen(
        [caddy, "run", "--adapter", "caddyfile", "--config", DEPLOY / "Caddyfile"],
        env=environment(folder, SNB_HOST=f"http://127.0.0.1:{port}", SNB_UPSTREAM=f"127.0.0.1:{upstream}"),
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        until(lambda: process.poll() is not None or listens(port))
        assert process.poll() is None, "Caddy has ended"
        yield f"http://127.0.0.1:{port}"
    finally:
        end(process)


def environment(home: Path, **more: str) -> dict[str, str]:
    """Only what is said, and a home."""
    return {"PATH": os.environ["PATH"], "HOME": str(home), **more}


def listens(port: int) -> bool:
    """Whether something does, on loopback."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextlib.contextmanager
def puppet_server(folder: Path, settings: Mapping[str, str] | None = None) -> Iterator[Server]:
    """Cog's server on PREDICTOR; it waits for `set-up`."""
    with (folder / "log").open("w") as log, Server(settings or {}, log=log, directory=folder) as server:
        until(lambda: server.status() != "DOWN")
        yield server
