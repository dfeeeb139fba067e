"""The front before Cog's own server and predict.py: who gets in, what may be asked, what ends the front."""

import asyncio
import contextlib
import functools
import io
import json
import re
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import httpx2
import psutil
import pytest
import uvicorn
from starlette.responses import Response

from snb.errors import BadSetting
from snb.front import __main__ as front_main
from snb.front import answers, cog_server, process_group
from snb.front import connection as front_connection
from snb.front.__main__ import check_public, failure, main
from snb.front.answers import FOLDERS
from snb.front.app import Front
from snb.front.cog_server import CogServer, disk_full
from snb.front.connection import Connection
from snb.settings import Settings
from tests.hosts import KEY, behind, cog_processes, puppet, puppet_server
from tests.waiting import until
from tools.command import say
from tools.endpoints.endpoint import Failed
from tools.endpoints.readiness import await_ready
from tools.serving.server import Server

OTHER = "another-key-of-some-length"
SECRET = "prénom-de-l-élève"
LONG = {"max_tokens": 900}
"""Inputs of answers that wait for `go-on`."""
EVENTS = {"Accept": "text/event-stream"}
ASYNCHRONOUS = {"Prefer": "respond-async"}
PLACES = 16


def test_a_key_that_can_be_guessed_or_that_no_header_carries_stops_the_boot_and_is_not_repeated() -> None:
    for key in ("sesame", "sésame-ouvre-toi-0123456789", "sesame ouvre toi 0123456789"):
        with pytest.raises(BadSetting, match="SNB_API_KEY must be at least 16 ASCII characters") as refused:
            Settings.from_environment({"SNB_API_KEY": key})
        assert key not in str(refused.value)
    assert KEY not in repr(Settings.from_environment({"SNB_API_KEY": KEY}))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "spinoza.example"])
def test_a_public_address_without_a_key_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], host: str
) -> None:
    monkeypatch.setattr(sys, "argv", ["snb.front", "--host", host])
    monkeypatch.setenv("SNB_API_KEY", "")
    assert main() == 1
    assert "BAD_SETTING: SNB_API_KEY is not set" in capsys.readouterr().err
    check_public(host, KEY)
    check_public("127.0.0.1", None)


@pytest.mark.parametrize("host", ["127.0.0.1", "192.0.2.1"])
def test_a_port_that_is_taken_and_a_host_that_is_elsewhere_are_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], host: str
) -> None:
    monkeypatch.setenv("SNB_API_KEY", KEY)
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        monkeypatch.setattr(sys, "argv", ["snb.front", "--host", host, "--port", port])
        assert main() == 1
    [line] = capsys.readouterr().err.splitlines()
    assert (f"{host}:{port}" in line, "Choose another host or port" in line) == (True, True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The predictor's folder: answers of more than one token wait for the file `go-on` in it."""
    return puppet(tmp_path_factory.mktemp("project"), "set-up", places=PLACES)


@pytest.fixture(scope="module")
def log(folder: Path) -> Path:
    return folder / "log"


@pytest.fixture(scope="module")
def front(folder: Path) -> Iterator[Server]:
    with puppet_server(folder, SNB_API_KEY=KEY) as server:
        server.wait()
        yield server


@pytest.fixture
def caller(front: Server) -> Iterator[httpx.Client]:
    """A client that sends the key."""
    with httpx.Client(base_url=front.url, headers=authorization(KEY), timeout=600) as client:
        yield client


def authorization(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def asked(**inputs: Any) -> dict[str, Any]:
    return {"input": {"user_message": "Bonjour", "max_tokens": 1, **inputs}}


def events(response: httpx.Response) -> Iterator[tuple[str, Any]]:
    name = ""
    for line in response.iter_lines():
        if line.startswith("event: "):
            name = line.removeprefix("event: ")
        elif line.startswith("data: "):
            yield name, json.loads(line.removeprefix("data: "))


PATHS = ["GET /", "GET /openapi.json", "POST /predictions", "PUT /predictions/{id}", "GET /predictions/{id}"]
PATHS += ["POST /predictions/{id}/cancel", "POST /shutdown", "GET /nothing"]


@pytest.mark.server
@pytest.mark.parametrize("sent", ["", OTHER, KEY[:-1], f"{KEY}x", KEY.upper()])
def test_nobody_else_gets_in_and_no_reply_repeats_a_key(front: Server, sent: str) -> None:
    headers = authorization(sent) if sent else {}
    with httpx.Client(base_url=front.url, headers=headers, timeout=600) as stranger:
        for path in PATHS:
            reply = stranger.request(*path.format(id="0" * 32).split(), json=asked())
            assert (reply.status_code, reply.headers["WWW-Authenticate"]) == (401, "Bearer"), path
            assert reply.json()["error"].startswith("UNAUTHORIZED: Authorization is ")
            assert not sent or sent not in reply.text
        assert stranger.get("/health-check").json() == {"status": "READY"}


@pytest.mark.server
def test_nothing_else_is_there_with_the_key(caller: httpx.Client) -> None:
    for path in ("POST /shutdown", "POST /trainings", "PUT /trainings/a", "GET /docs"):
        assert caller.request(*path.split(), json=asked()).status_code == 404
        assert caller.get("/health-check").json() == {"status": "READY"}


@pytest.mark.server
def test_cog_s_own_server_listens_to_this_machine_alone(front: Server) -> None:
    connections = [one for process in cog_processes(front) for one in process.net_connections("inet")]
    listening = {one.laddr.ip for one in connections if one.status == psutil.CONN_LISTEN}
    assert listening == {"127.0.0.1"}


@pytest.mark.server
def test_who_has_the_key_is_answered_in_every_form(caller: httpx.Client) -> None:
    assert caller.get("/").json()["cog_version"]
    assert caller.get("/openapi.json").json()["paths"]["/predictions"]
    assert caller.get("/", headers={"Authorization": f"bearer {KEY}"}).status_code == 200
    plain = caller.post("/predictions", json={"id": None, **asked(seed=1)}).json()
    assert plain["status"] == "succeeded"
    assert "input" not in plain
    assert re.fullmatch("[0-9a-f]{32}", plain["id"])
    with caller.stream("POST", "/predictions", json=asked(seed=1), headers=EVENTS) as response:
        streamed = list(events(response))
    assert [streamed[0][0], streamed[-1][0]] == ["start", "completed"]
    text = "".join(data["chunk"] for name, data in streamed if name == "output")
    assert text == "".join(plain["output"])
    assert not (FOLDERS / plain["id"]).exists()


@pytest.mark.server
def test_an_answer_is_begun_now_and_read_later_and_asked_twice_it_is_made_once(
    caller: httpx.Client, folder: Path
) -> None:
    name, body = "a" * 32, asked(**LONG)
    begun = caller.put(f"/predictions/{name}", json=body, headers=ASYNCHRONOUS)
    assert begun.status_code == 202
    until(lambda: caller.get(f"/predictions/{name}").json()["output"] == ["0 "])
    (folder / "go-on").touch()
    until(lambda: caller.get(f"/predictions/{name}").json()["status"] == "succeeded", 600)
    (folder / "go-on").unlink()
    late = caller.get(f"/predictions/{name}").json()
    assert late["output"] == [f"{number} " for number in range(LONG["max_tokens"])]
    again = caller.put(f"/predictions/{name}", json=body).json()
    assert again == late
    with caller.stream("PUT", f"/predictions/{name}", json=body, headers=EVENTS) as response:
        text = "".join(data["chunk"] for kind, data in events(response) if kind == "output")
    assert text == "".join(late["output"])


@pytest.mark.server
def test_an_id_is_of_no_use_with_another_question(caller: httpx.Client) -> None:
    name, body = "b" * 32, asked(user_message=SECRET, **LONG)
    caller.put(f"/predictions/{name}", json=body, headers=ASYNCHRONOUS)
    assert caller.put(f"/predictions/{'0' * 32}", json={"id": name, **body}).status_code == 422
    other = caller.put(f"/predictions/{name}", json={"input": {}})
    assert (other.status_code, other.headers.get("Retry-After")) == (400, None)
    assert SECRET not in other.text
    assert caller.post(f"/predictions/{name}/cancel").status_code == 200
    until(lambda: caller.get(f"/predictions/{name}").json()["status"] == "canceled", 60)
    assert caller.post(f"/predictions/{name}/cancel").status_code == 404


BAD: list[tuple[int, Any]] = [
    (400, b"{"),
    (400, b"[1]"),
    (400, b"[" * 100_000),
    (400, b'{"input": {"user_message": "a", "temperature": NaN}}'),
    (400, b'{"input": {"user_message": "\\ud800"}}'),
    (422, {}),
    (422, {"input": {}}),
    (422, {"input": {"user_message": ""}}),
    (422, {"input": {"user_message": "a", "max_tokens": 10**6}}),
    (422, {"input": {SECRET: "a"}}),
    (422, {"id": "../" * 10, **asked()}),
    (413, asked(rag_context="x" * 600_000)),
]


@pytest.mark.server
def test_what_is_no_question_is_refused_and_takes_no_place(caller: httpx.Client) -> None:
    for status, body in BAD:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        reply = caller.post("/predictions", content=content)
        assert reply.status_code == status, (body, reply.text)
        assert SECRET not in reply.text
        assert len(reply.text) < 2000
    names = [f"{number:032x}" for number in range(PLACES + 1)]
    assert begun(caller, names) == [202] * PLACES + [409]
    cancel(caller, names[:-1])


def begun(caller: httpx.Client, names: Sequence[str], **headers: str) -> list[int]:
    """Begins an answer that waits for each id; returns the HTTP statuses."""
    headers |= ASYNCHRONOUS
    begin = functools.partial(caller.put, json=asked(**LONG), headers=headers)
    return [begin(f"/predictions/{name}").status_code for name in names]


def cancel(caller: httpx.Client, names: Sequence[str]) -> None:
    for name in names:
        assert caller.post(f"/predictions/{name}/cancel").status_code == 200


@pytest.mark.server
def test_a_refusal_names_what_is_allowed(caller: httpx.Client) -> None:
    [fault] = caller.post("/predictions", json=asked(philosopher="descartes")).json()["detail"]
    assert fault["loc"][-1] == "philosopher"
    assert all(name in fault["msg"] for name in ("spinoza", "bergson", "kant")), fault


@pytest.mark.server
def test_a_refusal_does_not_grow_with_what_was_sent(caller: httpx.Client) -> None:
    reply = caller.post("/predictions", json=asked(history=[{}] * 100_000)).json()
    assert reply["status"] == "failed"
    assert re.search(r"BAD_INPUT: history may have at most 200.*history\[0\].* and 191 more", reply["error"])
    assert len(reply["error"]) < 2000


@pytest.mark.server
def test_webhooks_are_not_passed_on(caller: httpx.Client) -> None:
    with socket.create_server(("127.0.0.1", 0)) as hook:
        hook.setblocking(False)
        body = {**asked(), "webhook": f"http://127.0.0.1:{hook.getsockname()[1]}/"}
        assert caller.post("/predictions", json=body).json()["status"] == "succeeded"
        with pytest.raises(BlockingIOError):
            hook.accept()


@pytest.mark.server
@pytest.mark.parametrize("how", ["plain", "stream"])
def test_a_caller_who_leaves_ends_the_answer(front: Server, caller: httpx.Client, how: str) -> None:
    name = ("c" if how == "plain" else "d") * 32
    with httpx.Client(headers=authorization(KEY), timeout=600) as hasty:
        body, url = asked(**LONG), f"{front.url}/predictions/{name}"
        if how == "plain":
            with pytest.raises(httpx.ReadTimeout):
                hasty.put(url, json=body, timeout=httpx.Timeout(600, read=1))
        else:
            with hasty.stream("PUT", url, json=body, headers=EVENTS) as response:
                next(events(response))
    until(lambda: caller.get(f"/predictions/{name}").json()["status"] == "canceled")


@pytest.mark.server
def test_one_caller_does_not_take_all_places(caller: httpx.Client) -> None:
    """A caller alone gets half of them; a second one gets half of what is left."""
    half = PLACES // 2
    names = [f"{number:032x}" for number in range(100, 101 + half)]
    others = [f"{number:032x}" for number in range(200, 201 + half // 2)]
    assert begun(caller, names, **{"X-Caller": "1"}) == [202] * half + [429]
    assert begun(caller, others, **{"X-Caller": "2"}) == [202] * (half // 2) + [429]
    cancel(caller, names[:-1] + others[:-1])


HEALTH = b"GET /health-check HTTP/1.1\r\nHost: a\r\n\r\n"
HEAD = b"GET / HTTP/1.1\r\nHost: a\r\nX: "
CHUNKED = b"POST /predictions HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
SLOW = {
    "a head": (HEAD, b"a"),
    "a second head": (HEALTH + HEAD, b"a"),
    "a body that nobody wants": (CHUNKED, b"1\r\na\r\n"),
    "replies unread": (HEALTH * 200_000, HEALTH),
}


@pytest.mark.server
def test_a_head_has_a_bound_though_it_comes_at_once(caller: httpx.Client) -> None:
    for length, status in ((12_000, 200), (24_000, 400)):
        assert caller.get("/", headers={"X": "x" * length}).status_code == status


@pytest.mark.server
def test_who_keeps_the_front_waiting_is_dropped_and_a_body_that_does_not_come_is_given_up(
    front: Server,
) -> None:
    """Takes the 15 s that a body may take."""
    with contextlib.ExitStack() as stack:
        body = stack.enter_context(socket.create_connection(("127.0.0.1", front.port), 200))
        body.sendall(KEYED + b"Content-Length: 9\r\n\r\n{")
        slow: list[tuple[socket.socket, bytes]] = []
        for begun, more in SLOW.values():
            connection = stack.enter_context(socket.socket())
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.connect(("127.0.0.1", front.port))
            connection.setblocking(False)
            connection.send(begun)
            slow.append((connection, more))
        until(lambda: sum(dropped(*one) for one in slow) == len(SLOW))
        assert body.recv(1000)[9:12] == b"408"


def dropped(connection: socket.socket, more: bytes) -> bool:
    """Whether the other end has closed the connection, so that `more` cannot be sent."""
    try:
        connection.send(more)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return False


async def test_of_too_many_who_say_nothing_the_first_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(front_connection, "MOST", 3)
    config = uvicorn.Config(Response(), lifespan="off")
    state, loop = uvicorn.server.ServerState(), asyncio.get_running_loop()
    async with await loop.create_server(lambda: Connection(config, state, {}), "127.0.0.1") as listening:
        address = listening.sockets[0].getsockname()
        callers = [await asyncio.open_connection(*address) for _ in range(4)]
        assert await callers[0][0].read() == b""
        callers[1][1].write(HEALTH)
        assert (await callers[1][0].readline()).startswith(b"HTTP/1.1 200")
        for _, writer in callers:
            writer.close()


KEYED = b"POST /predictions HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer %b\r\n" % KEY.encode()
BROKEN = [
    b"G",
    HEALTH.replace(b"Host", b"Host "),
    HEALTH.replace(b"Host: a", b"Host: a\r\nUpgrade: websocket\r\nConnection: Upgrade"),
    CHUNKED + b"G",
    CHUNKED + b"-1\r\n" + HEALTH,
    KEYED + b"Transfer-Encoding: chunked\r\n\r\nG",
    KEYED + b"Content-Length: 9\r\n\r\n{",
]


@pytest.mark.server
def test_what_is_no_http_leaves_nothing_in_the_log(front: Server, caller: httpx.Client, log: Path) -> None:
    size = log.stat().st_size
    for sent in BROKEN * 3:
        with socket.create_connection(("127.0.0.1", front.port)) as connection:
            connection.sendall(sent)
            connection.shutdown(socket.SHUT_WR)
            with contextlib.suppress(OSError):
                while connection.recv(4096):
                    pass
    assert caller.get("/health-check").status_code == 200
    assert log.stat().st_size == size


@pytest.mark.server
def test_no_log_has_a_word_of_a_caller(front: Server, caller: httpx.Client, log: Path) -> None:
    reply = caller.post(f"/predictions?{SECRET}={KEY}", json=asked(user_message=f"Dis {SECRET} !")).json()
    assert "".join(reply["output"]) == f"{SECRET} !"
    caller.post("/predictions", json=asked(**{SECRET: SECRET}))
    caller.post("/predictions", json={**asked(), "webhook": SECRET})
    words = (KEY, SECRET, "pr\\u00e9nom", "Traceback")
    assert not [word for word in words if word in log.read_text()]


FAULTS = {
    "worker killed": "Cog's server is (UNHEALTHY|DEFUNCT)",
    "server killed": "Cog's server ended with code -9",
    "server stopped": "Cog's server has been silent for 10 s",
    "place lost": "Cog's server has lost a place: Slot dropped unexpectedly",
    "place taken": "Cog's server has lost a place: it says BUSY while places are free",
}
"""Faults of Cog's server, and the line that each leaves in the front's log."""


@pytest.mark.server
def test_it_ends_itself_when_what_is_behind_it_does_not_come_back(tmp_path: Path) -> None:
    """Its host restarts it, by a container's restart policy or by SkyServe.

    A server that is stopped gets HUNG seconds, here ten, and ten more to end.
    """
    folders = [puppet(tmp_path / fault, "set-up") for fault in FAULTS]
    with contextlib.ExitStack() as stack, ThreadPoolExecutor(len(FAULTS)) as pool:
        # Started in one thread, since each start parses predict.py, and CPython 3.11's parser sometimes fails
        # in several threads at once (gh-106905).
        started = (puppet_server(folder, "tests.impatient", SNB_API_KEY=KEY) for folder in folders)
        servers = [stack.enter_context(server) for server in started]
        assert list(pool.map(code_after, servers, FAULTS)) == [1] * len(FAULTS)
    for folder, said in zip(folders, FAULTS.values(), strict=True):
        assert re.search(f"{said}; ending, to be restarted", (folder / "log").read_text())


def code_after(server: Server, fault: str) -> int:
    """The exit code of a front after a fault; asserts that a waiting caller is told."""
    server.wait()
    told: list[tuple[str, Any]] = []
    asks = threading.Thread(target=lambda: listen(server, asked(**LONG), told))
    asks.start()
    until(lambda: told)
    cog, worker = cog_processes(server)
    if fault == "place lost":
        lose_a_place(server, "e" * 32)
    elif fault == "place taken":
        take_a_place(server)
    else:
        which = worker if fault == "worker killed" else cog
        which.send_signal(signal.SIGSTOP if fault == "server stopped" else signal.SIGKILL)
    if fault == "server stopped":  # only then is there time to look
        until(lambda: httpx.get(f"{server.url}/health-check").status_code == 503)
    code = server.join(600)
    asks.join()
    assert told[-1][0] == "error", fault
    return code


# The front stays for SHUTDOWN seconds, so that whoever waits sees the reason.
@pytest.mark.server
def test_it_ends_itself_when_setup_fails_and_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SNB_API_KEY", KEY)
    folder = puppet(tmp_path / "project", "set-up", "fail")
    with puppet_server(folder) as server:
        with pytest.raises(Failed, match=r"SETUP_FAILED: WEIGHTS_MISSING: an input"):
            await_ready(server.url, 600, say, patient=True)
        assert server.join(600) == 1
    why = "Cog's server is SETUP_FAILED: WEIGHTS_MISSING: an input.*; ending, to be restarted"
    assert re.search(why, (folder / "log").read_text())


@contextlib.asynccontextmanager
async def answering(
    name: str, ends_after: float = 0, last: bytes = b'event: completed\ndata: {"status": "succeeded"}'
) -> AsyncIterator[answers.Answers]:
    """Answers with the one of id `name`, there at once; its stream goes on for `ends_after` seconds."""

    async def events() -> AsyncIterator[bytes]:
        yield b"event: start\ndata: {}\n\n" + last + b"\n\n"
        await asyncio.sleep(ends_after)

    def reply(_: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, content=events(), headers={"Content-Type": "text/event-stream"})

    async with httpx2.AsyncClient(base_url="http://cog", transport=httpx2.MockTransport(reply)) as cog:
        made = answers.Answers(cog, places=1)
        await made.get(name, b"", "")
        yield made


@pytest.mark.parametrize("bound", ["KEPT", "KEPT_SECONDS"])
async def test_an_answer_that_ended_is_forgotten_after_a_while(
    monkeypatch: pytest.MonkeyPatch, bound: str
) -> None:
    async with answering(name := "a" * 32) as made:
        await made.finish(patience=60)
        assert made.known(name)
        monkeypatch.setattr(answers, bound, 0)
        assert not made.known(name)


BROKEN_EVENTS = [b"event: output\ndata: {", b"event: output\ndata: 1", b"event: output\ndata: {}"]


@pytest.mark.parametrize("last", [*BROKEN_EVENTS, b"event: start\ndata: {}", b"event: error\ndata: []"])
async def test_an_event_that_is_not_cog_s_ends_the_answer_as_failed(last: bytes) -> None:
    async with answering(name := "a" * 32, last=last) as made:
        await made.finish(patience=60)
        answer = made.known(name)
        assert answer
        assert (answer.status, answer.error) == ("failed", "Cog's server dropped the answer")


async def test_an_empty_last_piece_ends_a_stream() -> None:
    answer = answers.Answer("a" * 32, b"", "")
    answer.take("output", {"chunk": ""})
    answer.end("succeeded")
    assert await anext(answer.pieces(patience=0), None) is None


async def test_a_question_that_comes_when_the_server_has_failed_is_refused() -> None:
    cog: Any = SimpleNamespace(state="READY", inputs={})

    async def body() -> AsyncIterator[bytes]:
        cog.state = "UNHEALTHY"
        yield b'{"input": {}}'

    async with answering("a" * 32) as made:
        transport = httpx.ASGITransport(Front(cog, made).app(None))
        async with httpx.AsyncClient(base_url="http://front", transport=transport) as client:
            assert (await client.post("/predictions", content=body())).status_code == 503


async def test_silence_from_the_start_and_two_unhealthy_looks_are_the_end_and_answers_are_forgotten_meanwhile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cog_server, "FIRST", -cog_server.HUNG)
    monkeypatch.setattr(answers, "KEPT_SECONDS", 0)
    monkeypatch.setattr(front_main, "POLL", 0)
    start = process_group.start  # Cog's server would end, without a model
    monkeypatch.setattr(process_group, "start", lambda _, **more: start(["sleep", "infinity"], **more))
    states = iter(["", "READY", "UNHEALTHY", "READY", "UNHEALTHY", "UNHEALTHY"])

    def reply(request: httpx2.Request) -> httpx2.Response:
        if request.url.path != "/health-check":
            return httpx2.Response(200, json={"cog_version": ""})
        if state := next(states):
            return httpx2.Response(200, json={"status": state})
        raise httpx2.ConnectError("nobody listens")

    async with answering("a" * 32) as made, CogServer() as cog:
        await made.finish(patience=60)
        cog.client = httpx2.AsyncClient(base_url="http://cog", transport=httpx2.MockTransport(reply))
        assert await failure(cog, made) == "Cog's server has been silent for 30 s"
        assert await failure(cog, made) == "Cog's server is UNHEALTHY"
        assert not list(states)
        assert not made._all


async def test_a_cancel_returns_when_the_place_is_free() -> None:
    async with answering(name := "a" * 32, ends_after=0.5) as made:
        answer = made.known(name)
        assert answer
        assert made.full
        await made.cancel(answer)
        assert not made.full


async def test_an_id_whose_question_was_never_taken_is_free_again() -> None:
    async with httpx2.AsyncClient(base_url="http://127.0.0.1:1", trust_env=False) as nobody:
        made = answers.Answers(nobody, places=1)
        with pytest.raises(answers.Refused, match="dropped the answer"):
            await made.get("a" * 32, b"", "")
        assert not made.known("a" * 32)


def take_a_place(server: Server) -> str:
    """Begins an answer at Cog's server of which the front does not know; returns its URL."""
    url = f"{behind(server).url}/predictions/{'1' * 32}"
    assert httpx.put(url, json=asked(**LONG), headers=ASYNCHRONOUS).status_code == 202
    return url


def lose_a_place(server: Server, name: str) -> None:
    """Makes Cog's server lose a place: it cannot create the prediction's folder, and keeps the place."""
    FOLDERS.mkdir(parents=True, exist_ok=True)
    (FOLDERS / name).touch()
    try:
        url = f"{server.url}/predictions/{name}"
        reply = httpx.put(url, json=asked(), headers=authorization(KEY), timeout=600).json()
        assert (reply["status"], reply["error"]) == ("failed", "Slot dropped unexpectedly")
    finally:
        (FOLDERS / name).unlink(missing_ok=True)


@pytest.mark.server
def test_a_place_that_comes_back_late_is_waited_for(tmp_path: Path) -> None:
    """Cog's server reports the end of an answer a moment before it frees its place."""
    folder = puppet(tmp_path / "project", "set-up")
    with puppet_server(folder) as server, httpx.Client(timeout=600) as client:
        server.wait()
        cog = behind(server)
        taken, body = take_a_place(server), asked(**LONG)
        assert client.post(f"{server.url}/predictions", json=body, headers=ASYNCHRONOUS).status_code == 202
        told: list[tuple[str, Any]] = []
        name = "f" * 32
        asks = threading.Thread(target=lambda: listen(server, {"id": name, **body}, told))
        asks.start()
        until(lambda: client.get(f"{server.url}/predictions/{name}").status_code == 200)
        assert cog.status() == "BUSY"
        assert client.post(f"{taken}/cancel").status_code == 200
        until(lambda: told)
        (folder / "go-on").touch()
        asks.join()
        assert told[-1][0] == "completed"
        until(lambda: server.status() == "READY")  # a moment later, too


def test_a_temporary_folder_that_cannot_be_written_to_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not disk_full(str(tmp_path))
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda **_: io.FileIO("/dev/full", "w"))  # as a full disk
    assert disk_full() == "the temporary folder cannot be written to: No space left on device"


def listen(server: Server, body: dict[str, Any], told: list[tuple[str, Any]]) -> None:
    """Asks `body`, and appends each event of the answer to `told` as it comes."""
    headers = {**authorization(KEY), **EVENTS}
    with httpx.stream(
        "POST", f"{server.url}/predictions", json=body, headers=headers, timeout=600
    ) as response:
        told.extend(events(response))
