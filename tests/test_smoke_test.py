"""scripts/smoke-test: the real servers pass, and each kind of broken one is named."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, get_type_hints

import pydantic
import pytest
from openai.types import Model
from openai.types.chat import ChatCompletionChunk, completion_create_params

from snb.settings import ROOT
from tests.cog_double import FRENCH, Double
from tests.conftest import NOTICE
from tests.replicate_server import ReplicateServer
from tests.space_page import SpacePage
from tests.tiny import save_tiny
from tests.waiting import until
from tools.endpoints import endpoint
from tools.endpoints.endpoint import Failed
from tools.endpoints.readiness import ENDS, POLL
from tools.rehearsing import checks, smoke_test
from tools.rehearsing.reply import Reply
from tools.rehearsing.verdict import FAILED, NOTE, OK, WARNING, Verdict
from tools.serving.server import FRONT, Server, free_port

pytestmark = pytest.mark.slow  # every test runs the whole smoke test against a server

ENGLISH = (
    "Freedom is not to do whatever one wants, because what we want has causes of its own; it is to grasp "
    "these causes, and to act from reason rather than from fear."
)
KEY = "une-cle-de-la-classe"
TOKEN = "r8_test"


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    """No key or token of a developer's; and a reader who left is looked after sooner."""
    for name in ("SNB_API_KEY", "SNB_OPENAI_TOKEN", "REPLICATE_API_TOKEN", "REPLICATE_API_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(checks, "LEFT", 0.3)
    monkeypatch.setattr(endpoint, "offline", lambda: False)  # conftest.py refuses every way out


def command(address: str, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command, as a user runs it."""
    words = [sys.executable, str(ROOT / "scripts" / "smoke-test"), address, *options]
    return subprocess.run(words, env={**os.environ, **environment}, capture_output=True, text=True)


def checked(server: Double, limit: float = 30) -> dict[str, Verdict]:
    """The last verdict on each subject; of several, one that failed."""
    verdicts: dict[str, Verdict] = {}
    for verdict in smoke_test.verdicts(server.url, limit):
        if verdict.subject not in verdicts or verdicts[verdict.subject].state != FAILED:
            verdicts[verdict.subject] = verdict
    return verdicts


# Fourteen checks, some of whole answers.
@pytest.mark.server
def test_the_real_server_passes_and_every_check_has_its_line(cog: Server) -> None:
    done = command(cog.url)
    assert done.returncode == 0, done.stdout
    lines = [line.split(None, 2) for line in done.stdout.partition("\n\n")[0].splitlines()]
    ok = [subject for state, subject, _ in lines if state == OK]
    assert ok[:7] == ["ready", "bergson", "kant", "spinoza", "stream", "metrics", "seed"]
    assert ok[7:] == ["cancel", "left", "bad", "bad", "others"]
    assert [subject for state, subject, _ in lines if state == NOTE] == ["language", "times"]
    assert NOTICE in done.stdout
    assert done.stderr == ""


@pytest.mark.server
@pytest.mark.parametrize("address", ["owner/spinoza", "replicate:deployments/owner/classe"])
def test_a_model_and_a_deployment_on_replicate_pass(cog: Server, address: str) -> None:
    with ReplicateServer(cog.url, TOKEN) as api:
        done = command(address, REPLICATE_API_TOKEN=TOKEN, REPLICATE_API_BASE_URL=api.url, SNB_API_KEY=KEY)
    assert done.returncode == 0, done.stdout
    for subject in ("stream", "metrics", "seed", "cancel", "bad input", "others"):
        assert f"\nok       {subject}" in done.stdout
    assert TOKEN not in done.stdout
    assert not [asked for asked in api.log if KEY in str(asked)]


def test_a_version_that_is_not_there_and_a_token_that_is_wrong_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with ReplicateServer("http://127.0.0.1:9", TOKEN) as api:
        monkeypatch.setenv("REPLICATE_API_BASE_URL", api.url)
        for token, address, status in ((TOKEN, "owner/spinoza:abc", 404), ("r8_no", "owner/spinoza", 401)):
            monkeypatch.setenv("REPLICATE_API_TOKEN", token)
            [verdict] = smoke_test.verdicts(address, 30)
            assert (verdict.state, f"HTTP {status}" in verdict.seen) == (FAILED, True)


@pytest.mark.server
def test_a_server_with_a_key_is_asked_with_it_and_lets_no_other_in(tmp_path: Path) -> None:
    base = save_tiny(tmp_path / "base", max_position_embeddings=4096)
    settings = {"SNB_BASE_MODEL": str(base), "SNB_ADAPTER": "none", "SNB_SLOTS": "4", "SNB_API_KEY": KEY}
    with (tmp_path / "log").open("w") as file, Server(settings, log=file, module=FRONT) as server:
        # Not waited for: that is the command's first job.
        inside = command(server.url, "--boot", "300", SNB_API_KEY=KEY)
        outside, wrong = command(server.url), command(server.url, SNB_API_KEY=f"{KEY}-d-hier")
    assert inside.returncode == 0, inside.stdout
    assert inside.stdout.count("\nok       key") == 2
    assert KEY not in inside.stdout + inside.stderr
    assert (outside.returncode, wrong.returncode) == (1, 1)
    assert "UNAUTHORIZED: set SNB_API_KEY" in outside.stdout
    assert "UNAUTHORIZED: SNB_API_KEY here is not the server's" in wrong.stdout


class Provider(ThreadingHTTPServer):
    """Answers in the words of OpenAI's own client."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), ProviderHandler)
        self.asked: list[dict[str, Any]] = []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()


class ProviderHandler(BaseHTTPRequestHandler):
    server: Provider

    def do_GET(self) -> None:
        """The models, to who has the token."""
        allowed = self.headers["Authorization"] == f"Bearer {TOKEN}"
        model = Model(id="qwen", created=0, object="model", owned_by="somebody")
        self.say(200 if allowed else 401, json.dumps({"data": [model.model_dump()]}))

    def do_POST(self) -> None:
        """An answer, with its usage at the end."""
        self.server.asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        fixed = {"id": "1", "created": 0, "model": "qwen", "object": "chat.completion.chunk"}
        texts = [{"index": 0, "delta": {"content": f"{word} "}} for word in FRENCH.split()]
        usage = {"completion_tokens": 48, "prompt_tokens": 9, "total_tokens": 57}
        last = {"index": 0, "delta": {}, "finish_reason": "stop"}
        events = [{"choices": [one]} for one in (*texts, last)] + [{"choices": [], "usage": usage}]
        chunks = [ChatCompletionChunk.model_validate(fixed | event) for event in events]
        lines = [chunk.model_dump_json() for chunk in chunks]
        self.say(200, "".join(f"data: {line}\n\n" for line in (*lines, "[DONE]")), "text/event-stream")

    def say(self, status: int, content: str, kind: str = "application/json") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.end_headers()
        self.wfile.write(content.encode())

    def log_message(self, *_: object) -> None:
        """Nothing."""


class French:
    """What a Space asks for its answers, in place of a model that speaks the language."""

    def stream(self, **_: Any) -> Iterator[tuple[str, dict[str, Any]]]:
        text = f"Erreur : {FRENCH}"  # an answer like any other
        yield from (("output", {"chunk": f"{word} "}) for word in text.split())
        yield "completed", {"status": "succeeded"}


def test_a_space_of_the_old_kind_passes_and_what_it_cannot_do_is_a_note(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from tools.rehearsing.old_space import OldSpace  # takes seconds to import

    monkeypatch.setenv("SNB_API_KEY", KEY)  # of the second backend
    with OldSpace(French()) as space:  # type: ignore[arg-type]
        verdicts = list(smoke_test.verdicts(f"{space.url}/", 30))
    ok = [verdict.subject for verdict in verdicts if verdict.state == OK]
    assert ok == ["ready", "bergson", "kant", "spinoza", "stream", "language"]
    assert [verdict.subject for verdict in verdicts if verdict.state != OK] == ["times", "left out"]
    assert "seed" in verdicts[-1].seen


# The page starts, before a server.
@pytest.mark.server
def test_the_page_passes_with_seed_and_bad_inputs(cog: Server, tmp_path: Path) -> None:
    with SpacePage({"SNB_BACKEND_URL": cog.url}, tmp_path / "log") as page:
        verdicts = list(smoke_test.verdicts(page.url, 60))
    states = {verdict.subject: verdict.state for verdict in verdicts}
    assert states == {
        **dict.fromkeys(("ready", "bergson", "kant", "spinoza", "stream", "metrics"), OK),
        **dict.fromkeys(("seed", "bad input", "others"), OK),
        **dict.fromkeys(("language", "times", "left out"), NOTE),
    }, verdicts


def test_a_double_without_a_fault_passes() -> None:
    with Double() as server:
        verdicts = checked(server)
    assert {verdict.state for verdict in verdicts.values()} == {OK, NOTE}
    assert verdicts["language"].state == OK


@pytest.mark.parametrize(
    ("fault", "subject", "words"),
    [
        ("setup failed", "reach", "SETUP_FAILED: WEIGHTS_MISSING: no such folder"),
        ("no seed", "schema", "no input seed"),
        ("cut", "spinoza", "stream ended before the answer"),
        ("forgets the seed", "seed", "three different answers"),
        ("ignores cancel", "cancel", "went on to its end"),
        ("ignores leaving", "left", "after its reader had left"),
        ("accepts anything", "bad input", "a message of 4,001 characters was answered"),
        ("vague", "bad input", "does not name user_message"),
        ("short", "others", "has 32 of 96 tokens"),
    ],
)
def test_a_broken_server_fails_the_check_that_is_for_it(fault: str, subject: str, words: str) -> None:
    with Double(fault) as server:
        verdict = checked(server)[subject]
    assert (verdict.state, words in verdict.seen) == (FAILED, True), verdict


def test_a_server_that_stalls_is_left_in_bounded_time() -> None:
    with Double("stalls") as server:
        verdicts = checked(server, limit=0.5)
    assert verdicts["spinoza"].seen == "no end within 0.5 s"
    assert list(verdicts)[-1] == "rest"


def test_a_near_tie_is_a_warning() -> None:
    with Double("has a tie") as server:
        assert checked(server)["seed"].state == WARNING


def test_a_door_that_lets_everybody_in_fails_where_a_key_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SNB_API_KEY", KEY)
    with Double(key=KEY) as server:
        assert checked(server)["key"].state == OK
    with Double() as server:
        assert "a wrong key was let in" in checked(server)["key"].seen


# A program, and the wait for an answer whose reader has left.
def test_every_failure_is_listed_again_at_the_end_and_the_exit_is_1() -> None:
    with Double("forgets the seed", "accepts anything") as server:
        done = command(server.url)
    assert done.returncode == 1
    last = done.stdout.partition("\n\n")[2].splitlines()
    assert last[0] == "3 failed:"
    assert [line.split()[1] for line in last[1:]] == ["seed", "bad", "bad"]


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("http://127.0.0.1:9", "Connection refused; if a server is still booting there, add --boot"),
        ("127.0.0.1:9/", "Connection refused"),
        ("no-such-host.invalid", "Name or service not known"),
        ("owner/spinoza", "set REPLICATE_API_TOKEN"),
        ("replicate:owner/spinoza", "set REPLICATE_API_TOKEN"),
        ("http://[", "neither a host"),
        ("ftp://host", "neither a host"),
        ("a/b/c", "neither a host"),
        ("openai:https://host.example/v1#", "write openai:https://HOST/v1#MODEL"),
        ("openai:http://127.0.0.1:9/v1#qwen", "Connection refused"),
    ],
)
def test_what_cannot_be_asked_fails_at_once_and_says_why(
    address: str, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    [verdict] = smoke_test.verdicts(address, 1)
    assert verdict.state == FAILED
    assert reason in verdict.seen
    assert not capsys.readouterr().err  # it has not waited


@pytest.mark.parametrize("address", ["a.invalid", "openai:https://a.invalid/v1#m", "owner/spinoza"])
def test_without_a_network_one_line_says_so_and_what_still_works(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoint, "offline", lambda: True)
    monkeypatch.setenv("REPLICATE_API_TOKEN", TOKEN)
    monkeypatch.setenv("REPLICATE_API_BASE_URL", "http://a.invalid")
    [verdict] = smoke_test.verdicts(address, 30, boot=30)
    assert verdict.seen.startswith("NO_NETWORK: "), verdict
    assert "Still to be had: scripts/serve" in verdict.seen


def test_a_machine_is_offline_where_the_kernel_has_no_route() -> None:
    asks = [sys.executable, "-c", "from tools.network import offline; print(offline())"]
    alone = ["unshare", "--map-root-user", "--net"]
    if subprocess.run([*alone, "true"]).returncode:
        pytest.skip("this machine has no `unshare --map-root-user --net`")
    assert subprocess.check_output([*alone, *asks], cwd=ROOT, text=True) == "True\n"


def test_a_provider_is_asked_what_its_own_client_would_ask_and_refusals_name_the_token_and_the_model(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kind = completion_create_params.CompletionCreateParamsStreaming
    with Provider() as provider:
        base = f"http://127.0.0.1:{provider.server_port}/v1"
        [verdict] = smoke_test.verdicts(f"openai:{base}#qwen", 30)
        assert verdict.seen == "UNAUTHORIZED: set SNB_OPENAI_TOKEN"
        monkeypatch.setenv("SNB_OPENAI_TOKEN", TOKEN)
        [verdict] = smoke_test.verdicts(f"openai:{base}#other", 30)
        assert "no model other, but qwen" in verdict.seen
        verdicts = list(smoke_test.verdicts(f"openai:{base}/chat/completions#qwen", 30))
    assert FAILED not in {verdict.state for verdict in verdicts}, verdicts
    assert [verdict.subject for verdict in verdicts if verdict.state == WARNING] == ["stopgap"]
    for asked in provider.asked:
        pydantic.TypeAdapter(kind).validate_python(asked, strict=True)
        assert {*asked} <= get_type_hints(kind).keys()


@pytest.mark.parametrize(
    ("scheme", "path", "reason"),
    [
        ("http", "/page", "GET /health-check has HTTP 404"),
        ("http", "/old", "HTTP 301, which redirects to http://elsewhere"),
        ("https", "", "a server without TLS needs http:// in front"),
    ],
)
def test_a_host_that_is_something_else_is_told(scheme: str, path: str, reason: str) -> None:
    with Double() as server:
        [verdict] = smoke_test.verdicts(f"{scheme}://127.0.0.1:{server.server_port}{path}", 1)
    assert (verdict.state, reason in verdict.seen) == (FAILED, True), verdict


def test_an_empty_key_is_a_fault_wherever_one_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SNB_API_KEY", "")
    with Double() as server:
        [verdict] = smoke_test.verdicts(server.url, 30)
    assert (verdict.state, "set and empty" in verdict.seen) == (FAILED, True)


def test_an_open_server_that_others_reach_is_a_warning() -> None:
    with Double() as server:
        verdicts = list(smoke_test.verdicts(f"http://127.1:{server.server_port}", 30))
    assert [verdict.subject for verdict in verdicts if verdict.state == WARNING] == ["key"]


# A server boots for some seconds, and is looked at twice a second.
def test_a_container_that_boots_is_waited_for_until_it_ends_again_and_again(
    capsys: pytest.CaptureFixture[str],
) -> None:
    port = free_port()

    def boot() -> None:
        """Comes and goes, as a container whose setup fails."""
        for _ in range(ENDS):
            with Double("starts", port=port) as server:
                until(lambda: server.looks > 1)
            time.sleep(2 * POLL)

    threading.Thread(target=boot, daemon=True).start()
    [verdict] = smoke_test.verdicts(f"http://127.0.0.1:{port}", 30, boot=120)
    assert (verdict.state, "ended while it was booting" in verdict.seen) == (FAILED, True), verdict
    told = capsys.readouterr().err
    assert told.count("waiting for the server: STARTING") == ENDS
    assert "Connection refused" in told


def reply(text: str = FRENCH, came: float = 4.0, **metrics: Any) -> Reply:
    """An answer of 30 tokens written in 4 s, whose text came in pieces over so many seconds."""
    count = len(text.split())
    times = tuple(0.1 + came * number / count for number in range(count))
    asked = {"philosopher": "kant", "min_tokens": 24, "max_tokens": 96, "seed": 2026}
    usual = {"input_token_count": 100, "output_token_count": 30, "finish_reason": "stop", "seed": 2026}
    usual |= {"time_to_first_token": 0.1, "tokens_per_second": 7.5}
    return Reply(asked, text, times, 4.1, {**usual, **metrics})


@pytest.mark.parametrize(
    ("check", "bad", "words"),
    [
        (checks.stream, reply("Oui."), "the answers of kant came in one piece"),
        (checks.stream, reply(came=0.1), "holds it back"),
        (checks.metrics, reply(output_token_count=0), "output_token_count is 0, not 24 to 96"),
        (checks.metrics, reply(input_token_count=None, seed=None), "no input_token_count, seed"),
        (checks.metrics, reply(finish_reason="deadline"), "finish_reason is deadline"),
        (checks.metrics, reply(seed=7), "seed is 7, not the 2026 that was sent"),
        (checks.metrics, reply(time_to_first_token=1000), "time_to_first_token is 1000 s, of 4.100 s"),
        (checks.language, reply(ENGLISH), "not French: kant"),
        (checks.language, reply("自由是必然的认识，人们自以为自由。"), "kant zh"),
    ],
)
def test_what_is_wrong_with_an_answer_is_named(
    check: Callable[[list[Reply]], checks.Seen], bad: Reply, words: str
) -> None:
    assert check([reply()])[0] == OK
    with pytest.raises(Failed, match=words):
        check([bad])


def test_the_poor_french_of_a_stand_in_is_told_and_is_no_failure() -> None:
    state, seen = checks.language([reply(ENGLISH, notice="a stand-in")])
    assert (state, "en 100%" in seen, "a stand-in" in seen) == (NOTE, True, True)


def test_a_line_is_one_line_without_secrets_and_harmless_to_a_terminal() -> None:
    line = Verdict(OK, "kant", f"\x1b[31mrouge\n{KEY} " + "x" * 400).line([KEY, ""])
    assert (KEY in line, "[secret]" in line, line.isprintable(), len(line) < 350) == (False, True, True, True)
