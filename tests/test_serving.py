"""What tools/serving starts: with which weights and environment, and that it ends with its parent."""

import signal
import socket
import subprocess
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from snb.errors import BadInput, BadSetting
from snb.front import process_group
from snb.settings import ROOT, Settings
from snb.weights import prepared
from snb.weights.lock import Entry, Lock
from tests import scripts
from tests.waiting import running, until
from tools.command import Fault
from tools.serving import local, schema, serve
from tools.serving.server import FOLDERS, Server

READY = """if True:
    import os, sys, uvicorn
    from starlette.responses import JSONResponse
    states = iter(["STARTING", "UNHEALTHY", "UNHEALTHY"])
    async def ready(scope, receive, send):
        await JSONResponse({"status": next(states, "READY")})(scope, receive, send)
    uvicorn.run(ready, host=sys.argv[2], port=int(os.environ["PORT"]), lifespan="off")
"""


def test_one_that_does_not_listen_is_ended_by_force_with_what_it_started() -> None:
    script = "trap '' TERM; sleep 600 & echo $!; wait; wait"
    with process_group.start(["sh", "-c", script], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout
        pid = int(child.stdout.readline())
        process_group.end(child, patience=2)
        assert child.wait(60) == -signal.SIGKILL
    until(lambda: not running(pid))


def test_where_nothing_can_listen_is_said_before_a_server_starts() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        for wrong, reason in ((port, "in use"), (-1, "0-65535"), (65536, "0-65535")):
            with pytest.raises(BadSetting, match=reason):
                Server({}, port=wrong)


def test_a_server_on_every_address_is_looked_at_past_a_proxy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")  # nothing listens there
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(schema, "write", lambda _: None)
    (tmp_path / "predict.py").touch()
    (tmp_path / "ready.py").write_text(READY)
    with Server({}, host="0.0.0.0", directory=tmp_path, module="ready") as server:
        server.wait(30)
        assert server.status() == "READY"


def test_a_server_gets_its_callers_folders_and_the_project_before_its_callers_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema, "write", lambda _: None)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "predict.py").touch()
    told = f"import os\nprint(*map(os.getenv, {(*FOLDERS, 'PYTHONPATH')}))"
    (tmp_path / "elsewhere" / "told.py").write_text(told)
    (tmp_path / "base").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", "of-the-caller")
    given = dict(zip(FOLDERS, ("new", "base", "owner/name", "none"), strict=True))
    with (tmp_path / "log").open("w+") as log:
        with Server(given, log=log, directory=tmp_path / "elsewhere", module="told") as server:
            server.join(30)
        log.seek(0)
        *folders, path = log.read().split()
    assert folders == [f"{tmp_path}/new", f"{tmp_path}/base", "owner/name", "none"]
    assert path == f"{ROOT}:of-the-caller"


# Which weights


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A machine with a GPU and, in its folder of weights, prepared weights of the right size but altered."""
    monkeypatch.setattr(local, "has_gpu", lambda: True)
    monkeypatch.setenv("SNB_WEIGHTS_DIR", str(tmp_path))
    monkeypatch.delenv("SNB_PREPARED")
    folder = tmp_path / prepared.FOLDER
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"altered")
    Lock("prepared", "nf4", "", {"model.safetensors": Entry(7, 64 * "0")}).write(folder)
    return Settings.from_environment()


def test_weights_that_are_here_are_served_and_a_boot_alone_reads_them_all(
    settings: Settings, tmp_path: Path
) -> None:
    assert local.settings() == {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(local, "build_standin", lambda: None)
        patch.delenv("SNB_BASE_MODEL", raising=False)
        assert local.settings(real=False)["SNB_PREPARED"] == "none"
        patch.setenv("SNB_BASE_MODEL", "owner/name")
        assert local.settings(real=False) == {}
    (tmp_path / prepared.FOLDER).rename(tmp_path / "elsewhere")
    assert not local.present(settings)


def test_a_mistyped_setting_is_named_before_anything_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SNB_SLOTS", "many")
    monkeypatch.setattr(local, "build_standin", lambda: pytest.fail("it was built"))
    with pytest.raises(BadSetting, match="SNB_SLOTS"):
        local.settings()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--philosopher", "inconnu", "Bonjour"], "philosopher must be one of bergson"),
        (["--rag-context", "absent.md", "Bonjour"], "rag_context cannot be read from absent.md: .*No such"),
        (["--history", "latin.txt", "Bonjour"], "history cannot be read from latin.txt: 'utf-8' codec"),
        (["--history", "text.json", "Bonjour"], "history cannot be read from text.json: Expecting value"),
        (["--history", "object.json", "Bonjour"], "history cannot be read from object.json: it holds no"),
        (["--history", "turns.json", "Bonjour"], r"history\[0\].role must be one of user, assistant"),
    ],
)
def test_predict_refuses_a_wrong_input_before_it_loads_a_model(
    arguments: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "latin.txt").write_bytes("élève".encode("latin-1"))
    (tmp_path / "text.json").write_text("Bonjour.", encoding="utf-8")
    (tmp_path / "object.json").write_text("{}", encoding="utf-8")
    (tmp_path / "turns.json").write_text('[{"role": "system", "content": ""}]', encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(local, "settings", lambda: pytest.fail("it went on to the model"))
    with pytest.raises(BadInput, match=said):
        scripts.code("predict", *arguments)


def test_a_class_gets_no_stand_in_from_a_machine_with_a_gpu(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / prepared.FOLDER).rename(tmp_path / "elsewhere")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(serve, "has_gpu", lambda: True)
        patch.delenv("SNB_BASE_MODEL", raising=False)
        for name in ("SNB_API_KEY", "HF_TOKEN"):
            patch.delenv(name, raising=False)
        with pytest.raises(BadSetting, match="SNB_API_KEY is not set"):
            scripts.code("serve", "--host", "0.0.0.0")
        patch.setenv("SNB_API_KEY", "porte-etroite-0123456789")
        cure = "type scripts/download-weights && scripts/serve --host 0.0.0.0 --port 7860"
        with pytest.raises(Fault, match=cure):
            scripts.code("serve", "--host", "0.0.0.0", "--port", "7860")
        assert "has no weights" in local.standin_reason()
        patch.setenv("HF_TOKEN", "hf_token")
        assert serve.chosen(IPv4Address("0.0.0.0"), 7860)[0] == {}
        patch.setattr(local, "has_gpu", lambda: False)
        assert local.standin_reason() == "there is no GPU here"
        patch.setenv("SNB_BASE_MODEL", "owner/name")
        assert not local.standin_reason()
