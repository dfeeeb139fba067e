"""deploy/compose.yaml, read by Docker Compose itself; the commands in it are run here, without Docker."""

import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from snb.errors import BadSetting
from snb.settings import ROOT, Settings
from tests.hosts import GIVEN, compose, composed, environment, tools
from tests.tiny import save_tiny

pytestmark = pytest.mark.slow  # the first test in a new clone downloads the hosts' own tools


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return composed(tmp_path_factory.mktemp("home"))["services"]  # type: ignore[no-any-return]


@pytest.mark.parametrize("missing", GIVEN)
def test_it_does_not_start_without_an_image_or_a_key(tmp_path: Path, missing: str) -> None:
    done = compose(tmp_path, {name: value for name, value in GIVEN.items() if name != missing})
    assert done.returncode != 0
    assert missing in done.stderr


def test_only_the_door_is_reached_and_nothing_may_do_more_than_it_needs(tmp_path: Path) -> None:
    read = composed(tmp_path)
    assert {name for name, one in read["services"].items() if one.get("ports")} == {"door"}
    assert set(read["services"]["model"]["networks"]) == {"inside"}
    assert read["networks"]["inside"]["internal"]
    for name, one in read["services"].items():
        assert (one["read_only"], one["cap_drop"]) == (True, ["ALL"]), name
        assert one["security_opt"] == ["no-new-privileges:true"], name
        assert not one.get("privileged"), name
        assert one.get("cap_add", []) == (["NET_BIND_SERVICE"] if name == "door" else []), name
        assert one.get("user") == (None if name == "door" else "1000:1000"), name
        written = [volume["target"] for volume in one["volumes"] if not volume.get("read_only")]
        assert written == {"model": [], "door": ["/data"], "download": ["/weights"]}[name]


def test_the_model_has_a_card_and_images_are_those_that_were_tested(services: dict[str, Any]) -> None:
    [device] = services["model"]["deploy"]["resources"]["reservations"]["devices"]
    assert (device["driver"], device["count"], device["capabilities"]) == ("nvidia", 1, ["gpu"])
    assert services["model"]["image"] == GIVEN["SNB_IMAGE"]
    assert services["model"]["restart"].startswith(
        "on-failure:"
    )  # else `up --wait` waits for a boot that fails
    caddy = subprocess.run([tools() / "caddy", "version"], capture_output=True, text=True, check=True)
    tested = f"caddy:{caddy.stdout.split()[0].removeprefix('v')}"
    assert services["door"]["image"] == tested


def test_every_setting_in_the_file_is_passed_on_and_an_unknown_one_stops_the_boot(tmp_path: Path) -> None:
    """A name that is neither in compose.yaml nor in snb/settings.py is passed on too, and stops the boot."""
    own = {
        "HF_TOKEN": "hf_token",
        "SNB_DEADLINE": "600",
        "SNB_SLOTS": "4",
        "SNB_WEIGHTS_DIR": "/home",  # the shell's, for scripts/
        "WEIGHTS": "/srv",
        "SNB_SLOT": "5",
    }
    services = composed(tmp_path, GIVEN | own)["services"]
    for name in ("model", "download"):
        passed = services[name]["environment"]
        assert {setting.metadata["env"] for setting in fields(Settings)} <= passed.keys()
        with pytest.raises(BadSetting, match="SNB_SLOT is not a setting"):
            Settings.from_environment(passed)
        del passed["SNB_SLOT"]
        settings = Settings.from_environment(passed)
        assert (settings.deadline, settings.slots, settings.weights_dir) == (600, 4, Path("/weights"))
        # The model has no way out, so it needs no HF_TOKEN; the download answers nobody, so it needs no key.
        without = {"model": "HF_TOKEN", "download": "SNB_API_KEY"}[name]
        assert not passed[without]
    assert services["model"]["stop_grace_period"] == services["door"]["stop_grace_period"] == "10m10s"


def test_the_download_is_done_by_the_package(services: dict[str, Any], tmp_path: Path) -> None:
    python, *command = services["download"]["command"]
    assert python == "python"
    base = save_tiny(tmp_path / "tiny")
    settings = environment(tmp_path, SNB_BASE_MODEL=str(base), SNB_ADAPTER="none", SNB_PREPARED="none")
    done = subprocess.run([sys.executable, *command], cwd=ROOT, env=settings, capture_output=True, text=True)
    assert (done.returncode, str(base) in done.stdout) == (0, True), done.stderr
