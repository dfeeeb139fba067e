"""The small protocol that benchmark and smoke test speak, and HTTP under it."""

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
"""Cog's full server, a rate limit, and what proxies and other servers answer when there is no room."""
SILENCE = 600.0
"""Seconds; a queue of thirty in front of a slow server keeps the last one waiting for minutes."""
PATIENCE = 1800.0
"""Seconds for which a full server is asked again."""
LONGEST = 3600.0
"""Seconds for which a full server can send a caller away: not every number is one that `time.sleep` takes."""
LOOPBACK = ("127.0.0.1", "::1", "localhost")


@dataclass(frozen=True)
class Piece:
    text: str
    tokens: int | None = None
    """Of the answer up to here, where the server says."""
    metrics: Mapping[str, Any] = field(default_factory=dict)
    """The server's own, with the last piece."""


class Busy(Fault):
    """The server is full; `seconds` is what it says of when to ask again, up to LONGEST, or 0."""

    def __init__(self, seconds: float = 0.0) -> None:
        super().__init__("the server is full")
        self.seconds = min(seconds, LONGEST)


class Failed(Fault):
    """There will be no answer, or not the rest of it."""


class NoNetwork(Failed):
    """This machine reaches no other."""

    def __init__(self) -> None:
        works = "scripts/serve, scripts/drill and scripts/smoke-test http://127.0.0.1:PORT"
        super().__init__(
            f"NO_NETWORK: nothing outside this machine can be reached. These still work: {works}"
        )


class Refused(Failed):
    """The server answered with an HTTP `status` that is neither success nor one of FULL; `body` is why."""

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
            Busy: before any text.
            Failed: at any time.
        """
        ...


def patiently(endpoint: Endpoint, inputs: Mapping[str, Any], pause: float) -> Iterator[Piece]:
    """The pieces of an answer, once the server takes the question. Raises Busy when it never does."""
    until = time.monotonic() + PATIENCE
    while True:
        try:
            yield from endpoint.ask(inputs)
            return
        except Busy as busy:
            if time.monotonic() > until:
                raise
            # Chance keeps those who were refused together from coming back together.
            time.sleep(max(busy.seconds, random.uniform(0, pause)))


class Http:
    """Requests below one address. Every request has a connection of its own, as every pupil has.

    Args:
        silence: seconds without a byte after which a request has failed.
        key: sent as `Authorization: Bearer`; empty for none.

    Raises:
        Failed: whatever the network or the server makes of a request, in one line; or `base` is none.
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
        """The reply to a GET, whatever its status."""
        with faults():
            return self._client.get(path, headers={"Accept": "application/json"})

    def reaches(self, path: str) -> bool:
        """Whether the server answers there, and well."""
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
    """Turns what can go wrong on the way into Failed; also JSON of another shape than it should have."""
    try:
        yield
    except httpx2.ReadTimeout as error:
        raise Failed("the server fell silent") from error
    except httpx2.ConnectError as error:
        raise unreached(error) from error
    except (httpx2.HTTPError, httpx2.InvalidURL, ValueError, LookupError, TypeError, AttributeError) as error:
        raise Failed(f"{type(error).__name__}: {error}") from error


def sendable(key: str) -> str:
    """A key or token. Raises Failed where no header can carry it: what the network would say repeats it."""
    if not (key.isascii() and key.isprintable()):
        raise Failed("the key or token has an accent or the end of a line in it: set it again")
    return key


def unreached(error: Exception) -> Failed:
    """What to raise for a connection that did not come about; on this machine one can be refused."""
    if "refused" not in str(error) and offline():
        return NoNetwork()
    return Failed(f"{type(error).__name__}: {error}")


def check(response: httpx2.Response) -> None:
    """Raises Busy or Failed unless the server has accepted the request."""
    if response.status_code in FULL:
        wait = response.headers.get("retry-after", "")
        raise Busy(float(wait) if wait.isdecimal() else 0.0)
    if not response.is_success:
        response.read()
        raise Refused(response.status_code, response.text)


def end(prediction: Mapping[str, Any]) -> Piece:
    """The last piece of a prediction, Cog's or Replicate's, that is over.

    Raises:
        Failed: it did not succeed; Canceled, if it was.
    """
    status = prediction.get("status")
    if status != "succeeded":
        kind = Canceled if status in ("canceled", "aborted") else Failed
        raise kind(str(prediction.get("error") or prediction.get("detail") or status))
    metrics = prediction.get("metrics") or {}
    return Piece("", metrics.get("output_token_count"), metrics)
