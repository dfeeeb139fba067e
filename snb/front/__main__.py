"""Serves the philosophers behind an API key, and ends itself when it cannot any more: its host restarts it.

python -m snb.front --host 0.0.0.0 --port 5000
"""

import argparse
import asyncio
import contextlib
import ipaddress
import logging
import os
import signal
import socket
import sys
from collections.abc import Iterator
from typing import Any

import uvicorn

from snb.errors import BadSetting, SNBError
from snb.front.answers import Answers
from snb.front.app import Front
from snb.front.cog_server import CogServer, disk_full
from snb.front.connection import HEAD, Connection
from snb.front.port import fault_named
from snb.settings import Settings

POLL = 2.0
"""Seconds between two health checks of Cog's server."""
BUSY_POLLS = 3
"""Checks in a row that find it BUSY while the front has free places, after which it must have lost one."""
SHUTDOWN = 12.0
"""Seconds between a fault and the end: answers may finish, and /health-check still says why setup failed, for
whoever waits; Compose looks every ten."""
log = logging.getLogger("snb.front")


class Server(uvicorn.Server):
    """Shuts down at SIGINT and SIGTERM, which uvicorn 0.54 would raise again while asyncio runs."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """See uvicorn.Server."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self.handle_exit, number, None)
        yield


async def serve(listening: socket.socket, settings: Settings) -> str:
    """Serves until it is told to end, or has to; returns the reason why it had to, else an empty string."""
    async with CogServer() as cog:
        answers = Answers(cog.client, cog.places)
        config = uvicorn.Config(
            Front(cog, answers).app(settings.api_key),
            http=Connection,
            ws="none",
            lifespan="off",
            access_log=False,
            log_config=None,
            log_level="error",  # a warning for each bad request would fill the log
            server_header=False,
            h11_max_incomplete_event_size=HEAD,
            timeout_graceful_shutdown=settings.deadline + 10,
        )
        server = Server(config)
        serving = asyncio.create_task(server.serve([listening]))
        watching = asyncio.create_task(failure(cog, answers))
        await asyncio.wait({serving, watching}, return_when=asyncio.FIRST_COMPLETED)
        reason = watching.result() if watching.done() else ""
        if reason:
            log.error("%s; ending, to be restarted", reason)
            if cog.state == "SETUP_FAILED":
                await asyncio.wait({serving}, timeout=SHUTDOWN)
            else:
                cog.state = "UNHEALTHY"
                await answers.finish(SHUTDOWN)
            server.should_exit = True
        watching.cancel()
        await serving
        return reason


async def failure(cog: CogServer, answers: Answers) -> str:
    """Watches Cog's server; returns the reason once it has a fault from which it does not recover."""
    busy = 0
    while True:
        if reason := await cog.look() or disk_full():
            return reason
        answers.forget()
        full = answers.peak() == cog.places
        busy = busy + 1 if cog.state == "BUSY" and not full else 0
        if answers.lost or busy == BUSY_POLLS:
            return f"Cog's server has lost a place: {answers.lost or 'it says BUSY while places are free'}"
        await asyncio.sleep(POLL)


def check_public(host: str, key: str | None) -> None:
    """Raises BadSetting if no key is set and other machines can reach the host."""
    try:
        alone = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        alone = False  # another name, which may be public
    if not key and not alone:
        fault = f"SNB_API_KEY is not set, and {host} is not this machine alone"
        raise BadSetting(fault, "Set it to what callers have to send: openssl rand -hex 32")


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises BadSetting if it cannot listen; uvicorn 0.54 would print a traceback."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with fault_named(host, port):
        return socket.create_server((host, port), family=family)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m snb.front", description=__doc__)
    add: Any = parser.add_argument
    add("--host", default="127.0.0.1", help="address to listen on (default: this machine only)")
    port = os.environ.get("PORT", "5000")  # as Cog's server takes it
    add("--port", type=int, default=port, help="TCP port (default PORT, else 5000)")
    options = parser.parse_args()
    logging.basicConfig(format="%(name)s: %(message)s", level=logging.WARNING)
    try:
        settings = Settings.from_environment()
        check_public(options.host, settings.api_key)
        reason = asyncio.run(serve(listen(options.host, options.port), settings))
    except (SNBError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    return int(bool(reason))


if __name__ == "__main__":
    sys.exit(main())
