"""The page of deploy/space before real servers and with the engine inside; see also client/test/space*.js."""

import asyncio
import contextlib
import http.client
import json
import socket
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest
from backend import Backends, configured
from gradio_client import Client  # type: ignore[import-untyped]
from guard import MAX_BODY
from refusal import Refusal

from snb.front.connection import HURRY
from snb.front.port import reserve
from snb.settings import ROOT
from tests.conftest import NOTICE
from tests.hosts import puppet, puppet_server
from tests.replicate_server import ReplicateServer
from tests.space_page import SpacePage
from tests.tiny import save_tiny
from tests.visitor import Visitor, direct
from tests.waiting import until
from tools.serving.server import Server

SECRET = "secretissime"
TURNED_AWAY = """
/gradio_api/upload /gradio_api/file=/etc/passwd /file=a /gradio_api/proxy=https://a.hf.space/b
/gradio_api/run/answer /gradio_api/api/answer /gradio_api/call/other /run/answer /call/other
/gradio_api/component_server
/gradio_api/vibe-edit /gradio_api/deep_link /gradio_api/runs /gradio_api/process_recording
/monitoring /docs /openapi.json /assets/..%2fapp.py /page/..%2fapp.py /page/app.py
"""
BIG = SECRET * 30_000
HOSTILE: list[tuple[str, Any]] = [
    ("call/answer", {"data": ["a", "kant", "", [{}] * 100_000]}),
    ("call/answer", {"data": ["a", "kant", "", [{"role": BIG, "content": {}}]]}),
    ("call/answer", {"data": ["a", "kant", "", [], "", 8, 0, 0.7, 0.8, 20, 1.05, 0, 0, [""] * 4_000]}),
    (
        "call/answer",
        {"data": [{"path": BIG, "meta": {"_type": "gradio.FileData"}, "url": "http://127.0.0.1:9/"}]},
    ),
    ("call/answer", {"data": [BIG, BIG[:9]]}),
    ("call/answer", {"data": ["a"] * 4_000}),
    ("call/answer", {"data": BIG}),
    ("call/answer", {SECRET: BIG}),
    ("call/answer", [BIG]),
    ("call/chat_function", {"data": [BIG, []]}),
    ("call/chat_function", {"data": ["a", [["b", "c"]] * 1_500]}),
    ("call/chat_function", {"data": ["a", [{"role": BIG}]]}),
    ("call/chat_function", {"data": ["a", {BIG: BIG}]}),
    ("call/chat_function", {"data": ["a", [{"role": "user", "content": [{BIG: BIG}, [BIG], 1]}, [BIG]]]}),
    ("run/predict", {"data": [BIG, []]}),
    ("predict/chat_kant", {"data": ["a", [{"role": BIG}]]}),
    ("call/chat_kant", {"data": [{BIG: BIG}, []], "session_hash": BIG, "fn_index": BIG}),
    ("call/chat_kant", {"data": [{BIG: BIG}, []], "session_hash": BIG}),
    ("call/v2/answer", {"user_message": "a", SECRET: BIG}),
    ("queue/join", {"data": ["a"], "fn_index": 0, "session_hash": BIG}),
    ("queue/join", {"data": ["a"], "fn_index": BIG, "session_hash": "a"}),
    ("queue/join", {"data": ["a"], "fn_index": 99, "session_hash": "a"}),
    ("cancel", {"session_hash": {BIG: BIG}}),
    ("reset", {BIG: BIG}),
]
CURIOUS = ["/gradio_api/queue/data", f"/gradio_api/queue/data?session_hash={SECRET}", "/assets/" + "a" * 120]
CURIOUS += [f"/?view={SECRET * 999}", f"/gradio_api/call/answer/{SECRET}", f"/gradio_api/info?{SECRET * 999}"]
HOW = {"user_message": "Que faire ?", "philosopher": "kant", "min_tokens": 12, "max_tokens": 12, "seed": 7}


@pytest.fixture(scope="module")
def page(cog: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SpacePage]:
    with SpacePage({"SNB_BACKEND_URL": cog.url}, tmp_path_factory.mktemp("page") / "log") as page:
        yield page


@pytest.fixture(scope="module")
def client(page: SpacePage) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=page.url, trust_env=False, timeout=600) as client:
        yield client


@pytest.mark.server
def test_gradios_python_client_gets_what_the_backend_says_through_a_proxy_that_says_nothing(
    page: SpacePage, cog: Server
) -> None:
    # What such a proxy sends: a host name of its own, and no X-Forwarded-Proto.
    headers = {"Host": "interne.invalid"}
    client = Client(page.url, headers=headers, verbose=False, analytics_enabled=False)
    job = client.submit(**HOW, api_name="/answer")
    text, metrics = job.result()
    assert text == direct(cog.url, HOW)
    assert (metrics["seed"], metrics["notice"], metrics["finish_reason"]) == (7, NOTICE, "length")
    assert all(text.startswith(piece) for piece, _ in job.outputs())
    empty, history = client.predict("Que faire ?", [["a", "b"]], api_name="/chat_function")
    assert (empty, history[0], history[1][0]) == ("", ["a", "b"], "Que faire ?")
    assert history[1][1]


@pytest.mark.server
def test_two_visitors_share_nothing(page: SpacePage, cog: Server) -> None:
    talk = [{"role": "user", "content": "Ada."}, {"role": "assistant", "content": "Bonjour, Ada."}]
    for asked in (HOW, {**HOW, "history": talk}, HOW):
        assert Visitor(page.url).answer(**asked) == ("end", direct(cog.url, asked))


@pytest.mark.server
def test_a_refusal_is_an_error_with_its_code_and_no_log_holds_what_was_said(
    page: SpacePage, cog_log: Path
) -> None:
    for inputs in (
        {"user_message": SECRET * 400},
        {"user_message": {"a": SECRET}},
        {"user_message": SECRET, "temperature": SECRET},
        {"user_message": SECRET, "history": [SECRET]},
    ):
        kind, message = Visitor(page.url).answer(**inputs)
        assert (kind, message[:11]) == ("error", "BAD_INPUT: ")
        assert SECRET not in message
    kind, text = Visitor(page.url).answer(user_message=SECRET, rag_context=SECRET, max_tokens=20)
    assert kind == "end"
    logs = page.log.read_text() + cog_log.read_text()
    assert not [word for word in (SECRET, text, "Traceback") if word in logs]


@pytest.mark.server
def test_only_the_page_s_own_files_and_requests_within_the_bound_are_let_through(
    client: httpx2.Client,
) -> None:
    assert client.post("/gradio_api/upload", files={"files": ("a.txt", b"a")}).status_code == 404
    for path in TURNED_AWAY.split():
        assert client.get(path).status_code == 404, path
    signed = [client.get(f"/?__sign={'a' * length}").status_code for length in (1_000, 3_000)]
    assert signed == [200, 404]  # the first as in a private Space
    assert client.get("/page/main.js").status_code == 200
    body = json.dumps({"data": ["x" * MAX_BODY]}).encode()
    for path in ("/gradio_api/call/answer", "/call/chat_kant", "/run/predict", "/predict/chat_function"):
        assert client.post(path, content=body).status_code == 413
    headers = {"Content-Type": "application/json"}
    chunks = (body[start : start + 65536] for start in range(0, len(body), 65536))
    with contextlib.suppress(httpx2.HTTPError):  # the connection may be dropped before all is sent
        assert client.post("/gradio_api/call/answer", content=chunks, headers=headers).status_code != 200


@pytest.mark.server
def test_no_reply_and_no_log_grows_with_what_was_sent(page: SpacePage, client: httpx2.Client) -> None:
    def told(path: str, body: Any) -> Iterator[str]:
        reply = client.post(f"/gradio_api/{path}", json=body).text
        yield reply
        if "event_id" in reply:
            yield client.get(f"/gradio_api/{path}/{json.loads(reply)['event_id']}").text

    before = len(page.log.read_text())
    replies = [reply for path, body in HOSTILE for reply in told(path, body)]
    replies += [client.get(path).text for path in CURIOUS]
    replies.append(client.post("/gradio_api/call/answer", content=b"[" * 100_000).text)
    assert max(map(len, replies)) < 2_000
    assert not [reply for reply in replies if SECRET in reply]
    assert len(page.log.read_text()) == before
    for name in ("Host", "X-Forwarded-Host", "X-Gradio-Server"):
        assert SECRET * 40 not in client.get("/?view=api", headers={name: SECRET * 40}).text


@pytest.mark.server
def test_who_does_not_say_what_is_wanted_is_dropped(page: SpacePage) -> None:
    """Takes HURRY seconds."""
    where = urlsplit(page.url)
    with socket.create_connection((where.hostname, where.port), 20 * HURRY) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n")
        assert connection.recv(1) == b""


@pytest.mark.server
def test_pages_may_load_from_here_alone(client: httpx2.Client) -> None:
    policy = client.get("/").headers["content-security-policy"]
    sources = dict(kind.split(maxsplit=1) for kind in policy.split(";"))
    assert sources.pop("frame-ancestors") == "'self' https://huggingface.co https://*.hf.space"
    assert sources["default-src"] == "'none'"
    assert {*sources.values()} == {"'self'", "'none'"}


# Answers that wait for a file, so that the order of events is certain


@pytest.fixture(scope="module")
def before_puppet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, int]]:
    """A page's URL, and the loopback port behind it, on which each test starts a server of its own."""
    with reserve() as reserved:
        port = reserved.getsockname()[1]
        settings = {"SNB_BACKEND_URL": f"http://127.0.0.1:{port}"}
        with SpacePage(settings, tmp_path_factory.mktemp("page") / "log") as page:
            yield page.url, port


@pytest.mark.server
def test_each_route_of_the_existing_front_end_is_answered_as_it_asks(
    tmp_path: Path, before_puppet: tuple[str, int]
) -> None:
    folder, (url, port) = puppet(tmp_path, "set-up"), before_puppet
    data = ["Dis oui.", [["Bonjour.", "Bonjour, toi."]]]
    answer = ["", [*data[1], ["Dis oui.", "oui."]]]
    session = {"session_hash": "abc"}
    with (
        puppet_server(folder, port=port) as server,
        httpx2.Client(base_url=url, trust_env=False, timeout=600) as client,
    ):
        server.wait()

        def post(path: str, **more: Any) -> Any:
            return client.post(path, json={"data": data, **more}).raise_for_status().json()

        def events(path: str, name: str) -> list[Any]:
            lines = client.get(f"{path}/{name}").text.splitlines()
            return [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: ")]

        # One version of the front end asks at //chat_function.
        for path in ("/run/predict", "/api/predict", "/gradio_api/predict//chat_function", "/api/chat_kant"):
            assert post(path)["data"] == answer
            assert post(path, fn_index=0, **session)["data"] == answer
        for path in ("/call/chat_spinoza", "/gradio_api/call//chat_function", "/gradio_api/call/chat_kant"):
            assert events(path, post(path)["event_id"])[-1] == answer
            assert post(path, fn_index=0, **session)["data"] == answer
        told = {"msg": "process_completed", "output": {"data": answer}}
        assert events(path, post(path, **session)["event_id"])[-2:] == [answer, told]
        data[0] = ""
        failed = client.post("/run/predict", json={"data": data})
        assert (failed.status_code, failed.json()["title"]) == (500, "BAD_INPUT")
        told = events(path, post(path, **session)["event_id"])[-1]
        assert (told["msg"], told["error"][:11]) == ("process_error", "BAD_INPUT: ")


@pytest.mark.server
def test_a_model_that_wakes_up_is_told_and_thirty_visitors_stream_at_once(
    tmp_path: Path, before_puppet: tuple[str, int]
) -> None:
    folder, (url, port) = puppet(tmp_path, places=30), before_puppet
    with puppet_server(folder, port=port):
        early = Visitor(url).follow(user_message="a", max_tokens=2)
        assert next(early) == ("log", "COLD_START")
        (folder / "set-up").touch()
        together = threading.Barrier(30, timeout=300)

        def visit(_: int) -> list[tuple[str, str]]:
            answer = Visitor(url).begin(user_message="a", max_tokens=2)
            if together.wait() == 0:  # all have some text, and none has all of it
                (folder / "go-on").touch()
            return list(answer)

        assert next(early)[0] == "text"
        early.close()
        with ThreadPoolExecutor(30) as pool:
            assert [ends[-1] for ends in pool.map(visit, range(30))] == [("end", "0 1 ")] * 30


@pytest.mark.server
def test_one_visitor_leaves_places_for_another(tmp_path: Path, before_puppet: tuple[str, int]) -> None:
    folder, how = puppet(tmp_path, "set-up", places=6), {"user_message": "a", "max_tokens": 2}
    url, port = before_puppet
    with puppet_server(folder, port=port) as server:
        server.wait()
        answers = [Visitor(url, f"tab-{number}").begin(**how) for number in range(4)]
        fifth = Visitor(url, "tab-5").follow(**how)
        assert next(fifth) == ("log", "BUSY")
        answers.append(Visitor(url, "other-1").begin(**how))
        (folder / "go-on").touch()
        assert [list(answer)[-1] for answer in (*answers, fifth)] == [("end", "0 1 ")] * 6


@pytest.mark.server
def test_who_waits_for_a_whole_answer_and_leaves_cancels_it_at_the_backend(
    tmp_path: Path, before_puppet: tuple[str, int]
) -> None:
    folder, (url, port) = puppet(tmp_path, "set-up", places=1), before_puppet
    page = http.client.HTTPConnection(urlsplit(url).netloc)
    with puppet_server(folder, port=port) as server, contextlib.closing(page):
        server.wait()
        body, headers = json.dumps({"data": ["a", []]}), {"Content-Type": "application/json"}
        page.request("POST", "/run/predict", body, headers)
        until(lambda: server.status() == "BUSY")
        page.close()
        until(lambda: len(list(folder.glob("canceled-*"))) == 1)


@pytest.mark.server
async def test_replicate_is_asked_waited_for_and_canceled(cog: Server) -> None:
    def backends(model: str, **more: str) -> Backends:
        front = {"REPLICATE_API_TOKEN": replicate.token, "REPLICATE_API_BASE_URL": replicate.url, **more}
        return configured({"SNB_BACKEND_URL": f"replicate:{model}", **front}, 4)

    async def asked(backends: Backends) -> str:
        return "".join([piece async for piece in backends.ask(HOW, print)])

    with ReplicateServer(cog.url) as replicate:
        for model in ("owner/spinoza", "deployments/owner/classe"):
            assert await asked(backends(model)) == direct(cog.url, HOW)
        same = backends("owner/spinoza")
        for replicate._id in ("1" * 64, "2" * 64):  # another version is refused
            assert await asked(same) == direct(cog.url, HOW)
        with pytest.raises(Refusal, match="UNAUTHORIZED: "):
            await asked(backends("owner/spinoza", REPLICATE_API_TOKEN="wrong"))
        replicate.fail("POST", "/v1/predictions", cold=600)
        told = asyncio.Event()
        answer = asyncio.ensure_future(anext(same.ask(HOW, lambda code: told.set())))
        await told.wait()
        answer.cancel()  # while the model wakes up
        while not any(request["path"].endswith("/cancel") for request in replicate.log):
            await asyncio.sleep(0.05)


@pytest.mark.server
def test_with_the_engine_inside_an_exported_space_answers_refuses_and_cancels(tmp_path: Path) -> None:
    folder, base = tmp_path / "space", save_tiny(tmp_path / "tiny", max_position_embeddings=8192)
    command = [str(ROOT / "scripts" / "space"), "--export", str(folder), "--engine"]
    subprocess.run(command, check=True, capture_output=True)
    pins = "\n" + (folder / "requirements.txt").read_text(encoding="utf-8")
    assert [pins.count(f"\n{name}==") for name in ("gradio", "torch", "httpx2")] == [1, 1, 1]
    settings = {"SNB_BASE_MODEL": str(base), "SNB_ADAPTER": "none"}
    with SpacePage(settings, tmp_path / "log", folder) as page:
        client = Client(page.url, verbose=False, analytics_enabled=False)
        _, metrics = client.predict("Que faire ?", min_tokens=24, max_tokens=24, api_name="/answer")
        assert metrics["finish_reason"] == "length"
        too_long = Visitor(page.url).answer(user_message="mot " * 900, system_prompt="mot " * 5000)
        assert too_long[1].startswith("BAD_INPUT: ")

        def canceled() -> bool:
            """On a busy machine an answer may end before its reader leaves, so several readers leave."""
            Visitor(page.url).begin(user_message="a", min_tokens=2000, max_tokens=2000).close()
            return "canceled after" in page.log.read_text()

        until(canceled, 600)
        assert "Traceback" not in page.log.read_text()
