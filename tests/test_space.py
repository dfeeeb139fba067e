"""deploy/huggingface: what the hub reads, and the container's command run as user 1000, without Docker."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import httpx
import pytest
from huggingface_hub import SpaceCard, SpaceHardware

from snb.front.process_group import end, start
from snb.settings import ROOT, Settings
from tests.hosts import DEPLOY, KEY, status_code
from tests.tiny import save_tiny
from tests.waiting import until
from tools.serving import schema
from tools.serving.server import free_port

SPACE = DEPLOY / "huggingface"
USER = 1000
# The interpreter of this machine may lie where only root may go, as in Cog's images: this user may read
# everything, as if that folder were open, and write nothing of it.
AS_USER = (
    *("setpriv", "--reuid", str(USER), "--regid", str(USER), "--clear-groups"),
    *("--inh-caps", "+dac_read_search", "--ambient-caps", "+dac_read_search"),
)


def instructions(name: str) -> list[str]:
    """What the Dockerfile's instructions of one kind say, without comments and line ends."""
    text = re.sub(r"^#.*\n", "", (SPACE / "Dockerfile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    return re.findall(rf"^{name} (.*)$", text.replace("\\\n", " "), re.MULTILINE)


def variables() -> dict[str, str]:
    """What ENV sets."""
    return dict(word.split("=", 1) for line in instructions("ENV") for word in line.split())


def test_the_hub_s_own_card_reads_the_front_matter() -> None:
    card = SpaceCard.load(SPACE / "README.md").data
    assert card.sdk == "docker"
    assert instructions("EXPOSE") == [str(card.app_port)]
    assert card.suggested_hardware in {one.value for one in SpaceHardware}
    assert re.fullmatch(r"\d+(m|h)", card.startup_duration_timeout)
    assert len(card.short_description) <= 60  # https://huggingface.co/docs/hub/spaces-config-reference
    assert card.models == [Settings().base_model, Settings().adapter]


def test_the_dockerfile_ends_as_user_1000_without_a_secret_and_with_settings_that_exist() -> None:
    assert instructions("FROM")[-1] == "${IMAGE}"
    assert instructions("USER")[-1] == f"{USER}:{USER}"
    # An argument or variable would hand a secret to whoever reads the image.
    assert not [line for line in instructions("(?:ARG|ENV)") if "KEY" in line.upper()]
    own = [line.split()[0] for line in instructions("COPY") if "--from" not in line]
    assert all((DEPLOY / name).exists() for name in own)
    Settings.from_environment(variables())


@pytest.mark.server
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become user 1000")
@pytest.mark.skipif(not shutil.which("setpriv"), reason="setpriv is not installed")
def test_it_runs_as_user_1000_and_writes_to_its_home_and_tmp_only(tmp_path: Path) -> None:
    may = [*AS_USER, "find", str(ROOT), "-writable", "!", "-type", "l", "-print", "-quit"]
    writable = subprocess.run(may, capture_output=True, text=True, check=True).stdout
    assert not writable, "the project has to be closed to this user for the test to say anything"
    # Cog's server keeps each prediction's files there, whatever TMPDIR says; other tests are root.
    for folder in (Path("/tmp/coglet"), Path("/tmp/coglet/predictions")):
        folder.mkdir(exist_ok=True)
        folder.chmod(0o1777)
    home, public = tmp_path / "home", free_port()
    (home / "weights").mkdir(parents=True)
    for path in (home, home / "weights"):
        os.chown(path, USER, USER)
    schema.write(ROOT)
    base = save_tiny(tmp_path / "tiny")
    tmp_path.chmod(0o755)

    [command] = map(json.loads, instructions("CMD"))
    command[-1] = str(public)
    image = {"COG_PREDICT_TYPE_STUB": "predict.py:Predictor", "COG_MAX_CONCURRENCY": "32"}
    image |= {name: value.replace("/home/user", str(home)) for name, value in variables().items()}
    image |= {"PATH": f"{ROOT / '.venv' / 'bin'}:/usr/bin:/bin", "SNB_API_KEY": KEY}
    image |= {"SNB_BASE_MODEL": str(base), "SNB_ADAPTER": "none", "SNB_PREPARED": "none"}
    with (tmp_path / "log").open("w") as log:
        process = start([*AS_USER, *command], cwd=ROOT, env=image, stdout=log, stderr=subprocess.STDOUT)
    try:
        url = f"http://127.0.0.1:{public}"
        until(lambda: status_code(f"{url}/health-check") == 200)
        authorization = {"Authorization": f"Bearer {KEY}"}
        body = {"input": {"user_message": "Bonjour", "max_tokens": 3}}
        assert (
            httpx.post(f"{url}/predictions", json=body, headers=authorization, timeout=600).json()["status"]
            == "succeeded"
        )
        assert httpx.post(f"{url}/predictions", json=body).status_code == 401
        assert Path("/proc", str(process.pid)).stat().st_uid == USER
    finally:
        end(process)
    assert "Traceback" not in (tmp_path / "log").read_text()
