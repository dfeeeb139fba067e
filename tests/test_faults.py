"""Faults: a dead or stuck decode loop ends every request with its code; a request that fails, fails alone."""

import asyncio
import shutil
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from torch import Tensor

from snb import cancel
from snb.engine.detokenizer import Detokenizer
from snb.engine.loop import Engine
from snb.errors import RequestFailed
from snb.parameters import Sampling
from snb.settings import ROOT
from tests.tiny import save_tiny
from tests.waiting import accepted, until
from tools.serving.server import Server

pytestmark = pytest.mark.slow  # every test lets other answers run to their end beside the fault

LONG = {"user_message": "Bonjour", "max_tokens": 2048, "min_tokens": 2048}
SECRET = "what an exception says may hold a pupil's words"


@dataclass
class Wreck:
    """A server whose decode loop was made to fail while it answered, and what its callers got."""

    server: Server
    log: Path
    streamed: list[tuple[str, Any]]
    plain: list[dict[str, Any]]
    """The replies of a request that ran and of one that waited for a place, in either order."""


@pytest.fixture(scope="module")
def wreck(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Wreck]:
    """A stream and a plain request take the two places, a third request waits; then the loop fails.

    predict.py is the real one with an extra line, which imports `tests/sabotage.py` into the server's worker.
    """
    folder, log = tmp_path_factory.mktemp("faulty"), tmp_path_factory.mktemp("log") / "server.log"
    environment = {
        "SNB_BASE_MODEL": str(save_tiny(tmp_path_factory.mktemp("tiny"), num_hidden_layers=8)),
        "SNB_ADAPTER": "none",
        "SNB_SLOTS": "2",
        "FAULT": str(folder / "fault"),
        "COG_LOG_LEVEL": "info",
        "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}",
    }
    shutil.copy(ROOT / "cog.yaml", folder)
    source = (ROOT / "predict.py").read_text(encoding="utf-8")
    (folder / "predict.py").write_text(f"{source}\nimport sabotage\n", encoding="utf-8")
    with log.open("w") as file, Server(environment, log=file, directory=folder) as server:
        server.wait()
        assert server.status() == "READY"
        names = [uuid.uuid4().hex, uuid.uuid4().hex]
        stream = server.stream(**LONG)
        streamed = [next(stream)]
        while streamed[-1][0] != "output":
            streamed.append(next(stream))
        with ThreadPoolExecutor() as pool:
            asked = [pool.submit(ask, server, name) for name in names]
            until(lambda: all(begun(server, log, name) for name in names), log=log)
            (folder / "message").write_text(SECRET)
            (folder / "message").rename(folder / "fault")
            streamed.extend(stream)
            plain = [one.result() for one in asked]
        yield Wreck(server, log, streamed, plain)


def ask(server: Server, name: str) -> dict[str, Any]:
    """The reply to a long request without streaming."""
    url = f"{server.url}/predictions/{name}"
    reply = accepted(lambda: httpx.put(url, json={"input": LONG}, timeout=60))
    return reply.json()  # type: ignore[no-any-return]


def begun(server: Server, log: Path, name: str) -> bool:
    """Whether the service has taken a request, as its seed shows; a repeated PUT returns what there is."""
    lines = [line for line in log.read_text().splitlines() if "Starting prediction" in line]
    return any(name in line for line in lines) and "seed" in ask(server, name)["metrics"]


def failed(reply: dict[str, Any]) -> bool:
    return reply["status"] == "failed" and "ENGINE_DOWN: " in reply["error"]


@pytest.mark.server
def test_what_ran_or_waited_fails_with_the_code_of_a_dead_engine(wreck: Wreck) -> None:
    """Cog names the last event of a stream `completed` even if the prediction failed: its status says so."""
    *before, (_, last) = wreck.streamed
    assert "output" in [name for name, _ in before]
    assert [failed(reply) for reply in (last, *wreck.plain)] == [True] * 3
    assert all("seed" in reply["metrics"] for reply in wreck.plain)


@pytest.mark.server
def test_afterwards_the_server_is_unhealthy_and_refuses_at_once_with_that_code(wreck: Wreck) -> None:
    """At once, without being queued: an accepted request would have a seed among its metrics."""
    until(lambda: wreck.server.status() == "UNHEALTHY")
    reply, events = ask(wreck.server, uuid.uuid4().hex), list(wreck.server.stream(**LONG))
    assert failed(reply)
    assert "seed" not in reply["metrics"]
    assert failed(events[-1][1])
    assert "output" not in [name for name, _ in events]


@pytest.mark.server
def test_the_log_names_the_fault_once_without_a_stack_trace_and_an_unknown_coglet(wreck: Wreck) -> None:
    written = wreck.log.read_text()
    assert written.count("the decode loop died: RuntimeError") == 1
    assert f"coglet {metadata.version('coglet')}: cancel may not stop" in written
    assert not [text for text in ("Traceback", 'File "', SECRET) if text in written]


async def test_an_unknown_coglet_is_named_and_cured_all_the_same(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Even a coroutine that has already returned is told that its future is canceled."""
    monkeypatch.setattr(asyncio, "run_coroutine_threadsafe", asyncio.run_coroutine_threadsafe)  # put back
    cancel.install()
    assert not caplog.records
    monkeypatch.setattr(cancel, "KNOWN", ())
    cancel.install()
    assert f"coglet {metadata.version('coglet')}: cancel may not stop" in caplog.text
    heard: list[bool] = []

    async def answer() -> None:
        cancel.current().then(lambda: heard.append(True))

    future = asyncio.run_coroutine_threadsafe(answer(), asyncio.get_running_loop())
    await asyncio.wrap_future(future)
    future.cancel()
    assert heard == [True]


def test_a_listener_that_comes_late_is_called_at_once() -> None:
    cancellation, calls = cancel.Cancellation(), []
    cancellation.then(lambda: calls.append("early"))
    cancellation.cancel()
    cancellation.cancel()
    cancellation.then(lambda: calls.append("late"))
    assert calls == ["early", "late"]


SAMPLED = Sampling(max_tokens=50, min_tokens=50, temperature=1.0, repetition_penalty=1.1, french=True)
START = 1
"""<|im_start|>, which is never drawn."""
NEIGHBOURS = [([5, 6, 7], SAMPLED, 1), ([8] * 40, SAMPLED, 2), ([9, 10], SAMPLED, 3)]


@pytest.fixture
def undisturbed(engine: Engine) -> Iterator[None]:
    """Neighbours get what they got alone while the block does its harm, and so do requests after it."""
    alone = [answer(engine, *request) for request in NEIGHBOURS]
    neighbours = [engine.generate(*request) for request in NEIGHBOURS]
    yield
    assert ["".join(neighbour) for neighbour in neighbours] == alone
    assert engine.healthy
    until(lambda: not engine.busy)
    heirs = [engine.generate(*request) for request in [*NEIGHBOURS, NEIGHBOURS[0]]]  # in every row
    assert ["".join(heir) for heir in heirs] == [*alone, alone[0]]


@pytest.mark.usefixtures("undisturbed")
def test_an_exception_in_the_steps_of_one_request_ends_that_request_alone(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    """The engine's own thread breaks the request, before the step after its first token."""
    doomed = engine.generate([70, 71], SAMPLED, seed=4)

    def spoil(*_: object) -> None:
        if doomed.tokens:
            doomed.detokenizer = Detokenizer([])

    hook = engine.model.model.get_input_embeddings().register_forward_pre_hook(spoil)
    with pytest.raises(RequestFailed, match="REQUEST_FAILED: "):
        list(doomed)
    hook.remove()
    assert doomed.finish_reason == "error"
    assert len(doomed.tokens) < 50
    assert "Traceback" not in caplog.text


@pytest.mark.usefixtures("undisturbed")
def test_scores_that_are_no_numbers_end_their_request_alone_and_spoil_no_later_owner_of_its_row(
    engine: Engine,
) -> None:
    def spoil(_: object, given: tuple[Tensor], states: Tensor) -> Tensor:
        return states.masked_fill((given[0] == START)[..., None], torch.nan)

    hook = engine.model.model.get_input_embeddings().register_forward_hook(spoil)
    with pytest.raises(RequestFailed):
        list(engine.generate([70, *[START] * 30], SAMPLED, seed=4))
    hook.remove()


@pytest.mark.usefixtures("undisturbed")
def test_an_exception_at_the_end_of_a_canceled_request_disturbs_nobody(engine: Engine) -> None:
    """The request may still wait for a row when it is canceled, and so end before its first token."""
    engine.generate([11, 12], SAMPLED, 5)
    doomed = engine.generate([70, 71], SAMPLED, seed=4)
    del doomed._stops
    doomed.cancel()
    with pytest.raises(RequestFailed):
        list(doomed)
    assert doomed.finish_reason == "error"


def answer(engine: Engine, prompt: list[int], sampling: Sampling, seed: int) -> str:
    return "".join(engine.generate(prompt, sampling, seed))
