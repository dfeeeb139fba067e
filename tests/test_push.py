"""scripts/push: doctor, `cog push`, the version, the smoke test; up to where Docker and an account begin.

Cog, Docker and the smoke test are stand-ins that record how they were called. Replicate's API is the test
server, whose model has a new version once the stand-in has "pushed".
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from snb.settings import ROOT
from tests.hub import LoopbackHub, loopback_hub
from tests.replicate_server import ReplicateServer
from tests.sound_project import ADAPTER, BASE, MODEL, Sound, repositories, sound
from tools.publishing import publication, published_schema, staging
from tools.publishing.publication import NotPublished, publish
from tools.publishing.replicate_models import Models, NoModel, Unknown

OLD, NEW = "a" * 64, "b" * 64
TOKEN = "r8_of_no_account"


class Registry(ReplicateServer):
    """Replicate's API, of a model that gets a version when a file appears."""

    pushed: Path
    first: str | None = OLD
    second: str | None = NEW

    @property
    def version(self) -> str | None:
        return self.second if self.pushed.exists() else self.first


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoopbackHub]:
    with loopback_hub() as hub:
        repositories(hub, tmp_path_factory.mktemp("tiny"))
        yield hub


@pytest.fixture
def made(hub: LoopbackHub, tmp_path: Path) -> Sound:
    project = sound(tmp_path, hub)
    project.program("smoke-test", "sys.exit(0)")
    return project


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Registry]:
    monkeypatch.setattr(publication, "FIRST", 0.05)
    with Registry("http://127.0.0.1:1", TOKEN) as server:
        server.pushed = tmp_path / "pushed"
        yield server


def reached(api: Registry) -> dict[str, str]:
    return {"REPLICATE_API_TOKEN": TOKEN, "REPLICATE_BASE_URL": api.url}


def push(made: Sound, api: Registry, patience: float = 5) -> str:
    project = made.project(environ=reached(api), published=None)
    return publish(project, made.home / "bin" / "smoke-test", patience)


def pushes(made: Sound) -> list[dict[str, Any]]:
    return [call for call in made.calls("cog") if call["words"][0] == "push"]


# The push itself


def test_cog_pushes_what_was_checked_and_nothing_else(made: Sound, api: Registry) -> None:
    made.sparse(".venv/bin/ruff", 20 << 20)
    made.write(".cog/openapi_schema.json", "{}")
    assert push(made, api) == NEW
    [call] = pushes(made)
    assert call["words"] == ["push", f"r8.im/{MODEL}", "--separate-weights"]
    assert call["sent"] == sorted(made.project().context.files)
    assert not any(name.startswith((".venv", ".cog")) for name in call["sent"])
    asked = [(call["words"], call["api"]) for call in made.calls("smoke-test")]
    assert asked == [([f"{MODEL}:{NEW}"], api.url)]
    assert list((made.root / staging.FOLDER).iterdir()) == []


def test_without_weights_in_the_image_there_is_nothing_to_separate(made: Sound, api: Registry) -> None:
    for repository in (BASE, ADAPTER):
        shutil.rmtree(made.weights(repository))
    assert push(made, api) == NEW
    assert [call["words"] for call in pushes(made)] == [["push", f"r8.im/{MODEL}"]]


def test_a_model_without_a_version_gets_its_first(made: Sound, api: Registry) -> None:
    api.first = None
    assert push(made, api) == NEW


def test_a_version_that_fails_the_smoke_test_is_named_with_the_way_back(made: Sound, api: Registry) -> None:
    made.program("smoke-test", "sys.exit(1)")
    with pytest.raises(NotPublished, match=f"{MODEL}:{NEW} is published and fails") as failure:
        push(made, api)
    assert f"call {MODEL}:{OLD}" in failure.value.cure


def test_a_first_version_that_fails_has_no_way_back(made: Sound, api: Registry) -> None:
    api.first = None
    made.program("smoke-test", "sys.exit(1)")
    with pytest.raises(NotPublished, match="no version to go back to"):
        push(made, api)


def test_a_push_that_fails_leaves_the_version_that_was_there(made: Sound, api: Registry) -> None:
    made.cog(status=3)
    with pytest.raises(NotPublished, match=f"cog push ended with 3; the latest version is still {OLD}"):
        push(made, api)
    assert made.calls("smoke-test") == []
    assert list((made.root / staging.FOLDER).iterdir()) == []


def test_a_version_that_does_not_come_is_not_waited_for_for_ever(made: Sound, api: Registry) -> None:
    api.second = OLD
    with pytest.raises(NotPublished, match=f"after 1 s the latest version is still {OLD}"):
        push(made, api, patience=1)
    assert made.calls("smoke-test") == []


def test_an_api_that_stumbles_after_the_push_is_asked_again(
    made: Sound, api: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, answers = Models.latest, iter([False, True, True])

    def stumbling(self: Models, model: str) -> Any:
        if next(answers, False):
            raise Unknown("Replicate's API answered 502")
        return real(self, model)

    monkeypatch.setattr(Models, "latest", stumbling)
    assert push(made, api) == NEW


def test_a_silent_api_ends_it_before_anything_is_pushed(made: Sound, api: Registry) -> None:
    for environ in ({}, {**reached(api), "REPLICATE_API_TOKEN": "another"}):
        project = made.project(environ=environ)
        with pytest.raises(NotPublished, match="only the API knows"):
            publish(project, made.home / "bin" / "smoke-test", 1)
    assert pushes(made) == []


# The folder that is pushed


def test_links_are_staged_as_links_and_another_disk_gets_copies(
    made: Sound, monkeypatch: pytest.MonkeyPatch
) -> None:
    (made.root / "link").symlink_to("predict.py")
    with staging.staged(made.project().context) as folder:
        assert (folder / "link").readlink() == Path("predict.py")
        assert (folder / "predict.py").samefile(made.root / "predict.py")

    def other_disk(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", other_disk)
    with staging.staged(made.project().context) as folder:
        assert not (folder / "predict.py").samefile(made.root / "predict.py")
        assert (folder / "predict.py").read_bytes() == (made.root / "predict.py").read_bytes()


def test_what_an_interrupted_push_left_goes_and_cogs_cache_stays(made: Sound) -> None:
    folder = made.root / staging.FOLDER
    made.write(f"{staging.FOLDER}/weights/old/model.safetensors", "x")
    made.write(f"{staging.FOLDER}/.cog/cache/weights_manifest.json", "{}")
    with staging.staged(made.project().context) as again:
        assert again == folder
        assert not (folder / "weights" / "old").exists()
        assert (folder / ".cog" / "cache" / "weights_manifest.json").exists()
    assert [path.name for path in folder.iterdir()] == [".cog"]
    assert (made.root / "predict.py").exists()


# Replicate's API


def test_the_latest_version_and_its_schema_are_read(api: Registry) -> None:
    version = Models(reached(api)).latest(MODEL)
    assert version
    assert version.id == OLD
    assert "philosopher" in version.schema["components"]["schemas"]["Input"]["properties"]
    with pytest.raises(NoModel):
        Models(reached(api)).latest("owner/other")
    other = {"REPLICATE_API_TOKEN": "r8_another", "REPLICATE_API_BASE_URL": f"{api.url}/v1"}
    with pytest.raises(Unknown, match="answered 401"):
        Models(other).latest(MODEL)


@pytest.mark.parametrize("token", ["", "r8_é", "r8_a b", "r8_a\n"])
def test_a_token_that_is_none_is_never_sent_or_shown(token: str) -> None:
    with pytest.raises(Unknown) as failure:
        Models({"REPLICATE_API_TOKEN": token})
    assert not token or token not in str(failure.value)


def test_doctor_compares_with_the_api_and_a_model_that_is_not_there_is_no_error(
    made: Sound, api: Registry
) -> None:
    def levels(**changes: Any) -> list[tuple[str, str]]:
        project = made.project(environ=reached(api), published=None, **changes)
        return [(finding.level, finding.code) for finding in published_schema.check(project)]

    assert levels() == [("ok", "INPUTS")]
    assert levels(model="owner/new") == [("warning", "MODEL_ABSENT")]
    predict = made.root / "predict.py"
    predict.write_text(predict.read_text().replace("le=1000", "le=100"))
    assert levels() == [("error", "INPUT_NARROWED")]
    api.first = None
    assert levels() == [("ok", "INPUTS")]


# The command, from a copy of this project


@pytest.fixture
def command(made: Sound) -> Sound:
    """The project with its scripts; scripts/smoke-test is the stand-in."""
    ignored = shutil.ignore_patterns("__pycache__")
    for name in ("scripts", "snb", "tools"):
        shutil.copytree(ROOT / name, made.root / name, ignore=ignored, dirs_exist_ok=True)
    shutil.copy(made.home / "bin" / "smoke-test", made.root / "scripts" / "smoke-test")
    return made


def run(made: Sound, api: Registry, *words: str) -> subprocess.CompletedProcess[str]:
    program = [sys.executable, str(made.root / "scripts" / "push"), MODEL, *words]
    environ = {**made.environ, **reached(api), "PYTHONPATH": str(made.root)}
    return subprocess.run(program, env=environ, capture_output=True, text=True, timeout=180)


def test_the_command_prints_the_version_alone_and_warnings_do_not_stop_it(
    command: Sound, api: Registry
) -> None:
    command.sparse("cours.bin", 60_000_000)
    done = run(command, api, "--hardware", "l40s")
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{NEW}\n"
    assert "CONTEXT_NEEDLESS" in done.stderr
    assert "stand-in for cog" in done.stderr
    assert TOKEN not in done.stderr
    [call] = pushes(command)
    assert call["words"] == ["push", f"r8.im/{MODEL}", "--separate-weights"]
    assert not any(name.startswith("scripts/") for name in call["sent"])
    assert [call["words"] for call in command.calls("smoke-test")] == [[f"{MODEL}:{NEW}"]]


def test_the_command_pushes_nothing_after_an_error_or_what_nobody_could_check(
    command: Sound, api: Registry
) -> None:
    command.write("essai.ipynb", json.dumps({"cells": [{"source": ["hf_" + "a1B2" * 8]}]}))
    done = run(command, api)
    assert (done.returncode, done.stdout) == (1, "")
    assert "error        SECRET_IN_FILE: essai.ipynb, line 1: a Hugging Face token" in done.stderr
    assert done.stderr.endswith("Nothing was pushed.\n")
    (command.root / "essai.ipynb").unlink()
    api.fail("GET", f"/v1/models/{MODEL}", status=500)
    done = run(command, api)
    assert (done.returncode, done.stdout) == (1, "")
    assert "not checked  INPUTS_UNCOMPARED" in done.stderr
    assert pushes(command) == []


def test_the_command_fails_with_the_version_that_is_bad(command: Sound, api: Registry) -> None:
    command.program("smoke-test", "sys.exit(1)")
    shutil.copy(command.home / "bin" / "smoke-test", command.root / "scripts" / "smoke-test")
    done = run(command, api)
    assert (done.returncode, done.stdout) == (1, "")
    assert f"NOT_PUBLISHED: {MODEL}:{NEW} is published and fails the smoke test" in done.stderr
    assert OLD in done.stderr.splitlines()[-1]
