"""scripts/smoke-test: the real servers pass, and each kind of broken one is named."""

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any, get_type_hints

import pydantic
import pytest
from openai.types.chat import completion_create_params

from snb.philosophers import names
from snb.settings import ROOT
from tests import scripts
from tests.cog_double import FRENCH, Double
from tests.conftest import NOTICE
from tests.replicate_server import ReplicateServer
from tools.endpoints import endpoint, started
from tools.endpoints.endpoint import Failed
from tools.endpoints.gradio_endpoint import hub_token, newest
from tools.rehearsing import checks, smoke_test
from tools.rehearsing.reply import Reply
from tools.rehearsing.smoke_test import FAILED, OK, WARNING, Verdict
from tools.serving.server import Server

ENGLISH = (
    "Freedom is not to do whatever one wants, because what we want has causes of its own; it is to grasp "
    "these causes, and to act from reason rather than from fear."
)
KEY = "une-cle-de-la-classe"
TOKEN = "r8_test"
ASKED = ["ready", *names(), "stream", "times"]


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    """Removes a developer's keys and tokens."""
    for name in ("SNB_API_KEY", "SNB_OPENAI_TOKEN", "REPLICATE_API_TOKEN", "REPLICATE_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(endpoint, "offline", lambda: False)  # conftest.py refuses every way out


@pytest.fixture
def lasting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers that take a tiny model a while, so that a client on a busy machine sees them stream."""
    monkeypatch.setattr(smoke_test, "SAMPLE", {**smoke_test.SAMPLE, "min_tokens": 512, "max_tokens": 512})


def subjects(verdicts: list[Verdict], state: str) -> list[str]:
    return [verdict.subject for verdict in verdicts if verdict.state == state]


@pytest.mark.server
@pytest.mark.usefixtures("lasting")
def test_the_real_server_passes_and_every_check_has_its_line(cog: Server) -> None:
    verdicts = list(smoke_test.verdicts(cog.url))
    assert subjects(verdicts, OK) == [*ASKED, "metrics", "cancel", "bad input"], verdicts
    [warning] = [verdict for verdict in verdicts if verdict.state != OK]
    assert NOTICE in warning.seen


@pytest.mark.server
@pytest.mark.usefixtures("lasting")
def test_a_deployment_on_replicate_passes(cog: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    with ReplicateServer(cog.url, TOKEN) as api:
        for name, value in {"API_TOKEN": TOKEN, "BASE_URL": api.url}.items():
            monkeypatch.setenv(f"REPLICATE_{name}", value)
        monkeypatch.setenv("SNB_API_KEY", KEY)
        verdicts = list(smoke_test.verdicts("replicate:deployments/owner/classe"))
    assert subjects(verdicts, OK) == [*ASKED[1:], "metrics", "cancel", "bad input"], verdicts
    assert not [asked for asked in api.log if KEY in str(asked)]


def test_a_provider_is_asked_what_its_own_client_would_ask_and_is_a_stopgap(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kind = completion_create_params.CompletionCreateParamsStreaming
    with Double(key=TOKEN) as provider:
        address = f"openai:{provider.url}/v1#qwen"
        without = list(smoke_test.verdicts(address))[-1]
        monkeypatch.setenv("SNB_OPENAI_TOKEN", TOKEN)
        verdicts = list(smoke_test.verdicts(address))
    assert (without.state, "HTTP 401" in without.seen) == (FAILED, True)
    assert subjects(verdicts, OK) == [*ASKED[1:], "language"], verdicts
    assert subjects(verdicts, WARNING) == ["stopgap"]
    for asked in provider.asked:
        pydantic.TypeAdapter(kind).validate_python(asked, strict=True)
        assert {*asked} <= get_type_hints(kind).keys()


class French:
    """Replaces the Cog server behind a Space, for lack of a model that speaks French."""

    def stream(self, **_: Any) -> Iterator[tuple[str, dict[str, Any]]]:
        text = f"Erreur : {FRENCH}"  # an answer like any other
        for word in text.split():
            threading.Event().wait(0.02)
            yield "output", {"chunk": f"{word} "}
        yield "completed", {"status": "succeeded"}


# Gradio takes seconds to import.
@pytest.mark.slow
def test_a_space_of_the_old_kind_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    from tools.rehearsing.old_space import old_space

    monkeypatch.setenv("SNB_API_KEY", KEY)  # of the second backend
    monkeypatch.setattr(started, "is_gradio", None)  # asked once, while it waits
    with old_space(French()) as url:  # type: ignore[arg-type]
        verdicts = list(smoke_test.verdicts(f"{url}/"))
    assert subjects(verdicts, OK) == [*ASKED, "language"], verdicts
    assert len(verdicts) == len(ASKED) + 1


@pytest.mark.parametrize("outputs", [["", [["q", "a"]]], [["", [["q", "a"]]]], ["", [{"content": "a"}]]])
def test_the_newest_answer_of_a_space_is_found_in_each_form_of_its_history(outputs: list[Any]) -> None:
    assert newest(outputs) == "a"
    assert newest(["", []]) == newest(["", [["q", None]]]) == ""
    assert newest(["", [{"content": [{"text": "a"}, {"text": "b"}]}]]) == "ab"


def test_the_hub_s_token_goes_to_the_hub_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert hub_token("https://compte-spinoza.hf.space") == TOKEN
    assert not any(map(hub_token, ("https://hf.space.example", "https://a-hf.space", "http://127.0.0.1:9")))


def checked(server: Double, subject: str) -> Verdict:
    return next(verdict for verdict in smoke_test.verdicts(server.url) if verdict.subject == subject)


@pytest.mark.parametrize(
    ("fault", "subject", "words"),
    [
        ("cut", "spinoza", "stream ended before the answer"),
        # The smoke test gives up after 3 s, for each philosopher.
        pytest.param("stalls", "spinoza", "no end within 3 s", marks=pytest.mark.slow),
        ("health is a number", "reach", "neither Cog nor Gradio"),
        # The answer is heard to its end.
        pytest.param("ignores cancel", "cancel", "went on to its end", marks=pytest.mark.slow),
        ("accepts anything", "bad input", "an unknown philosopher answered"),
        ("vague", "bad input", "does not name it"),
    ],
)
def test_a_broken_server_fails_the_check_that_is_for_it(
    fault: str, subject: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if fault == "stalls":
        monkeypatch.setattr(smoke_test, "LIMIT", 3.0)
    with Double(fault) as server:
        verdict = checked(server, subject)
    assert (verdict.state, words in verdict.seen) == (FAILED, True), verdict


def test_a_server_with_a_key_is_asked_with_it_and_lets_no_other_in(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with Double(key=KEY) as server:
        assert scripts.code("smoke-test", server.url) == 1
        *_, count, last = capsys.readouterr().out.splitlines()
        assert (count, "UNAUTHORIZED: set SNB_API_KEY" in last) == ("1 failed:", True)
        monkeypatch.setenv("SNB_API_KEY", f"{KEY}-d-hier")
        assert "UNAUTHORIZED: SNB_API_KEY here is not" in checked(server, "reach").seen
        monkeypatch.setenv("SNB_API_KEY", KEY)
        assert scripts.code("smoke-test", server.url) == 0
        shown = capsys.readouterr().out
        assert ("\nok       key" in shown, "All well" in shown, KEY in shown) == (True, True, False)


def test_a_door_that_lets_everybody_in_fails_where_a_key_is_set_and_is_a_warning_where_others_reach_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with Double() as server:
        verdicts = list(smoke_test.verdicts(f"http://127.1:{server.port}"))
        assert subjects(verdicts, WARNING) == ["key"]
        monkeypatch.setenv("SNB_API_KEY", KEY)
        assert "who has no key was answered" in checked(server, "key").seen


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("http://127.0.0.1:9", "Connection refused; if a server is still booting there, add --boot"),
        ("no-such-host.invalid", "Name or service not known|failure in name resolution"),
        ("owner/spinoza", "set REPLICATE_API_TOKEN"),
        ("http://[", "neither a host"),
        ("a/b/c", "neither a host"),
        ("openai:https://host.example/v1#", "write openai:https://HOST/v1#MODEL"),
        ("http://127.0.0.1:PORT/page", "GET /health-check has HTTP 404"),
        ("https://127.0.0.1:PORT", "a server without TLS needs http:// in front"),
    ],
)
def test_what_cannot_be_asked_fails_at_once_and_says_why(
    address: str, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with Double() as other:
        [verdict] = smoke_test.verdicts(address.replace("PORT", str(other.port)))
    assert verdict.state == FAILED
    assert any(words in verdict.seen for words in reason.split("|")), verdict
    assert not capsys.readouterr().err  # it has not waited


@pytest.mark.parametrize("address", ["a.invalid", "openai:https://a.invalid/v1#m", "owner/spinoza"])
def test_without_a_network_one_line_says_so_and_what_still_works(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoint, "offline", lambda: True)
    monkeypatch.setenv("REPLICATE_API_TOKEN", TOKEN)
    monkeypatch.setenv("REPLICATE_BASE_URL", "http://a.invalid")
    verdict = list(smoke_test.verdicts(address, boot=30))[-1]
    assert verdict.seen.startswith("NO_NETWORK: "), verdict
    assert "These still work: scripts/serve" in verdict.seen


def test_a_machine_is_offline_where_the_kernel_has_no_route() -> None:
    asks = [sys.executable, "-c", "from tools.machine import offline; print(offline())"]
    alone = ["unshare", "--map-root-user", "--net"]
    if subprocess.run([*alone, "true"]).returncode:
        pytest.skip("this machine has no `unshare --map-root-user --net`")
    assert subprocess.check_output([*alone, *asks], cwd=ROOT, text=True) == "True\n"


def test_an_empty_key_is_a_fault_wherever_one_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SNB_API_KEY", "")
    with Double() as server:
        [verdict] = smoke_test.verdicts(server.url)
    assert (verdict.state, "set and empty" in verdict.seen) == (FAILED, True)


@pytest.mark.parametrize("end", ["\r", "é"])
@pytest.mark.parametrize(
    "address", ["http://127.0.0.1:PORT", "openai:http://127.0.0.1:PORT/v1#m", "owner/model"]
)
def test_a_key_that_no_header_can_carry_is_a_fault_and_not_repeated(
    address: str, end: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("SNB_API_KEY", "SNB_OPENAI_TOKEN", "REPLICATE_API_TOKEN"):
        monkeypatch.setenv(name, f"{KEY}{end}")
    with Double(key=KEY) as server:
        monkeypatch.setenv("REPLICATE_BASE_URL", server.url)
        verdict = list(smoke_test.verdicts(address.replace("PORT", str(server.port))))[-1]
    assert (verdict.state, "the end of a line" in verdict.seen, KEY in verdict.seen) == (FAILED, True, False)


def reply(text: str = FRENCH, came: float = 4.0, **metrics: Any) -> Reply:
    """An answer of 30 tokens, whose text came in pieces over `came` seconds."""
    count = len(text.split())
    times = tuple(0.1 + came * number / count for number in range(count))
    asked = {"philosopher": "kant", "min_tokens": 24, "max_tokens": 96, "seed": 2026}
    usual = {"input_token_count": 100, "output_token_count": 30, "finish_reason": "stop", "seed": 2026}
    return Reply(asked, text, times, 4.1, {**usual, "time_to_first_token": 0.1, **metrics})


@pytest.mark.parametrize(
    ("check", "bad", "words"),
    [
        (checks.stream, reply("Oui."), "the answers of kant came in one piece"),
        (checks.stream, reply(came=0.001), "holds it back"),
        (checks.metrics, reply(output_token_count=0), "output_token_count is 0, not 24 to 96"),
        (checks.metrics, reply(seed=7), "seed is 7, not the 2026 that was sent"),
        (checks.metrics, reply(input_token_count=None, seed=None), "no input_token_count, seed"),
        (checks.language, reply(ENGLISH), "not French: kant"),
    ],
)
def test_what_is_wrong_with_an_answer_is_named(
    check: Callable[[list[Reply]], str], bad: Reply, words: str
) -> None:
    check([reply()])
    with pytest.raises(Failed, match=words):
        check([bad])


def test_a_line_is_one_line_without_secrets_and_harmless_to_a_terminal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SNB_API_KEY", KEY)
    line = str(Verdict(OK, "kant", f"\x1b[31mrouge\n{KEY} " + "x" * 400))
    assert (KEY in line, "[secret]" in line, line.isprintable(), len(line) < 350) == (False, True, True, True)
