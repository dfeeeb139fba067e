"""deploy/skypilot.yaml, read by SkyPilot itself; its command, and all hosts' probes of a real Cog server."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from snb.front.process_group import end, start
from snb.settings import ROOT, Settings
from tests.hosts import KEY, answers, composed, door, puppet, puppet_server, skypilot, status_code
from tests.waiting import until
from tools.endpoints.cog_endpoint import status
from tools.endpoints.endpoint import Http
from tools.serving import schema
from tools.serving.server import free_port

pytestmark = pytest.mark.slow  # SkyPilot takes seconds to import
HELD = {"input": {"user_message": "Bonjour"}}


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return skypilot(tmp_path_factory.mktemp("home"), SNB_API_KEY=KEY)


def test_any_cloud_will_do_and_it_serves_from_zero_on_the_port_that_every_cloud_opens(
    task: dict[str, Any],
) -> None:
    assert {(one["cloud"], *one["ports"]) for one in task["resources"]} == {(None, "8080")}
    assert len(task["resources"]) >= 3  # cards
    assert min(one["disk_size"] for one in task["resources"]) >= 60  # GB: weights of 30 and an image
    assert (task["port"], task["replicas"]) == ("8080", 0)
    assert task["timeout"] > Settings().deadline


def test_the_key_has_to_be_given_and_the_token_need_not(task: dict[str, Any]) -> None:
    assert task["secrets"] == {"SNB_API_KEY": KEY, "HF_TOKEN": ""}
    assert task["without_secrets"] == ["SNB_API_KEY"]
    assert not task["required"]
    Settings.from_environment({**task["environment"], **task["secrets"]})


@pytest.mark.server
def test_the_job_serves_and_ends_as_failed_where_the_server_never_would(
    task: dict[str, Any], tmp_path: Path
) -> None:
    folder, port, image = puppet(tmp_path / "project"), free_port(), tmp_path / "environ"
    url = f"http://127.0.0.1:{port}"
    schema.write(folder)
    # The image's own environment, which SkyPilot's shell has lost.
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}\0PYTHONPATH={ROOT}"
    image.write_bytes(f"PATH={path}\0COG_PREDICT_TYPE_STUB=predict.py:Predictor\0ODD=a b\nc\0".encode())
    script = task["run"]
    places = {"/proc/1/environ": str(image), "/src": str(folder), "8080": str(port)}
    for place, here in places.items():
        assert place in script
        script = script.replace(place, here)

    def state() -> str:
        return status(Http(url))

    shell = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "SNB_API_KEY": KEY}
    with (tmp_path / "log").open("w") as log:
        process = start(["bash", "-c", script], env=shell, stdout=log, stderr=subprocess.STDOUT)
    try:
        until(lambda: state() == "STARTING")
        (folder / "set-up").touch()
        until(lambda: state() == "READY")
        answers(url)
        assert process.poll() is None
        (folder / "sick").touch()
        assert process.wait(timeout=600) == 1
        assert state() == "DOWN"
    finally:
        end(process)


# A server boots.
@pytest.mark.server
def test_every_hosts_probe_is_true_only_where_questions_are_answered(
    task: dict[str, Any], tmp_path: Path
) -> None:
    folder = puppet(tmp_path / "project")
    kind, *command = composed(tmp_path)["services"]["model"]["healthcheck"]["test"]
    assert kind == "CMD"
    with (
        puppet_server(folder) as server,
        (tmp_path / "log").open("w") as log,
        door(server.port, tmp_path, log) as url,
    ):
        here = [part.replace("127.0.0.1:5000", f"127.0.0.1:{server.port}") for part in command]

        def seen() -> tuple[str, bool, int, int]:
            """The server's status, Compose's verdict, and the HTTP statuses of SkyPilot's probe and Caddy."""
            healthy = subprocess.run(here, check=False, capture_output=True).returncode == 0
            probed = status_code(server.url + task["probe"])
            return server.status(), healthy, probed, status_code(f"{url}/health-check")

        def ask() -> httpx.Response:
            asynchronous = {"Prefer": "respond-async"}
            return httpx.post(f"{url}/predictions", json=HELD, headers=asynchronous, timeout=600)

        until(lambda: seen() == ("STARTING", False, 503, 503))
        assert "Setup" in ask().json()["error"]
        (folder / "set-up").touch()
        until(lambda: seen() == ("READY", True, 200, 200))
        # A full server is healthy.
        assert [ask().status_code for _ in range(3)] == [202, 202, 409]
        until(lambda: seen() == ("BUSY", True, 200, 200))
