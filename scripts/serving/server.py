"""The real Cog server as a child process on this machine, without Docker, and its event stream."""

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from snb import schema

ROOT = Path(__file__).resolve().parents[2]


class SetupFailed(Exception):
    """The server ended, or its `setup()` failed; the reason is in its log."""


class Server:
    """`cog.server.http` with the schema in place. `close()` ends it and its worker.

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
        self.host, self.port, self._directory = host, port or free_port(), directory
        self._process = subprocess.Popen(
            [sys.executable, "-m", "cog.server.http", "--host", host],
            cwd=directory,
            env=self._environment(environment),
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # so that the worker can be ended with it
        )

    def _environment(self, environment: Mapping[str, str]) -> dict[str, str]:
        # The server starts its worker as `python`, whichever is first on PATH.
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
        # `cog build` bakes the decorator's limit into the image; without it the server takes one at a time.
        limit = re.search(r"@concurrent\(max=(\d+)\)", (self._directory / "predict.py").read_text())
        cog = {"COG_MAX_CONCURRENCY": limit[1] if limit else "1"}
        cog |= {"COG_PREDICT_TYPE_STUB": "predict.py:Predictor", "COG_LOG_LEVEL": "warning"}
        return {
            **cog,
            "PYTHONPATH": str(ROOT),
            **os.environ,
            "PATH": path,
            "PORT": str(self.port),
            **environment,
        }

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://{self.host}:{self.port}"

    def status(self) -> str:
        """`STARTING`, `READY`, `BUSY`, `SETUP_FAILED`, `UNHEALTHY`, or `DOWN` when nothing answers.

        Cog's `/health-check` answers 200 always, so the status has to be read.
        """
        try:
            return str(self.get("/health-check")["status"])
        except (OSError, http.client.HTTPException):
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

    def join(self) -> None:
        """Returns when the server has ended."""
        self._process.wait()

    def get(self, path: str) -> Any:
        """The JSON at `path`."""
        with contextlib.closing(http.client.HTTPConnection(self.host, self.port, timeout=10)) as connection:
            connection.request("GET", path)
            return json.load(connection.getresponse())

    def stream(self, **inputs: Any) -> Iterator[tuple[str, Any]]:
        """Runs one prediction; yields its server-sent events as (event, data) as they come."""
        with contextlib.closing(http.client.HTTPConnection(self.host, self.port)) as connection:
            headers = {"Content-Type": "application/json", "Accept": "text/event-stream"}
            connection.request("POST", "/predictions", json.dumps({"input": inputs}), headers)
            response = connection.getresponse()
            if response.status != 200:
                yield "error", {**json.load(response), "http": response.status}
                return
            event = ""
            for line in response:
                name, _, value = line.decode().rstrip("\n").partition(": ")
                if name == "event":
                    event = value
                elif name == "data":
                    yield event, json.loads(value)

    def close(self) -> None:
        """Ends the server and its worker; returns when both are gone."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout=10)

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def free_port() -> int:
    """A TCP port of loopback that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
