"""deploy/Caddyfile before the real Cog server, with Debian's Caddy and with the version of the image."""

import json
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from snb.settings import ROOT
from tests.hosts import DEPLOY, door, environment, puppet, puppet_server, tools
from tests.leaving import leave
from tests.tiny import save_tiny
from tests.waiting import until
from tools.serving.server import Server

pytestmark = pytest.mark.server
KEY = "a-key-of-the-operator"
SECRET = "prénom-du-pupille"
INTERVAL = 2.5
"""Seconds within which Caddy has looked at Cog's health."""
EVENTS = {"Accept": "text/event-stream"}


@pytest.fixture(scope="module", params=["debian", "image"])
def caddy(request: pytest.FixtureRequest) -> str:
    """Each Caddy's program."""
    found = shutil.which("caddy") if request.param == "debian" else str(tools() / "caddy")
    if not found:
        pytest.skip("Debian's caddy is not installed: apt-get install caddy")
    return found


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Path]]:
    """The endpoint on a tiny model, with a key; and its log, which says when each request starts."""
    folder = tmp_path_factory.mktemp("server")
    settings = {"SNB_BASE_MODEL": str(save_tiny(folder / "tiny")), "SNB_ADAPTER": "none", "SNB_API_KEY": KEY}
    settings["COG_LOG_LEVEL"] = "info"
    with (folder / "log").open("w") as log, Server(settings, log=log) as running:
        running.wait()
        yield running, folder / "log"


@pytest.fixture(scope="module")
def site(
    caddy: str, server: tuple[Server, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, Path]]:
    """The door's URL and its log, once it lets through."""
    folder = tmp_path_factory.mktemp("door")
    with (folder / "log").open("w") as log, door(caddy, server[0].port, folder, log) as url:
        until(lambda: httpx.get(f"{url}/health-check").status_code == 200)
        yield url, folder / "log"


def question(**inputs: object) -> dict[str, dict[str, object]]:
    return {"input": {"user_message": "Bonjour", "api_key": KEY, "max_tokens": 3, **inputs}}


def test_caddy_finds_it_valid_and_well_formatted(caddy: str, tmp_path: Path) -> None:
    file = DEPLOY / "Caddyfile"
    command = [caddy, "validate", "--adapter", "caddyfile", "--config", file]
    done = subprocess.run(command, env=environment(tmp_path), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    formatted = subprocess.run([caddy, "fmt", file], capture_output=True, text=True, check=True)
    assert formatted.stdout == file.read_text(encoding="utf-8")


def test_a_domain_gets_https_with_a_public_certificate_and_localhost_one_of_caddys_own(
    caddy: str, tmp_path: Path
) -> None:
    issuers = {}
    for host in ("spinoza.example.org", "localhost"):
        command = [caddy, "adapt", "--adapter", "caddyfile", "--config", DEPLOY / "Caddyfile"]
        text = subprocess.run(
            command, env=environment(tmp_path, SNB_HOST=host), capture_output=True, text=True, check=True
        ).stdout
        [listener] = json.loads(text)["apps"]["http"]["servers"].values()
        assert listener["listen"] == [":443"]
        assert "automatic_https" not in listener
        issuers[host] = json.loads(text)["apps"].get("tls", {})
    # Nothing is set, so Caddy's own rule holds: ACME, and its internal authority for localhost and addresses.
    assert issuers == {"spinoza.example.org": {}, "localhost": {}}


def test_nothing_is_let_through_until_setup_is_over_and_health_says_why(caddy: str, tmp_path: Path) -> None:
    folder = puppet(tmp_path / "project")
    with (
        puppet_server(folder) as server,
        (tmp_path / "log").open("w") as log,
        door(caddy, server.port, tmp_path, log) as url,
    ):
        until(lambda: httpx.post(f"{url}/predictions", json={}).status_code == 503)
        refused = httpx.put(f"{url}/predictions/a", json={}, headers=EVENTS)
        assert refused.status_code == 503
        assert "Setup" in refused.json()["error"]  # which the client takes for a cold start
        starting = httpx.get(f"{url}/health-check")
        assert (starting.status_code, starting.json()["status"]) == (503, "STARTING")

        (folder / "set-up").touch()
        until(lambda: httpx.get(f"{url}/health-check").status_code == 200)
        assert httpx.get(f"{url}/health-check").json()["status"] == "READY"
        assert httpx.get(url).json()["cog_version"]

        # A full server is well: it says 409, and the door stays open for what it is answering.
        asked = {"json": {}, "timeout": 60}
        answers = [
            threading.Thread(target=httpx.post, args=(f"{url}/predictions",), kwargs=asked),
            threading.Thread(target=httpx.put, args=(f"{url}/predictions/b",), kwargs=asked),
        ]
        for one in answers:
            one.start()
        until(lambda: server.status() == "BUSY")
        assert httpx.post(f"{url}/predictions", json={}).status_code == 409
        looked_twice = time.monotonic() + 2 * INTERVAL
        while time.monotonic() < looked_twice:
            full = httpx.get(f"{url}/health-check")
            assert (full.status_code, full.json()["status"]) == (200, "BUSY")
            time.sleep(0.1)
        (folder / "go-on").touch()
        for one in answers:
            one.join()

        (folder / "sick").touch()
        until(lambda: httpx.post(f"{url}/predictions", json={}).status_code == 503)
        sick = httpx.get(f"{url}/health-check")
        assert (sick.status_code, sick.json()["status"]) == (503, "UNHEALTHY")


def test_a_failed_setup_is_told_and_so_is_a_server_that_is_not_there(caddy: str, tmp_path: Path) -> None:
    folder = puppet(tmp_path / "project")
    (folder / "fail").touch()
    (folder / "set-up").touch()
    with puppet_server(folder) as server, (tmp_path / "log").open("w") as log:
        until(lambda: server.status() == "SETUP_FAILED")
        with door(caddy, server.port, tmp_path, log) as url:
            failed = httpx.get(f"{url}/health-check")
            assert (failed.status_code, failed.json()["status"]) == (503, "SETUP_FAILED")
            server.close()
            assert httpx.get(f"{url}/health-check").status_code in (502, 503)
            assert httpx.post(f"{url}/predictions", json={}).status_code == 503


def test_an_answer_streams_through_token_by_token(site: tuple[str, Path], caddy: str, tmp_path: Path) -> None:
    """The first piece is here before the second exists, for that waits for a file."""
    folder = puppet(tmp_path / "project")
    (folder / "set-up").touch()
    with (
        puppet_server(folder) as server,
        (tmp_path / "log").open("w") as log,
        door(caddy, server.port, tmp_path, log) as url,
    ):
        until(lambda: httpx.get(f"{url}/health-check").status_code == 200)
        body = {"input": {"pieces": 3}}
        with httpx.stream("PUT", f"{url}/predictions/a", json=body, headers=EVENTS) as stream:
            lines = stream.iter_lines()
            first = next(line for line in lines if "chunk" in line)
            assert json.loads(first.removeprefix("data: ")) == {"chunk": "0 ", "index": 0}
            (folder / "go-on").touch()
            assert sum("chunk" in line for line in lines) == 2


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/shutdown"),
        ("GET", "/shutdown"),
        ("POST", "//shutdown"),
        ("POST", "/Shutdown"),
        ("POST", "/shutdown/"),
        ("POST", "/%73hutdown"),
        ("POST", "/predictions/../shutdown"),
        ("PUT", "/predictions/..%2fshutdown"),
        ("POST", "/trainings"),
        ("PUT", "/trainings/a"),
        ("POST", "/trainings/a/cancel"),
        ("GET", "/docs"),
        ("GET", "/predictions"),
        ("POST", "/predictions/a"),
        ("PUT", "/predictions"),
        ("PUT", "/predictions/" + "a" * 65),
        ("PUT", "/predictions/a/b"),
        ("DELETE", "/predictions/a"),
        ("POST", "/"),
        ("POST", "/health-check"),
        ("OPTIONS", "/predictions"),
    ],
)
def test_what_callers_do_not_need_is_not_there(
    site: tuple[str, Path], server: tuple[Server, Path], method: str, path: str
) -> None:
    # As it stands: httpx would tidy the path.
    options = ["--silent", "--path-as-is", "--output", os.devnull, "--write-out", "%{http_code}"]
    command = ["curl", *options, "--request", method, site[0] + path]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "404"
    assert server[0].status() == "READY"


def test_all_that_callers_need_is_there(site: tuple[str, Path]) -> None:
    url = site[0]
    assert httpx.get(url).json()["cog_version"]
    assert httpx.head(url).status_code == 200
    assert httpx.get(f"{url}/openapi.json").json()["paths"]["/predictions"]
    asked = httpx.post(f"{url}/predictions", json=question(), timeout=60)
    assert asked.json()["status"] == "succeeded"
    assert httpx.put(f"{url}/predictions/a_1-B", json=question(), timeout=60).json()["id"] == "a_1-B"
    assert httpx.post(f"{url}/predictions", json=question(max_tokens=0)).status_code == 422
    unknown = httpx.post(f"{url}/predictions", json=question(api_key="another"))
    assert "UNAUTHORIZED" in unknown.json()["error"]
    assert unknown.headers["Cache-Control"] == "no-store"
    assert unknown.headers["X-Content-Type-Options"] == "nosniff"
    assert "server" not in unknown.headers
    refused = httpx.get(f"{url}/nothing")
    assert refused.headers["Strict-Transport-Security"]
    assert "server" not in refused.headers


@pytest.mark.parametrize("told", [True, False])
def test_a_body_that_no_question_needs_is_refused(site: tuple[str, Path], told: bool) -> None:
    body = json.dumps(question(rag_context="x" * 1_000_000)).encode()

    def pieces() -> Iterator[bytes]:
        yield from (body[at : at + 10_000] for at in range(0, len(body), 10_000))

    headers = {"Content-Type": "application/json"}
    refused = httpx.post(f"{site[0]}/predictions", content=body if told else pieces(), headers=headers)
    assert refused.status_code == 413
    long = question(rag_context="x" * 900_000)
    assert httpx.post(f"{site[0]}/predictions", json=long, timeout=60).status_code == 200


def ended_early(log: Path) -> int:
    """How many answers have so far. Who ends one waits until it counts."""
    return sum(log.read_text().count(how) for how in ("dropped after", "canceled after"))


@pytest.mark.parametrize("headers", [EVENTS, {}], ids=["events", "plain"])
def test_a_caller_who_goes_away_frees_the_slot(
    site: tuple[str, Path], server: tuple[Server, Path], headers: dict[str, str]
) -> None:
    """With `flush_interval -1` and Caddy 2.6.2 a plain one does not."""
    running, log = server
    before = ended_early(log)
    leave(site[0], question(max_tokens=2048, min_tokens=2048)["input"], running, log, headers)
    until(lambda: ended_early(log) == before + 1)


def test_cancel_reaches_a_running_answer(site: tuple[str, Path], server: tuple[Server, Path]) -> None:
    url, log = f"{site[0]}/predictions/to-cancel", server[1]
    before = ended_early(log)
    body = question(max_tokens=2048, min_tokens=2048)
    with httpx.stream("PUT", url, json=body, headers=EVENTS, timeout=60) as stream:
        lines = stream.iter_lines()
        next(line for line in lines if "chunk" in line)
        assert httpx.post(f"{url}/cancel").status_code == 200
        done = [line for line in lines if '"status"' in line][-1]
    assert json.loads(done.removeprefix("data: "))["status"] == "canceled"
    assert httpx.post(f"{url}/cancel").status_code == 404
    until(lambda: ended_early(log) == before + 1)


def test_the_access_log_has_no_question_key_query_or_whole_address(site: tuple[str, Path]) -> None:
    url, log = site
    httpx.post(f"{url}/predictions?{SECRET}={KEY}", json=question(user_message=SECRET), timeout=60)
    httpx.post(
        f"{url}/predictions", json=question(), headers={"Authorization": KEY, "Cookie": KEY}, timeout=60
    )
    written = log.read_text()
    lines = [json.loads(line) for line in written.splitlines() if "handled request" in line]
    assert {line["request"]["uri"] for line in lines} >= {"/predictions"}
    assert {line["request"]["remote_ip"] for line in lines} == {"127.0.0.0"}
    assert KEY not in written
    assert SECRET not in written
    assert "pr%C3%A9nom" not in written


def test_the_javascript_client_asks_through_it(site: tuple[str, Path], tmp_path: Path) -> None:
    if not shutil.which("node"):
        pytest.skip("Node is not installed")
    script = f"""
        import {{ callSNB }} from {json.dumps(str(ROOT / "client" / "src" / "index.js"))};
        const pieces = [];
        const options = {{ onToken: (piece) => pieces.push(piece), maxTokens: 20 }};
        const text = await callSNB("kant", "", "Bonjour", options);
        console.log(JSON.stringify([text, pieces.join("")]));
    """
    settings = environment(tmp_path, SNB_BACKEND_URL=site[0], SNB_API_KEY=KEY)
    command = ["node", "--input-type=module", "--eval", script]
    done = subprocess.run(command, env=settings, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    text, pieces = json.loads(done.stdout.splitlines()[-1])
    assert text == pieces != ""
