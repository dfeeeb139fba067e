"""Servers to measure: the one that this package starts, the reference predictor, and remote ones."""

import contextlib
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

from cog_endpoint import Cog
from endpoint import Endpoint, Failed
from replicate_endpoint import Replicate
from server import Server

ROOT = Path(__file__).resolve().parent.parent
OURS, REFERENCE = "ours", "reference"
SLOTS = "32"
"""As many as the largest level asks for, unless SNB_SLOTS says otherwise."""
REPLICATE = "replicate:"


@dataclass(frozen=True)
class Started:
    """A server that answers."""

    endpoint: Endpoint
    since: float | None = None
    """When its process began, in monotonic seconds; none for a remote one."""


@contextlib.contextmanager
def ours(settings: Mapping[str, str], log: IO[str]) -> Iterator[Started]:
    """This package behind the real Cog server, with a slot for every pupil."""
    settings = {**settings, "SNB_SLOTS": os.environ.get("SNB_SLOTS", SLOTS)}
    since = time.monotonic()
    with Server(settings, log=log) as server:
        server.wait()
        yield Started(Cog(OURS, server.url), since)


@contextlib.contextmanager
def reference(settings: Mapping[str, str], log: IO[str]) -> Iterator[Started]:
    """The reference predictor behind the same server."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(ROOT / "cog.yaml", folder)
        shutil.copy(ROOT / "scripts" / "reference_predict.py", Path(folder) / "predict.py")
        since = time.monotonic()
        with Server(settings, log=log, directory=Path(folder)) as server:
            server.wait()
            yield Started(Cog(REFERENCE, server.url), since)


@contextlib.contextmanager
def remote(address: str) -> Iterator[Started]:
    """A server that runs already: the URL of a Cog server, or `replicate:` and a model or deployment.

    Raises:
        Failed: it does not answer, or there is no REPLICATE_API_TOKEN.
    """
    if not address.startswith(REPLICATE):
        where = urlsplit(address)
        yield Started(Cog(f"{where.hostname}:{where.port}" if where.port else str(where.hostname), address))
        return
    token = os.environ.get("REPLICATE_API_TOKEN")
    if not token:
        raise Failed("set REPLICATE_API_TOKEN to ask Replicate")
    yield Started(Replicate(address.removeprefix(REPLICATE), token))


def say(line: str) -> None:
    """Progress, on stderr."""
    print(line, file=sys.stderr, flush=True)
