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
from replicate_server import ReplicateServer
from server import Server
from tiny import save_tiny
from waiting import until

from snb.settings import ROOT

pytestmark = pytest.mark.server
MODEL = "owner/spinoza"
QUESTION = {"user_message": "La liberté est-elle une illusion ?", "seed": 1}
LONG = {**QUESTION, "max_tokens": 2048, "min_tokens": 2048}


@pytest.fixture(scope="module")
def cog(tmp_path_factory: pytest.TempPathFactory, log: Path) -> Iterator[Server]:
    base = save_tiny(tmp_path_factory.mktemp("tiny"), num_hidden_layers=4)
    environment = {"SNB_BASE_MODEL": str(base), "SNB_ADAPTER": "none"}
    with log.open("w") as file, Server(environment, log=file) as server:
        server.wait()
        yield server


@pytest.fixture
def server(cog: Server) -> Iterator[ReplicateServer]:
    with ReplicateServer(cog.url, model=MODEL) as server:
        yield server


@pytest.fixture
def client(server: ReplicateServer) -> Client:
    client = Client(server.token, base_url=server.url, trust_env=False)
    client.poll_interval = 0.05
    return client


@pytest.fixture
def version(server: ReplicateServer) -> str:
    return f"{MODEL}:{server.version}"


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
    done = subprocess.run(
        [sys.executable, "-c", readme()],
        env={**os.environ, **reached, "PYTHONUTF8": "1"},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    said = answer(cog, QUESTION)
    assert said.strip()
    assert done.stdout.decode() == f"{said}\n{said}"
    created = [entry["body"] for entry in server.log if entry["method"] == "POST"]
    assert [body["input"] for body in created] == [QUESTION, QUESTION]


def test_the_stream_is_what_run_returns(cog: Server, client: Client, version: str) -> None:
    inputs = {**QUESTION, "max_tokens": 60}
    whole = list(client.run(version, input=inputs))
    pieces = [str(event) for event in client.stream(version, input=inputs)]
    assert pieces == [*whole, ""]  # `done` has no text
    assert "".join(whole) == answer(cog, inputs) != ""


def test_what_outlasts_the_wait_is_polled_to_its_end(
    cog: Server, client: Client, server: ReplicateServer, version: str
) -> None:
    server.fail("POST", "/v1/predictions", cold=4)
    assert "".join(client.run(version, input=QUESTION, wait=1)) == answer(cog, QUESTION)
    assert [entry["status"] for entry in server.log if entry["method"] == "POST"] == [202]


def test_a_cancel_stops_the_model_and_the_stream(client: Client, server: ReplicateServer, log: Path) -> None:
    written = len(log.read_text())
    prediction = client.predictions.create(version=server.version, input=LONG)
    stream = prediction.stream()
    assert len("".join(map(str, islice(stream, 5)))) > 0
    prediction.cancel()
    assert prediction.status == "canceled"
    *_, last = stream
    assert (last.event.value, json.loads(last.data)) == ("done", {"reason": "canceled"})
    until(lambda: "canceled after" in log.read_text()[written:])
    assert prediction.output is not None
    assert len(prediction.output) < 2048


def test_a_wrong_token_is_an_error_with_its_status(server: ReplicateServer) -> None:
    client = Client("r8_wrong", base_url=server.url, trust_env=False)
    with pytest.raises(ReplicateError) as caught:
        client.models.get(MODEL)
    assert (caught.value.status, caught.value.title) == (401, "Unauthenticated")


@pytest.mark.parametrize(
    ("name", "inputs", "title"),
    [
        ("0" * 64, QUESTION, "Invalid version or not permitted"),
        ("", {**QUESTION, "max_tokens": 0}, "Input validation failed"),
    ],
)
def test_a_wrong_version_or_input_is_an_error_with_its_status(
    client: Client, server: ReplicateServer, name: str, inputs: dict[str, Any], title: str
) -> None:
    with pytest.raises(ReplicateError) as caught:
        client.run(f"{MODEL}:{name or server.version}", input=inputs)
    assert (caught.value.status, caught.value.title) == (422, title)


def test_a_model_is_called_by_its_bare_name_only_if_it_is_official(cog: Server) -> None:
    inputs = {**QUESTION, "max_tokens": 20}
    for official in (False, True):
        with ReplicateServer(cog.url, model=MODEL, official=official) as server:
            client = Client(server.token, base_url=server.url, trust_env=False)
            if official:
                assert "".join(client.run(MODEL, input=inputs)) == answer(cog, inputs)
                continue
            with pytest.raises(ReplicateError) as caught:
                client.run(MODEL, input=inputs)
            assert caught.value.status == 404


def test_a_deployment_answers(cog: Server, client: Client) -> None:
    inputs = {**QUESTION, "max_tokens": 20}
    deployment = client.deployments.get("owner/classe")
    prediction = deployment.predictions.create(input=inputs)
    prediction.wait()
    assert "".join(prediction.output or []) == answer(cog, inputs)


def test_what_the_model_refuses_is_the_models_error(client: Client, version: str) -> None:
    with pytest.raises(ModelError, match=r"BAD_INPUT: history\[0\].role"):
        client.run(version, input={**QUESTION, "history": [{"role": "system", "content": "?"}]})
    with pytest.raises(RuntimeError, match="BAD_INPUT"):
        list(client.stream(version, input={**QUESTION, "history": [{"role": "system", "content": "?"}]}))


def test_it_reads_again_when_throttled_but_does_not_create_again(
    client: Client, server: ReplicateServer, version: str
) -> None:
    server.fail("GET", "/v1/models", status=429, headers={"Retry-After": "0"})
    latest = client.models.get(MODEL).latest_version
    assert latest
    assert latest.id == server.version
    server.fail("POST", "/v1/predictions", status=429, headers={"Retry-After": "0"})
    with pytest.raises(ReplicateError) as caught:
        client.run(version, input=QUESTION)
    assert caught.value.status == 429
    assert [entry["status"] for entry in server.log] == [429, 200, 429]
