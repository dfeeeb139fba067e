"""Replicate's own Python client, and the README's lines and the endpoint that use it, on the test server."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator

import pytest

from snb.settings import ROOT
from tests.replicate_server import DEPLOYMENT, MODEL, ReplicateServer
from tests.visitor import direct
from tools.endpoints.endpoint import Busy, Failed
from tools.endpoints.replicate_endpoint import Replicate
from tools.serving.server import Server

pytestmark = pytest.mark.server
QUESTION = {"user_message": "La liberté est-elle une illusion ?", "seed": 1, "max_tokens": 60}


@pytest.fixture
def server(cog: Server) -> Iterator[ReplicateServer]:
    with ReplicateServer(cog.url) as server:
        yield server


def test_the_lines_of_the_readme_print_the_answer_whole_and_then_as_it_comes(
    cog: Server, server: ReplicateServer
) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    [code] = re.findall("```python\n(import replicate\n.*?)```", text, re.DOTALL)
    reached = {"REPLICATE_API_TOKEN": server.token, "REPLICATE_BASE_URL": server.url, "NO_PROXY": "127.0.0.1"}
    environment = {**os.environ, **reached, "PYTHONUTF8": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=True)
    posts = [entry for entry in server.log if entry["method"] == "POST"]
    asked, again = [entry["body"]["input"] for entry in posts]
    assert asked == again
    assert "prefer" not in posts[0]["headers"]  # a reply that is held for a minute may have half an answer
    assert done.stdout.decode() == "\n".join([direct(cog.url, asked)] * 2)


def test_a_stream_that_ends_early_is_completed_from_the_prediction(
    cog: Server, server: ReplicateServer
) -> None:
    server.fail("GET", "/v1/streams", cut=3)
    pieces = list(Replicate(MODEL, server.token, server.url).ask(QUESTION))
    assert len(pieces) == 4
    assert "".join(piece.text for piece in pieces) == direct(cog.url, QUESTION)
    assert pieces[-1].tokens == 60


def test_a_rate_limit_says_when_to_ask_again(server: ReplicateServer) -> None:
    endpoint = Replicate(f"deployments/{DEPLOYMENT}", server.token, server.url)
    server.fail("POST", "/v1/deployments", status=429)
    with pytest.raises(Busy) as caught:
        endpoint.begin(QUESTION)
    assert caught.value.seconds == 30
    server.fail("POST", "/v1/deployments", setup_failed=True)
    with pytest.raises(Failed, match="failed to boot"):
        list(endpoint.ask(QUESTION))
