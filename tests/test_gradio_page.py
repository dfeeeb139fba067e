"""The API of deploy/space, in front of the real Cog server and of Replicate, and with the engine inside."""

import contextlib
import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest
from gradio_client import Client
from huggingface_hub import SpaceCard

from snb.philosophers import persona
from snb.prompt import QUESTION, SOURCES
from snb.request import MAX_MESSAGE
from tests.hosts import puppet, puppet_server
from tests.replicate_server import ReplicateServer
from tests.space_page import SPACE, SpacePage
from tests.tiny import save_tiny
from tests.visitor import Visitor, called, curl, direct, leave_early
from tests.waiting import until
from tools.serving.server import ROOT, Server

sys.path.insert(0, str(SPACE))

from guard import MAX_BODY

LONG = {"user_message": "Question", "min_tokens": 2000, "max_tokens": 2000}
"""An answer that is still going on when something happens to it."""


def canceled(cog: tuple[str, Path]) -> int:
    """How many answers of the backend have been canceled so far. Who cancels one waits until it counts."""
    return cog[1].read_text().count("canceled after")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    base = save_tiny(tmp_path_factory.mktemp("tiny"), max_position_embeddings=8192)
    return {"SNB_BASE_MODEL": str(base), "SNB_ADAPTER": "none", "SNB_SLOTS": "32", "SNB_SCRIPTS": "any"}


@pytest.fixture(scope="module")
def cog(tiny: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    log = tmp_path_factory.mktemp("cog") / "log"
    with log.open("w") as output, Server(tiny, log=output) as server:
        server.wait()
        yield server.url, log


@pytest.fixture(scope="module")
def page(cog: tuple[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[SpacePage]:
    log = tmp_path_factory.mktemp("page") / "log"
    with SpacePage({"SNB_BACKEND_URL": cog[0]}, log) as page:
        yield page


@pytest.mark.server
def test_the_existing_front_end_gets_the_reply_that_it_knows(page: SpacePage) -> None:
    events = called(page, "chat_function", "Que faire ?", [["Bonjour", "Bonjour, toi."]])
    last, (empty, history) = events[-1]
    assert last == "complete"
    assert empty == ""
    assert history[0] == ["Bonjour", "Bonjour, toi."]
    assert history[1][0] == "Que faire ?"
    assert history[1][1]
    assert {event for event, _ in events[:-1]} == {"generating"}
    texts = [partial[1][1] for _, (_, partial) in events[:-1]]
    assert all(history[1][1].startswith(text) for text in texts)
    assert len({*texts} - {""}) > 1, "it was not streamed"


@pytest.mark.server
def test_a_packed_message_is_answered_whole(page: SpacePage) -> None:
    passages = "\n\n".join(["### Extrait\n" + "mot " * 190] * 3)
    packed = f"{persona('bergson')}\n\n{SOURCES}\n{passages}\n\n{QUESTION}\nQue faire ?"
    assert len(packed) > MAX_MESSAGE
    event, (_, history) = called(page, "chat_function", packed, [])[-1]
    assert (event, history[0][0]) == ("complete", packed)


@pytest.mark.server
def test_one_question_is_enough_for_the_rich_endpoint(page: SpacePage) -> None:
    event, data = called(page, "answer", "Que faire ?")[-1]
    assert event == "complete"
    assert len(data) == 1
    assert data[0]


@pytest.mark.server
def test_gradios_python_client_calls_both(page: SpacePage, cog: tuple[str, Path]) -> None:
    client = Client(page.url, verbose=False, analytics_enabled=False)
    how = {"user_message": "Que faire ?", "philosopher": "kant", "max_tokens": 12, "seed": 7}
    job = client.submit(**how, api_name="/answer")
    text = job.result()
    assert all(text.startswith(piece) for piece in job.outputs())
    assert text == direct(cog[0], how)
    empty, history = client.predict("Que faire ?", [], api_name="/chat_function")
    assert (empty, history[0][0]) == ("", "Que faire ?")


@pytest.mark.server
def test_gradio_documents_two_endpoints_and_each_input(page: SpacePage) -> None:
    info = json.loads(curl(f"{page.url}/gradio_api/info"))
    assert set(info["named_endpoints"]) == {"/answer", "/chat_function"}
    assert not info["unnamed_endpoints"]
    for endpoint in info["named_endpoints"].values():
        assert endpoint["description"]
    words = {
        p["parameter_name"]: p["python_type"]["description"]
        for p in info["named_endpoints"]["/answer"]["parameters"]
    }
    assert all(words.values()), words
    assert json.loads(curl(f"{page.url}/config"))["components"], "clients read it"


@pytest.mark.server
def test_thirty_visitors_stream_at_once(page: SpacePage, cog: tuple[str, Path]) -> None:
    """All have text before any has all of it: each answer is still there to be canceled."""
    before = canceled(cog)
    together = threading.Barrier(30, timeout=300)

    def visit(number: int) -> None:
        answer = Visitor(page.url).follow(**{**LONG, "user_message": f"Question {number}"})
        while next(answer)[0] != "text":
            pass
        together.wait()
        answer.close()

    with ThreadPoolExecutor(30) as pool:
        list(pool.map(visit, range(30)))
    until(lambda: canceled(cog) == before + 30)


@pytest.mark.server
def test_a_visitor_who_does_not_read_slows_nobody(page: SpacePage, cog: tuple[str, Path]) -> None:
    before = canceled(cog)
    unread = Visitor(page.url).follow(**LONG)
    while next(unread)[0] != "text":
        pass
    assert Visitor(page.url).ask(user_message="Question", max_tokens=20)[-1][0] == "end"
    unread.close()
    until(lambda: canceled(cog) == before + 1)


@pytest.mark.server
def test_a_closed_tab_cancels_at_the_backend(page: SpacePage, cog: tuple[str, Path]) -> None:
    before = canceled(cog)
    leave_early(page)
    until(lambda: canceled(cog) == before + 1)


@pytest.mark.server
def test_the_stop_button_cancels_at_the_backend(page: SpacePage, cog: tuple[str, Path]) -> None:
    before = canceled(cog)
    visitor = Visitor(page.url)
    visitor.join(**LONG)
    for message in visitor.messages():
        if message["msg"] == "process_generating" and message["output"]["data"][0]:
            job = {"session_hash": visitor.session, "fn_index": visitor.endpoint["number"]}
            visitor.client.post("/gradio_api/cancel", json={**job, "event_id": message["event_id"]})
            break
    until(lambda: canceled(cog) == before + 1)


@pytest.mark.server
def test_two_visitors_share_nothing(page: SpacePage, cog: tuple[str, Path]) -> None:
    how = {"user_message": "Que faire ?", "seed": 3, "max_tokens": 24}
    talk = [
        {"role": "user", "content": "Je m’appelle Ada."},
        {"role": "assistant", "content": "Bonjour, Ada."},
    ]
    for asked in (how, {**how, "history": talk}, how):
        assert Visitor(page.url).ask(**asked)[-1] == ("end", direct(cog[0], asked))


@pytest.mark.server
@pytest.mark.parametrize(
    "inputs",
    [
        {"user_message": "secretissime" * 400},
        {"user_message": {"a": "secretissime"}},
        {"user_message": "secretissime", "temperature": "secretissime"},
        {"user_message": "secretissime", "history": ["secretissime"]},
    ],
)
def test_what_is_refused_is_an_error_with_its_code(page: SpacePage, inputs: dict[str, Any]) -> None:
    ((kind, message),) = Visitor(page.url).ask(**inputs)
    assert kind == "error"
    assert message.startswith("BAD_INPUT: ")
    assert "secretissime" not in message


@pytest.mark.server
def test_missing_inputs_are_an_error_for_curl_too(page: SpacePage) -> None:
    assert called(page, "answer")[0][0] == "error"
    assert called(page, "chat_function", "secretissime")[0][0] == "error"


@pytest.mark.server
def test_no_log_holds_what_was_said(page: SpacePage, cog: tuple[str, Path]) -> None:
    answered = Visitor(page.url).ask(user_message="secretissime", rag_context="secretissime", max_tokens=20)[
        -1
    ]
    assert answered[0] == "end"
    logs = page.log.read_text() + cog[1].read_text()
    assert "secretissime" not in logs
    assert "Traceback" not in logs
    assert answered[1] not in logs


@pytest.mark.server
def test_files_neither_go_in_nor_come_out(page: SpacePage) -> None:
    with httpx2.Client(base_url=page.url, trust_env=False) as client:
        assert client.post("/gradio_api/upload", files={"files": ("a.txt", b"a")}).status_code == 404
        for path in ("/gradio_api/file=/etc/hosts", "/file=/etc/hosts", "/page/..%2fapp.py", "/page/app.py"):
            assert client.get(path).status_code == 404
        assert client.get("/page/main.js").status_code == 200


@pytest.mark.server
def test_a_request_beyond_the_bound_is_not_read(page: SpacePage) -> None:
    body = json.dumps({"data": ["x" * MAX_BODY]}).encode()
    with httpx2.Client(base_url=page.url, trust_env=False) as client:
        assert client.post("/gradio_api/call/answer", content=body).status_code == 413
        headers = {"Content-Type": "application/json"}
        chunks = (body[start : start + 65536] for start in range(0, len(body), 65536))
        with contextlib.suppress(httpx2.HTTPError):  # the connection may be dropped before all is sent
            assert client.post("/gradio_api/call/answer", content=chunks, headers=headers).status_code != 200


@pytest.mark.server
def test_pages_may_load_from_here_alone(page: SpacePage) -> None:
    with httpx2.Client(base_url=page.url, trust_env=False) as client:
        policy = client.get("/").headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        text = client.get("/").text + client.get("/page/style.css").text
        assert not re.search(r"(?:src|href)=\"(?:https?:)?//|url\(", text)


@pytest.mark.server
def test_a_backend_that_is_down_is_an_error(tmp_path: Path) -> None:
    with SpacePage({"SNB_BACKEND_URL": "http://127.0.0.1:9"}, tmp_path / "log") as page:
        assert Visitor(page.url).ask(user_message="a") == [
            ("error", "BACKEND_FAILED: the connection failed (ConnectError)")
        ]
        assert called(page, "chat_function", "a", [])[-1][0] == "error"


@pytest.mark.server
def test_a_visitor_is_told_that_the_model_wakes_up(tmp_path: Path) -> None:
    folder = puppet(tmp_path / "project")
    with (
        puppet_server(folder) as server,
        SpacePage({"SNB_BACKEND_URL": server.url}, tmp_path / "page") as page,
    ):
        answer = Visitor(page.url).follow(user_message="a")
        assert next(answer) == ("log", "COLD_START")
        for name in ("set-up", "go-on"):
            (folder / name).touch()
        *_, last = answer
    assert last == ("end", "0 ")


@pytest.mark.server
def test_the_page_answers_where_it_has_the_key(tiny: dict[str, str], tmp_path: Path) -> None:
    key = {"SNB_API_KEY": "0123456789abcdef"}
    with (tmp_path / "cog").open("w") as log, Server({**tiny, **key}, log=log) as server:
        front = {"SNB_BACKEND_URL": server.url}
        with SpacePage({**front, **key}, tmp_path / "page") as page:
            asked = Visitor(page.url).ask(user_message="a", max_tokens=8)
        with SpacePage({**front, "SNB_API_KEY": "another-key-123456"}, tmp_path / "locked") as locked:
            refused = Visitor(locked.url).ask(user_message="a")
    assert asked[-1][0] == "end"
    assert [kind for kind, _ in refused] == ["error"]
    assert refused[0][1].startswith("UNAUTHORIZED: ")
    assert "0123456789abcdef" not in (tmp_path / "page").read_text()


@pytest.mark.server
def test_replicate_is_asked_waited_for_and_canceled(cog: tuple[str, Path], tmp_path: Path) -> None:
    with ReplicateServer(cog[0]) as replicate:
        front = {"REPLICATE_API_TOKEN": replicate.token, "REPLICATE_API_BASE_URL": replicate.url}
        with SpacePage({"SNB_BACKEND_URL": "replicate:owner/spinoza", **front}, tmp_path / "log") as page:
            how = {"user_message": "Que faire ?", "seed": 7, "max_tokens": 12}
            assert Visitor(page.url).ask(**how)[-1] == ("end", direct(cog[0], how))
            replicate.fail("POST", "/v1/predictions", cold=3)
            assert ("log", "COLD_START") in Visitor(page.url).ask(**how)
            leave_early(page)
            until(lambda: any(request["path"].endswith("/cancel") for request in replicate.log))
        deployed = {"SNB_BACKEND_URL": "replicate:deployments/owner/classe", **front}
        with SpacePage(deployed, tmp_path / "deployed") as page:
            assert Visitor(page.url).ask(**how)[-1] == ("end", direct(cog[0], how))
        with SpacePage({**deployed, "REPLICATE_API_TOKEN": "wrong"}, tmp_path / "wrong") as page:
            assert Visitor(page.url).ask(**how)[-1][1].startswith("UNAUTHORIZED: ")


# The engine inside, from the folder that a Space holds


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported") / "space"
    command = [str(ROOT / "scripts" / "space"), "--export", str(folder), "--engine"]
    subprocess.run(command, check=True, capture_output=True)
    return folder


def test_what_is_exported_is_whole(exported: Path) -> None:
    assert SpaceCard.load(exported / "README.md").data.to_dict()["app_file"] == "app.py"
    for name in (
        "app.py",
        "snb/service.py",
        "snb/philosophers/kant.txt",
        "weights/pins.json",
        "page/index.html",
    ):
        assert (exported / name).is_file()
    pins = (exported / "requirements.txt").read_text(encoding="utf-8")
    assert "gradio==" in pins
    assert "torch==" in pins
    assert pins.count("\nhttpx2==") == 1
    assert not list(exported.rglob("__pycache__"))


@pytest.mark.server
def test_with_the_engine_inside_it_answers_streams_and_cancels(
    tiny: dict[str, str], exported: Path, tmp_path: Path
) -> None:
    with SpacePage(tiny, tmp_path / "log", exported) as page:
        assert Visitor(page.url).ask(user_message="Que faire ?", max_tokens=24)[-1][0] == "end"
        too_long = Visitor(page.url).ask(user_message="mot " * 900, system_prompt="mot " * 5000)
        assert too_long[-1][1].startswith("BAD_INPUT: ")
        leave_early(page)
        until(lambda: "canceled after" in page.log.read_text())
        assert "Traceback" not in page.log.read_text()


@pytest.mark.server
def test_an_engine_that_does_not_load_says_so(tiny: dict[str, str], tmp_path: Path) -> None:
    absent = {**tiny, "SNB_BASE_MODEL": str(tmp_path / "absent"), "HF_HUB_OFFLINE": "1"}
    with SpacePage(absent, tmp_path / "log") as page:
        assert (
            Visitor(page.url)
            .ask(user_message="a")[-1][1]
            .startswith("BACKEND_FAILED: the engine did not load (")
        )
