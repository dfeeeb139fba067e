"""Faults: a decode loop that dies or hangs ends every request by name; a request that fails, fails alone."""

import asyncio
import concurrent.futures
import contextlib
import logging
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import httpx
import pytest
from transformers import Qwen2ForCausalLM

from snb import cancel
from snb.engine.detokenizer import Detokenizer
from snb.engine.generation import Generation
from snb.engine.loop import Engine
from snb.errors import BadInput, RequestFailed
from snb.parameters import Sampling
from snb.settings import ROOT
from tests.tiny import save_tiny
from tests.waiting import until
from tools.serving.server import Server

LONG = {"user_message": "Bonjour", "max_tokens": 2048, "min_tokens": 2048}
SAID = {"killed": "the decode loop died: RuntimeError", "stalled": "the decode loop is stuck"}
SECRET = "what an exception says may hold a pupil's words"


def faulty_directory(folder: Path) -> Path:
    """The real contract, with one line more: it brings `tests/sabotage.py` into the server's worker."""
    shutil.copy(ROOT / "cog.yaml", folder)
    source = (ROOT / "predict.py").read_text(encoding="utf-8")
    (folder / "predict.py").write_text(f"{source}\nimport sabotage\n", encoding="utf-8")
    return folder


@dataclass
class Wreck:
    """A server whose decode loop was struck while it answered, and what its callers got."""

    fault: str
    server: Server
    log: Path
    streamed: list[tuple[str, Any]]
    plain: list[dict[str, Any]]
    """The reply of a running request and of one that waited for a place, in either order."""


@pytest.fixture(scope="module", params=["killed", "stalled"])
def wreck(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Wreck]:
    """Two places: a stream has one, a plain request the other, and a third waits; then the fault strikes."""
    folder, log = tmp_path_factory.mktemp("faulty"), tmp_path_factory.mktemp("log") / "server.log"
    environment = {
        "SNB_BASE_MODEL": str(save_tiny(tmp_path_factory.mktemp("tiny"), num_hidden_layers=8)),
        "SNB_ADAPTER": "none",
        "SNB_SLOTS": "2",
        "FAULTS": str(folder),
        "COG_LOG_LEVEL": "info",
        "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}",
    }
    with log.open("w") as file, Server(environment, log=file, directory=faulty_directory(folder)) as server:
        server.wait()
        assert server.status() == "READY"
        plain: list[dict[str, Any]] = []
        threads = [threading.Thread(target=lambda: plain.append(ask(server))) for _ in range(2)]
        stream = server.stream(**LONG)
        streamed = [next(stream)]
        while streamed[-1][0] != "output":
            streamed.append(next(stream))
        for thread in threads:
            thread.start()
        until(lambda: log.read_text().count("Starting prediction") == 3)
        (folder / "message").write_text(SECRET)
        (folder / "message").rename(folder / request.param)
        streamed.extend(stream)
        for thread in threads:
            thread.join()
        yield Wreck(request.param, server, log, streamed, plain)


def ask(server: Server) -> dict[str, Any]:
    """A long request without streaming: the whole reply."""
    reply = httpx.post(f"{server.url}/predictions", json={"input": LONG}, timeout=60)
    return reply.json()  # type: ignore[no-any-return]


@pytest.mark.server
def test_a_stream_that_was_running_ends_as_failed_with_the_code_of_a_dead_engine(wreck: Wreck) -> None:
    """Cog calls the last event of a stream `completed`, also when the prediction failed: read its status."""
    *before, (_, last) = wreck.streamed
    assert [name for name, _ in before].count("output") > 0
    assert last["status"] == "failed"
    assert "ENGINE_DOWN: " in last["error"]


@pytest.mark.server
def test_plain_requests_that_ran_or_waited_fail_with_that_code(wreck: Wreck) -> None:
    assert [reply["status"] for reply in wreck.plain] == ["failed", "failed"]
    for reply in wreck.plain:
        assert "seed" in reply["metrics"]
        assert "ENGINE_DOWN: " in reply["error"]


@pytest.mark.server
def test_the_health_check_turns_unhealthy(wreck: Wreck) -> None:
    until(lambda: wreck.server.status() == "UNHEALTHY")


@pytest.mark.server
def test_new_requests_are_refused_at_once_with_that_code(wreck: Wreck) -> None:
    """Not queued first: an accepted request has its seed among the metrics."""
    reply = ask(wreck.server)
    assert reply["status"] == "failed"
    assert "ENGINE_DOWN: " in reply["error"]
    assert "seed" not in reply["metrics"]
    events = list(wreck.server.stream(**LONG))
    assert events[-1][1]["status"] == "failed"
    assert "ENGINE_DOWN: " in events[-1][1]["error"]
    assert "output" not in [name for name, _ in events]


@pytest.mark.server
def test_the_log_says_what_happened_in_a_line_without_a_stack_trace(wreck: Wreck) -> None:
    written = wreck.log.read_text()
    assert written.count(SAID[wreck.fault]) == 1
    assert "Traceback" not in written
    assert 'File "' not in written
    assert SECRET not in written


@pytest.mark.server
def test_the_boot_says_that_coglet_is_not_a_known_one(wreck: Wreck) -> None:
    assert f"coglet {metadata.version('coglet')}: cancel may not stop" in wreck.log.read_text()


def test_an_unknown_coglet_is_named_and_cured_all_the_same(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    submit = asyncio.run_coroutine_threadsafe
    monkeypatch.setattr(asyncio, "run_coroutine_threadsafe", submit)  # so that it is put back
    cancel.install()
    assert not caplog.records
    monkeypatch.setattr(asyncio, "run_coroutine_threadsafe", submit)
    monkeypatch.setattr(cancel, "KNOWN", ())
    cancel.install()
    [record] = caplog.records
    assert record.levelno == logging.WARNING
    assert metadata.version("coglet") in record.getMessage()
    assert told_of_cancel()


def told_of_cancel() -> bool:
    """Whether a coroutine that has returned already still hears that its future is canceled."""

    async def listen() -> None:
        cancel.current().then(heard.set)

    heard, loop = threading.Event(), asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    future: concurrent.futures.Future[None] = asyncio.run_coroutine_threadsafe(listen(), loop)
    future.result()
    future.cancel()
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()
    return heard.is_set()


SAMPLED = Sampling(max_tokens=150, min_tokens=150, temperature=1.0, repetition_penalty=1.1, french=True)
NEIGHBOURS = [([5, 6, 7], SAMPLED, 1), ([8] * 40, SAMPLED, 2), ([9, 10], SAMPLED, 3)]


def stop_strings(generation: Generation) -> None:
    generation._stops = None  # type: ignore[assignment]


def detokenizer(generation: Generation) -> None:
    generation.detokenizer = Detokenizer([])


def script(generation: Generation) -> None:
    generation.detokenizer = None  # type: ignore[assignment]


@pytest.mark.parametrize("spoil", [stop_strings, detokenizer, script])
def test_an_exception_in_the_steps_of_one_request_ends_that_request_alone(
    engine: Engine,
    model: Qwen2ForCausalLM,
    caplog: pytest.LogCaptureFixture,
    spoil: Callable[[Generation], None],
) -> None:
    """The engine's own thread spoils it, before the step after its first token."""
    alone = [answer(engine, *request) for request in NEIGHBOURS]
    neighbours = [engine.generate(*request) for request in NEIGHBOURS]
    doomed = engine.generate([70, 71], SAMPLED, seed=4)
    hook = model.model.register_forward_pre_hook(lambda *_: spoil(doomed) if doomed.tokens else None)
    with pytest.raises(RequestFailed, match="REQUEST_FAILED: "):
        list(doomed)
    hook.remove()
    assert doomed.finish_reason == "error"
    assert len(doomed.tokens) < 150
    assert ["".join(neighbour) for neighbour in neighbours] == alone
    assert engine.healthy
    until(lambda: engine.running == 0)
    assert "Traceback" not in caplog.text
    heirs = [engine.generate([70, 71], SAMPLED, seed=4), *(engine.generate(*it) for it in NEIGHBOURS)]
    assert ["".join(heir) for heir in heirs][1:] == alone


@pytest.mark.parametrize("spoil", [stop_strings, detokenizer])
def test_an_exception_at_the_end_of_a_canceled_request_disturbs_nobody(
    engine: Engine, spoil: Callable[[Generation], None]
) -> None:
    """It waits for a row, which its neighbours have, so that its end comes before its first token."""
    requests = [*NEIGHBOURS, ([11, 12], SAMPLED, 5)]
    alone = [answer(engine, *request) for request in requests]
    neighbours = [engine.generate(*request) for request in requests]
    doomed = engine.generate([70, 71], SAMPLED, seed=4)
    spoil(doomed)
    doomed.cancel()
    assert ["".join(neighbour) for neighbour in neighbours] == alone
    with contextlib.suppress(RequestFailed):
        list(doomed)
    assert doomed.finish_reason in ("error", "canceled")
    assert engine.healthy


@pytest.mark.parametrize(
    ("prompt", "sampling", "seed"),
    [([1.5], SAMPLED, 4), ([70], replace(SAMPLED, top_k=-1), 4), ([70], SAMPLED, 2**64)],
    ids=["an id that is no whole number", "a negative top_k", "a seed beyond 64 bits"],
)
def test_what_the_engine_cannot_compute_ends_that_request_alone(
    engine: Engine, prompt: list[int], sampling: Sampling, seed: int
) -> None:
    alone = answer(engine, *NEIGHBOURS[0])
    neighbour = engine.generate(*NEIGHBOURS[0])
    with pytest.raises((BadInput, RequestFailed)):
        answer(engine, prompt, sampling, seed)
    assert "".join(neighbour) == alone
    assert engine.healthy


def answer(engine: Engine, prompt: list[int], sampling: Sampling, seed: int) -> str:
    return "".join(engine.generate(prompt, sampling, seed))
