"""deploy/Caddyfile before the real Cog server, with Caddy's own program of the version in the image."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.hosts import DEPLOY, KEY, door, environment, status_code, tools
from tests.leaving import leave
from tests.tiny import save_tiny
from tests.waiting import until
from tools.serving.server import Server

SECRET = "prénom-du-pupille"
EVENTS = {"Accept": "text/event-stream"}
LONG = {"max_tokens": 2048, "min_tokens": 2048}
ABSENT = """
POST /shutdown  GET /shutdown  POST //shutdown  POST /Shutdown  POST /shutdown/  POST /%73hutdown
POST /predictions/../shutdown  PUT /predictions/..%2fshutdown  POST /trainings  PUT /trainings/a  GET /docs
GET /predictions  POST /predictions/a  PUT /predictions  PUT /predictions/a/b  DELETE /predictions/a  POST /
OPTIONS /predictions
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, log: Path) -> Iterator[Server]:
    """The endpoint on a tiny model, with a key; its log says when each request starts and ends early."""
    base = save_tiny(tmp_path_factory.mktemp("tiny"), num_hidden_layers=8, max_position_embeddings=4096)
    settings = {"SNB_BASE_MODEL": str(base), "SNB_ADAPTER": "none", "SNB_API_KEY": KEY}
    with log.open("w") as file, Server({**settings, "COG_LOG_LEVEL": "info"}, log=file) as server:
        server.wait()
        yield server


@pytest.fixture(scope="module")
def site(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """The door's URL and its log, once it lets through."""
    folder = tmp_path_factory.mktemp("door")
    with (folder / "log").open("w") as log, door(server.port, folder, log) as url:
        until(lambda: status_code(f"{url}/health-check") == 200)
        yield url, folder / "log"


def question(**inputs: object) -> dict[str, dict[str, object]]:
    return {"input": {"user_message": "Bonjour", "api_key": KEY, "max_tokens": 3, **inputs}}


def test_caddy_finds_it_valid_and_well_formatted(tmp_path: Path) -> None:
    def caddy(*arguments: str) -> str:
        command, home = [str(tools() / "caddy"), *arguments], environment(tmp_path)
        return subprocess.run(command, env=home, capture_output=True, text=True, check=True).stdout

    file = DEPLOY / "Caddyfile"
    caddy("validate", "--adapter", "caddyfile", "--config", str(file))
    assert caddy("fmt", str(file)) == file.read_text(encoding="utf-8")


@pytest.mark.server
def test_what_callers_do_not_need_is_not_there(site: tuple[str, Path], server: Server) -> None:
    for method, path in (line.split() for line in ABSENT.replace("\n", "  ").split("  ") if line):
        # As it stands: httpx would tidy the path.
        options = ["--silent", "--path-as-is", "--output", os.devnull, "--write-out", "%{http_code}"]
        command = ["curl", *options, "--request", method, site[0] + path]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert done.stdout == "404", (method, path)
    assert server.status() == "READY"


@pytest.mark.server
def test_all_that_callers_need_is_there(site: tuple[str, Path]) -> None:
    with httpx.Client(base_url=site[0], timeout=600) as client:
        assert client.get("/").json()["cog_version"]
        assert client.get("/openapi.json").json()["paths"]["/predictions"]
        answer = client.post("/predictions", json=question())
        assert answer.json()["status"] == "succeeded"
        assert client.put("/predictions/a_1-B", json=question()).json()["id"] == "a_1-B"
        assert client.post("/predictions", json=question(max_tokens=0)).status_code == 422
        assert answer.headers["Cache-Control"] == "no-store"
        for reply in (answer, client.get("/nothing")):
            assert reply.headers["X-Content-Type-Options"] == "nosniff"
            assert reply.headers["Strict-Transport-Security"]
            assert "server" not in reply.headers


@pytest.mark.server
def test_a_body_that_no_question_needs_is_refused(site: tuple[str, Path]) -> None:
    def post(length: int, by_pieces: bool = False) -> int:
        body = json.dumps(question(rag_context="x" * length)).encode()
        pieces = (body[at : at + 10_000] for at in range(0, len(body), 10_000))
        content, headers = pieces if by_pieces else body, {"Content-Type": "application/json"}
        url = f"{site[0]}/predictions"
        return httpx.post(url, content=content, headers=headers, timeout=600).status_code

    assert (post(1_000_000), post(1_000_000, by_pieces=True), post(900_000)) == (413, 413, 200)


@pytest.mark.server
@pytest.mark.parametrize("how", ["stream", "plain", "cancel"])
def test_a_caller_who_goes_away_or_cancels_frees_the_slot(
    site: tuple[str, Path], server: Server, log: Path, how: str
) -> None:
    def ended_early() -> int:
        return sum(log.read_text().count(words) for words in ("dropped after", "canceled after"))

    before, body = ended_early(), question(**LONG)
    if how == "cancel":
        url = f"{site[0]}/predictions/to-cancel"
        with httpx.stream("PUT", url, json=body, headers=EVENTS, timeout=600) as stream:
            lines = stream.iter_lines()
            next(line for line in lines if "chunk" in line)
            assert httpx.post(f"{url}/cancel").status_code == 200
            assert '"status":"canceled"' in "".join(lines)
    else:
        leave(site[0], body["input"], server, log, EVENTS if how == "stream" else {})
    until(lambda: ended_early() == before + 1)


@pytest.mark.server
def test_the_access_log_has_no_question_key_query_or_whole_address(site: tuple[str, Path]) -> None:
    url, log = site
    secrets = {"Authorization": KEY, "Cookie": KEY}
    body = question(user_message=SECRET)
    httpx.post(f"{url}/predictions?{SECRET}={KEY}", json=body, headers=secrets, timeout=600)
    written = log.read_text()
    lines = [json.loads(line) for line in written.splitlines() if "handled request" in line]
    assert {line["request"]["uri"] for line in lines} >= {"/predictions"}
    assert {line["request"]["remote_ip"] for line in lines} == {"127.0.0.0"}
    assert not [word for word in (KEY, SECRET, "pr%C3%A9nom") if word in written]
