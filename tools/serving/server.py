"""The real Cog server as a child process on this machine, without Docker, and its event stream."""

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from snb.settings import ROOT
from tools.command import Fault
from tools.endpoints.endpoint import Failed, Http
from tools.serving import process_group, schema


class SetupFailed(Fault):
    """The server ended, or its `setup()` failed; the reason is in its log."""


class Server:
    """`cog.server.http` with the schema in place. `close()` and this process's end end it and its worker.

    Args:
        environment: settings on top of this process's own.
        port: 0 takes a free one.
        log: where the server's output goes; a file or a descriptor.
        directory: where `predict.py` is.
    """

    def __init__(
        self,
        environment: Mapping[str, str],
        port: int = 0,
        host: str = "127.0.0.1",
        log: Any = sys.stderr,
        directory: Path = ROOT,
    ) -> None:
        schema.write(directory)
        self.host, self.port, self._directory = host, free_port(host, port), directory
        self._process = process_group.start(
            [sys.executable, "-m", "cog.server.http", "--host", host],
            cwd=directory,
            env=self._environment(environment),
            stdout=log,
            stderr=subprocess.STDOUT,
        )

    def _environment(self, environment: Mapping[str, str]) -> dict[str, str]:
        # `cog build` bakes the decorator's limit into the image; without it the server takes one at a time.
        limit = re.search(r"@concurrent\(max=(\d+)\)", (self._directory / "predict.py").read_text())
        cog = {"COG_MAX_CONCURRENCY": limit[1] if limit else "1"}
        cog |= {"COG_PREDICT_TYPE_STUB": "predict.py:Predictor", "COG_LOG_LEVEL": "warning"}
        # The server starts its worker as `python`, whichever is first on PATH.
        first = {"PATH": Path(sys.executable).parent, "PYTHONPATH": ROOT}
        return {
            **cog,
            **os.environ,
            **{name: before(name, folder) for name, folder in first.items()},
            "PORT": str(self.port),
            **environment,
        }

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://{self.host}:{self.port}"

    @property
    def pid(self) -> int:
        """Of the server, and of its process group."""
        return self._process.pid

    def status(self) -> str:
        """`STARTING`, `READY`, `BUSY`, `SETUP_FAILED`, `UNHEALTHY`, or `DOWN` when nothing answers.

        Cog's `/health-check` answers 200 always, so the status has to be read.
        """
        try:
            return str(Http(self.url, silence=10).json("GET", "/health-check")["status"])
        except Failed:
            return "DOWN"

    def wait(self) -> None:
        """Returns when the server takes predictions.

        Raises:
            SetupFailed: it never will.
        """
        while (status := self.status()) in ("STARTING", "DOWN"):
            if self._process.poll() is not None:
                raise SetupFailed(f"the server ended with code {self._process.returncode}")
            time.sleep(0.1)
        if status == "SETUP_FAILED":
            raise SetupFailed("setup() failed")

    def join(self) -> int:
        """Returns when the server has ended; its exit code."""
        return self._process.wait()

    def stream(self, **inputs: Any) -> Iterator[tuple[str, Any]]:
        """Runs one prediction; yields its server-sent events as (event, data) as they come.

        Raises:
            Refused: the server takes no such inputs.
            Busy: it is full.
        """
        with Http(self.url).events("POST", "/predictions", {"input": inputs}) as events:
            for event in events:
                yield event.event, event.json()

    def close(self) -> None:
        """Ends the server and its worker; returns when both are gone."""
        process_group.end(self._process)

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def before(name: str, folder: Path) -> str:
    """A list of folders in the environment, with one more at its head."""
    return os.pathsep.join(filter(None, [str(folder), os.environ.get(name)]))


def free_port(host: str = "127.0.0.1", port: int = 0) -> int:
    """A TCP port of an address that nothing listens on; any, unless one is given.

    Raises:
        SetupFailed: nothing can listen there.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as Cog does
        try:
            probe.bind((host, port))
        except (OSError, OverflowError) as error:
            raise SetupFailed(f"nothing can listen on {host}:{port}: {error}; choose another port") from error
        return int(probe.getsockname()[1])
