"""A canceled or dropped request stops decoding, and its neighbours notice nothing."""

import contextlib
import itertools
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.leaving import leave
from tests.tiny import save_tiny
from tests.waiting import logged, until
from tools.serving.server import Server

pytestmark = pytest.mark.server
LONG = {"user_message": "Bonjour", "max_tokens": 2048, "min_tokens": 2048, "seed": 7}
GREEDY = {"user_message": "Bonsoir", "max_tokens": 60, "min_tokens": 60, "temperature": 0}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, log: Path) -> Iterator[Server]:
    """A server with few places, and a log that says when each request starts."""
    base = save_tiny(tmp_path_factory.mktemp("tiny"), num_hidden_layers=8)
    environment = {"SNB_BASE_MODEL": str(base), "SNB_ADAPTER": "none", "SNB_SLOTS": "4"}
    environment |= {"COG_MAX_CONCURRENCY": "4", "COG_LOG_LEVEL": "info", "SNB_PIECE_MS": "0"}
    with log.open("w") as file, Server(environment, log=file) as server:
        server.wait()
        yield server


def by_post(server: Server, log: Path) -> None:
    """Streams, and asks for a cancel after the first text."""
    name = uuid.uuid4().hex
    with started(server, name, LONG) as lines:
        assert httpx.post(f"{server.url}/predictions/{name}/cancel").status_code == 200
        # A second cancel finds nothing or finds it canceled; either way nothing breaks.
        assert httpx.post(f"{server.url}/predictions/{name}/cancel").status_code in (200, 404)
        assert "canceled" in "".join(lines)


def by_dropping_the_stream(server: Server, log: Path) -> None:
    """Closes the connection after the first text."""
    with started(server, uuid.uuid4().hex, LONG):
        pass


def by_dropping_a_plain_request(server: Server, log: Path) -> None:
    """Closes the connection while the server works on a reply that does not stream."""
    leave(server.url, LONG, server, log)


@contextlib.contextmanager
def started(server: Server, name: str, inputs: dict[str, Any]) -> Iterator[Iterator[str]]:
    """A stream of which the first text has come: its further lines."""
    url, headers = f"{server.url}/predictions/{name}", {"Accept": "text/event-stream"}
    with httpx.stream("PUT", url, json={"input": inputs}, headers=headers, timeout=120) as stream:
        lines = stream.iter_lines()
        while "event: output" not in next(lines):
            pass
        yield lines


def ask(server: Server, inputs: dict[str, Any]) -> dict[str, Any]:
    reply = httpx.post(f"{server.url}/predictions", json={"input": inputs}, timeout=120)
    return {"http": reply.status_code, **reply.json()}


@pytest.mark.parametrize("stop", [by_post, by_dropping_the_stream, by_dropping_a_plain_request])
def test_it_stops_decoding_and_its_neighbour_gives_what_it_gives_alone(
    server: Server, log: Path, stop: Callable[[Server, Path], None]
) -> None:
    alone = "".join(ask(server, GREEDY)["output"])
    written = len(log.read_text())
    neighbours: list[dict[str, Any]] = []
    neighbour = threading.Thread(target=lambda: neighbours.append(ask(server, GREEDY)))
    neighbour.start()
    stop(server, log)
    neighbour.join()
    assert "".join(neighbours[0]["output"]) == alone
    until(lambda: "canceled after" in log.read_text()[written:])
    tokens = int(log.read_text()[written:].split("canceled after ")[1].split()[0])
    assert tokens < 2048
    assert ask(server, {**GREEDY, "max_tokens": 1, "min_tokens": 1})["status"] == "succeeded"


def test_one_id_put_twice_is_one_prediction(server: Server, log: Path) -> None:
    first, marker = uuid.uuid4().hex, uuid.uuid4().hex
    with started(server, first, {**LONG, "max_tokens": 400, "min_tokens": 400}) as lines:
        assert httpx.put(f"{server.url}/predictions/{first}", json={"input": LONG}).status_code == 202
        assert "succeeded" in "".join(lines)
    # What is logged of a later one comes after all that is logged of the first.
    with started(server, marker, {**LONG, "max_tokens": 9, "min_tokens": 9}) as lines:
        assert "succeeded" in "".join(lines)
    until(lambda: logged(log, marker) == logged(log, first) == 2)  # start and end


def test_a_full_server_refuses_and_the_running_ones_go_on(server: Server) -> None:
    with contextlib.ExitStack() as leaving:
        running = [leaving.enter_context(started(server, uuid.uuid4().hex, LONG)) for _ in range(4)]
        assert ask(server, GREEDY)["http"] == 409
        chunks = [[line for line in itertools.islice(lines, 200) if "chunk" in line] for lines in running]
    assert all(len(one) > 40 and one[:40] == chunks[0][:40] for one in chunks)
    until(lambda: ask(server, GREEDY)["http"] == 200)
