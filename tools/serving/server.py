"""The real Cog server as a child process on this machine, without Docker, alone or behind the front."""

import contextlib
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self

from snb.front import port as front_port
from snb.front import process_group
from snb.front.cog_server import setup_fault
from snb.settings import ROOT
from tools.endpoints import cog_endpoint
from tools.endpoints.endpoint import Failed, Http
from tools.serving import schema

COG, FRONT = "cog.server.http", "snb.front"
FOLDERS = ("SNB_WEIGHTS_DIR", "SNB_BASE_MODEL", "SNB_ADAPTER", "SNB_PREPARED")
"""Settings that may name a folder; all but the first may also name something else."""
TAIL = 2000
"""Characters shown of the log of a server that did not boot."""


class SetupFailed(Failed):
    """The server ended, its `setup()` failed, or it was not ready in time."""


class Server:
    """Cog's server, or the front with Cog's server behind it, with the schema in place.

    `close()`, or the end of this process, ends everything that was started.

    Args:
        environment: variables on top of this process's own.
        port: 0 takes a free one.
        log: file to which the server's output goes.
        directory: the folder of `predict.py`.
        module: `cog.server.http`, or `snb.front`, which hosts with a public address run.
    """

    def __init__(
        self,
        environment: Mapping[str, str],
        port: int = 0,
        host: str = "127.0.0.1",
        log: Any = sys.stderr,
        directory: Path = ROOT,
        module: str = COG,
    ) -> None:
        schema.write(directory)
        # Held so that no other server here is given this port: callers would take one for the other.
        self._reserved = reserve(host, port)
        self.port, self._log = int(self._reserved.getsockname()[1]), log
        # Requests to 0.0.0.0 would go to the environment's HTTP proxy.
        self.url = f"http://{'127.0.0.1' if host == '0.0.0.0' else host}:{self.port}"
        # `cog build` writes the decorator's limit into the image; without it the server takes one at a time.
        limit = re.search(r"@concurrent\(max=(\d+)\)", (directory / "predict.py").read_text())
        self._process = process_group.start(
            [sys.executable, "-m", module, "--host", host],
            cwd=directory,
            env={
                "COG_MAX_CONCURRENCY": limit[1] if limit else "1",
                "COG_PREDICT_TYPE_STUB": "predict.py:Predictor",
                "COG_LOG_LEVEL": "warning",
                **os.environ,
                # The server starts its worker as `python`, the first on PATH.
                "PATH": before("PATH", Path(sys.executable).parent),
                "PYTHONPATH": before("PYTHONPATH", ROOT),
                "PORT": str(self.port),
                **environment,
                **folders({**os.environ, **environment}),
            },
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        self.pid: int = self._process.pid

    def status(self) -> str:
        """`STARTING`, `READY`, `BUSY`, `SETUP_FAILED`, `DEFUNCT`, `UNHEALTHY`; `DOWN` if nothing answers."""
        return cog_endpoint.status(Http(self.url, silence=10))

    def wait(self, limit: float = float("inf"), look: Callable[[Http], str] = cog_endpoint.status) -> None:
        """Returns once `look` returns READY, or another state in which predictions are taken.

        Raises:
            SetupFailed: setup failed, the server ended, or `limit` seconds have passed; with the reason.
        """
        until, state = time.monotonic() + limit, "STARTING"
        while state in ("STARTING", "DOWN", "UNHEALTHY"):
            if self._process.poll() is not None:
                raise SetupFailed(f"{self._tail()}the server ended with code {self._process.returncode}")
            if time.monotonic() > until:
                raise SetupFailed(f"{self._tail()}the server is not ready after {limit:g} s")
            time.sleep(0.1)
            state = look(Http(self.url, silence=10))
        if state in ("SETUP_FAILED", "DEFUNCT"):
            raise SetupFailed(self._setup_fault() or f"{self._tail()}setup() failed")

    def _setup_fault(self) -> str:
        """Why setup failed, if an error of this package says so: in the log it is inside a line of JSON."""
        with contextlib.suppress(Failed, ValueError, AttributeError):
            return setup_fault(Http(self.url, silence=10).look("/health-check").json())
        return ""

    def _tail(self) -> str:
        if not self._log.readable():
            return ""
        self._log.seek(0)
        return f"{self._log.read()[-TAIL:]}\n"

    def join(self, patience: float | None = None) -> int:
        """Waits for the server to end; its exit code. Raises TimeoutExpired after `patience` seconds."""
        return self._process.wait(patience)

    def stream(self, **inputs: Any) -> Iterator[tuple[str, Any]]:
        """Runs one prediction; yields its server-sent events, as (event, data), as they come.

        Raises:
            Refused: the server refuses the inputs.
            Busy: it is full.
        """
        with Http(self.url).events("POST", "/predictions", {"input": inputs}) as events:
            for event in events:
                yield event.event, event.json()

    def close(self) -> None:
        """Ends the server and its worker; returns when both are gone."""
        process_group.end(self._process)
        self._reserved.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def folders(environment: Mapping[str, str]) -> dict[str, str]:
    """The settings that name folders, as absolute paths, since the server is started in another folder."""
    paths = {name: Path(environment[name]).expanduser() for name in FOLDERS if environment.get(name)}
    return {
        name: str(path.absolute())
        for name, path in paths.items()
        if path.is_dir() or name == "SNB_WEIGHTS_DIR"
    }


def before(name: str, folder: Path) -> str:
    """The environment variable `name`, a list of folders, with `folder` in front."""
    return os.pathsep.join(filter(None, [str(folder), os.environ.get(name)]))


def reserve(host: str = "127.0.0.1", port: int = 0) -> socket.socket:
    """As `snb.front.port.reserve`, but raises BadSetting if nothing can listen there."""
    with front_port.fault_named(host, port):
        return front_port.reserve(host, port)


def free_port() -> int:
    """A free port, for programs that cannot take over the socket: two that start at once may get the same."""
    with reserve() as probe:
        return int(probe.getsockname()[1])
