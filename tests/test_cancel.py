"""A canceled or dropped request stops decoding, and its neighbours notice nothing."""

import contextlib
import http.client
import json
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from server import Server
from tiny import save_tiny

from snb.cancel import Cancellation

pytestmark = pytest.mark.server
LONG = {"user_message": "Bonjour", "max_tokens": 2048, "min_tokens": 2048}
GREEDY = {"user_message": "Bonsoir", "max_tokens": 200, "min_tokens": 200, "temperature": 0}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, log: Path) -> Iterator[Server]:
    """A server with few places, on a model slow enough that its answers can be interrupted."""
    base = save_tiny(tmp_path_factory.mktemp("tiny"), num_hidden_layers=8)
    environment = {
        "SNB_BASE_MODEL": str(base),
        "SNB_ADAPTER": "none",
        "SNB_SLOTS": "4",
        "COG_MAX_CONCURRENCY": "4",
    }
    with log.open("w") as file, Server(environment, log=file) as server:
        server.wait()
        yield server


def by_post(server: Server) -> None:
    """Streams, and asks for a cancel after the first text."""
    name = uuid.uuid4().hex
    with httpx.stream(
        "PUT",
        f"{server.url}/predictions/{name}",
        json={"input": LONG},
        headers={"Accept": "text/event-stream"},
        timeout=60,
    ) as stream:
        lines = stream.iter_lines()
        while "event: output" not in next(lines):
            pass
        assert httpx.post(f"{server.url}/predictions/{name}/cancel").status_code == 200
        # A second cancel finds nothing or finds it canceled; either way nothing breaks.
        assert httpx.post(f"{server.url}/predictions/{name}/cancel").status_code in (200, 404)
        assert "canceled" in "".join(lines)


def by_dropping_the_stream(server: Server) -> None:
    """Closes the connection after the first text."""
    stream = server.stream(**LONG)
    while next(stream)[0] != "output":
        pass
    stream.close()  # type: ignore[attr-defined]


def by_dropping_a_plain_request(server: Server) -> None:
    """Closes the connection while the server works on a reply that does not stream."""
    with contextlib.closing(http.client.HTTPConnection(server.host, server.port)) as connection:
        headers = {"Content-Type": "application/json"}
        connection.request("POST", "/predictions", json.dumps({"input": LONG}), headers)
        time.sleep(0.3)


def ask(server: Server, inputs: dict[str, Any]) -> dict[str, Any]:
    reply = httpx.post(f"{server.url}/predictions", json={"input": inputs}, timeout=60)
    return {"http": reply.status_code, **reply.json()}


@pytest.mark.parametrize("stop", [by_post, by_dropping_the_stream, by_dropping_a_plain_request])
def test_it_stops_decoding_and_its_neighbour_gives_what_it_gives_alone(
    server: Server, log: Path, stop: Callable[[Server], None]
) -> None:
    alone = ask(server, GREEDY)["output"]
    written = log.read_text()
    neighbours: list[dict[str, Any]] = []
    neighbour = threading.Thread(target=lambda: neighbours.append(ask(server, GREEDY)))
    neighbour.start()
    stop(server)
    neighbour.join()
    assert neighbours[0]["output"] == alone
    assert "canceled after" in wait_for(log, "canceled after", len(written))
    new = log.read_text()[len(written) :]
    tokens = int(new.split("canceled after ")[1].split()[0])
    assert tokens < 2048
    assert ask(server, {**GREEDY, "max_tokens": 1, "min_tokens": 1})["status"] == "succeeded"


def wait_for(log: Path, text: str, start: int) -> str:
    """What the log says from `start` on, once it has `text` or will not."""
    for _ in range(100):
        if text in (new := log.read_text()[start:]):
            return new
        time.sleep(0.1)
    return log.read_text()[start:]


def test_one_id_put_twice_is_one_prediction(server: Server, log: Path) -> None:
    written = len(log.read_text())
    url = f"{server.url}/predictions/{uuid.uuid4().hex}"
    replies: list[httpx.Response] = []
    body = {"input": GREEDY}
    threads = [threading.Thread(target=lambda: replies.append(httpx.put(url, json=body))) for _ in range(2)]
    for thread in threads:
        thread.start()
        time.sleep(0.05)
    for thread in threads:
        thread.join()
    assert {reply.status_code for reply in replies} <= {200, 202}
    assert wait_for(log, " after ", written).count(" after ") == 1
    assert ask(server, {**GREEDY, "max_tokens": 1, "min_tokens": 1})["status"] == "succeeded"
    assert wait_for(log, "after 1 tokens", written).count(" after ") == 2


def test_a_full_server_refuses_and_the_running_ones_go_on(server: Server) -> None:
    streams = [server.stream(**{**LONG, "seed": 7}) for _ in range(4)]
    for stream in streams:
        while next(stream)[0] != "output":
            pass
    assert ask(server, GREEDY)["http"] == 409
    texts = {"".join(data["chunk"] for event, data in stream if event == "output") for stream in streams}
    assert len(texts) == 1
    assert ask(server, GREEDY)["status"] == "succeeded"


def test_a_listener_that_comes_late_is_called_at_once() -> None:
    cancellation, calls = Cancellation(), []
    cancellation.then(lambda: calls.append("early"))
    cancellation.cancel()
    cancellation.cancel()
    cancellation.then(lambda: calls.append("late"))
    assert calls == ["early", "late"]
