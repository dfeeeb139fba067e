"""Who takes the first backend away and brings it back: this program, or a person."""

import contextlib
import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from tools.endpoints.endpoint import Failed
from tools.endpoints.patience import within
from tools.endpoints.started import say
from tools.rehearsing.pupils import moment
from tools.serving.server import Server, SetupFailed

SIGNALS = {"kill": signal.SIGKILL, "stop": signal.SIGTERM, "hang": signal.SIGSTOP}
"""`kill`: the host is gone from one moment to the next; `stop`: it is shut down in order; `hang`: it is
there, and says nothing any more."""
TAIL = 2000
"""Characters that are shown of the log of a server that did not boot."""


class Hands(Protocol):
    """Two backends, in order of preference."""

    urls: Sequence[str]
    deed: str
    """What is done to the first, in words."""

    def take(self) -> float:
        """Takes the first away; when, in seconds since the epoch."""
        ...

    def give(self) -> float:
        """Brings it back; when it was ready again, in seconds since the epoch. Raises Failed."""
        ...


class Member(Server):
    """A server that can be struck."""

    def strike(self, number: signal.Signals) -> None:
        """Sends a signal to the server and its worker."""
        os.killpg(self._process.pid, number)


class Machine:
    """Two real Cog servers on loopback. `close()` ends them.

    Args:
        how: one of SIGNALS.
        boot: seconds for a server to be ready.
        log: where the servers write.

    Raises:
        Failed: one of them does not boot; with the end of its log.
    """

    def __init__(self, settings: Mapping[str, str], how: str, boot: float, log: Path) -> None:
        self._settings, self._signal, self._boot, self._log = settings, SIGNALS[how], boot, log
        self.deed = f"{self._signal.name} to its process group"
        self._servers: list[Member] = []
        try:
            for _ in range(2):
                self._servers.append(self._server())
            for server in self._servers:
                self._wait(server)
        except BaseException:
            self.close()
            raise
        self.urls = [server.url for server in self._servers]

    def _server(self, port: int = 0) -> Member:
        with self._log.open("a") as file:  # the server keeps a descriptor of its own
            return Member(self._settings, port=port, log=file)

    def _wait(self, server: Member) -> None:
        try:
            within(self._boot, server.wait)
        except (SetupFailed, Failed) as error:
            written = self._log.read_text(encoding="utf-8", errors="replace")[-TAIL:]
            raise Failed(f"a server did not boot: {error}\n{written}") from error

    def take(self) -> float:
        """See `Hands`."""
        taken = moment()
        self._servers[0].strike(self._signal)
        return taken

    def give(self) -> float:
        """See `Hands`. A new server boots on the port of the first, as after a restart of its host."""
        first = self._servers[0]
        self._end(first)
        self._servers[0] = self._server(first.port)
        self._wait(self._servers[0])
        return moment()

    def close(self) -> None:
        """Ends both servers."""
        for server in self._servers:
            self._end(server)

    def _end(self, server: Member) -> None:
        """Ends a server; one that hangs would not hear that it is asked to."""
        if self._signal == signal.SIGSTOP:
            with contextlib.suppress(ProcessLookupError):
                server.strike(signal.SIGKILL)
        server.close()


@contextlib.contextmanager
def machine(settings: Mapping[str, str], how: str, boot: float, log: Path) -> Iterator[Machine]:
    """A `Machine` that is closed at the end."""
    hands = Machine(settings, how, boot, log)
    try:
        yield hands
    finally:
        hands.close()


class Person:
    """Two backends that run already, of which a person takes the first away when asked to."""

    deed = "by hand"

    def __init__(self, urls: Sequence[str]) -> None:
        self.urls = urls

    def take(self) -> float:
        """See `Hands`."""
        say(f"\a>>> Take the first backend away now: {self.urls[0]}")
        return moment()

    def give(self) -> float:
        """See `Hands`."""
        say(f"\a>>> Bring the first backend back now: {self.urls[0]}")
        return moment()
