"""deploy/compose.yaml, read by Docker Compose itself; its commands are run here, without Docker."""

import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import fields
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from snb.errors import BadSetting
from snb.settings import ROOT, Settings
from tests.hosts import DEPLOY, environment, puppet, puppet_server, tools
from tests.tiny import save_tiny
from tests.waiting import until
from tools.serving.server import Server

KEY = "a-key-of-the-operator"
GIVEN = {"SNB_IMAGE": "registry.example.org/owner/spinoza:1", "SNB_API_KEY": KEY}


def compose(
    folder: Path, file: Path = DEPLOY / "compose.yaml", **given: str
) -> subprocess.CompletedProcess[str]:
    """Docker Compose's reading of the file, as JSON."""
    # The wheel's own script ends with 0 whatever the program says.
    [program] = tools().parent.glob("lib/python3*/site-packages/compose/docker-compose")
    command = [program, "--file", file, "--profile", "download"]
    command += ["--env-file", os.devnull, "config", "--format", "json"]
    return subprocess.run(
        command, env=environment(folder, **given), capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def read(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    done = compose(tmp_path_factory.mktemp("home"), **GIVEN)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)  # type: ignore[no-any-return]


@pytest.mark.parametrize("missing", GIVEN)
def test_it_does_not_start_without_an_image_or_a_key(tmp_path: Path, missing: str) -> None:
    done = compose(tmp_path, **{name: value for name, value in GIVEN.items() if name != missing})
    assert done.returncode != 0
    assert missing in done.stderr


def test_only_the_door_is_reached_from_outside_and_the_model_reaches_nothing(read: dict[str, Any]) -> None:
    services, networks = read["services"], read["networks"]
    assert {name for name, one in services.items() if one.get("ports")} == {"door"}
    assert set(services["model"]["networks"]) == {"inside"}
    assert set(services["door"]["networks"]) == {"inside", "outside"}
    assert networks["inside"]["internal"]
    assert not networks["outside"].get("internal")


def test_no_service_can_more_than_it_needs(read: dict[str, Any]) -> None:
    for name, one in read["services"].items():
        assert one["read_only"], name
        assert one["cap_drop"] == ["ALL"], name
        assert one["security_opt"] == ["no-new-privileges:true"], name
        assert not one.get("privileged"), name
        assert one.get("cap_add", []) == (["NET_BIND_SERVICE"] if name == "door" else []), name
        written = [volume["target"] for volume in one["volumes"] if not volume.get("read_only")]
        assert written == {"model": [], "door": ["/data"], "download": ["/weights"]}[name]
    assert {read["services"][name]["user"] for name in ("model", "download")} == {"1000:1000"}


def test_the_model_has_a_card_the_key_and_no_token(read: dict[str, Any]) -> None:
    model = read["services"]["model"]
    [device] = model["deploy"]["resources"]["reservations"]["devices"]
    assert (device["driver"], device["count"], device["capabilities"]) == ("nvidia", 1, ["gpu"])
    assert model["environment"]["SNB_API_KEY"] == KEY
    assert model["environment"]["HF_HUB_OFFLINE"] == "1"
    assert not model["environment"]["HF_TOKEN"]
    assert not read["services"]["download"]["environment"]["SNB_API_KEY"]
    assert model["restart"] == "unless-stopped"
    grace = re.fullmatch(r"(?:(\d+)m)?(\d+)s", model["stop_grace_period"])
    assert grace
    assert 60 * int(grace[1] or 0) + int(grace[2]) > Settings().deadline


@pytest.mark.parametrize("name", ["model", "download"])
def test_it_passes_on_every_setting_and_no_other(read: dict[str, Any], name: str) -> None:
    passed = read["services"][name]["environment"]
    assert {setting.metadata["env"] for setting in fields(Settings)} <= passed.keys()
    Settings.from_environment(passed)


def test_a_name_in_the_file_of_settings_that_is_none_stops_the_boot(tmp_path: Path) -> None:
    file = Path(shutil.copy(DEPLOY / "compose.yaml", tmp_path))
    settings = {**GIVEN, "HF_TOKEN": "hf_token", "SNB_DEADLINE": "600", "WEIGHTS": "/srv", "SNB_SLOT": "4"}
    (tmp_path / ".env").write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
    services = json.loads(compose(tmp_path, file, **GIVEN, SNB_DEADLINE="600").stdout)["services"]
    for name in ("model", "download"):
        passed = services[name]["environment"]
        with pytest.raises(BadSetting, match="SNB_SLOT is not a setting"):
            Settings.from_environment(passed)
        del passed["SNB_SLOT"]
        assert Settings.from_environment(passed).deadline == 600
    assert services["model"]["stop_grace_period"] == services["door"]["stop_grace_period"] == "10m10s"
    assert not services["model"]["environment"]["HF_TOKEN"]
    assert not services["download"]["environment"]["SNB_API_KEY"]


def test_images_have_versions_and_caddys_is_the_one_that_was_tested(read: dict[str, Any]) -> None:
    assert read["services"]["model"]["image"] == GIVEN["SNB_IMAGE"]
    version = subprocess.run(
        [tools() / "caddy", "version"], capture_output=True, text=True, check=True
    ).stdout
    tested = f"caddy:{version.split()[0].removeprefix('v')}"
    assert read["services"]["door"]["image"] == tested
    assert f"FROM {tested} AS" in (DEPLOY / "huggingface" / "Dockerfile").read_text()


@pytest.mark.server
def test_the_health_check_is_true_only_where_questions_are_answered(
    read: dict[str, Any], tmp_path: Path
) -> None:
    kind, script = read["services"]["model"]["healthcheck"]["test"]
    assert kind == "CMD-SHELL"
    folder = puppet(tmp_path / "project")
    with puppet_server(folder) as server:

        def healthy() -> bool:
            text = script.replace("127.0.0.1:5000", f"127.0.0.1:{server.port}")
            assert text != script
            return subprocess.run(["/bin/sh", "-c", text], check=False).returncode == 0

        assert server.status() == "STARTING"
        assert not healthy()
        (folder / "set-up").touch()
        server.wait()
        assert healthy()
        answers = [threading.Thread(target=server_ask, args=(server,)) for _ in range(2)]
        for one in answers:
            one.start()
        until(lambda: server.status() == "BUSY")
        assert healthy()
        (folder / "go-on").touch()
        for one in answers:
            one.join()
        (folder / "sick").touch()
        assert not healthy()
        server.close()
        assert not healthy()


def server_ask(server: Server, **more: object) -> httpx.Response:
    return httpx.post(f"{server.url}/predictions", json={"input": {}, **more}, timeout=60)


def test_the_download_is_done_by_the_package_and_fails_by_name(read: dict[str, Any], tmp_path: Path) -> None:
    python, *command = read["services"]["download"]["command"]
    assert python == "python"
    base = save_tiny(tmp_path / "tiny")
    for model, code in ((str(base), 0), (str(tmp_path / "nothing"), 1)):
        settings = environment(tmp_path, SNB_BASE_MODEL=model, SNB_ADAPTER="none", HF_HUB_OFFLINE="1")
        settings |= {"SNB_PREPARED": "none"}
        done = subprocess.run(
            [sys.executable, *command], cwd=ROOT, env=settings, capture_output=True, text=True, check=False
        )
        assert done.returncode == code, done.stderr
        assert (str(base) in done.stdout) if code == 0 else ("WEIGHTS_MISSING" in done.stderr)


class Hook(BaseHTTPRequestHandler):
    """Takes what Cog's server posts."""

    got: list[str]

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.got.append(self.path)
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture
def hook() -> Iterator[tuple[str, list[str]]]:
    """An address, and what was posted there."""
    handler = type("Handler", (Hook,), {"got": []})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as listener:
        thread = threading.Thread(target=listener.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.server_port}/hook", handler.got
        finally:
            listener.shutdown()
            thread.join()


@pytest.mark.server
@pytest.mark.parametrize("protected", [True, False])
def test_a_webhook_reaches_nothing(
    read: dict[str, Any], tmp_path: Path, hook: tuple[str, list[str]], protected: bool
) -> None:
    """Unprotected it is posted: once it is not, the proxies can be deleted from deploy/."""
    folder = puppet(tmp_path / "project")
    for name in ("set-up", "go-on"):
        (folder / name).touch()
    model = read["services"]["model"]["environment"]
    proxies = {name: value for name, value in model.items() if name.endswith("_PROXY")}
    url, got = hook
    with puppet_server(folder, proxies if protected else {}) as server:
        server.wait()
        server_ask(server, webhook=url, webhook_events_filter=["completed"])
        log = folder / "log"
        until(lambda: got or "webhook request error" in log.read_text())
    assert bool(got) is not protected
