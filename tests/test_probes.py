"""What tells a host that questions are answered: Caddy's, Compose's and SkyPilot's probes of one server."""

import subprocess
from pathlib import Path

import httpx
import pytest

from tests.hosts import composed, door, puppet, puppet_server, skypilot, status_code
from tests.waiting import until

EVENTS = {"Accept": "text/event-stream"}
NAMES = ("a" * 32, "b" * 32, "c" * 32)


@pytest.mark.server
def test_every_probe_is_true_only_where_questions_are_answered_and_answers_stream(tmp_path: Path) -> None:
    folder = puppet(tmp_path / "project")
    kind, *command = composed(tmp_path)["services"]["model"]["healthcheck"]["test"]
    assert kind == "CMD"
    path = skypilot(tmp_path)["probe"]
    with (
        puppet_server(folder) as server,
        (tmp_path / "log").open("w") as log,
        door(server.port, tmp_path, log) as url,
    ):
        here = [part.replace("127.0.0.1:5000", f"127.0.0.1:{server.port}") for part in command]

        def seen() -> tuple[str, bool, int, int]:
            """The server's word, Compose's verdict, SkyPilot's probe, and Caddy's reply to the same word."""
            healthy = subprocess.run(here, check=False, capture_output=True).returncode == 0
            return (
                server.status(),
                healthy,
                status_code(server.url + path),
                status_code(f"{url}/health-check"),
            )

        def ask(name: str, **headers: str) -> httpx.Response:
            return httpx.put(f"{url}/predictions/{name}", json={"input": {}}, headers=headers, timeout=600)

        until(lambda: seen() == ("STARTING", False, 503, 503))
        refused = ask(NAMES[0])
        assert (refused.status_code, "Setup" in refused.json()["error"]) == (503, True)

        (folder / "set-up").touch()
        until(lambda: seen() == ("READY", True, 200, 200))
        # The first piece is here before the second exists, for that waits for a file.
        body, address = {"input": {"max_tokens": 3}}, f"{url}/predictions/{'d' * 32}"
        with httpx.stream("PUT", address, json=body, headers=EVENTS, timeout=600) as stream:
            lines = stream.iter_lines()
            assert '"chunk": "0 "' in next(line for line in lines if "chunk" in line)
            (folder / "go-on").touch()
            assert "2 " in "".join(line for line in lines if "chunk" in line)
        (folder / "go-on").unlink()

        # A full server is well.
        assert [ask(name, Prefer="respond-async").status_code for name in NAMES] == [202, 202, 409]
        until(lambda: seen() == ("BUSY", True, 200, 200))
        (folder / "go-on").touch()
        until(lambda: seen() == ("READY", True, 200, 200))

        # One that will not come back ends itself.
        (folder / "sick").touch()
        assert server.join(600) == 1
        assert seen()[1:] == (False, 0, 503)
        assert "Setup" in ask(NAMES[0]).json()["error"]
