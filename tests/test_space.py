"""deploy/huggingface: what the hub reads, and the container's command run as user 1000, without Docker."""

import json
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from huggingface_hub import SpaceCard, SpaceHardware

from snb.settings import ROOT, Settings
from tests.hosts import DEPLOY, tools
from tests.tiny import save_tiny
from tests.waiting import until
from tools.serving import schema
from tools.serving.process_group import end
from tools.serving.server import free_port

SPACE = DEPLOY / "huggingface"
USER = 1000
KEY = "a-key-of-the-operator"
# The interpreter of this machine may lie where only root may go, as in Cog's images: this user may read
# everything, as if that folder were open, and write nothing of it.
AS_USER = (
    *("setpriv", "--reuid", str(USER), "--regid", str(USER), "--clear-groups"),
    *("--inh-caps", "+dac_read_search", "--ambient-caps", "+dac_read_search"),
)


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions: name and rest, comments and line ends taken out."""
    text = re.sub(r"^#.*\n", "", (SPACE / "Dockerfile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    lines = text.replace("\\\n", " ").splitlines()
    return [(line.split(maxsplit=1)[0], line.split(maxsplit=1)[1]) for line in lines if line.strip()]


def variables() -> dict[str, str]:
    """What ENV sets."""
    return dict(word.split("=", 1) for name, rest in instructions() if name == "ENV" for word in rest.split())


def command() -> str:
    """The shell command of CMD."""
    [text] = [rest for name, rest in instructions() if name == "CMD"]
    shell, option, script = json.loads(text)
    assert (shell, option) == ("sh", "-c")
    return str(script)


def test_the_hub_s_own_card_reads_the_front_matter() -> None:
    card = SpaceCard.load(SPACE / "README.md").data
    assert card.sdk == "docker"
    assert card.app_port == 7860
    assert card.suggested_hardware in {one.value for one in SpaceHardware}
    assert re.fullmatch(r"\d+(m|h)", card.startup_duration_timeout)
    # The hub's limits: https://huggingface.co/docs/hub/spaces-config-reference
    assert len(card.short_description) <= 60
    colours = {"red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"}
    assert {card.colorFrom, card.colorTo} <= colours
    assert card.models == [Settings().base_model, Settings().adapter]


def test_the_dockerfile_takes_the_image_as_an_argument_and_ends_as_user_1000() -> None:
    names = [name for name, _ in instructions()]
    assert set(names) <= {"ARG", "FROM", "USER", "RUN", "COPY", "ENV", "EXPOSE", "CMD"}
    assert instructions()[0] == ("ARG", "IMAGE")  # before every FROM, or FROM does not see it
    assert [rest for name, rest in instructions() if name == "FROM"][-1] == "${IMAGE}"
    assert [rest for name, rest in instructions() if name == "USER"][-1] == f"{USER}:{USER}"
    assert ("EXPOSE", str(SpaceCard.load(SPACE / "README.md").data.app_port)) in instructions()
    # An argument or variable would hand a secret to whoever reads the image.
    assert not [rest for name, rest in instructions() if name in ("ARG", "ENV") and "KEY" in rest.upper()]
    for name, rest in instructions():
        if name == "COPY" and "--from" not in rest:
            assert (
                DEPLOY / rest.split()[0]
            ).exists()  # and goes into the Space's repository, as its head says


def test_every_setting_of_the_dockerfile_exists() -> None:
    Settings.from_environment(variables())


@contextmanager
def container(folder: Path, **settings: str) -> Iterator[str]:
    """CMD with ENV in the project's folder as user 1000, on free ports; the public URL."""
    public, inner = free_port(), free_port()
    script = command().replace(":7860", f":{public}").replace(":5000", f":{inner}")
    script = script.replace("/etc/caddy/Caddyfile", shlex.quote(str(DEPLOY / "Caddyfile")))
    home = folder / "home"
    (home / "weights").mkdir(parents=True)
    for path in (home, home / "weights"):
        os.chown(path, USER, USER)
    inherited = {"PATH": f"{ROOT / '.venv' / 'bin'}:{tools()}:/usr/bin:/bin", "PORT": str(inner)}
    image = {"COG_PREDICT_TYPE_STUB": "predict.py:Predictor", "COG_MAX_CONCURRENCY": "32"}
    own = {name: value.replace("/home/user", str(home)) for name, value in variables().items()}
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [*AS_USER, "sh", "-c", script],
            cwd=ROOT,
            env={**inherited, **image, **own, **settings},
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            yield f"http://127.0.0.1:{public}"
        finally:
            end(process)


@pytest.mark.server
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become user 1000")
def test_it_runs_as_user_1000_and_writes_to_its_home_and_tmp_only(tmp_path: Path) -> None:
    if not shutil.which("setpriv"):
        pytest.skip("setpriv is not installed")
    may = [*AS_USER, "find", ROOT, "-writable", "!", "-type", "l", "-print", "-quit"]
    writable = subprocess.run(may, capture_output=True, text=True, check=True).stdout
    assert not writable, "the project has to be closed to this user for the test to say anything"
    # Cog's server keeps each prediction's files there, whatever TMPDIR says; other tests are root.
    for folder in (Path("/tmp/coglet"), Path("/tmp/coglet/predictions")):
        folder.mkdir(exist_ok=True)
        folder.chmod(0o1777)
    schema.write(ROOT)
    base = save_tiny(tmp_path / "tiny")
    tmp_path.chmod(0o755)
    settings = {"SNB_BASE_MODEL": str(base), "SNB_ADAPTER": "none", "SNB_PREPARED": "none"}
    with container(tmp_path, SNB_API_KEY=KEY, **settings) as url:

        def ready() -> bool:
            try:
                return httpx.get(f"{url}/health-check").status_code == 200
            except httpx.TransportError:
                return False

        until(ready)
        body = {"input": {"user_message": "Bonjour", "api_key": KEY, "max_tokens": 3}}
        assert httpx.post(f"{url}/predictions", json=body, timeout=60).json()["status"] == "succeeded"
        assert httpx.post(f"{url}/shutdown").status_code == 404
        [server] = [pid for pid in processes("cog.server.http") if owner(pid) == USER][:1]
        assert owner(server) == USER
    assert "Traceback" not in (tmp_path / "log").read_text()


def processes(word: str) -> list[str]:
    """Processes whose command line has a word."""
    lines = Path("/proc").glob("[0-9]*/cmdline")
    return [path.parent.name for path in lines if word in path.read_text(errors="replace")]


def owner(pid: str) -> int:
    return Path("/proc", pid).stat().st_uid
