"""What tells a host that questions are answered: Caddy's, Compose's and SkyPilot's probes of one server."""

import subprocess
import threading
from pathlib import Path

import httpx
import pytest

from tests.hosts import composed, door, puppet, puppet_server, skypilot, status_code
from tests.waiting import until

EVENTS = {"Accept": "text/event-stream"}


@pytest.mark.server
def test_every_probe_is_true_only_where_questions_are_answered_and_answers_stream(tmp_path: Path) -> None:
    folder = puppet(tmp_path / "project")
    _, script = composed(tmp_path)["services"]["model"]["healthcheck"]["test"]
    path = skypilot(tmp_path)["probe"]
    with (
        puppet_server(folder) as server,
        (tmp_path / "log").open("w") as log,
        door(server.port, tmp_path, log) as url,
    ):
        here = script.replace("127.0.0.1:5000", f"127.0.0.1:{server.port}")
        questions = f"{server.url}/predictions"

        def seen() -> tuple[str, bool, int, int]:
            """Cog's word, Compose's verdict, SkyPilot's probe, and Caddy's reply to the same word."""
            healthy = subprocess.run(["/bin/sh", "-c", here], check=False).returncode == 0
            return (
                server.status(),
                healthy,
                status_code(server.url + path),
                status_code(f"{url}/health-check"),
            )

        until(lambda: seen() == ("STARTING", False, 503, 503))
        refused = httpx.put(f"{url}/predictions/a", json={}, headers=EVENTS)
        assert (refused.status_code, "Setup" in refused.json()["error"]) == (503, True)

        (folder / "set-up").touch()
        until(lambda: seen() == ("READY", True, 200, 200))
        # The first piece is here before the second exists, for that waits for a file.
        body = {"input": {"max_tokens": 3}}
        with httpx.stream("PUT", f"{url}/predictions/a", json=body, headers=EVENTS, timeout=600) as stream:
            lines = stream.iter_lines()
            assert '"chunk":"0 "' in next(line for line in lines if "chunk" in line)
            (folder / "go-on").touch()
            assert sum("chunk" in line for line in lines) == 2
        (folder / "go-on").unlink()

        # A full server is well: it says 409, and the door stays open for what it is answering. It is full
        # before the door opens again, which so has not seen it with a free place.
        (folder / "sick").touch()
        until(lambda: seen()[0] == "UNHEALTHY" and seen()[3] == 503)

        def hold() -> None:
            """Takes a place; one that the question below had at the moment is tried for again."""
            until(lambda: httpx.post(questions, json={"input": {}}, timeout=600).status_code != 409)

        answers = [threading.Thread(target=hold) for _ in range(2)]
        for one in answers:
            one.start()
        until(lambda: httpx.post(questions, json={"input": {"max_tokens": 0}}).status_code == 409)
        (folder / "sick").unlink()
        until(lambda: seen() == ("BUSY", True, 200, 200))
        assert httpx.post(f"{url}/predictions", json={"input": {}}).status_code == 409
        (folder / "go-on").touch()
        for one in answers:
            one.join()
        server.close()
        assert seen()[1:3] == (False, 0)
        assert httpx.post(f"{url}/predictions", json={}).status_code == 503
