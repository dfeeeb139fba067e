"""What tells a host that questions are answered: Caddy's, Compose's and SkyPilot's probes of one server."""

import subprocess
from pathlib import Path

import httpx
import pytest

from tests.hosts import composed, door, puppet, puppet_server, skypilot, status_code
from tests.waiting import until


# A server boots, and SkyPilot takes seconds to import.
@pytest.mark.server
def test_every_probe_is_true_only_where_questions_are_answered(tmp_path: Path) -> None:
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
            probed = status_code(server.url + path)
            return server.status(), healthy, probed, status_code(f"{url}/health-check")

        def ask() -> httpx.Response:
            asynchronous = {"Prefer": "respond-async"}
            return httpx.post(f"{url}/predictions", json={"input": {}}, headers=asynchronous, timeout=600)

        until(lambda: seen() == ("STARTING", False, 503, 503))
        assert "Setup" in ask().json()["error"]
        (folder / "set-up").touch()
        until(lambda: seen() == ("READY", True, 200, 200))
        # A full server is well.
        assert [ask().status_code for _ in range(3)] == [202, 202, 409]
        until(lambda: seen() == ("BUSY", True, 200, 200))
        # One that will not come back ends itself.
        (folder / "sick").touch()
        assert server.join(600) == 1
        assert seen()[1:] == (False, 0, 503)
