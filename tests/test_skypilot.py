"""deploy/skypilot.yaml, read by SkyPilot itself; its probe and its command run on the real Cog server."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import httpx
import pytest

from snb.settings import Settings
from tests.hosts import DEPLOY, environment, puppet, puppet_server, tools
from tests.waiting import until
from tools.serving import schema
from tools.serving.process_group import end
from tools.serving.server import free_port

KEY = "a-key-of-the-operator"
READ = """
import json, sys
import sky
from sky.utils import yaml_utils

config = yaml_utils.safe_load(open(sys.argv[1]))
task = sky.Task.from_yaml_config(config, secrets_overrides=json.loads(sys.argv[2]))
service = task.service
kinds = ("image_id", "ports", "disk_size", "accelerators")
print(json.dumps({
    "resources": [{kind: getattr(one, kind) for kind in kinds} for one in task.resources],
    "clouds": [one.cloud for one in task.resources],
    "secrets": {name: value.get_secret_value() for name, value in task.secrets.items()},
    "asked for": [one.name for one in task.managed_secret_refs],
    "envs": task.envs,
    "run": task.run,
    "probe": [service.readiness_path, service.post_data, service.readiness_headers],
    "patience": [service.initial_delay_seconds, service.readiness_timeout_seconds],
    "replicas": [service.min_replicas, service.max_replicas, service.target_qps_per_replica],
    "port": service.ports,
    "stream": service.lb_stream_timeout_seconds,
}))
"""
CARDS_OF_24 = {"L4", "A10", "A10G", "RTX3090", "RTX4090", "RTXA5000", "A40", "L40S"}


def parsed(home: Path, **secrets: str) -> dict[str, Any]:
    """What SkyPilot makes of the file, offline."""
    settings = environment(home, SKYPILOT_DISABLE_USAGE_COLLECTION="1")
    command = [tools() / "python", "-c", READ, DEPLOY / "skypilot.yaml", json.dumps(secrets)]
    done = subprocess.run(command, env=settings, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return parsed(tmp_path_factory.mktemp("home"), SNB_API_KEY=KEY)


def test_it_asks_any_cloud_for_one_card_of_24_gb_or_more(task: dict[str, Any]) -> None:
    cards = [one["accelerators"] for one in task["resources"]]
    assert {name for card in cards for name in card} == CARDS_OF_24
    assert all(list(card.values()) == [1] for card in cards)
    assert set(task["clouds"]) == {None}
    for one in task["resources"]:
        [image] = one["image_id"].values()
        assert image.startswith("docker:")
        assert one["disk_size"] >= 60  # GB: weights of 30 and an image


def test_the_key_has_to_be_given_and_the_token_need_not(task: dict[str, Any], tmp_path: Path) -> None:
    assert task["secrets"] == {"SNB_API_KEY": KEY, "HF_TOKEN": ""}
    assert parsed(tmp_path)["asked for"] == ["SNB_API_KEY"]
    assert not task["asked for"]
    Settings.from_environment({**task["envs"], **task["secrets"]})


def test_it_scales_from_zero_and_serves_the_one_port_that_every_cloud_opens(task: dict[str, Any]) -> None:
    least, most, rate = task["replicas"]
    assert least == 0
    assert most > 1
    assert rate > 0
    assert task["port"] == "8080"
    assert {tuple(one["ports"]) for one in task["resources"]} == {("8080",)}
    assert "PORT=8080 " in task["run"]
    assert task["stream"] > Settings().deadline


@pytest.mark.server
def test_the_probe_is_true_from_ready_on_and_stays_so_under_load(
    task: dict[str, Any], tmp_path: Path
) -> None:
    path, post, headers = task["probe"]
    assert (post, headers) == (None, None)
    folder = puppet(tmp_path / "project")
    with puppet_server(folder) as server:

        def probe() -> int:
            return httpx.get(server.url + path, timeout=task["patience"][1]).status_code

        assert server.status() == "STARTING"
        assert probe() == 503
        (folder / "set-up").touch()
        server.wait()
        until(lambda: probe() == 200)
        ask = f"{server.url}/predictions"
        answers = [threading.Thread(target=httpx.post, args=(ask,), kwargs={"json": {}}) for _ in range(2)]
        for one in answers:
            one.start()
        until(lambda: server.status() == "BUSY")
        assert httpx.post(ask, json={}).status_code == 409  # why a question is no probe
        assert probe() == 200
        (folder / "go-on").touch()
        for one in answers:
            one.join()


@pytest.mark.server
def test_the_probe_is_never_true_where_setup_failed(task: dict[str, Any], tmp_path: Path) -> None:
    folder = puppet(tmp_path / "project")
    for name in ("fail", "set-up"):
        (folder / name).touch()
    with puppet_server(folder) as server:
        until(lambda: server.status() == "SETUP_FAILED")
        assert httpx.get(server.url + task["probe"][0]).status_code == 503


@pytest.fixture
def job(task: dict[str, Any], tmp_path: Path) -> tuple[str, Path, str]:
    """`run` for this machine, the folder that stands for the image's, and the server's URL."""
    folder = puppet(tmp_path / "project")
    schema.write(folder)
    port = free_port()
    image = tmp_path / "environ"
    # The image's own environment, which SkyPilot's shell has lost.
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    image.write_bytes(f"PATH={path}\0COG_PREDICT_TYPE_STUB=predict.py:Predictor\0ODD=a b\nc\0".encode())
    script = task["run"]
    places = {"/proc/1/environ": str(image), "/src": str(folder), "8080": str(port), "sleep 10": "sleep 0.3"}
    for place, here in places.items():
        assert place in script
        script = script.replace(place, here)
    return script, folder, f"http://127.0.0.1:{port}"


def status(url: str) -> str:
    try:
        return str(httpx.get(f"{url}/health-check").json()["status"])
    except httpx.TransportError:
        return "DOWN"


@pytest.mark.server
@pytest.mark.parametrize("fault", ["fail", "sick", "killed"])
def test_the_job_serves_and_ends_as_failed_where_the_server_never_would(
    job: tuple[str, Path, str], tmp_path: Path, fault: str
) -> None:
    script, folder, url = job
    with (tmp_path / "log").open("w") as log:
        shell = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "SNB_API_KEY": KEY}
        process = subprocess.Popen(
            ["bash", "-c", script],
            env=shell,
            cwd=tmp_path,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            until(lambda: status(url) == "STARTING")
            if fault == "fail":
                (folder / "fail").touch()
            (folder / "set-up").touch()
            if fault != "fail":
                until(lambda: status(url) == "READY")
                (folder / "go-on").touch()
                assert httpx.post(f"{url}/predictions", json={}).json()["output"] == ["0 "]
                assert process.poll() is None
            if fault == "sick":
                (folder / "sick").touch()
            if fault == "killed":
                httpx.post(f"{url}/shutdown")
            assert process.wait(timeout=120) == 1
            assert status(url) == "DOWN"
        finally:
            end(process)
