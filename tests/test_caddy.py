"""deploy/Caddyfile before the front and the real Cog server, run by the Caddy version that Compose names."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.hosts import AUTHORIZED, DEPLOY, KEY, door, environment, puppet, puppet_server, status_code, tools
from tests.waiting import until
from tools.serving.server import free_port

SECRET = "prénom-du-pupille"
EVENTS = {"Accept": "text/event-stream"}
LONG = {"max_tokens": 2}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """Caddy's URL and its log, once requests reach the server behind it."""
    folder = tmp_path_factory.mktemp("door")
    with (
        puppet_server(puppet(folder / "project", "set-up"), SNB_API_KEY=KEY) as server,
        (folder / "log").open("w") as log,
        door(server.port, folder, log) as url,
    ):
        until(lambda: status_code(f"{url}/health-check") == 200)
        yield url, folder / "log"


def question(**inputs: object) -> dict[str, dict[str, object]]:
    return {"input": {"user_message": "Bonjour", "max_tokens": 1, **inputs}}


@pytest.mark.slow  # in a new clone Caddy is downloaded first
def test_caddy_finds_it_valid_and_well_formatted(tmp_path: Path) -> None:
    def caddy(*arguments: str) -> str:
        command, home = [str(tools() / "caddy"), *arguments], environment(tmp_path)
        return subprocess.run(command, env=home, capture_output=True, text=True, check=True).stdout

    file = DEPLOY / "Caddyfile"
    caddy("validate", "--adapter", "caddyfile", "--config", str(file))
    assert caddy("fmt", str(file)) == file.read_text(encoding="utf-8")


@pytest.mark.server
def test_who_has_the_key_is_answered_and_nobody_else(site: tuple[str, Path]) -> None:
    with httpx.Client(base_url=site[0], timeout=600) as client:
        assert client.get("/").status_code == 401
        answer = client.post("/predictions", json=question(), headers=AUTHORIZED)
        assert answer.json()["status"] == "succeeded"
        assert answer.headers["Cache-Control"] == "no-store"
        for reply in (answer, client.get("/nothing")):
            assert reply.headers["X-Content-Type-Options"] == "nosniff"
            assert reply.headers["Strict-Transport-Security"]
            assert "server" not in reply.headers


@pytest.mark.server
def test_a_caller_who_goes_away_frees_the_place(site: tuple[str, Path]) -> None:
    url = f"{site[0]}/predictions/{'a' * 32}"
    hasty = httpx.Client(headers=AUTHORIZED | EVENTS, timeout=600)
    with hasty, hasty.stream("PUT", url, json=question(**LONG)) as stream:
        next(line for line in stream.iter_lines() if "chunk" in line)
    until(lambda: httpx.get(url, headers=AUTHORIZED).json()["status"] == "canceled")


@pytest.mark.server
def test_the_access_log_has_no_question_key_query_or_whole_address(site: tuple[str, Path]) -> None:
    url, log = site
    secrets = {**AUTHORIZED, "Cookie": KEY}
    body, path = question(user_message=SECRET), f"/predictions/{'b' * 32}"
    httpx.put(f"{url}{path}?{SECRET}={KEY}", json=body, headers=secrets, timeout=600)
    until(lambda: path in log.read_text())  # the log line may come after the answer
    written = log.read_text()
    lines = [json.loads(line) for line in written.splitlines() if "handled request" in line]
    assert path in {line["request"]["uri"] for line in lines}
    assert {line["request"]["remote_ip"] for line in lines} == {"127.0.0.0"}
    assert not [word for word in (KEY, SECRET, "pr%C3%A9nom") if word in written]


@pytest.mark.server
def test_while_the_container_starts_again_a_caller_is_told_to_wait(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w") as log, door(free_port(), tmp_path, log) as url:
        reply = httpx.post(f"{url}/predictions", json=question())
    assert (reply.status_code, reply.json()) == (503, {"error": "Setup has not finished"})
    assert reply.headers["Retry-After"]
