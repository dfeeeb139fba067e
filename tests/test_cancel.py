"""A canceled or dropped request stops decoding, without effect on the others."""

import contextlib
import http.client
import json
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.visitor import direct
from tests.waiting import until
from tools.serving.server import Server

pytestmark = pytest.mark.server
LONG = {"user_message": "Bonjour", "max_tokens": 2048, "min_tokens": 2048, "seed": 7}
GREEDY = {"user_message": "Bonsoir", "max_tokens": 300, "min_tokens": 300, "temperature": 0}


def by_post(server: Server, log: Path) -> None:
    """Streams, and cancels after the first text."""
    name = uuid.uuid4().hex
    with started(server, name, LONG) as lines:
        assert httpx.post(f"{server.url}/predictions/{name}/cancel").status_code == 200
        # A second cancel finds no prediction, or a canceled one; neither is a fault.
        assert httpx.post(f"{server.url}/predictions/{name}/cancel").status_code in (200, 404)
        assert "canceled" in "".join(lines)


def by_dropping_the_stream(server: Server, log: Path) -> None:
    """Closes the connection after the first text."""
    with started(server, uuid.uuid4().hex, LONG):
        pass


def by_dropping_a_plain_request(server: Server, log: Path) -> None:
    """Closes the connection while the server works on a reply that does not stream."""
    path, body = f"/predictions/{uuid.uuid4().hex}", {"input": LONG}
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", server.port)) as connection:
        connection.request("PUT", path, json.dumps(body), {"Content-Type": "application/json"})
        until(lambda: path.rpartition("/")[2] in log.read_text(), log=log)
        # A repeated PUT shows the output so far. coglet 0.23.1 may not notice a caller who leaves before any.
        until(lambda: httpx.put(server.url + path, json=body, timeout=600).json().get("output"))


@contextlib.contextmanager
def started(server: Server, name: str, inputs: dict[str, Any]) -> Iterator[Iterator[str]]:
    """The lines of a stream after its first text."""
    url, headers = f"{server.url}/predictions/{name}", {"Accept": "text/event-stream"}
    with httpx.stream("PUT", url, json={"input": inputs}, headers=headers, timeout=120) as stream:
        lines = stream.iter_lines()
        while "event: output" not in next(lines):
            pass
        yield lines


@pytest.mark.parametrize("stop", [by_post, by_dropping_the_stream, by_dropping_a_plain_request])
def test_it_stops_decoding_and_its_neighbour_gives_what_it_gives_alone(
    cog: Server, cog_log: Path, stop: Callable[[Server, Path], None]
) -> None:
    alone = direct(cog.url, GREEDY)
    written = len(cog_log.read_text())
    neighbours: list[str] = []
    neighbour = threading.Thread(target=lambda: neighbours.append(direct(cog.url, GREEDY)))
    neighbour.start()
    until(lambda: "Starting prediction" in cog_log.read_text()[written:], log=cog_log)
    stop(cog, cog_log)
    neighbour.join()
    assert neighbours == [alone]
    until(lambda: "canceled after" in cog_log.read_text()[written:], log=cog_log)
    assert direct(cog.url, GREEDY) == alone
