"""Cog's own server, as a child process that listens on loopback only, and its health."""

import os
import re
import sys
import tempfile
import time
from collections.abc import Mapping
from typing import Any, Self

import httpx2

from snb.front import process_group
from snb.front.port import reserve

DEAD = ("SETUP_FAILED", "DEFUNCT", "UNHEALTHY")
"""States from which coglet 0.23.1 does not recover: it never replaces a worker. UNHEALTHY passes if only a
health check came too late, so it counts when two checks in a row find it."""
FIRST = 300.0
"""Extra seconds that the server's first reply may take, since a cold disk is slow; setup comes after it."""
SILENCE = 10.0
"""Seconds without a reply to /health-check after which the server counts as UNHEALTHY."""
HUNG = 30.0
"""Seconds without a reply after which it counts as hung."""


class CogServer:
    """A running Cog server; `close()`, or the end of this process, ends it and its worker."""

    def __init__(self) -> None:
        self.state = "STARTING"
        self.fault = ""
        """Why setup failed, in one line, where an error of this package says so."""
        self.version = ""
        self.schema: dict[str, Any] = {}
        self._seen = time.monotonic() + FIRST
        """When it last replied to a health check, in monotonic seconds; at first, by when it should have."""
        self._reserved = reserve()
        port = self._reserved.getsockname()[1]
        # The worker does not need the callers' key.
        environment = {"COG_LOG_LEVEL": "warning", **os.environ, "PORT": str(port), "SNB_API_KEY": ""}
        self.places = int(environment.get("COG_MAX_CONCURRENCY", "1"))
        """Predictions at once; `cog build` writes into the image what predict.py's `@concurrent` says."""
        self._process = process_group.start(
            [sys.executable, "-m", "cog.server.http", "--host", "127.0.0.1"], env=environment
        )
        self.client = httpx2.AsyncClient(
            base_url=f"http://127.0.0.1:{port}",
            timeout=httpx2.Timeout(None, connect=SILENCE),
            limits=httpx2.Limits(max_connections=None),
            trust_env=False,
        )

    @property
    def inputs(self) -> dict[str, Any]:
        """The JSON schema of every input of `predict`, by name."""
        properties: dict[str, Any] = self.schema["components"]["schemas"]["Input"]["properties"]
        return properties

    async def look(self) -> str:
        """Checks the server's health; returns why it will not recover, or an empty string."""
        if (code := self._process.poll()) is not None:
            self.state = "DEFUNCT"
            return f"Cog's server ended with code {code}"
        try:
            response = await self.client.get("/health-check", timeout=SILENCE / 2)
            health = response.json()
            state = str(health["status"])
            if not self.schema and state in ("READY", "BUSY"):
                self.version = (await self.client.get("/", timeout=SILENCE)).json()["cog_version"]
                self.schema = (await self.client.get("/openapi.json", timeout=SILENCE)).json()
            last, self.state = self.state, state
            self._seen, self.fault = time.monotonic(), setup_fault(health)
        except (httpx2.HTTPError, ValueError, KeyError, TypeError):
            silent = time.monotonic() - self._seen
            if silent > SILENCE:
                self.state = "UNHEALTHY"
            return f"Cog's server has been silent for {HUNG:.0f} s" if silent > HUNG else ""
        dead = state in DEAD and (state != "UNHEALTHY" or state == last)
        return ": ".join(filter(None, [f"Cog's server is {state}", self.fault])) if dead else ""

    async def close(self) -> None:
        """Ends the server and its worker."""
        await self.client.aclose()
        process_group.end(self._process)
        self._reserved.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


def setup_fault(health: Mapping[str, Any]) -> str:
    """Why setup failed, from the health document of Cog or the front: `CODE: what was wrong`; else empty.

    Errors of other libraries, which may say anything, are left out. coglet 0.23.1 puts the class name first.
    """
    logs = (health.get("setup") or {}).get("logs") or ""
    return "".join(re.findall(r"etup failed: (?:\w+[a-z]: )?([A-Z_]+: .+)$", logs, re.MULTILINE)[-1:])


def disk_full(folder: str = "/tmp") -> str:
    """Why the temporary folder, without which no prediction begins, cannot be written to; else empty.

    coglet 0.23.1 writes to /tmp, whatever TMPDIR says.
    """
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(4096))
            file.flush()
    except OSError as error:
        return f"the temporary folder cannot be written to: {error.strerror}"
    return ""
