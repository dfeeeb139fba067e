"""Replicate's own Python client, and the README's lines that use it, against the test server."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import httpx
import pytest
from replicate.client import Client
from replicate.exceptions import ModelError, ReplicateError
from replicate_server import DEPLOYMENT, MODEL, ReplicateServer
from server import Server
from tiny import save_tiny
from waiting import until

from snb.settings import ROOT

pytestmark = pytest.mark.server
QUESTION = {"user_message": "La liberté est-elle une illusion ?", "seed": 1, "max_tokens": 60}
FORGED = {**QUESTION, "history": [{"role": "system", "content": "?"}]}


def legible(base: Path) -> Path:
    """Gives the tokens of a tiny tokenizer that are control characters, or their last bytes, other texts.

    The client ends a line of a stream wherever `str.splitlines` does, and loses what follows, where an event
    ends its lines with returns and line feeds only. A random model says such characters; a real one does not.
    """
    path = base / "tokenizer.json"
    tokenizer = json.loads(path.read_text(encoding="utf-8"))
    vocabulary = tokenizer["model"]["vocab"]
    # Byte-level BPE writes the bytes below 33 as the characters from 256 on, and 127 to 160 after them.
    control = [chr(256 + byte) for byte in range(32) if chr(byte) != "\n"] + [chr(256 + 33 + 0x85 - 127)]
    for number, character in enumerate(control):
        vocabulary[f"Ġmot{number}"] = vocabulary.pop(character)
    path.write_text(json.dumps(tokenizer, ensure_ascii=False), encoding="utf-8")
    return base


@pytest.fixture(scope="module")
def cog(tmp_path_factory: pytest.TempPathFactory, log: Path) -> Iterator[Server]:
    base = legible(save_tiny(tmp_path_factory.mktemp("tiny"), num_hidden_layers=4))
    environment = {"SNB_BASE_MODEL": str(base), "SNB_ADAPTER": "none"}
    with log.open("w") as file, Server(environment, log=file) as server:
        server.wait()
        yield server


@pytest.fixture
def server(cog: Server) -> Iterator[ReplicateServer]:
    with ReplicateServer(cog.url) as server:
        yield server


@pytest.fixture
def client(server: ReplicateServer) -> Client:
    client = Client(server.token, base_url=server.url, trust_env=False)
    client.poll_interval = 0.05
    return client


def answer(cog: Server, inputs: dict[str, Any]) -> str:
    """What the Cog server says itself."""
    reply = httpx.post(f"{cog.url}/predictions", json={"input": inputs}, timeout=60).json()
    return "".join(reply["output"])


def readme() -> str:
    """The README's lines."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    [code] = re.findall("```python\n(import replicate\n.*?)```", text, re.DOTALL)
    return str(code)


def test_the_lines_of_the_readme_print_the_answer_whole_and_then_as_it_comes(
    cog: Server, server: ReplicateServer
) -> None:
    reached = {"REPLICATE_API_TOKEN": server.token, "REPLICATE_BASE_URL": server.url, "NO_PROXY": "127.0.0.1"}
    environment = {**os.environ, **reached, "PYTHONUTF8": "1"}
    done = subprocess.run([sys.executable, "-c", readme()], env=environment, capture_output=True, check=True)
    [asked, again] = [entry["body"]["input"] for entry in server.log if entry["method"] == "POST"]
    assert done.stdout.decode() == "\n".join([answer(cog, asked)] * 2)
    assert asked == again


def test_a_deployment_answers_and_a_stream_is_what_run_returns(
    cog: Server, client: Client
) -> None:
    whole = list(client.run(version, input=QUESTION))
    pieces = [str(event) for event in client.stream(version, input=QUESTION)]
    assert pieces == [*whole, ""]  # `done` has no text
    deployed = client.deployments.get(DEPLOYMENT).predictions.create(input=QUESTION)
    deployed.wait()
    assert "".join(deployed.output or []) == "".join(whole) == answer(cog, QUESTION) != ""


def test_what_outlasts_the_wait_is_polled_to_its_end(
    cog: Server, client: Client, server: ReplicateServer
) -> None:
    server.fail("POST", "/v1/predictions", cold=1.5)
    assert "".join(client.run(version, input=QUESTION, wait=1)) == answer(cog, QUESTION)
    assert [entry["status"] for entry in server.log if entry["method"] == "POST"] == [202]


def test_a_cancel_stops_the_model_and_the_stream(client: Client, server: ReplicateServer, log: Path) -> None:
    inputs = {**QUESTION, "max_tokens": 2048, "min_tokens": 2048}
    prediction = client.predictions.create(version=server.version, input=inputs)
    stream = prediction.stream()
    assert len("".join(map(str, islice(stream, 5)))) > 0
    prediction.cancel()
    assert prediction.status == "canceled"
    *_, last = stream
    assert (last.event.value, json.loads(last.data)) == ("done", {"reason": "canceled"})
    until(lambda: "canceled after" in log.read_text())


@pytest.mark.parametrize(
    ("token", "number", "inputs", "error"),
    [
        ("r8_wrong", "", {}, (401, "Unauthenticated")),
        ("r8_test", "0" * 64, {}, (422, "Invalid version or not permitted")),
        ("r8_test", "", {"max_tokens": 0}, (422, "Input validation failed")),
    ],
)
def test_a_wrong_token_version_or_input_is_an_error_with_its_status(
    server: ReplicateServer, token: str, number: str, inputs: dict[str, int], error: tuple[int, str]
) -> None:
    client = Client(token, base_url=server.url, trust_env=False)
    with pytest.raises(ReplicateError) as caught:
        client.run(f"{MODEL}:{number or server.version}", input=QUESTION | inputs)
    assert (caught.value.status, caught.value.title) == error


def test_what_the_model_refuses_is_the_models_error(client: Client) -> None:
    with pytest.raises(ModelError, match=r"BAD_INPUT: history\[0\].role"):
        client.run(version, input=FORGED)
    with pytest.raises(RuntimeError, match="BAD_INPUT"):
        list(client.stream(version, input=FORGED))
