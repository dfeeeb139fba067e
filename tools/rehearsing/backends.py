"""The two backends of a drill, the first of which is taken away and brought back: by a signal, or by hand."""

import contextlib
import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path

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


class ByHand:
    """Two backends that run already, of which a person takes the first away when asked to."""

    deed = "by hand"

    def __init__(self, urls: Sequence[str]) -> None:
        self.urls = urls

    def take(self) -> float:
        """When the first is taken away, in seconds since the epoch."""
        say(f"\a>>> Take the first backend away now: {self.urls[0]}")
        return moment()

    def give(self) -> float:
        """When the first is ready again, in seconds since the epoch."""
        say(f"\a>>> Bring the first backend back now: {self.urls[0]}")
        return moment()


class Local:
    """Two real Cog servers on loopback, as `ByHand`; leaving the context ends them.

    Args:
        how: one of SIGNALS, for the first and its worker.
        boot: seconds for a server to be ready.
        log: where the servers write.

    Raises:
        Failed: one of them does not boot; with the end of its log.
    """

    def __init__(self, settings: Mapping[str, str], how: str, boot: float, log: Path) -> None:
        self._settings, self._signal, self._boot, self._log = settings, SIGNALS[how], boot, log
        self.deed = f"{self._signal.name} to its process group"
        self._servers: list[Server] = []

    def __enter__(self) -> "Local":
        with contextlib.ExitStack() as undo:
            undo.push(self.__exit__)
            self._servers += [self._started(), self._started()]
            for server in self._servers:
                self._wait(server)
            undo.pop_all()
        self.urls = [server.url for server in self._servers]
        return self

    def __exit__(self, *_: object) -> None:
        for server in self._servers:
            self._end(server)

    def take(self) -> float:
        """See `ByHand`."""
        taken = moment()
        os.killpg(self._servers[0].pid, self._signal)
        return taken

    def give(self) -> float:
        """See `ByHand`. A new server boots on the port of the first, as after a restart of its host."""
        port = self._servers[0].port
        self._end(self._servers[0])
        self._servers[0] = self._started(port)
        self._wait(self._servers[0])
        return moment()

    def _started(self, port: int = 0) -> Server:
        with self._log.open("a") as file:  # the server keeps a descriptor of its own
            return Server(self._settings, port=port, log=file)

    def _wait(self, server: Server) -> None:
        try:
            within(self._boot, server.wait)
        except (SetupFailed, Failed) as error:
            written = self._log.read_text(encoding="utf-8", errors="replace")[-TAIL:]
            raise Failed(f"a server did not boot: {error}\n{written}") from error

    def _end(self, server: Server) -> None:
        if self._signal == signal.SIGSTOP:  # it would not hear that it is asked to end
            with contextlib.suppress(ProcessLookupError):
                os.killpg(server.pid, signal.SIGKILL)
        server.close()
