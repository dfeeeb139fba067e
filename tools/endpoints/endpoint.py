"""The small protocol through which benchmark and smoke test ask any server, and the HTTP under it."""

import contextlib
import random
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import urlsplit

import httpx2

from tools.command import Fault
from tools.machine import offline

FULL = (409, 429, 503)
"""HTTP statuses of a full Cog server, of a rate limit, and of proxies and other servers without room."""
SILENCE = 600.0
"""Most seconds without a byte: in a queue of thirty at a slow server the last one waits for minutes."""
PATIENCE = 1800.0
"""Seconds for which a full server is asked again."""
LONGEST = 3600.0
"""Longest Retry-After that is obeyed, in seconds: `time.sleep` does not take every number."""
LOOPBACK = ("127.0.0.1", "::1", "localhost")


@dataclass(frozen=True)
class Piece:
    text: str
    tokens: int | None = None
    """Tokens of the answer up to here, if the server says."""
    metrics: Mapping[str, Any] = field(default_factory=dict)
    """The server's metrics, which come with the last piece."""


class Busy(Fault):
    """The server is full; `seconds` is the wait that it asks for, at most LONGEST, or 0 if it names none."""

    def __init__(self, seconds: float = 0.0) -> None:
        super().__init__("the server is full")
        self.seconds = min(seconds, LONGEST)


class Failed(Fault):
    """There will be no answer, or no more of it."""


class NoNetwork(Failed):
    """This machine has no route to any other."""

    def __init__(self) -> None:
        works = "scripts/serve, scripts/drill and scripts/smoke-test http://127.0.0.1:PORT"
        super().__init__(
            f"NO_NETWORK: nothing outside this machine can be reached. These still work: {works}"
        )


class Refused(Failed):
    """The server answered with an HTTP `status` that is neither success nor in FULL; `body` is its reply."""

    def __init__(self, status: int, body: str) -> None:
        super().__init__(f"HTTP {status}: {body[:200]}")
        self.status, self.body = status, body


class Canceled(Failed):
    """The prediction was canceled, or aborted by its host."""


class Endpoint(Protocol):
    """Something that answers; `ask` may be called from any thread."""

    name: str

    def ask(self, inputs: Mapping[str, Any]) -> Iterator[Piece]:
        """One answer, piece by piece. `inputs` have the names of predict.py.

        Raises:
            Busy: the server is full; only before any text.
            Failed: there is no answer, or no more of it; at any time.
        """
        ...


def patiently(endpoint: Endpoint, inputs: Mapping[str, Any], pause: float) -> Iterator[Piece]:
    """The pieces of an answer. A full server is asked again, after up to `pause` seconds or as many as it
    names, for PATIENCE seconds; then raises Busy."""
    until = time.monotonic() + PATIENCE
    while True:
        try:
            yield from endpoint.ask(inputs)
            return
        except Busy as busy:
            if time.monotonic() > until:
                raise
            # A random pause, so that callers who were refused together do not all come back together.
            time.sleep(max(busy.seconds, random.uniform(0, pause)))


class Http:
    """HTTP requests to paths below `base`. Each has a connection of its own, as pupils' requests do.

    Args:
        silence: seconds without a byte after which a request fails.
        key: sent as `Authorization: Bearer`; empty for none.

    Raises:
        Failed: a request fails, whatever the reason, told in one line; or `base` is not a URL.
    """

    def __init__(self, base: str, silence: float = SILENCE, key: str = "") -> None:
        with faults():
            self._client = httpx2.Client(
                base_url=base,
                headers={"Authorization": f"Bearer {sendable(key)}"} if key else {},
                timeout=httpx2.Timeout(silence, connect=min(30, silence), pool=None),
                limits=httpx2.Limits(max_connections=None, max_keepalive_connections=0),
                trust_env=urlsplit(base).hostname not in LOOPBACK,  # no proxy on the way to this machine
            )

    def json(self, method: str, path: str, body: Any = None) -> Any:
        with faults():
            response = self._client.request(method, path, json=body)
            check(response)
            return response.json()

    def look(self, path: str) -> httpx2.Response:
        """The response to a GET, whatever its status."""
        with faults():
            return self._client.get(path, headers={"Accept": "application/json"})

    def reaches(self, path: str) -> bool:
        """Whether a GET of `path` succeeds."""
        try:
            return self._client.get(path).is_success
        except httpx2.HTTPError:
            return False

    @contextlib.contextmanager
    def events(self, method: str, path: str, body: Any = None) -> Iterator[httpx2.EventSource]:
        headers = {"Accept": "text/event-stream", "Cache-Control": "no-store"}
        with faults(), self._client.stream(method, path, json=body, headers=headers) as response:
            check(response)
            yield httpx2.EventSource(response)


@contextlib.contextmanager
def faults() -> Iterator[None]:
    """Turns every error of a request into Failed, also JSON of an unexpected shape."""
    try:
        yield
    except httpx2.ReadTimeout as error:
        raise Failed("the server fell silent") from error
    except httpx2.ConnectError as error:
        raise unreached(error) from error
    except (httpx2.HTTPError, httpx2.InvalidURL, ValueError, LookupError, TypeError, AttributeError) as error:
        raise Failed(f"{type(error).__name__}: {error}") from error


def sendable(key: str) -> str:
    """`key` itself. Raises Failed if no header can carry it: the HTTP library's own error would repeat it."""
    if not (key.isascii() and key.isprintable()):
        raise Failed("the key or token has an accent or the end of a line in it: set it again")
    return key


def unreached(error: Exception) -> Failed:
    """The exception for a failed connection: NoNetwork if this machine is offline and it was not refused."""
    if "refused" not in str(error) and offline():
        return NoNetwork()
    return Failed(f"{type(error).__name__}: {error}")


def check(response: httpx2.Response) -> None:
    """Raises Busy or Refused unless the server has accepted the request."""
    if response.status_code in FULL:
        wait = response.headers.get("retry-after", "")
        raise Busy(float(wait) if wait.isdecimal() else 0.0)
    if not response.is_success:
        response.read()
        raise Refused(response.status_code, response.text)


def end(prediction: Mapping[str, Any]) -> Piece:
    """The last piece, with the metrics, of a prediction of Cog or Replicate that is over.

    Raises:
        Canceled: it was canceled or aborted.
        Failed: it did not succeed for another reason.
    """
    status = prediction.get("status")
    if status != "succeeded":
        kind = Canceled if status in ("canceled", "aborted") else Failed
        raise kind(str(prediction.get("error") or prediction.get("detail") or status))
    metrics = prediction.get("metrics") or {}
    return Piece("", metrics.get("output_token_count"), metrics)
