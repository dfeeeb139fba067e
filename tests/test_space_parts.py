"""The parts of the page of deploy/space that need no server."""

import asyncio
import contextlib
import inspect
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import AsyncGenerator, Callable
from importlib import metadata
from types import SimpleNamespace
from typing import Any

import pytest
import visitor
from backend import Backend, Backends, configured
from chat import answer_of, with_beats
from cog_backend import Cog
from engine_inside import EngineInside
from gradio.context import LocalContext
from httpx2 import Response
from huggingface_hub import SpaceCard
from page import SESSIONS, gradio_app
from refusal import Refusal, of_response
from words import ERRORS, NOTES, PHILOSOPHERS, STATES, WAITING

from snb.philosophers import names
from snb.service import Service
from snb.settings import ROOT
from tests.space_page import SPACE
from tools.serving import schema


# Starts a program that imports gradio.
@pytest.mark.slow
def test_in_front_of_a_backend_nothing_of_the_engine_is_needed() -> None:
    program = """
import sys
engine = ("torch", "transformers", "tokenizers", "cog", "coglet", "safetensors", "peft", "tools")
sys.modules |= dict.fromkeys(engine)  # an import of these then fails
from backend import configured
from page import web
web(configured({"SNB_BACKEND_URL": "http://127.0.0.1:9"}, 4))
"""
    path = os.pathsep.join([str(SPACE), str(ROOT)])
    environment = {**os.environ, "PYTHONPATH": path, "GRADIO_ANALYTICS_ENABLED": "False"}
    subprocess.run([sys.executable, "-c", program], env=environment, check=True)


def test_the_endpoint_has_the_inputs_of_predict_with_their_defaults() -> None:
    source = (ROOT / "predict.py").read_text(encoding="utf-8")
    derived = schema.derive(source, "Predictor", metadata.version("cog"))
    expected = derived["components"]["schemas"]["Input"]["properties"]
    given = inspect.signature(answer_of(Backends([]))).parameters
    assert set(given) == set(expected)
    for name, wanted in expected.items():
        default = None if given[name].default is inspect.Parameter.empty else given[name].default
        assert default == wanted.get("default"), name


def test_the_space_installs_what_was_tested() -> None:
    card = SpaceCard.load(SPACE / "README.md").data.to_dict()
    assert (card["sdk"], card["sdk_version"]) == ("gradio", metadata.version("gradio"))
    assert (SPACE / card["app_file"]).is_file()
    assert len(card["short_description"]) <= 60  # the hub's limit
    text = (SPACE / "requirements.txt").read_text(encoding="utf-8")
    pins = re.findall(r"^([\w-]+)==(\S+) ", text, re.MULTILINE)
    assert {"gradio", "httpx2"} <= {name for name, _ in pins}
    assert pins == [(name, metadata.version(name)) for name, _ in pins]


def test_each_philosopher_has_six_questions_words_and_a_drawing_in_french_typography() -> None:
    questions = json.loads((SPACE / "questions.json").read_text(encoding="utf-8"))
    drawings = (SPACE / "page" / "portraits.svg").read_text(encoding="utf-8")
    assert set(PHILOSOPHERS) == set(questions) == set(names())
    assert all(len(set(questions[name])) == 6 for name in names())
    assert all(f'<symbol id="{name}"' in drawings for name in names())
    words: list[str] = [*WAITING.values(), *STATES.values(), *ERRORS.values()]
    words += [sentence for name in names() for sentence in (*questions[name], PHILOSOPHERS[name]["line"])]
    for sentence in words:
        assert not re.search(r"'|\"|\.\.\.", sentence), sentence


class Scripted:
    """A backend that yields the pieces of a script, raises its exceptions, records its pairs as metrics."""

    def __init__(self, *turns: list[Any]) -> None:
        self.turns = list(turns)
        self.asked: list[dict[str, Any]] = []

    async def ask(self, inputs: dict[str, Any], say: Callable[..., None]) -> AsyncGenerator[str, None]:
        self.asked.append(inputs)
        for piece in self.turns[min(len(self.asked), len(self.turns)) - 1]:
            if isinstance(piece, Refusal):
                raise piece
            if isinstance(piece, tuple):
                say(*piece)
            else:
                yield piece

    async def close(self) -> None:
        pass


async def ask(*backends: Backend, patience: float = 600.0, **inputs: Any) -> tuple[str, list[str]]:
    told: list[str] = []
    several = Backends(backends, patience)
    return "".join([piece async for piece in several.ask(inputs, told.append)]), told


async def test_the_next_backend_is_asked_when_one_fails_and_again_when_one_wakes_up() -> None:
    down = Cog("http://127.0.0.1:9")
    with pytest.raises(Refusal, match=r"BACKEND_FAILED: the connection failed \(ConnectError\)"):
        await ask(down)
    assert await ask(down, Scripted(["a", "b"])) == ("ab", [])
    wakes_up = Scripted([Refusal("COLD_START", "loading")], ["a"])
    assert await ask(wakes_up, deadline_seconds=30.0) == ("a", ["COLD_START"])
    assert 29 > wakes_up.asked[1]["deadline_seconds"] > 0, "the waiting counts"
    for more in ({"patience": -1}, {"deadline_seconds": 0.5}):
        with pytest.raises(Refusal, match="BUSY"):
            await ask(Scripted([Refusal("BUSY", "full")]), **more)


async def test_a_deadline_counts_what_a_question_has_waited_in_gradios_queue() -> None:
    asked, came = Scripted(["a"]), SimpleNamespace(scope={"came": time.monotonic() - 20})
    LocalContext.request.set(SimpleNamespace(request=came))  # type: ignore[arg-type]
    await ask(asked, deadline_seconds=30.0)
    assert 0 < asked.asked[0]["deadline_seconds"] <= 10


@pytest.mark.parametrize("cut", ["length", "deadline", "loop"])
async def test_metrics_come_with_the_end_of_an_answer_and_the_page_is_told_what_limits_it(
    monkeypatch: pytest.MonkeyPatch, cut: str
) -> None:
    notes: list[str] = []
    monkeypatch.setattr("gradio.Info", lambda *_, title, **__: notes.append(title))
    metrics = {"notice": "?", "seed": 0, "rag_context_truncated_tokens": 5, "finish_reason": cut}

    endpoint = answer_of(Backends([Scripted(["Oui.", *metrics.items()])]))
    *before, last = [reply async for reply in endpoint("Que faire ?")]
    assert before == [("Oui.", {})]
    assert last == ("Oui.", metrics)
    assert notes == ["STANDIN", "UNREAD 5", cut.upper()]
    assert cut.upper() in NOTES


@pytest.mark.parametrize("turn", [[Refusal("BAD_INPUT", "no")], ["a", Refusal("BACKEND_FAILED", "cut")]])
async def test_nobody_else_is_asked_after_text_or_a_final_refusal(turn: list[str | Refusal]) -> None:
    second = Scripted(["b"])
    with pytest.raises(Refusal):
        await ask(Scripted(turn), second)
    assert not second.asked


async def test_an_engine_inside_that_loads_wakes_up_and_one_that_cannot_says_so() -> None:
    loads = threading.Event()

    def load() -> Service:
        loads.wait()
        raise MemoryError

    engine = EngineInside(load, visitors=1)
    with pytest.raises(Refusal, match="COLD_START"):
        await ask(engine, patience=-1)
    loads.set()
    with pytest.raises(Refusal, match=r"BACKEND_FAILED: the engine did not load \(MemoryError\)"):
        await ask(engine)


# A coroutine, for a context of its own.
async def test_a_visitor_is_a_hash_of_the_tab_the_session_or_the_address_and_has_at_most_a_share() -> None:
    def ask(session: str, address: str) -> str:
        client = SimpleNamespace(host=address)
        LocalContext.request.set(SimpleNamespace(session_hash=session, client=client))  # type: ignore[arg-type]
        LocalContext.event_id.set("event")
        return visitor.visitor()

    assert ask("tab-1", "192.0.2.1") == ask("tab-2", "192.0.2.2") != ask("other-1", "192.0.2.1")
    assert ask("event", "192.0.2.1") == ask("event", "192.0.2.1") != ask("event", "192.0.2.2")
    assert re.fullmatch("[0-9a-f]{32}", ask("event", "192.0.2.1"))
    with contextlib.ExitStack() as answers:
        for _ in range(visitor.VISITORS // 2):
            answers.enter_context(visitor.turn())
        with pytest.raises(Refusal, match="BUSY"), visitor.turn():
            pass
        ask("event", "192.0.2.2")
        for _ in range(visitor.VISITORS // 4):
            answers.enter_context(visitor.turn())
    assert not visitor._answers


def test_gradio_forgets_answers_that_nobody_reads_and_not_those_under_way() -> None:
    queue = gradio_app(Backends([]))._queue
    messages, names = queue.pending_messages_per_session, queue.pending_event_ids_session
    for number in range(3 * SESSIONS):
        messages[str(number)], names[str(number)] = asyncio.Queue(), {"event"}
        assert messages["0"].empty()  # as Gradio does to add a message
    assert names.keys() == messages.keys() == {"0", *map(str, range(2 * SESSIONS + 1, 3 * SESSIONS))}


def test_a_backend_that_cannot_be_is_refused_at_start() -> None:
    for address, token in (("replicate:owner/name", ""), ("ftp://host", ""), ("replicate:name", "r8_x")):
        with pytest.raises(ValueError, match=r"SNB_BACKEND_URL|replicate"):
            configured({"SNB_BACKEND_URL": address, "REPLICATE_API_TOKEN": token}, 4)


async def test_gradio_hears_of_an_answer_that_does_not_begin_and_an_error_comes_after_the_text() -> None:
    begin, heard = asyncio.Event(), list[str]()

    async def source() -> AsyncGenerator[str, None]:
        await begin.wait()
        yield "a"
        yield "b"
        raise Refusal("BACKEND_FAILED", "cut")

    async def listen() -> None:
        async for piece in with_beats(source(), beat=0.01):
            heard.append(piece)
            begin.set()  # after the first sign of life

    with pytest.raises(Refusal, match="BACKEND_FAILED"):
        await listen()
    assert "".join(heard) == "ab"


@pytest.mark.parametrize(
    ("status", "body", "code"),
    [
        (422, '{"detail": [{"loc": ["body", "input", "max_tokens"]}]}', "BAD_INPUT"),
        (422, '{"detail": "- input.max_tokens: Must be less than 9"}', "BAD_INPUT"),
        (413, "<html>", "BAD_INPUT"),
        *[(status, "<html>", "BACKEND_FAILED") for status in (400, 422)],
        (422, '{"detail": [{"loc": ["body", "id"]}]}', "BACKEND_FAILED"),
    ],
)
def test_a_refusal_is_the_caller_s_fault_where_it_names_an_input_or_the_size(
    status: int, body: str, code: str
) -> None:
    refusal = of_response(Response(status, text=body))
    assert refusal.code == code
    assert refusal.retry_after == 0
    assert ("max_tokens" in refusal.fault) == ("max_tokens" in body)


def test_the_wait_that_a_backend_asks_for_stands_in_a_header_or_in_replicate_s_body() -> None:
    assert of_response(Response(429, json={"detail": "Throttled.", "retry_after": 7})).retry_after == 7
    assert of_response(Response(503, headers={"retry-after": "2"})).retry_after == 2
    for after in ("Wed, 21 Oct", "inf", "nan", "-1"):
        assert of_response(Response(429, headers={"retry-after": after}, text="<html>")).retry_after == 0
