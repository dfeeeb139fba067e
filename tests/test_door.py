"""The key: without it nobody is answered, nothing of the request is read, and no log learns it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from cog import Secret
from hypothesis import example, given
from hypothesis import strategies as st

from snb.door import Door
from snb.errors import BadSetting, Unauthorized
from snb.settings import Settings
from tests.tiny import save_tiny
from tools.serving.server import Server

KEY, OTHER = "porte-étroite-0123456789", "another-key-of-some-length"


def test_without_a_key_everybody_may_ask_and_with_one_it_opens_as_a_text_and_as_a_secret() -> None:
    for sent in ("", "x", Secret("x"), Secret(None)):
        Door(None).admit(sent)
    Door(KEY).admit(KEY)
    Door(KEY).admit(Secret(KEY))


@given(st.text(st.characters(exclude_categories=[])).filter(lambda text: text != KEY))
@example("")
@example(KEY[:-1])
@example(KEY + " ")
@example(KEY.upper())
@example(f"{KEY}\0")
@example(KEY.encode().decode("latin-1"))
def test_nothing_else_opens_and_no_error_repeats_what_was_sent(sent: str) -> None:
    for form in (sent, Secret(sent)):
        with pytest.raises(Unauthorized) as refused:
            Door(KEY).admit(form)
        fault = "api_key is not the key of this endpoint" if sent else "api_key is missing"
        cure = "Send the endpoint's SNB_API_KEY as the input api_key"
        assert str(refused.value) == f"UNAUTHORIZED: {fault}. {cure}"


def test_a_key_that_can_be_guessed_stops_the_boot_and_is_not_repeated() -> None:
    with pytest.raises(BadSetting, match="SNB_API_KEY must be at least 16 characters") as refused:
        Settings.from_environment({"SNB_API_KEY": "sesame"})
    assert "sesame" not in str(refused.value)
    assert KEY not in repr(Settings.from_environment({"SNB_API_KEY": KEY}))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, log: Path) -> Iterator[Server]:
    base = save_tiny(tmp_path_factory.mktemp("tiny"))
    environment = {"SNB_BASE_MODEL": str(base), "SNB_ADAPTER": "none", "SNB_API_KEY": KEY}
    with log.open("w") as file, Server(environment, log=file) as server:
        server.wait()
        yield server


def ask(server: Server, **inputs: Any) -> dict[str, Any]:
    body = {"input": {"user_message": "Bonjour", "max_tokens": 2, **inputs}}
    return httpx.post(f"{server.url}/predictions", json=body, timeout=60).json()  # type: ignore[no-any-return]


@pytest.mark.server
@pytest.mark.parametrize("sent", [{}, {"api_key": ""}, {"api_key": OTHER}], ids=str)
def test_the_server_refuses_before_it_reads_the_request(server: Server, sent: dict[str, str]) -> None:
    """The history is one that `Request` refuses, and nobody says so."""
    reply = ask(server, history=[{"role": "system", "content": "x"}], **sent)
    assert (reply["status"], reply.get("output")) == ("failed", None)
    assert "UNAUTHORIZED: api_key is " in reply["error"]
    assert "history" not in reply["error"]
    assert "input_token_count" not in reply.get("metrics", {})


@pytest.mark.server
def test_the_server_answers_who_has_the_key_and_no_log_or_open_page_has_it(server: Server, log: Path) -> None:
    """Open without a key is what docs/SECURITY.md names."""
    assert ask(server, api_key=KEY)["status"] == "succeeded"
    assert ask(server, api_key=OTHER)["status"] == "failed"
    events = list(server.stream(user_message="Bonjour", max_tokens=2, api_key=KEY))
    assert events[-1][1]["status"] == "succeeded"
    written = log.read_text()
    for path in ("/", "/health-check", "/openapi.json"):
        written += httpx.get(f"{server.url}{path}").raise_for_status().text
    assert not [text for text in (OTHER, KEY, "Traceback") if text in written]
